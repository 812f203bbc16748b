# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue, story by story: the sequences of the kernel's DLM and each way in which they go wrong."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from copy import copy

import pytest

from dlm_glue.state import Applied, Run, State, decode_record, encode_record, global_id
from tests.fakes.glue import HANDLE, World
from vcs.errors import VcsError
from vcs.model import GroupFlags, Level, Phase


@pytest.fixture
def world() -> Iterator[World]:
    w = World()
    yield w
    assert w.dlm.violations == []
    w.close()


def joined(world: World, *names: str) -> None:
    for name in names:
        world.mounted(name, {1: 11, 2: 12, 3: 13})
    world.dlm.log.clear()


def test_nothing_of_the_cluster_is_there_before_the_local_comm(world: World) -> None:
    world.settle()
    assert [c.local for c in world.dlm.comms.values()] == [True, False, False]
    assert world.dlm.cluster == {"cluster_name": "lab", "recover_callbacks": "1", "tcp_port": "21064", "protocol": "0", "log_debug": "0"}
    assert {n: c.addresses[0][4:8] for n, c in world.dlm.comms.items()} == {str(n): bytes([10, 0, 0, n]) for n in (1, 2, 3)}


def test_join_waits_for_the_start_and_answers_once_after_control_1(world: World) -> None:
    world.open("x")
    world.settle()
    assert world.group("x").level is Level.LOCK_MANAGER
    assert world.group("x").flags == GroupFlags.PERSISTENT | GroupFlags.NEEDS_FENCE
    assert world.dlm.lockspaces["x"].waiting == "online"
    world.stop("x")
    world.settle()
    assert world.acked("x", Phase.STOP)
    world.start("x", {1: 1, 2: 1})
    world.settle()
    assert world.dlm.log[-2:] == [("control", "x", 1, (1, 2)), ("event_done", "x", "online", 0)]
    assert world.dlm.lockspaces["x"].id == global_id("x")
    assert not world.acked("x", Phase.START)
    world.recovered("x", 0x55)
    assert not world.acked("x", Phase.START), "the lowest node waits for everybody's DONE"
    world.recovered("x", 0xFF)
    assert world.acked("x", Phase.START)
    assert [n for n in world.noted() if n.startswith("ls_")] == ["ls_online", "ls_started", "ls_joined", "ls_recovered"]


def test_a_node_that_is_not_the_lowest_is_done_with_its_own_bit() -> None:
    from dataclasses import replace

    from dlm_glue.fold import feed
    from dlm_glue.state import Space, Status, Who

    state = State(nodeid=2, spaces={"x": Space("x", run=Run.RECOVERING, nodes={1: Who(1, 1), 2: Who(2, 1)})})
    assert feed(state, Status("x", 0x15))[0].spaces["x"].run is Run.RECOVERING
    assert feed(state, Status("x", 0x55))[0].spaces["x"].run is Run.RUNNING
    assert feed(replace(state, nodeid=1), Status("x", 0x55))[0].spaces["x"].run is Run.RECOVERING


def test_others_stop_before_a_new_member(world: World) -> None:
    world.mounted("x", {1: 11, 2: 12})
    world.dlm.log.clear()
    world.change("x", {1: 11, 2: 12, 3: 13})
    assert world.did("control", "left", "failed") == [("control", "x", 0), ("control", "x", 1, (1, 2, 3))]


def test_death_the_comm_goes_before_control_1_so_the_journal_is_replayed(world: World) -> None:
    joined(world, "x")
    world.dies(3)
    world.change("x", {1: 11, 2: 12})
    assert world.dlm.log == [
        ("control", "x", 0),
        ("comm_dropped", 3),
        ("failed", "x", 3),
        ("control", "x", 1, (1, 2)),
    ]
    assert world.noted().index("comms_dropped") < len(world.noted()) - 1 - world.noted()[::-1].index("ls_started")


def test_clean_leave_of_another_keeps_its_comm(world: World) -> None:
    joined(world, "x")
    world.change("x", {1: 11, 2: 12})
    assert world.did("left", "failed", "comm_dropped") == [("left", "x", 3)]


def test_own_clean_leave(world: World) -> None:
    joined(world, "x")
    world.release("x")
    world.settle()
    world.stop("x")
    world.settle()
    assert world.acked("x", Phase.STOP)
    world.left("x")
    world.settle()
    assert world.did("event_done") == [("event_done", "x", "offline", 0)]
    assert world.dlm.spaces == {}
    assert world.glue.state.spaces == {}
    world.mounted("x", {1: 21, 2: 12})


def test_a_leave_needs_nobody(world: World) -> None:
    """S21: the others are gone, comms/ cannot be brought in order, and still the leave is answered."""
    joined(world, "x")
    world.dlm.fail = lambda op, path: errno.EIO if "comms" in path else 0
    world.boots(2)
    world.release("x")
    world.settle()
    world.stop("x")
    world.settle()
    assert world.acked("x", Phase.STOP)
    world.left("x")
    world.settle()
    assert world.did("event_done") == [("event_done", "x", "offline", 0)]


def test_return_of_a_dead_node(world: World) -> None:
    joined(world, "x")
    world.dies(3)
    world.change("x", {1: 11, 2: 12})
    world.boots(3)
    world.change("x", {1: 11, 2: 12, 3: 33})
    assert world.did("failed", "left") == [("failed", "x", 3)]
    assert world.dlm.lockspaces["x"].members.keys() == {1, 2, 3}


def test_death_never_processed_then_return(world: World) -> None:
    """Pitfall 5: doing half of the renewal keeps the locks of the dead incarnation."""
    joined(world, "x")
    old = world.dlm.comms["3"].seq
    world.boots(3)
    world.stop("x")
    world.settle()
    assert world.dlm.comms["3"].seq != old, "the connection must be new before anybody starts"
    world.start("x", {1: 11, 2: 12, 3: 33})
    world.settle()
    assert world.did("comm_dropped", "failed", "left") == [("comm_dropped", 3), ("failed", "x", 3)]
    assert world.dlm.lockspaces["x"].members[3] == world.dlm.comms["3"].seq


def test_the_stop_is_not_acknowledged_while_an_old_connection_is_there(world: World) -> None:
    joined(world, "x")
    world.boots(3)
    world.stop("x")
    world.hint()
    world.step("x")
    assert world.lanes.ready() == ["comms/"]
    assert not world.acked("x", Phase.STOP)
    world.step("comms/")
    assert not world.acked("x", Phase.STOP)
    world.step("comms/")
    assert world.acked("x", Phase.STOP)


def test_leave_and_join_again_in_one_event_is_somebody_else(world: World) -> None:
    joined(world, "x")
    world.change("x", {1: 11, 2: 12, 3: 99})
    assert world.did("left", "failed", "comm_dropped") == [("left", "x", 3)]
    world.dlm.log.clear()
    world.change("x", {1: 11, 2: 12, 3: 99})
    assert world.did("left", "failed") == [], "the same member is not made anew: that would purge its locks"


def test_readmission_keeps_the_connection_and_the_locks(world: World) -> None:
    """S7: 3 was cut off and is back before any start was ordered without it."""
    joined(world, "x")
    comm = world.dlm.comms["3"]
    incarnation = world.incarnations[3]
    world.dies(3)
    world.stop("x")
    world.settle()
    assert world.acked("x", Phase.STOP)
    world.incarnations[3] = incarnation
    world.view()
    world.change("x", {1: 11, 2: 12, 3: 13})
    assert world.dlm.comms["3"] is comm
    assert world.did("left", "failed", "comm_dropped") == []


def test_second_death_during_recovery_aborts_it(world: World) -> None:
    joined(world, "x")
    world.dies(3)
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12})
    world.settle()
    world.dies(2)
    world.change("x", {1: 11})
    assert world.did("control", "failed") == [
        ("control", "x", 0),
        ("failed", "x", 3),
        ("control", "x", 1, (1, 2)),
        ("control", "x", 0),
        ("failed", "x", 2),
        ("control", "x", 1, (1,)),
    ]


def test_a_stop_supersedes_a_start_that_is_being_written(world: World) -> None:
    joined(world, "x")
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12})
    world.hint()
    assert world.lanes.ready() == ["x"]  # rmdir nodes/3
    world.stop("x")
    world.hint()
    assert len(world.lanes.jobs) == 1
    world.settle()
    assert world.acked("x", Phase.STOP)
    assert ("control", "x", 1, (1, 2)) not in world.dlm.log
    world.start("x", {1: 11, 2: 12})
    world.settle()
    assert world.did("left") == [("left", "x", 3)]


def test_a_member_that_died_after_the_start_was_ordered_is_not_started_with(world: World) -> None:
    joined(world, "x")
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12, 3: 13})
    world.dies(3)
    world.settle()
    assert world.did("control") == [("control", "x", 0)]
    world.change("x", {1: 11, 2: 12})
    assert world.did("failed") == [("failed", "x", 3)]


def test_two_lockspaces_both_stop_before_the_comm_goes(world: World) -> None:
    joined(world, "x", "y")
    world.dies(3)
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12})
    world.hint()
    # y was not told yet; x may not drop comms/3 under it.
    assert world.lanes.ready() == ["y"]
    world.step("y")
    assert world.lanes.ready() == ["comms/"]
    world.settle()
    assert world.dlm.log == [
        ("control", "x", 0),
        ("control", "y", 0),
        ("comm_dropped", 3),
        ("failed", "x", 3),
        ("control", "x", 1, (1, 2)),
    ]
    world.change("y", {1: 11, 2: 12})
    assert world.did("failed") == [("failed", "x", 3), ("failed", "y", 3)]


def test_a_slow_stop_of_one_lockspace_holds_up_no_other(world: World) -> None:
    joined(world, "x", "y")
    world.stop("x")
    world.stop("y")
    world.hint()
    assert world.lanes.ready() == ["x", "y"]
    world.step("y")
    assert world.acked("y", Phase.STOP)
    assert not world.acked("x", Phase.STOP)


def test_lost_stops_at_once_and_stays_stopped(world: World) -> None:
    joined(world, "x", "y")
    world.lose()
    assert world.did("control") == [("control", "x", 0), ("control", "y", 0)]
    assert world.noted().count("ls_lost") == 2
    world.bridge = world.switch.provider()
    world.session = world.bridge.attach(HANDLE, 0).session
    world.view()
    world.settle()
    assert all(ls.stopped for ls in world.dlm.lockspaces.values())


def test_a_join_that_nobody_will_answer_gets_an_error(world: World) -> None:
    world.open("x")
    world.settle()
    world.lose()
    assert world.did("event_done") == [("event_done", "x", "online", -errno.EIO)]


def test_a_bridge_that_dies_and_returns_stops_nothing(world: World) -> None:
    """S16: the groups are what the switch says, and it says nothing new."""
    joined(world, "x", "y")
    before = len(world.did("control"))
    world.bridge.close()
    world.settle()
    world.bridge = world.switch.provider()
    world.session = world.bridge.attach(HANDLE, 0).session
    world.view()
    world.settle()
    assert len(world.did("control")) == before
    assert not any(ls.stopped for ls in world.dlm.lockspaces.values())
    world.stop("x")
    world.hint()
    world.settle()
    assert world.acked("x", Phase.STOP)


def test_a_refused_join_is_answered_once_with_an_error(world: World) -> None:
    world.open("x")
    world.settle()
    world.left("x", errno.EACCES)
    world.settle()
    assert world.did("event_done") == [("event_done", "x", "online", -errno.EIO)]
    assert world.dlm.lockspaces == {}
    assert "ls_refused" in world.noted()
    world.mounted("x", {1: 1})


def test_the_switch_itself_refuses(world: World) -> None:
    other = world.switch.consumer()
    other.join(HANDLE, "dlm:x", Level.USER, GroupFlags.NONE, "somebody")
    world.open("x")
    world.settle()
    assert world.did("event_done") == [("event_done", "x", "online", -errno.EBUSY)]


def test_a_name_too_long_for_a_group(world: World) -> None:
    world.open("x" * 61)
    world.settle()
    assert world.did("event_done") == [("event_done", "x" * 61, "online", -errno.ENAMETOOLONG)]


def test_a_start_that_fails_is_tried_again_and_the_record_stays_true(world: World) -> None:
    joined(world, "x")
    world.dlm.fail = lambda op, path: errno.ENOMEM if op == "mkdir" and path.endswith("nodes/3") else 0
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12, 3: 99})
    world.settle()
    assert world.did("control")[-1] == ("control", "x", 0)
    assert 3 not in decode_record(world.port.claim("dlm"))[1]["x"].nodes
    world.dlm.fail = lambda op, path: 0
    world.glue.on_tick()
    world.settle()
    assert world.did("control")[-1] == ("control", "x", 1, (1, 2, 3))


def test_second_glue_is_told_who_runs(world: World) -> None:
    second = copy(world.glue)
    second._switch = world.switch.consumer()
    with pytest.raises(VcsError, match="another dlm_glue runs"):
        second.claim()


# --- successors -----------------------------------------------------------------------------------------------------------------------


def test_a_successor_changes_nothing_when_nothing_happened(world: World) -> None:
    joined(world, "x", "y")
    world.kill()
    world.boot()
    world.settle()
    assert world.dlm.log == []
    world.change("x", {1: 11, 2: 12, 3: 13})
    assert world.did("left", "failed", "comm_dropped") == []


def test_a_successor_sees_a_death_that_it_did_not_witness(world: World) -> None:
    joined(world, "x")
    world.kill()
    world.boots(3)
    world.stop("x")
    world.boot()
    world.settle()
    world.start("x", {1: 11, 2: 12, 3: 33})
    world.settle()
    assert world.did("comm_dropped", "failed", "left") == [("comm_dropped", 3), ("failed", "x", 3)]


@pytest.mark.parametrize("steps", range(1, 9))
def test_killed_after_each_step_of_a_renewal(world: World, steps: int) -> None:
    joined(world, "x")
    world.boots(3)
    world.stop("x")
    for _ in range(steps):
        world.hint()
        if world.group("x").phase is Phase.STOP and world.acked("x", Phase.STOP):
            world.start("x", {1: 11, 2: 12, 3: 33})
            world.hint()
        if world.lanes.ready():
            last = world.lanes.ready()[0]
            world.lanes.run(last, tell=False)
            world.kill()
            world.boot()
    world.settle()
    if not world.acked("x", Phase.START) and world.group("x").phase is Phase.STOP:
        world.start("x", {1: 11, 2: 12, 3: 33})
        world.settle()
    assert world.did("failed", "left") == [("failed", "x", 3)]
    assert world.dlm.lockspaces["x"].members[3] == world.dlm.comms["3"].seq


@pytest.mark.parametrize("told", [True, False])
def test_a_pending_join_survives(world: World, told: bool) -> None:
    """Heard by the predecessor, or sent while there was none."""
    if told:
        world.open("x")
        world.settle()
    world.kill()
    if not told:
        world.open("x")
    world.boot()
    world.settle()
    world.change("x", {1: 1})
    assert world.did("event_done") == [("event_done", "x", "online", 0)]


def test_a_join_whose_uevent_was_lost_is_found(world: World) -> None:
    world.kill()
    world.open("x")
    world.uevents.queue.clear()
    world.boot()
    world.settle()
    world.change("x", {1: 1})
    assert world.did("event_done") == [("event_done", "x", "online", 0)]


def test_killed_between_event_done_and_knowing_it(world: World) -> None:
    world.open("x")
    world.settle()
    world.stop("x")
    world.settle()
    world.start("x", {1: 1})
    world.hint()
    world.step("x")  # control=1
    assert world.lanes.ready() == ["x"]  # event_done
    world.kill(after="x")
    world.boot()
    world.settle()
    world.recovered("x")
    world.settle()
    assert world.acked("x", Phase.START)
    assert world.did("event_done") == [("event_done", "x", "online", 0)], "never twice: it would answer the leave"


def test_killed_before_control_1(world: World) -> None:
    """Nothing shows whether it was written; no sign of a recovery for seconds means that it was not."""
    joined(world, "x")
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12, 3: 13})
    world.hint()
    assert world.lanes.ready() == ["x"]
    world.kill()
    world.boot()
    world.settle()
    assert world.did("control") == [("control", "x", 0)]
    world.glue.on_tick()
    world.settle()
    assert world.did("control")[-1] == ("control", "x", 1, (1, 2, 3))
    world.recovered("x")
    assert world.acked("x", Phase.START)
    assert world.did("left", "failed") == []


def test_a_pending_leave_survives(world: World) -> None:
    joined(world, "x")
    world.release("x")
    world.settle()
    world.kill()
    world.stop("x")
    world.boot()
    world.settle()
    assert world.acked("x", Phase.STOP)
    world.left("x")
    world.settle()
    assert world.did("event_done") == [("event_done", "x", "offline", 0)]


def test_a_group_without_a_lockspace_is_left(world: World) -> None:
    joined(world, "x")
    world.kill()
    world.dlm.lockspaces.clear()
    world.boot()
    world.settle()
    world.stop("x")
    world.settle()
    world.left("x")
    world.settle()
    assert world.dlm.spaces == {}
    assert world.glue.state.spaces == {}


def test_a_lockspace_that_no_group_governs_is_stopped(world: World) -> None:
    joined(world, "x")
    world.left("x", errno.ETIMEDOUT)
    world.settle()
    assert world.did("control") == [("control", "x", 0)]
    assert "ls_lost" in world.noted()


# --- the record -----------------------------------------------------------------------------------------------------------------------


def test_the_record_fits_and_says_what_it_was_given() -> None:
    import random

    from dlm_glue.state import RECORD_ENTRIES_MAX, RECORD_MAX, Space, Who

    rng = random.Random(1)
    comms = {n: rng.getrandbits(64) | 1 for n in range(2, 31)}
    nodes = {n: Who(i, 0) for n, i in comms.items()} | {1: Who(rng.getrandbits(64), 0)}
    spaces = {}
    for s in range(RECORD_ENTRIES_MAX // len(nodes)):
        spaces[f"ls{s}"] = Space(
            f"ls{s}", event=rng.getrandbits(63), nodes={n: Who(w.incarnation, rng.getrandbits(63)) for n, w in nodes.items()}
        )
    state = State(nodeid=1, comms=comms, spaces=spaces)
    data = encode_record(state)
    assert len(data) <= RECORD_MAX
    assert decode_record(data) == (comms, {name: Applied(s.event, dict(s.nodes)) for name, s in spaces.items()})


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[]",
        b'{"v":2}',
        b'{"v":1,"z":"!"}',
        b'{"v":1,"comms":{},"spaces":{"x":{"1":".1"}}}',
        b'{"v":1,"comms":{},"spaces":{"x":["1",{"1":".1"}]}}',
    ],
)
def test_a_record_of_somebody_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_record(data)
