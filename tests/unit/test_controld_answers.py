# SPDX-License-Identifier: GPL-2.0-only
"""What dlm_tool is told, from the real plan on the userland switch: a lockspace that is normal, recovering, or waits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from dlm_glue import controld_answers as answers
from dlm_glue.controld_answers import Options, Sight
from dlm_glue.controld_history import History, Now
from dlm_glue.controld_log import LoggedTree, LogRing
from dlm_glue.controld_wire import Change, LockspaceFlag, NodeFlag, NodesOption, StateType, Wait
from tests.fakes.dlm import FakeDlm
from tests.fakes.glue import World
from tests.unit.coordinator_story import Story


class Told:
    """A world that is watched, and the coordinator's picture as the test draws it."""

    def __init__(self) -> None:
        self.world = World()
        self.history = History()
        self.second = 100
        self.picture: dict[str, Any] | None = {
            "mode": "primary", "regular": True, "ring": "7.1", "groups": [], "obligations": [],
            "nodes": [{"nodeid": n, "status": "member", "present": True} for n in (1, 2, 3)],
        }  # fmt: skip
        self.world.glue.watchers.append(lambda state: self.history.watch(state, self.now()))

    def now(self) -> Now:
        return Now(self.second, 1_700_000_000 + self.second)

    def sight(self) -> Sight:
        sight = Sight(self.world.glue.state, self.history, self.now(), self.picture)
        self.history.watch(sight.state, sight.now)
        if self.picture is not None:
            self.history.owed(answers.owed_to(sight), sight.now)
        return sight

    def ls(self, name: str = "x") -> Any:
        found = answers.lockspace(self.sight(), name)
        assert found is not None
        return found

    def nodes(self, option: int = NodesOption.ALL) -> dict[int, Any]:
        return {n.nodeid: n for n in answers.nodes(self.sight(), "x", option) or ()}

    def group(self, members: tuple[int, ...], *, stopped: tuple[int, ...] = (), phase: str = "stop") -> None:
        assert self.picture is not None
        self.picture["groups"] = [
            {"name": "dlm:x", "phase": phase, "members": [{"nodeid": n} for n in members], "joining": [], "leaving": [],
             "stopped": list(stopped), "started": []}
        ]  # fmt: skip

    def owes(self, nodeid: int, phase: str = "pending", fencer: int = 0) -> None:
        assert self.picture is not None
        self.picture["obligations"] = [
            {"nodeid": nodeid, "incarnation": 1, "groups": ["dlm:x"], "everything": False, "phase": phase, "fencer": fencer, "detail": ""}
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    t = Told()
    yield t
    assert t.world.dlm.violations == []
    t.world.close()


def states(data: bytes) -> list[tuple[int, int, dict[str, str]]]:
    found = []
    while data:
        kind, _, nodeid, _, _, length, _ = struct.unpack("=2Ii4I", data[:28])
        text = data[28 : 28 + length].rstrip(b"\0").decode()
        found.append((kind, nodeid, dict(w.split("=", 1) for w in text.split())))
        data = data[28 + length :]
    return found


def test_normal(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12})
    ls = told.ls()
    assert (ls.name, ls.global_id, ls.flags) == ("x", zlib.crc32(b"dlm:ls:x\0"), LockspaceFlag.NONE)
    assert ls.previous == Change(2, 2, 0, 0, 0, False, 1, 1)
    assert ls.following == Change()
    assert {n: (v.flags, v.added_seq, v.removed_seq) for n, v in told.nodes().items()} == {
        1: (NodeFlag.MEMBER | NodeFlag.START, 1, 0), 2: (NodeFlag.MEMBER | NodeFlag.START, 1, 0),
    }  # fmt: skip
    assert told.nodes(NodesOption.NEXT) == {}
    assert told.nodes(9) == {}


def test_a_join_that_waits_has_no_change_yet(told: Told) -> None:
    told.world.open("x")
    told.world.settle()
    ls = told.ls()
    assert ls.flags == LockspaceFlag.JOINING | LockspaceFlag.KERNEL_STOPPED
    assert (ls.previous, ls.following) == (Change(), Change())


def test_a_member_joins(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12})
    told.world.stop("x")
    told.world.settle()
    told.group((1, 2, 3), stopped=(1, 3))
    ls = told.ls()
    assert ls.flags == LockspaceFlag.KERNEL_STOPPED
    assert ls.following == Change(3, 1, 0, 0, 1, True, 2, 2), "one message is waited for: node 2's"
    assert told.nodes(NodesOption.NEXT)[3].flags == NodeFlag.MEMBER | NodeFlag.START
    assert told.nodes(NodesOption.NEXT)[2].flags == NodeFlag.MEMBER
    told.world.start("x", {1: 11, 2: 12, 3: 13})
    told.world.settle()
    assert told.ls().previous == Change(3, 1, 0, 0, 0, False, 2, 2), "the kernel recovers: the change is done for dlm_controld"
    assert told.ls().flags == LockspaceFlag.NONE


def dead(told: Told, nodeid: int = 3) -> None:
    told.world.mounted("x", {1: 11, 2: 12, 3: 13})
    told.second = 228
    told.world.dies(nodeid)
    told.world.stop("x")
    told.world.settle()
    told.group((1, 2), stopped=(1, 2))


def test_waiting_for_a_fence(told: Told) -> None:
    dead(told)
    told.owes(3)
    ls = told.ls()
    assert ls.following == Change(2, 0, 1, 1, Wait.FENCING, False, 2, 2)
    victim = told.nodes()[3]
    assert victim.flags == NodeFlag.NEED_FENCING
    assert (victim.fail_reason, victim.removed_seq, victim.fail_monotime, victim.fail_walltime) == (3, 2, 228, 1_700_000_228)
    told.second = 231
    rows = {n: v for k, n, v in states(answers.status(told.sight())) if k == StateType.DAEMON_NODE}
    assert rows[3]["member"] == "0" and rows[3]["need_fencing"] == "1" and rows[3]["left_reason"] == "nodedown"
    assert rows[3]["fail_monotime"] == "228" and rows[3]["fence_actor_last"] == "0"
    told.owes(3, "launched", 2)
    rows = {n: v for k, n, v in states(answers.status(told.sight())) if k == StateType.DAEMON_NODE}
    assert (rows[3]["fence_actor_last"], rows[3]["fence_result_wait"], rows[3]["fence_pid_wait"]) == ("2", "1", "0")
    # It is done.
    assert told.picture is not None
    told.picture["obligations"] = []
    told.second = 233
    rows = {n: v for k, n, v in states(answers.status(told.sight())) if k == StateType.DAEMON_NODE}
    assert (rows[3]["need_fencing"], rows[3]["fence_monotime"], rows[3]["fence_actor_done"]) == ("0", "233", "2")
    told.world.start("x", {1: 11, 2: 12})
    told.world.settle()
    assert told.ls().previous == Change(2, 0, 1, 1, 0, False, 2, 2)
    assert told.nodes()[3].fail_reason == 3


def test_waiting_for_quorum_and_two_changes_made_into_one(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12, 3: 13})
    del told.world.incarnations[2], told.world.incarnations[3]
    told.world.view(quorate=False)
    told.world.stop("x")
    told.world.settle()
    assert told.picture is not None
    told.picture["mode"] = "inquorate"
    told.group((1, 2, 3))
    ls = told.ls()
    assert ls.flags == LockspaceFlag.KERNEL_STOPPED
    assert ls.following == Change(1, 0, 2, 2, Wait.QUORUM, False, 2, 2)
    told.picture = None
    assert told.ls().following.wait_condition == Wait.QUORUM, "without vcsd the view says so"
    told.world.stop("x")
    told.world.settle()
    assert (told.ls().following.combined_seq, told.ls().following.seq) == (2, 3)


def test_without_vcsd_nobody_orders_a_start(told: Told) -> None:
    dead(told)
    told.picture = None
    assert told.ls().following == Change(2, 0, 1, 1, Wait.RINGID, False, 2, 2)


def test_a_ring_that_forms(told: Told) -> None:
    dead(told)
    assert told.picture is not None
    told.picture["regular"] = False
    assert told.ls().following.wait_condition == Wait.RINGID


def test_a_clean_leave_of_another(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12, 3: 13})
    told.world.change("x", {1: 11, 2: 12})
    assert told.ls().previous == Change(2, 0, 1, 0, 0, False, 2, 2)
    gone = told.nodes()[3]
    assert (gone.flags, gone.removed_seq, gone.fail_reason) == (NodeFlag.NONE, 2, 0)


def test_own_leave_and_what_is_not_there(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12})
    told.world.release("x")
    told.world.settle()
    assert LockspaceFlag.LEAVING in told.ls().flags
    told.world.stop("x")
    told.world.settle()
    told.world.left("x")
    told.world.settle()
    assert answers.lockspaces(told.sight()) == []
    assert answers.lockspace(told.sight(), "x") is None
    assert answers.nodes(told.sight(), "x", NodesOption.ALL) is None
    assert answers.node(told.sight(), "x", 1) is None
    assert told.history.lockspaces == {}


def test_a_return_with_another_incarnation(told: Told) -> None:
    dead(told)
    told.world.start("x", {1: 11, 2: 12})
    told.world.settle()
    told.world.recovered("x")
    told.world.settle()
    told.world.boots(3)
    told.world.change("x", {1: 11, 2: 12, 3: 33})
    node = told.nodes()[3]
    assert (node.flags, node.added_seq, node.removed_seq) == (NodeFlag.MEMBER | NodeFlag.START, 3, 2)


def test_status_of_a_cold_start(told: Told) -> None:
    assert told.picture is not None
    told.picture |= {
        "mode": "waiting",
        "nodes": [{"nodeid": 1, "status": "member", "present": True}, {"nodeid": 9, "status": "unseen", "present": False}],
    }
    rows = states(answers.status(told.sight()))
    assert rows[0][0] == StateType.DAEMON and rows[0][2]["fence_in_progress_unknown"] == "1"
    assert [(k, n) for k, n, _ in rows if k == StateType.STARTUP_NODE] == [(StateType.STARTUP_NODE, 9)]


def test_status_has_dlm_controlds_words(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12})
    rows = states(answers.status(told.sight()))
    assert list(rows[0][2]) == [
        "member_count", "joined_count", "remove_count", "daemon_ringid", "cluster_ringid", "quorate", "fence_pid",
        "fence_in_progress_unknown", "zombie_count", "monotime", "stateful_merge_wait",
    ]  # fmt: skip
    assert list(rows[1][2]) == [
        "member", "killed", "left_reason", "need_fencing", "delay_fencing", "fence_pid", "fence_pid_wait", "fence_result_wait",
        "fence_actor_last", "fence_actor_done", "add_time", "rem_time", "fail_walltime", "fail_monotime", "fence_walltime",
        "fence_monotime",
    ]  # fmt: skip
    assert [n for k, n, _ in rows if k == StateType.DAEMON_NODE] == [1, 2, 3]


def test_the_coordinators_picture_has_what_is_read_here() -> None:
    story = Story()
    story.boot(1, 2, 3)
    picture = story.nodes[1].coordinator.describe()
    assert {"mode", "regular", "ring", "groups", "obligations", "nodes"} <= picture.keys()
    assert isinstance(picture["nodes"], list) and {"nodeid", "status", "present"} <= picture["nodes"][0].keys()
    assert answers.FORMING[0] == picture["mode"]


def test_fs_notified(told: Told) -> None:
    told.world.mounted("x", {1: 11, 2: 12})
    assert answers.fs_notified(told.sight(), "x", 2) == -11
    assert answers.fs_notified(told.sight(), "x", 7) == -3
    assert answers.fs_notified(told.sight(), "y", 2) == -2


def test_options() -> None:
    options = Options({"port": 4000})
    assert "port=4000 (dlm.conf)\n" in options.dump() and "log_debug=0\n" in options.dump()
    assert options.set("log_debug=5 enable_fencing=0 nonsense=1 log_debug") == [
        "enable_fencing cannot be set here", "nonsense is no option", "log_debug has no number",
    ]  # fmt: skip
    assert "log_debug=1 (set_config)\n" in options.dump()
    options.set("log_debug=restore")
    assert options.value("log_debug") == 0
    options.set("daemon_debug=1 restore_all")
    assert options.chosen == {}


def test_the_log_is_a_ring_of_whole_lines() -> None:
    log = LogRing(clock=lambda: 13.7, bytes_max=100)
    log.note({"event": "ls_started", "t": 1, "wall": 2, "node": "n", "source": "s", "lockspace": "gfs", "members": [1, 2]})
    assert log.text() == "13 gfs ls_started members 1,2\n"
    for i in range(20):
        log.add(f"line {i}")
    assert log.text().endswith("13 line 19\n") and len(log.text()) <= 100
    assert log.text().startswith("13 line")
    log.add("two\nlines")
    assert log.text().endswith("13 two lines\n")


def test_the_trees_changes_are_logged() -> None:
    log = LogRing(clock=lambda: 1.0)
    tree = LoggedTree(FakeDlm(), log)
    tree.mkdir("/cfg/dlm/cluster")
    tree.write("/cfg/dlm/cluster/cluster_name", b"lab")
    with pytest.raises(FileNotFoundError):
        tree.rmdir("/cfg/dlm/cluster/comms/9")
    assert log.text() == '1 mkdir "/cfg/dlm/cluster"\n1 write "lab" to "/cfg/dlm/cluster/cluster_name"\n'
