# SPDX-License-Identifier: GPL-2.0-only
"""All thirty scenarios are there, and the page that lists them is true."""

from __future__ import annotations

import importlib

from tests.scenarios import golden, index


def test_there_are_exactly_thirty() -> None:
    assert set(index.TITLES) == set(range(1, 31))
    found = index.tests()
    assert set(found) == set(range(1, 31)), f"without a test: {sorted(set(range(1, 31)) - set(found))}"
    named = {name for tests in found.values() for _file, name, _said in tests}
    assert set(index.ALSO) <= named, "a test of the driver has another name now"
    silent = [name for tests in found.values() for file, name, said in tests if not said and file.startswith("tests/scenarios/")]
    assert not silent, "every scenario says what it is about"


def test_the_page_is_made_from_the_tests() -> None:
    assert index.PAGE.read_text() == index.page(), "python -m tests.scenarios.index"


def test_every_recording_belongs_to_a_scenario() -> None:
    for module in golden.modules():
        importlib.import_module(module)
    assert {p.name for p in golden.GOLDEN.glob("*.txt")} == {s.path.name for s in golden.SCENARIOS.values()}
