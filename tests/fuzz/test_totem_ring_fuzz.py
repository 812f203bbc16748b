# SPDX-License-Identifier: GPL-2.0-only
"""A part of ``make fuzz-totem`` and ``make churn-totem`` in every test run: what they check is told in ring.py and churn.py."""

from __future__ import annotations

import pytest

from tests.fuzz.churn import Churn
from tests.fuzz.mutate import TYPES
from tests.fuzz.ring import liar, outsider

FRAMES = 25_000
CHANGES = 600


@pytest.mark.parametrize("seed", (101, 102))
def test_t23_an_outsider_is_not_noticed(seed: int) -> None:
    """Mutated and replayed frames without the key: not even the time of a message changes."""
    report = outsider(FRAMES, seed)
    assert report.frames >= FRAMES and report.configurations > 3
    assert set(report.types) >= TYPES, "every type of message was there to be changed"
    assert min(report.kinds.values()) > FRAMES // 50
    assert report.flat(), report.memory


def test_t23_who_carries_frames_to_others_is_not_noticed() -> None:
    """Recorded tokens, probes and answers, brought to members that they were not meant for: nothing changes either."""
    report = outsider(FRAMES, 103, carries=True)
    assert report.kinds["misdirect"] > FRAMES // 4 and report.configurations > 3
    assert report.flat(), report.memory


@pytest.mark.parametrize("seed", (101, 102))
def test_t23_a_lying_member(seed: int) -> None:
    """Mutated frames with a member's key: nothing raises or grows, local rules hold, and without it the others go on."""
    report = liar(FRAMES, seed)
    assert report.frames >= FRAMES and report.kinds["structure"] > FRAMES // 4
    assert report.configurations > 3, "the liar reached the state machine"
    assert report.flat(), report.memory


def test_t21_configuration_changes_without_end() -> None:
    """Hundreds of configurations of every cause, under load: what a node holds does not grow."""
    churn = Churn("ci")
    churn.run(CHANGES)
    assert churn.verdict() == ""
