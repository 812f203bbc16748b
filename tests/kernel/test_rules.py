# SPDX-License-Identifier: GPL-2.0-only
"""The table of the switch's rules names tests that are there, and leaves no rule out."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.kernel.rules import OPEN, RULES

TESTS = Path(__file__).parents[1]
FILES = {
    "contract": ("kernel/contract.py", "kernel/contract_lease.py", "kernel/guest_contract.py"),
    "module": ("kernel/guest_module.py",),
    "rules": ("kernel/guest_rules.py",),
    "stress": ("kernel/guest_stress.py",),
    "heartbeat": ("kernel/guest_heartbeat.py", "kernel/guest_heartbeat_wire.py"),
    "release": ("unit/test_spec_append_only.py",),
    "tidy": ("test_tidy.py",),
    "watchdog": ("process/test_watchdog.py",),
    "ynl": ("tools/guest_ynl.py",),
}
LAST_RULE = 16


def functions_of(name: str) -> set[str]:
    trees = (ast.parse((TESTS / path).read_text()) for path in FILES[name])
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_a_rule_names_is_there() -> None:
    there = {f"{name}:{test}" for name in FILES for test in functions_of(name) if test.startswith("test_")}
    named = {test for tests in RULES.values() for test in tests}
    assert not named - there
    assert all(RULES.values())


def test_no_rule_is_left_out() -> None:
    assert {int(rule.split()[0]) for rule in (*RULES, *OPEN)} == set(range(1, LAST_RULE + 1))
    assert not RULES.keys() & OPEN.keys()


def test_every_test_of_the_guest_s_rules_is_for_a_rule() -> None:
    named = {test for tests in RULES.values() for test in tests}
    extra = {"test_the_sample_consumer_joins_and_leaves"}
    assert {t for t in functions_of("rules") if t.startswith("test_")} - extra == {
        test.removeprefix("rules:") for test in named if test.startswith("rules:")
    }
