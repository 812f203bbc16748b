# SPDX-License-Identifier: GPL-2.0-only
"""Daemons that are away while their hosts live on (SAFETY S16, S19): stories with three nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.coordinator import Mode
from bridge.coordinator import api as co
from bridge.coordinator.detached import at_rest
from bridge.coordinator.messages import GroupReport
from bridge.coordinator.state import GroupRec
from tests.unit.coordinator_story import H, Story
from vcs.config.model import RestartConfig
from vcs.model import GroupState, Phase

SECOND = 1_000_000_000
ALL = {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}


@pytest.fixture
def three() -> Story:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    return story


def go(story: Story, nodeid: int, *heard_by: int) -> None:
    """The daemon dies, and the others form a ring without it."""
    story.gasp(nodeid, *heard_by)
    story.nodes[nodeid].outbox.clear()
    story.form(*[n for n in story.nodes if n != nodeid])


def status(story: Story, nodeid: int, at: int = 1) -> str:
    return story.nodes[at].coordinator.state.nodes[nodeid].status


def events(story: Story, nodeid: int) -> list[int]:
    group = story.nodes[nodeid].group("gfs")
    assert group is not None
    return [group.event, group.finished_event]


def test_one_who_heard_the_last_gasp_is_enough(three: Story) -> None:
    before = events(three, 1)
    go(three, 3, 2)
    assert status(three, 3) == "detached"
    assert three.nodes[1].fences == []
    assert events(three, 1) == before, "nobody is stopped"
    assert [m.nodeid for m in three.nodes[1].switch.view(H).members] == [1, 2]


def test_silence_is_a_failure(three: Story) -> None:
    three.form(1, 2)
    assert status(three, 3) == "failed"
    assert three.nodes[1].fences == [(3, 301)]


def test_the_gasp_of_a_former_daemon_proves_nothing(three: Story) -> None:
    old = three.nodes[3].who
    go(three, 3, 1)
    three.restart_daemon(3)
    three.form(1, 2, 3)
    three.nodes[1].coordinator.gasps[3] = old.engine
    three.form(1, 2)
    assert status(three, 3) == "failed"


def test_it_comes_back_and_keeps_its_join_id(three: Story) -> None:
    held = three.nodes[3].group("gfs")
    assert held is not None
    go(three, 3, 1, 2)
    three.restart_daemon(3)
    three.form(3)
    again = three.nodes[3].group("gfs")
    assert again is not None
    assert again.event == held.event, "a fresh daemon that is alone stops nothing"
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    again = three.nodes[3].group("gfs")
    assert again is not None
    assert again == held, "and with the others it stops nobody either"
    assert all(t.fences == [] for t in three.nodes.values())


def test_what_changes_after_its_return_changes_for_it_too(three: Story) -> None:
    go(three, 3, 1, 2)
    three.restart_daemon(3)
    three.form(1, 2, 3)
    three.leave("gfs", 2)
    assert three.running("gfs") == {1: (1, 3), 3: (1, 3)}
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301)
    assert three.running("gfs") == {1: (1,)}


def test_a_finish_that_its_kernel_was_not_told(three: Story) -> None:
    """All have recovered, and its daemon dies before it says so to its own kernel."""
    t = three.nodes[3]
    three.nodes[1].hold.add(("gfs", Phase.START))
    three.leave("gfs", 2)
    held = t.group("gfs")
    assert held is not None
    assert (held.phase, held.acked_phase) == (Phase.START, Phase.START)
    started = held.event
    three.nodes[1].hold.clear()
    t.outbox.clear()
    three.gasp(3, 1, 2)
    three.form(1, 2)
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == {1: (1, 3), 3: (1, 3)}
    held = t.group("gfs")
    assert held is not None
    assert held.event >= started


def test_who_has_stopped_alone_is_started_by_a_new_event(three: Story) -> None:
    """Cut off, its daemon stops the group by itself; then it is killed, and the next one meets the others, who had no quorum either."""
    for n in (1, 2, 3):
        three.form(n)
    held = three.nodes[3].group("gfs")
    assert held is not None
    assert held.phase is Phase.STOP
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    assert all(t.fences == [] for t in three.nodes.values())


def test_it_comes_back_before_anybody_noticed(three: Story) -> None:
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    assert all(t.fences == [] for t in three.nodes.values())


def test_what_needs_it_waits_for_it(three: Story) -> None:
    go(three, 3, 1, 2)
    three.leave("gfs", 2)
    assert three.running("gfs") == {3: (1, 2, 3)}
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == {1: (1, 3), 3: (1, 3)}


def test_it_left_the_group_while_there_was_no_daemon(three: Story) -> None:
    go(three, 3, 1, 2)
    t = three.nodes[3]
    t.switch.leave(H, t.consumers["gfs"], "gfs")
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}
    assert all(t.fences == [] for t in three.nodes.values())


def test_the_limit_ends_it(three: Story) -> None:
    go(three, 3, 1, 2)
    three.now = 5 * SECOND - 1
    three.tell(1, co.Tick())
    three.settle()
    assert status(three, 3) == "detached"
    three.now = 5 * SECOND
    three.tell(2, co.Tick())
    three.settle()
    assert status(three, 3) == "detached", "the lowest member speaks"
    three.tell(1, co.Tick())
    three.settle()
    assert status(three, 3) == "failed"
    assert three.nodes[1].fences == [(3, 301)]
    assert three.running("gfs") == {3: (1, 2, 3)}
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert status(three, 3) == "failed", "too late"
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_new_boot_ends_it(three: Story) -> None:
    go(three, 3, 1, 2)
    three.power_off(3)
    three.boot(3)
    three.form(1, 2, 3)
    assert status(three, 3) == "member"
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}
    assert all(t.fences == [] for t in three.nodes.values())


def test_a_planned_restart_is_announced_and_has_its_own_limit(three: Story) -> None:
    three.tell(3, co.PlannedRestart(20_000))
    three.settle()
    assert three.nodes[3].last(co.RestartReady) == co.RestartReady()
    three.nodes[3].switch._orphan(three.nodes[3].switch._clusters[H])
    three.form(1, 2)
    assert status(three, 3) == "detached"
    three.now = 19 * SECOND
    three.tell(1, co.Tick())
    three.settle()
    assert status(three, 3) == "detached"
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    assert three.nodes[1].coordinator.state.absences[3].crashes == 0


def test_a_restart_is_not_announced_without_quorum(three: Story) -> None:
    three.form(3)
    three.tell(3, co.PlannedRestart(20_000))
    assert three.nodes[3].notices("restart_refused")
    assert three.nodes[3].last(co.RestartReady) is None


def test_a_daemon_that_dies_again_and_again_has_failed(three: Story) -> None:
    for _ in range(2):
        go(three, 3, 1, 2)
        assert status(three, 3) == "detached"
        three.restart_daemon(3)
        three.form(1, 2, 3)
    go(three, 3, 1, 2)
    assert status(three, 3) == "failed"
    assert three.nodes[1].fences == [(3, 301)]


def test_quiet_time_is_forgiving(three: Story) -> None:
    for _ in range(4):
        go(three, 3, 1, 2)
        three.restart_daemon(3)
        three.form(1, 2, 3)
        three.now += 600 * SECOND
        for n in (1, 2, 3):
            three.tell(n, co.Tick())
        three.settle()
        assert 3 not in three.nodes[2].coordinator.state.absences
    assert three.running("gfs") == ALL


def test_the_number_of_crashes_is_configured() -> None:
    story = Story()
    story.config = replace(story.config, restart=RestartConfig(crashes=1))
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    go(story, 3, 1, 2)
    assert status(story, 3) == "failed"


def test_a_fence_that_is_owed_counts_it_in(three: Story) -> None:
    """2 fails while 3 is away: the start waits for the fence and for 3."""
    go(three, 3, 1, 2)
    three.power_off(2)
    three.restart_daemon(3)
    three.form(1, 3)
    assert three.running("gfs") == {}
    three.fence_done(1, 2, 201)
    assert three.running("gfs") == {1: (1, 3), 3: (1, 3)}


# --- all daemons at once ------------------------------------------------------------------------------------------------------


def all_die(story: Story) -> None:
    for n in list(story.nodes):
        story.restart_daemon(n)


def test_all_daemons_at_once_cost_nothing(three: Story) -> None:
    held = three.nodes[2].group("gfs")
    assert held is not None
    all_die(three)
    three.form(1)
    assert three.nodes[1].coordinator.mode is Mode.WAITING
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    again = three.nodes[2].group("gfs")
    assert again is not None
    assert again.finished_members == held.finished_members
    assert all(t.fences == [] for t in three.nodes.values())


def test_a_quorum_goes_on_and_waits_for_the_rest(three: Story) -> None:
    all_die(three)
    three.form(1, 2)
    assert status(three, 3) == "detached"
    assert three.running("gfs") == {3: (1, 2, 3)}, "stopped, and not started without it"
    three.form(1, 2, 3)
    assert three.running("gfs") == ALL
    assert all(t.fences == [] for t in three.nodes.values())


def test_who_does_not_come_back_is_fenced_for_everything(three: Story) -> None:
    all_die(three)
    three.form(1, 2)
    three.now = 5 * SECOND
    three.tell(1, co.Tick())
    three.settle()
    assert three.nodes[1].fences == [(3, 301)]
    (owed,) = three.nodes[1].coordinator.state.obligations.values()
    assert owed.everything, "nobody knows which groups it was in alone"
    three.power_off(3)
    three.fence_done(1, 3, 301)
    assert three.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_minority_of_the_last_view_waits(three: Story) -> None:
    all_die(three)
    three.form(3)
    assert three.nodes[3].coordinator.mode is Mode.WAITING
    held = three.nodes[3].group("gfs")
    assert held is not None
    assert held.phase is Phase.FINISH


def test_one_kernel_that_lives_on_among_two_that_were_reset(three: Story) -> None:
    three.power_off(1, 2)
    three.boot(1, 2)
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert status(three, 3) == "member"
    assert three.running("gfs") == {3: (3,)}
    assert all(t.fences == [] for t in three.nodes.values())


def test_a_start_that_was_never_finished_is_remembered(three: Story) -> None:
    """2 joins; its start is ordered and a stop follows before the finish: 2 may hold locks, under that very join id."""
    three.leave("gfs", 2)
    assert three.running("gfs") == {1: (1, 3), 3: (1, 3)}
    three.nodes[1].hold.add(("gfs", Phase.START))
    three.join("gfs", 2)
    started = three.nodes[2].group("gfs")
    assert started is not None
    assert started.phase is Phase.START
    three.nodes[1].hold.clear()
    three.leave("gfs", 3)
    all_die(three)
    three.form(1, 2, 3)
    again = three.nodes[2].group("gfs")
    assert again is not None
    assert {m.nodeid: m.join_id for m in again.finished_members}[2] == {m.nodeid: m.join_id for m in started.members}[2]


def test_a_start_that_is_late_here_names_nobody_who_is_away(three: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node 1's switch refused the start for a moment (its lease was due), and in that moment node 3's daemon went: the start is not
    tried again with a member that is not in the view. Node 3's return makes a new event."""
    refused: list[int] = []
    switch = three.nodes[1].switch
    with monkeypatch.context() as lease:
        lease.setattr(switch, "group_start", lambda _handle, _session, _name, event, _members: refused.append(event))
        three.join("late", 1, 2, 3)
    assert refused and (group := three.nodes[1].group("late")) is not None and group.phase is Phase.STOP
    go(three, 3, 2)
    before = len(three.nodes[1].seen)
    three.look(1)
    assert not [e for e in three.nodes[1].seen[before:] if isinstance(e, co.StartGroup)]
    three.restart_daemon(3)
    three.form(1, 2, 3)
    assert three.running("late") == dict.fromkeys((1, 2, 3), (1, 2, 3))


@pytest.mark.parametrize(("agreed", "held", "rests"), [
    ({}, {}, True),
    ({}, {"phase": int(Phase.START)}, True),
    ({}, {"phase": int(Phase.STOP)}, False),
    ({}, {"event": 8}, False),
    ({}, {"state": int(GroupState.LEAVING)}, False),
    ({"phase": int(Phase.START)}, {}, False),
    ({"changed": True}, {}, False),
    ({"members": {1: (1, 1)}}, {}, False),
])
def test_a_group_that_rests_is_finished_everywhere_by_one_event(
        agreed: dict[str, object], held: dict[str, object], rests: bool) -> None:
    """Whose kernel holds another event, be it a stop that its former daemon made alone, goes through a new one with the others."""
    group = replace(GroupRec("dlm:a", 2, 0, event=7, phase=int(Phase.FINISH), members={1: (1, 1), 3: (3, 1)}), **agreed)  # type: ignore[arg-type]
    report = replace(GroupReport("dlm:a", 2, 0, int(GroupState.MEMBER), 7, int(Phase.FINISH), 7), **held)  # type: ignore[arg-type]
    assert at_rest(group, 3, report) is rests
