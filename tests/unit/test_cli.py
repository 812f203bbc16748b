# SPDX-License-Identifier: GPL-2.0-only
"""`vcs`, verb by verb, against a control socket: what vcsd answers."""

from __future__ import annotations

import json
import sys

import pytest

from tests.unit.cli_run import Backend, Run
from vcs.cli import leave as leave_module


def test_status(run: Run, backend: Backend) -> None:
    got = run("status")
    assert (got.code, got.err) == (0, "")
    assert got.out == (
        "cluster   alpha\n"
        "node      node1 (1)\n"
        "vcsd      running, pid 4711, for 2 h 5 min\n"
        "provider  user, attached\n"
        "view      7, ring 34.1, quorate, members 1,3\n"
        "quorum    2 of 3 votes, 2 needed\n"
        "lease     5000 ms, 4950 ms left\n"
        "engine    type totem, state operational\n"
        "groups    1\n"
        "fencing   node2 (2), failed: agent said no (groups that wait: gfs2:data)\n"
        "\n"
        "a note\n"
    )
    assert run("status", "--json").json == {"version": 1, "status": backend.status()}


def test_nodes_and_groups(run: Run, backend: Backend) -> None:
    assert run("nodes").out == (
        "ID  NAME   STATE   VOTES  ADDRESSES  INCARNATION\n"
        "1*  node1  member  1      192.0.2.1  000000000000000a\n"
        "2   node2  failed  1      192.0.2.2  -\n"
    )
    assert run("groups").out == (
        "NAME       LEVEL         STATE   EVENT  PHASE  MEMBERS  OWNER     FLAGS\n"
        "gfs2:data  lock_manager  member  34.2   stop*  1-3      dlm_glue  persistent,needs_fence\n"
    )
    assert run("nodes", "--json").json == {"version": 1, "nodes": backend.nodes()}
    assert run("groups", "--json").json == {"version": 1, "groups": backend.groups()}


def test_quorum_says_why_there_is_none(run: Run, backend: Backend) -> None:
    backend.quorum = {"votes": 1, "expected": 3, "needed": 2, "quorate": False, "flags": ["wait_for_all"], "exclusive": True,
                      "voters": [1, 2], "missing": [2], "tie_breaker": 0}
    backend.waits = [{"subject": "cluster alpha", "what": "no quorum: 1 of 3", "on": [], "remedy": ""}, *backend.waits]
    got = run("quorum")
    assert got.out == (
        "quorate  NO\n"
        "votes    1 of 3 are here, 2 are needed\n"
        "voters   node1 (1), node2 (2)\n"
        "missing  node2 (2)\n"
        "flags    wait_for_all\n"
        "not quorate: no quorum: 1 of 3\n"
    )
    assert run("quorum", "--json").json["quorum"] == {**backend.quorum, "why_not": ["no quorum: 1 of 3"]}


def test_what_is_ordered_for_the_whole_cluster(run: Run, backend: Backend) -> None:
    assert run("quorum", "expected", "3").out == "ordered: 3 votes are expected\n"
    assert run("maintenance", "on", "--for", "90s", "--reason", "new switch").code == 0
    assert run("maintenance", "on", "--json").json["maintenance"] == {"for_ms": 600_000, "reason": ""}
    assert run("maintenance", "off").out == "maintenance is over\n"
    assert run("shutdown", "--cluster", "--yes").code == 0
    assert backend.wishes == [
        ("expect_votes", 3), ("maintenance", 90_000, "new switch"), ("maintenance", 600_000, ""), ("maintenance", 0, ""), ("shut_down",),
    ]
    backend.refuse = "node 2 is in gfs2:data"
    got = run("shutdown", "--cluster", "--yes")
    assert got.code != 0
    assert got.err == "vcs: node 2 is in gfs2:data; do something about it\n"


def test_what_is_not_understood_is_not_ordered(run: Run, backend: Backend) -> None:
    assert "--cluster" in run("shutdown", "--yes").err
    assert "24h" in run("maintenance", "on", "--for", "25h").err
    assert "90s, 10m or 2h" in run("maintenance", "on", "--for", "soon").err
    assert run("quorum", "expected", "0").code == 2
    assert backend.wishes == []


def test_maintenance_is_shown_loudly(run: Run, backend: Backend) -> None:
    assert run("maintenance", "status").out == "no maintenance\n"
    backend.maintained = {"reason": "new switch", "by": 2, "for_ms": 600_000, "left_ms": 540_000}
    assert run("maintenance", "status").out == "maintenance for another 9 min, asked for at node 2: new switch\n"
    assert "MAINTENANCE  nobody is fenced, no machine resets itself, for another 9 min (new switch)\n" in run("status").out


def test_why(run: Run, backend: Backend) -> None:
    assert run("why").out == (
        "node node2 waits for 65 s\n"
        "  for     the fence agent\n"
        "  on      node1\n"
        "  remedy  vcs fence ack 2\n"
        "group gfs2:data waits\n"
        "  for     the fence of node2\n"
        "  on      node1, node3\n"
    )
    assert run("why", "--json").json == {"version": 1, "waits": backend.waits}
    backend.waits = []
    assert run("why").out == "nothing waits\n"


def test_events_of_vcsd(run: Run, backend: Backend) -> None:
    lines = run("events").out.splitlines()
    assert lines[0].endswith(" node1 vcsd view members=[1, 3]")
    assert lines[1].endswith(' node1 vcsd evil text="\\u001b[2J gone"')  # nothing of a peer's steers the terminal
    assert [json.loads(line).get("event") for line in run("events", "--json", "--last", "1").out.splitlines()] == [None, "evil"]
    assert json.loads(run("events", "--json").out.splitlines()[0]) == {"version": 1}


def test_leave_names_what_holds_the_node(run: Run, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave_module, "by_lockspace", lambda: {"data": ["/mnt/data"]})
    got = run("leave")
    assert got.code == 3
    assert got.out == "group gfs2:data (lock_manager, of dlm_glue, mounted at /mnt/data)\n"
    assert got.err == "vcs: node 1 is in groups: gfs2:data; unmount and stop what uses them, then try again\n"
    got = run("leave", "--json")
    assert got.code == 3
    assert got.json["leave"] == {
        "left": False,
        "message": "node 1 is in groups: gfs2:data",
        "remedy": "unmount and stop what uses them, then try again",
        "holders": [{"group": "gfs2:data", "level": "lock_manager", "owner": "dlm_glue", "mounts": ["/mnt/data"]}],
    }
    backend.refuse_leave = False
    assert (run("leave").out, run("leave", "--json").json) == ("left the cluster\n", {"version": 1, "leave": {"left": True}})


def test_fence_ack_asks_first(run: Run, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["n\n", "y\n", ""])

    class Typed:
        def readline(self, *_: object) -> str:
            return next(answers)

    monkeypatch.setattr(sys, "stdin", Typed())
    got = run("fence", "ack", "node2")
    assert (got.code, backend.acked) == (1, [])
    assert "node2 (2) is OFF" in got.err and "not confirmed" in got.err
    got = run("fence", "ack", "2")
    assert (got.code, backend.acked) == (0, [2])
    assert got.out == "acknowledged: node2 (2) is off\n"
    got = run("fence", "ack", "node2")  # the end of the input is no yes
    assert (got.code, backend.acked) == (1, [2])
    assert run("fence", "ack", "node2", "--yes", "--json").json == {"version": 1, "fence_ack": {"nodeid": 2}}
    assert backend.acked == [2, 2]
    got = run("fence", "ack", "node9", "--yes")
    assert (got.code, got.err) == (1, "vcs: there is no node 'node9'; one of: node1 (1), node2 (2)\n")


def test_another_handle_than_the_one_served(run: Run, backend: Backend) -> None:
    assert run("status", "--handle", "alpha").code == 0
    got = run("status", "--handle", "beta")
    assert got.code == 1
    assert "serves 'alpha', not 'beta'; give the other one's --run-dir" in got.err


# --- without vcsd -----------------------------------------------------------------------------------------------------
