# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's stories: each is a rule of docs/architecture.md told with three nodes and the model of the switch."""

from __future__ import annotations

import json

import pytest

from bridge.coordinator import Mode
from bridge.coordinator import api as co
from membership.api import Message, Rotation
from tests.unit.coordinator_story import H, Story
from vcs.model import GroupFlags, GroupState, Level, Phase


@pytest.fixture
def three() -> Story:
    """Three nodes, formed, with the fenced group ``gfs`` running on all."""
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    return story


def quorate(story: Story, n: int) -> bool:
    return story.nodes[n].switch.view(H).quorate


# --- forming -------------------------------------------------------------------------------------------------------------

def test_three_nodes_form_and_a_group_runs(three: Story) -> None:
    assert three.running("gfs") == {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}
    assert all(quorate(three, n) for n in (1, 2, 3))
    assert len({t.coordinator.state.digest() for t in three.nodes.values()}) == 1
    assert all(t.coordinator.why() == [] for t in three.nodes.values())


def test_a_cold_start_waits_for_all() -> None:
    story = Story()
    story.boot(1, 2)
    story.form(1, 2)
    assert not quorate(story, 1)
    assert story.nodes[1].notices("waiting_for_all") == [{"missing": [3]}]
    (reason,) = story.nodes[1].coordinator.why()
    assert reason["what"] == "waiting_for_all"
    assert reason["on"] == [3]
    assert (reason["remedy"], reason["condition"]) == ("vcs fence ack 3", "if you know that it is off")
    story.boot(3)
    story.form(1, 2, 3)
    assert quorate(story, 1)


def test_an_administrator_ends_the_wait_for_all() -> None:
    story = Story()
    story.boot(1, 2)
    story.form(1, 2)
    story.tell(1, co.FenceAck(3))
    story.settle()
    assert quorate(story, 1)
    assert quorate(story, 2)
    story.join("gfs", 1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_an_administrator_vouches_for_the_last_to_leave() -> None:
    """3 was the last one and will never come back: only a person can know that."""
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    for n, rest in ((1, (2, 3)), (2, (3,))):
        leave_cluster(story, n, rest)
    story.power_off(3)
    story.boot(1, 2)
    story.form(1, 2)
    assert not quorate(story, 1)
    story.tell(2, co.FenceAck(3))
    story.settle()
    assert quorate(story, 1)


def test_leaving_while_the_ring_breaks_does_not_end_quorum_for_ever() -> None:
    story = Story(2)
    story.boot(1, 2)
    story.form(1, 2)
    story.tell(2, co.LeaveCluster())
    story.transitional(1, 2)
    story.settle()
    assert story.nodes[1].coordinator.state.nodes[2].status == "leaving"
    assert story.nodes[2].last(co.LeaveDone) is None
    story.form(1, 2)
    assert story.nodes[2].last(co.LeaveDone) == co.LeaveDone()
    assert quorate(story, 1)


def test_without_wait_for_all_the_unseen_node_is_fenced_first() -> None:
    story = Story(wait_for_all=False)
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    assert quorate(story, 1)
    assert story.nodes[1].fences == [(3, 0)]
    assert story.running("gfs") == {}
    story.fence_done(1, 3, 0)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_newcomer_learns_the_state(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301)
    three.boot(3)
    three.form(1, 2, 3)
    assert three.nodes[3].coordinator.state.digest() == three.nodes[1].coordinator.state.digest()
    three.join("gfs", 3)
    assert three.running("gfs") == {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}


# --- failing -------------------------------------------------------------------------------------------------------------

def test_no_start_before_the_fence(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    assert three.nodes[1].fences == [(3, 301)]
    assert three.nodes[2].fences == []
    assert three.nodes[1].group("gfs").phase is Phase.STOP  # type: ignore[union-attr]
    assert {w["waits_for"] for w in three.nodes[2].coordinator.why()} == {"fence"}
    three.fence_done(1, 3, 301)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}
    assert three.nodes[2].switch.fence_marks(H) == {(3, 301): 0}


def test_the_fence_is_persisted_before_it_is_launched(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    effects = three.nodes[1].seen
    launch = next(i for i, e in enumerate(effects) if isinstance(e, co.LaunchFence))
    persist = max(i for i, e in enumerate(effects[:launch]) if isinstance(e, co.Persist))
    record = json.loads(effects[persist].record)  # type: ignore[union-attr]
    assert [o[:2] for o in record["obligations"]] == [[3, 301]]


def test_the_next_node_fences_when_the_fencer_dies(three: Story) -> None:
    story = Story(5)
    story.boot(1, 2, 3, 4, 5)
    story.form(1, 2, 3, 4, 5)
    story.join("gfs", 1, 2, 3, 4, 5)
    story.power_off(5)
    story.form(1, 2, 3, 4)
    assert story.nodes[1].fences == [(5, 501)]
    story.power_off(1)
    story.form(2, 3, 4)
    assert story.nodes[2].fences == [(1, 101), (5, 501)]


def test_a_failed_fence_is_tried_again_by_the_next_after_a_pause(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301, ok=False)
    assert three.nodes[2].fences == []
    wake = three.nodes[2].last(co.WakeAt)
    assert wake == co.WakeAt(1_000_000_000)
    three.now = 1_000_000_000
    three.tell(2, co.Tick())
    three.settle()
    assert three.nodes[2].fences == [(3, 301)]
    three.fence_done(2, 3, 301)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_new_boot_incarnation_discharges_the_old_ones_fence(three: Story) -> None:
    three.power_off(3)
    three.boot(3)
    three.form(1, 2, 3)
    assert three.nodes[1].fences == []
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_restarted_daemon_whose_groups_were_lost_is_no_newcomer(three: Story) -> None:
    three.lose_provider(3)
    three.form(1, 2, 3)
    assert three.nodes[1].fences == [(3, 301)]
    assert [m.nodeid for m in three.nodes[1].switch.view(H).members] == [1, 2]
    assert not quorate(three, 3)
    assert three.running("gfs") == {}
    assert three.nodes[3].coordinator.why()[0]["what"] == "failed"
    three.power_off(3)
    three.fence_done(1, 3, 301)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_restarted_daemon_without_groups_is_welcome() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.restart_daemon(2)
    story.form(1, 2, 3)
    assert [m.nodeid for m in story.nodes[1].switch.view(H).members] == [1, 2, 3]
    assert story.nodes[1].fences == []


def test_all_daemons_at_once_whose_groups_were_lost_end_in_fences_one_by_one(three: Story) -> None:
    for n in (1, 2, 3):
        three.lose_provider(n)
    three.form(1, 2, 3)
    assert three.nodes[1].fences == [(2, 201), (3, 301)]
    assert three.nodes[2].fences == [(1, 101)]
    assert three.running("gfs") == {}


def test_an_unfenced_member_blocks_only_its_own_groups(three: Story) -> None:
    three.join("other", 1, 2)
    three.power_off(3)
    three.form(1, 2)
    assert three.running("gfs") == {}
    three.leave("other", 2)
    assert three.running("other") == {1: (1,)}


def test_obligations_survive_everybodys_power_cut() -> None:
    story = Story(wait_for_all=False, agent="")
    story.boot(1, 2)
    story.form(1, 2)
    story.tell(1, co.FenceAck(3))
    story.settle()
    story.boot(3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    story.form(1, 2)  # 3 is cut off, and there is nobody who could fence it
    story.power_off(1, 2)
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    assert story.running("gfs") == {3: (1, 2, 3)}  # which has not noticed anything yet
    assert [o["nodeid"] for o in story.nodes[1].coordinator.describe()["obligations"]] == [3]  # type: ignore[attr-defined]
    story.power_off(3)
    story.tell(2, co.FenceAck(3))
    story.settle()
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_an_acknowledgement_of_a_fence_is_refused_while_the_node_is_here(three: Story) -> None:
    three.lose_provider(3)
    three.form(1, 2, 3)
    three.tell(1, co.FenceAck(3))
    three.settle()
    assert three.nodes[1].notices("fence_ack_refused")
    assert three.running("gfs") == {}


# --- quorum and partitions -------------------------------------------------------------------------------------------------

def test_without_quorum_stop_and_never_start(three: Story) -> None:
    three.form(3)
    assert not quorate(three, 3)
    group = three.nodes[3].group("gfs")
    assert group is not None
    assert group.phase is Phase.STOP
    assert three.nodes[3].fences == []


def test_one_one_one_for_a_while_fences_nobody(three: Story) -> None:
    for n in (1, 2, 3):
        three.form(n)
    three.form(1, 2, 3)
    assert [t.fences for t in three.nodes.values()] == [[], [], []]
    assert three.running("gfs") == {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}


def test_readmitted_when_no_fence_was_launched() -> None:
    story = Story(agent="")
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    story.form(1, 2)
    story.form(3)
    story.form(1, 2, 3)
    assert story.running("gfs") == {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}
    assert story.nodes[1].notices("node_joined")[-1]["how"] == "readmitted"


def test_not_readmitted_once_a_fence_was_launched(three: Story) -> None:
    three.form(1, 2)
    three.form(3)
    three.form(1, 2, 3)
    assert three.nodes[1].fences == [(3, 301)]
    assert three.running("gfs") == {}
    assert not quorate(three, 3)


def test_nothing_is_decided_in_a_transitional_configuration(three: Story) -> None:
    """SAFETY S5: the last acknowledgement arrives when this node is already cut off."""
    three.nodes[2].hold = {("gfs", Phase.STOP)}
    three.leave("gfs", 3)
    three.nodes[2].hold.clear()
    three._consume(2)
    three.tell(2, co.LocalGroups(tuple(three.nodes[2].switch.groups(H))))
    (ack,) = three.nodes[2].outbox
    three.transitional(1)
    ring = three.rings[1][0]
    mark = len(three.nodes[1].seen)
    three.tell(1, Message(three.nodes[2].who, ring, 9999, ack))
    assert not [e for e in three.nodes[1].seen[mark:] if isinstance(e, co.StartGroup | co.Persist | co.LaunchFence)]
    assert three.nodes[1].coordinator.state.groups["gfs"].stop_acks >= {1, 2}
    assert three.nodes[1].coordinator.state.groups["gfs"].phase is Phase.STOP
    three.form(1)
    assert three.nodes[1].group("gfs").phase is Phase.STOP  # type: ignore[union-attr]


def test_the_lease_follows_rotations_of_the_quorate_ring_only(three: Story) -> None:
    ring = three.rings[1][0]
    three.tell(1, Rotation(ring, 5_000_000_000))
    assert three.nodes[1].last(co.RenewLease) == co.RenewLease(5_000_000_000)
    three.transitional(1, 2)
    three.tell(1, Rotation(ring, 9_000_000_000))
    assert three.nodes[1].last(co.RenewLease) == co.RenewLease(5_000_000_000)
    alone = three.form(1)
    three.tell(1, Rotation(alone, 12_000_000_000))
    assert three.nodes[1].last(co.RenewLease) == co.RenewLease(5_000_000_000)


# --- events ----------------------------------------------------------------------------------------------------------------

def test_a_further_change_replaces_the_event(three: Story) -> None:
    three.nodes[2].hold = {("gfs", Phase.STOP)}
    three.leave("gfs", 3)
    first = three.nodes[1].group("gfs")
    assert first is not None
    assert three.nodes[3].group("gfs") is None  # its own stop was acknowledged: it waits for nobody
    three.join("gfs", 3)
    second = three.nodes[1].group("gfs")
    assert second is not None
    assert second.event > first.event
    three.release(2)
    running = three.nodes[1].group("gfs")
    assert running is not None
    assert [(m.nodeid, m.join_id == running.event) for m in running.finished_members] == [(1, False), (2, False), (3, True)]


def test_who_has_left_is_not_fenced(three: Story) -> None:
    three.leave("gfs", 3)
    three.power_off(3)
    three.form(1, 2)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}
    assert three.nodes[1].fences == []


def test_a_stale_acknowledgement_is_counted_and_ignored(three: Story) -> None:
    from bridge.coordinator.messages import Ack, encode

    three.nodes[2].hold = {("gfs", Phase.STOP)}
    three.leave("gfs", 3)
    group = three.nodes[1].coordinator.state.groups["gfs"]
    before = three.nodes[1].coordinator.counters["stale"]
    message = Message(three.nodes[2].who, three.rings[1][0], 1, encode(Ack("gfs", group.event - 1, Phase.STOP)))
    for n in (1, 2, 3):
        three.tell(n, message)
    assert three.nodes[1].coordinator.counters["stale"] == before + 1
    assert three.running("gfs") == {}


def test_levels_start_in_order(three: Story) -> None:
    three.join("svc", 1, 2, 3, level=Level.USER, flags=GroupFlags.NONE)
    three.nodes[1].hold = {("gfs", Phase.START)}
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301)
    assert three.nodes[2].group("svc").phase is Phase.STOP  # type: ignore[union-attr]
    assert "lower_level" in {w["waits_for"] for w in three.nodes[2].coordinator.why()}
    three.release(1)
    assert three.running("svc") == {1: (1, 2), 2: (1, 2)}


def test_a_consumer_that_never_stops_costs_its_node(three: Story) -> None:
    three.nodes[2].hold = {("gfs", Phase.STOP)}
    three.leave("gfs", 3)
    three.now = 31_000_000_000
    three.tell(1, co.Tick())
    three.settle()
    assert three.nodes[1].fences == [(2, 201)]
    assert three.running("gfs") == {}
    three.power_off(2)
    three.fence_done(1, 2, 201)
    assert three.running("gfs") == {1: (1,)}


def test_a_consumer_without_fencing_that_never_answers_is_put_out() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("svc", 1, 2, level=Level.USER, flags=GroupFlags.NONE)
    story.nodes[2].hold = {("svc", Phase.STOP)}
    story.join("svc", 3, level=Level.USER, flags=GroupFlags.NONE)
    story.now = 31_000_000_000
    story.tell(1, co.Tick())
    story.settle()
    assert story.running("svc") == {1: (1, 3), 3: (1, 3)}
    assert story.nodes[2].last(co.LeftGroup) == co.LeftGroup("svc", 110)


# --- leaving ---------------------------------------------------------------------------------------------------------------

def test_leaving_needs_no_quorum(three: Story) -> None:
    three.form(3)
    three.leave("gfs", 3)
    assert three.nodes[3].group("gfs") is None
    three.tell(3, co.LeaveCluster())
    assert three.nodes[3].last(co.LeaveDone) == co.LeaveDone()


def test_a_failed_node_may_leave_once_it_holds_nothing(three: Story) -> None:
    three.lose_provider(3)
    three.form(1, 2, 3)
    three.leave("gfs", 3)  # lost: gone at once
    three.tell(3, co.LeaveCluster())
    three.settle()
    assert three.nodes[3].last(co.LeaveDone) == co.LeaveDone()
    assert three.running("gfs") == {}  # its fence goes on all the same


def test_a_node_in_a_group_may_not_leave(three: Story) -> None:
    three.tell(3, co.LeaveCluster())
    (refusal,) = three.nodes[3].notices("leave_refused")
    assert refusal["groups"] == ["gfs"]


def leave_cluster(story: Story, n: int, rest: tuple[int, ...]) -> None:
    story.tell(n, co.LeaveCluster())
    story.settle()
    effects = story.nodes[n].seen
    done = next(i for i, e in enumerate(effects) if isinstance(e, co.LeaveDone))
    record = next(e.record for e in reversed(effects[:done]) if isinstance(e, co.Persist))
    assert json.loads(record)["left"] is True
    story.power_off(n)
    if rest:
        story.form(*rest)


def test_three_two_one_none_three() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    for n, rest in ((1, (2, 3)), (2, (3,))):
        story.leave("gfs", n)
        leave_cluster(story, n, rest)
        assert quorate(story, 3)
        assert story.running("gfs")[3] == rest
    story.leave("gfs", 3)
    leave_cluster(story, 3, ())
    story.boot(1, 2, 3)
    story.form(1)
    assert not quorate(story, 1)
    story.form(1, 2, 3)
    assert all(quorate(story, n) for n in (1, 2, 3))
    assert [t.fences for t in story.nodes.values()] == [[], [], []]


def test_who_left_early_has_no_vote_before_it_met_the_later_ones() -> None:
    story = Story(wait_for_all=False)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    leave_cluster(story, 1, (2, 3))
    leave_cluster(story, 2, (3,))
    story.boot(1, 2)
    story.form(1, 2)  # 3 may be running alone, and is
    assert quorate(story, 3)
    assert not quorate(story, 1)
    story.form(1, 2, 3)
    assert all(quorate(story, n) for n in (1, 2, 3))


def test_the_very_last_leaver_may_begin_alone() -> None:
    story = Story(wait_for_all=False)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    for n, rest in ((1, (2, 3)), (2, (3,)), (3, ())):
        leave_cluster(story, n, rest)
    story.boot(1)
    story.form(1)
    assert not quorate(story, 1)
    story.boot(3)
    story.form(3)
    assert quorate(story, 3)
    assert story.nodes[3].fences == []


# --- robustness --------------------------------------------------------------------------------------------------------------

def test_garbage_is_the_same_nonsense_for_everybody(three: Story) -> None:
    digests = {t.coordinator.state.digest() for t in three.nodes.values()}
    for payload in (b"", b"\xff\x00", b"[]", b'{"p":1}', b'{"p":9,"t":"ack"}', b'{"b":{},"f":1,"p":1,"t":"ack"}'):
        for n in (1, 2, 3):
            three.tell(n, Message(three.nodes[2].who, three.rings[1][0], 1, payload))
    assert {t.coordinator.state.digest() for t in three.nodes.values()} == digests
    assert [t.coordinator.counters["garbage"] for t in three.nodes.values()] == [6, 6, 6]


def test_a_poisonous_message_is_one_rejection(three: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAFETY S19: the same rejection everywhere, the state as before, and the cluster goes on."""
    from bridge.coordinator import groups

    right = groups.join

    def poisoned(state: object, nodeid: int, boot: int, name: str, *rest: int) -> bool:
        if name == "poison":
            right(state, nodeid, boot, name, *rest)  # type: ignore[arg-type]
            raise KeyError("poison")
        return right(state, nodeid, boot, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(groups, "join", poisoned)
    three.join("poison", 2)
    assert [t.coordinator.counters["rejected"] for t in three.nodes.values()] == [1, 1, 1]
    assert all(t.notices("rejected") for t in three.nodes.values())
    assert len({t.coordinator.state.digest() for t in three.nodes.values()}) == 1
    assert "poison" not in three.nodes[1].coordinator.state.groups
    three.join("good", 1)
    assert three.running("good") == {1: (1,)}


def test_an_unreadable_record_counts_as_none() -> None:
    story = Story()
    story.records = {1: b"\x00 not json", 2: b'{"v":99}', 3: b"[]"}
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    assert all(quorate(story, n) for n in (1, 2, 3))
    assert [t.coordinator.counters["bad_record"] for t in story.nodes.values()] == [1, 1, 1]


def test_the_picture_is_json(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    picture = three.nodes[1].coordinator.describe()
    assert json.loads(json.dumps(picture)) == picture
    assert picture["mode"] == Mode.PRIMARY.value
    assert {"what", "group", "event", "waits_for", "on", "text", "remedy", "condition"} <= set(three.nodes[1].coordinator.why()[0])
    assert three.nodes[1].group("gfs").state is GroupState.MEMBER  # type: ignore[union-attr]
