# SPDX-License-Identifier: GPL-2.0-only
"""Files of tests that take turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.turns import left_out, seed


def test_each_has_its_turn_and_one_at_a_time() -> None:
    files = [Path(name) for name in ("c", "a", "b", "a")]
    done = [{*files} - left_out(files, number) for number in range(3)]
    assert done == [{Path("a")}, {Path("b")}, {Path("c")}]
    assert left_out([Path("one")], 5) == set()


def test_the_number_is_that_of_the_commit_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEED", raising=False)
    assert seed() == seed() >= 0
    monkeypatch.setenv("SEED", "7")
    assert seed() == 7
