# SPDX-License-Identifier: GPL-2.0-only
"""Quorum, fencing and groups as pure functions."""

from __future__ import annotations

import itertools

import pytest

from bridge.coordinator import fencing, groups, merge, quorum
from bridge.coordinator.messages import Exchange, FenceResult
from bridge.coordinator.state import (
    FAILED,
    LAUNCHED,
    LEAVING,
    LEFT,
    MEMBER,
    NO_RING,
    PENDING,
    RETRY,
    Node,
    Obligation,
    State,
)
from membership.api import Processor
from tests.unit.coordinator_story import config
from vcs.model import GroupFlags, Phase, RingId

FENCED = int(GroupFlags.NEEDS_FENCE)


def state(*nodeids: int, can_fence: bool = True) -> State:
    """A primary state with these members; node n has boot n*11 and engine n."""
    return State(RingId(4, 1), ring_members=nodeids, nodes={n: Node(MEMBER, n * 11, n, can_fence) for n in nodeids})


# --- quorum ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("count", "present", "quorate"), [
    (1, 1, True), (2, 1, False), (2, 2, True), (3, 1, False), (3, 2, True), (4, 2, False), (4, 3, True), (5, 2, False), (5, 3, True),
])
def test_majority(count: int, present: int, quorate: bool) -> None:
    nodes = {n: Node(MEMBER) for n in range(1, count + 1)}
    assert quorum.count(config(count), nodes, range(1, present + 1)).quorate is quorate


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("shrunk", [False, True])
def test_no_two_disjoint_sides_are_quorate(count: int, shrunk: bool) -> None:
    """Also when only one side has heard of a clean leave (which is then the leaver's own word on the other)."""
    everybody = range(1, count + 1)
    before = {n: Node(MEMBER) for n in everybody}
    after = before | {1: Node(LEFT, voter=False)} if shrunk else before
    for bits in itertools.product((0, 1, 2), repeat=count):
        a = [n for n, b in zip(everybody, bits, strict=True) if b == 1]
        b = [n for n, b in zip(everybody, bits, strict=True) if b == 2]
        assert not (quorum.count(config(count), after, a).quorate and quorum.count(config(count), before, b).quorate and a and b)


@pytest.mark.parametrize("count", range(2, 7))
def test_leaves_that_only_one_side_may_count_on(count: int) -> None:
    """Any number of leaves: one side was told in the regular configuration and does without them, the other in a transitional one."""
    everybody = range(1, count + 1)
    for gone in range(1, count + 1):
        sure = {n: Node(LEFT, voter=False) if n <= gone else Node(MEMBER) for n in everybody}
        unsure = {n: Node(LEAVING if n <= gone else MEMBER) for n in everybody}
        for bits in itertools.product((0, 1, 2), repeat=count):
            a = [n for n, b in zip(everybody, bits, strict=True) if b == 1 and n > gone]
            b = [n for n, b in zip(everybody, bits, strict=True) if b == 2]
            assert not (a and b and quorum.count(config(count), sure, a).quorate and quorum.count(config(count), unsure, b).quorate)


def test_a_leave_of_a_transitional_configuration_is_still_expected() -> None:
    nodes = {1: Node(MEMBER), 2: Node(MEMBER), 3: Node(MEMBER), 4: Node(LEAVING), 5: Node(LEAVING)}
    assert quorum.count(config(5), nodes, (3, 4, 5)) == quorum.Votes(2, 5)
    assert quorum.count(config(5), nodes, (1, 2, 3, 4, 5)).quorate


def test_a_returning_node_has_no_vote_before_its_merge() -> None:
    nodes = {1: Node(MEMBER), 2: Node(LEFT, voter=False), 3: Node(LEFT, voter=False)}
    assert quorum.count(config(3), nodes, (2, 3)) == quorum.Votes(0, 1)
    assert not quorum.count(config(3), nodes, (2, 3)).quorate
    assert quorum.count(config(3), nodes, (1,)).quorate


# --- fencing -----------------------------------------------------------------------------------------------------------------

def owed(*nodeids: int, target: int = 3) -> State:
    s = state(*nodeids)
    fencing.owe(s, Obligation(target, 33, {"g": 1}), [], "test")
    return s


def test_the_lowest_that_can_fences_at_once() -> None:
    s = owed(1, 2)
    s.nodes[1].can_fence = False
    fencing.decide(s, [])
    held = s.obligations[3, 33]
    assert (held.fencer, held.phase, held.launched) == (2, LAUNCHED, True)


def test_nobody_fences_itself_and_sound_nodes_come_first() -> None:
    s = state(1, 2, 3)
    s.nodes[1].status = FAILED
    assert fencing.candidates(s, 2) == [3]
    s.nodes[3].status = FAILED
    assert fencing.candidates(s, 2) == [1, 3]
    assert fencing.candidates(s, 1) == [2]


def test_a_failed_call_rotates_and_backs_off() -> None:
    s = owed(1, 2)
    fencing.decide(s, [])
    assert not fencing.result(s, 2, FenceResult(3, 33, 0, False, "not mine", "m"), [])
    assert fencing.result(s, 1, FenceResult(3, 33, 0, False, "no answer", "m"), [])
    fencing.decide(s, [])
    held = s.obligations[3, 33]
    assert (held.fencer, held.phase, held.attempt) == (2, RETRY, 1)
    assert not fencing.retry(s, 1, (3, 33), 1, [])
    assert not fencing.retry(s, 2, (3, 33), 0, [])
    assert fencing.retry(s, 2, (3, 33), 1, [])
    assert held.phase == LAUNCHED


def test_a_restarted_fencer_is_asked_again() -> None:
    s = owed(1, 2)
    fencing.decide(s, [])
    s.nodes[1].engine = 100
    notes: list[object] = []
    fencing.decide(s, notes)  # type: ignore[arg-type]
    assert (s.obligations[3, 33].fencer, s.obligations[3, 33].fencer_engine) == (1, 100)
    assert len(notes) == 1


def test_a_success_counts_whoever_reports_it() -> None:
    s = owed(1, 2)
    assert fencing.result(s, 2, FenceResult(3, 33, 7, True, "power cycled", "m"), [])
    assert s.obligations == {}
    assert s.discharged == [(3, 33, "power cycled")]
    assert not fencing.result(s, 2, FenceResult(3, 33, 7, True, "again", "m"), [])


def test_without_anybody_who_can_it_stays_pending() -> None:
    s = owed(1)
    s.nodes[1].can_fence = False
    fencing.decide(s, [])
    assert s.obligations[3, 33].phase == PENDING
    assert not s.obligations[3, 33].launched


# --- groups ------------------------------------------------------------------------------------------------------------------

def running(*nodeids: int) -> State:
    s = state(*nodeids)
    for n in nodeids:
        assert groups.join(s, n, n * 11, "g", 2, FENCED)
    answer(s)
    return s


def answer(s: State, *but: int) -> None:
    """Everybody but some acknowledges whatever is ordered, until nothing more happens."""
    for _ in range(10):
        groups.decide(s, [])
        for g in list(s.groups.values()):
            for n, boot in list(g.stoppers.items()):
                if n not in but:
                    groups.acknowledge(s, n, boot, g.name, g.event, g.phase)
    groups.decide(s, [])


def test_one_event_for_all_changes() -> None:
    s = running(1, 2, 3)
    g = s.groups["g"]
    assert (g.phase, sorted(g.finished_members)) == (Phase.FINISH, [1, 2, 3])
    assert s.counter == 1
    groups.leave(s, 3, 33, "g", False)
    groups.leave(s, 2, 22, "g", False)
    answer(s)
    assert (s.counter, sorted(g.finished_members)) == (2, [1])


def test_join_and_leave_are_idempotent() -> None:
    s = running(1, 2)
    assert not groups.join(s, 1, 11, "g", 2, FENCED)
    assert groups.leave(s, 1, 11, "g", False)
    assert not groups.leave(s, 1, 11, "g", False)
    assert not groups.join(s, 1, 11, "g", 2, FENCED)  # only after it has left


def test_acknowledgements_must_fit() -> None:
    s = running(1, 2)
    g = s.groups["g"]
    groups.leave(s, 2, 22, "g", False)
    groups.decide(s, [])
    assert not groups.acknowledge(s, 1, 11, "g", g.event - 1, Phase.STOP)
    assert not groups.acknowledge(s, 1, 11, "g", g.event, Phase.START)
    assert not groups.acknowledge(s, 1, 99, "g", g.event, Phase.STOP)
    assert not groups.acknowledge(s, 3, 33, "g", g.event, Phase.STOP)
    assert not groups.acknowledge(s, 1, 11, "h", g.event, Phase.STOP)
    assert groups.acknowledge(s, 1, 11, "g", g.event, Phase.STOP)
    assert not groups.acknowledge(s, 1, 11, "g", g.event, Phase.STOP)


def test_the_last_member_takes_the_group_with_it() -> None:
    s = running(1)
    groups.leave(s, 1, 11, "g", False)
    answer(s)
    assert s.groups == {}


def test_a_joiner_is_exposed_as_soon_as_a_start_could_have_been_ordered() -> None:
    s = running(1, 2)
    g = s.groups["g"]
    groups.join(s, 3, 33, "g", 2, FENCED)
    groups.decide(s, [])
    groups.acknowledge(s, 1, 11, "g", g.event, Phase.STOP)
    groups.acknowledge(s, 3, 33, "g", g.event, Phase.STOP)
    assert 3 not in g.exposed
    groups.acknowledge(s, 2, 22, "g", g.event, Phase.STOP)
    assert g.exposed[3] == 33
    assert g.phase is Phase.STOP  # nothing is decided by an acknowledgement alone


def test_a_failed_member_is_owed_a_fence_for_what_it_may_hold() -> None:
    s = running(1, 2, 3)
    groups.join(s, 3, 33, "loose", 4, 0)
    answer(s)
    notes: list[object] = []
    fencing.fail_node(s, 3, notes, "test")  # type: ignore[arg-type]
    assert s.obligations[3, 33].groups.keys() == {"g"}
    answer(s)
    assert s.groups["g"].phase == Phase.STOP
    fencing.result(s, 1, FenceResult(3, 33, 0, True, "", "m"), [])
    answer(s)
    assert s.groups["g"].phase == Phase.FINISH


def test_an_obligation_about_everything_blocks_everything() -> None:
    s = running(1, 2)
    fencing.owe(s, Obligation(3, 0, everything=True), [], "test")
    assert groups.join(s, 1, 11, "new", 4, 0)
    answer(s)
    assert s.groups["new"].phase is Phase.STOP


# --- merging -----------------------------------------------------------------------------------------------------------------

def present(n: int, primary: RingId = NO_RING, version: int = 0, record: RingId | None = None) -> merge.Present:
    said = Exchange(RingId(99, 1), primary != NO_RING, primary, version, f"{primary}{version}", True, False, (),
                    None if record is None else {"v": 1, "primary": [record.seq, record.rep], "version": 1, "left": False, "nodes": [],
                                                 "obligations": []})
    return merge.Present(Processor(n, n * 11, n), said)


def test_the_carrier_has_the_newest_history_and_the_lowest_id() -> None:
    r8, r4 = RingId(8, 1), RingId(4, 1)
    assert merge.carrier({1: present(1, r4, 9), 2: present(2, r8, 3), 3: present(3, r8, 3)}) == 2
    assert merge.carrier({1: present(1, r8, 2), 2: present(2, r8, 3)}) == 2
    assert merge.carrier({1: present(1), 2: present(2, r4, 1)}) == 2
    assert merge.carrier({1: present(1), 2: present(2)}) is None


def test_a_newer_record_makes_living_states_stale() -> None:
    r8, r4 = RingId(8, 1), RingId(4, 1)
    assert merge.carrier({1: present(1, record=r8), 2: present(2, r4, 100)}) is None
    assert merge.carrier({1: present(1, record=r4), 2: present(2, r4, 100)}) == 2
