# SPDX-License-Identifier: GPL-2.0-only
"""RECOVERY: what a promise binds whom to, which commit token begins a ring, and the ring's sequence on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from membership.api import Processor
from membership.totem import recovery, wire
from membership.totem.core import Forming
from membership.totem.ring import Ring
from membership.totem.ringseq import RingSeqFile
from tests.unit.test_totem_rules import RING, P, make_core
from vcs.errors import VcsError
from vcs.model import RingId

# --- promises ---------------------------------------------------------------------------------------------------------------


def entry(p: Processor, attempt: int = 0, *obliged: Processor) -> wire.Entry:
    mask = recovery.mask_of(P, obliged)
    return wire.Entry(p, True, RING, attempt=RingId(attempt, 1) if attempt else wire.NO_RING, obligations=mask)


def test_nothing_promised_all_present_are_obliged() -> None:
    assert recovery.promise(P, [entry(P[0]), entry(P[1])]) == (0b11, True)


def test_a_completed_attempt_binds_for_ever_even_those_who_are_gone() -> None:
    done = [entry(p, 12, *P[:3]) for p in P[:2]]
    assert recovery.promise(P, done) == (0b111, False)
    assert recovery.promise(P, done[:1]) == (0b111, False)


def test_an_attempt_that_a_member_did_not_complete_is_void() -> None:
    assert recovery.promise(P, [entry(P[0], 12, *P[:3]), entry(P[1])]) == (0b011, True)


def test_a_later_promise_stays_in_force_beside_a_void_one() -> None:
    """Node 2 completed attempt 16 with node 3, which is gone and may have installed it; node 1 had completed 12 with both."""
    one, two = entry(P[0], 12, *P[:3]), entry(P[1], 16, P[1], P[2])
    assert not recovery.in_force(P, one, [one, two])
    assert recovery.promise(P, [one, two]) == (0b111, True)


def test_a_commit_token_of_another_ring_or_from_anybody_else_begins_nothing() -> None:
    core, _ring = make_core(1)
    forming = core.forming = Forming(Ring(RingId(12, 1), P[:3], core.local))
    entries = tuple(wire.Entry(p, True, core.ring.id) for p in P[:3])
    for sender, ring in ((P[1], RingId(12, 1)), (P[2], RingId(8, 1)), (P[2], RingId(16, 1))):
        recovery.first_token(core, sender, wire.Commit(ring, 7, entries), 1)
    assert (core.counters["foreign"], forming.started, core.out) == (3, False, [])
    recovery.first_token(core, P[2], wire.Commit(RingId(12, 1), 7, entries), 1)
    assert forming.started


# --- the ring sequence on disk ------------------------------------------------------------------------------------------------


def test_ring_sequence_file(tmp_path: Path) -> None:
    file = RingSeqFile(str(tmp_path / "ring_seq"))
    assert (file.load(), file.problem) == (0, "")
    file.store(4444)
    assert (file.load(), file.problem) == (4444, "")
    data = (tmp_path / "ring_seq").read_bytes()
    for bad in (data[:-1], data + b"x", b"", data[:9] + b"\xff" + data[10:]):
        (tmp_path / "ring_seq").write_bytes(bad)
        assert file.load() == 0
        assert "damaged" in file.problem
    with pytest.raises(VcsError, match="cannot store"):
        RingSeqFile(str(tmp_path / "no" / "ring_seq")).store(4)
