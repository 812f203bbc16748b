# SPDX-License-Identifier: GPL-2.0-only
"""`vcs` without vcsd: what the kernel's sysfs tree and the file of events say."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli_run import WAIT_S, Backend, Run, kernel, put
from vcs.events import EventLog

ROOT = Path(__file__).parents[2]
CONFIG = '[cluster]\nname = "alpha"\nkey_file = "k"\n[[node]]\nid = 1\nname = "a"\naddress = "192.0.2.1"\n'


def test_status_by_the_kernel(run: Run) -> None:
    kernel(run)
    got = run("status")
    assert got.code == 0
    assert got.out == (
        "vcsd is not running: this is what the kernel holds\n"
        "\n"
        "cluster   alpha\n"
        "node      1\n"
        "vcsd      NOT RUNNING\n"
        "provider  user, attached\n"
        "view      7, ring 34.1, quorate, members 1-3\n"
        "lease     5000 ms, 4000 ms left\n"
        "groups    1\n"
        "\n"
        "The kernel still holds a provider, but no vcsd answers on its socket. "
        "Remedy: look at `systemctl status vcsd`, or give its --run-dir.\n"
    )
    document = run("status", "--json").json
    assert document["note"] == "vcsd is not running: this is what the kernel holds"
    assert document["status"]["source"] == "kernel"
    assert document["status"]["view"] == {"generation": 7, "ring": "34.1", "quorate": True, "members": [1, 2, 3]}


def test_a_lost_provider_is_said_plainly(run: Run) -> None:
    kernel(run, changes={"provider/state": "lost", "groups/gfs2:data/state": "lost", "lease/remaining_ms": 0})
    got = run("status")
    assert "vcsd      NOT RUNNING\nprovider  user, lost\n" in got.out
    assert "lease     5000 ms, not running\n" in got.out
    assert "The provider is LOST: every group here is stopped" in got.out
    assert "they fence it" not in got.out and "and fence it; its groups do not come back" in got.out
    assert run("groups").out.splitlines()[-1].split()[:3] == ["gfs2:data", "lock_manager", "lost"]
    got = run("why")
    assert "cluster alpha waits\n  for     the provider is lost and 1 group with it: they stay stopped\n" in got.out
    assert "remedy  let this node be fenced, or reboot it" in got.out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"provider/state": "none"}, "no provider has attached"),
        ({"provider/state": "orphan"}, "the provider's process is gone; without a new one this node will have failed in a moment"),
        ({"view/quorate": 0}, "quorum: nothing starts without it"),
        ({"groups/gfs2:data/orphan_since_ms": 1500}, "nobody has acted for it for 1500 ms: its consumer is gone"),
        ({"groups/gfs2:data/phase": "stop", "groups/gfs2:data/acked_event": 1}, "the acknowledgement of stop 34.2 on this node"),
        ({"groups/gfs2:data/phase": "stop"}, "stopped by event 34.2: the start, which needs every member's stop"),
        ({"groups/gfs2:data/phase": "start"}, "started by event 34.2: every member's recovery"),
        ({}, "nothing waits"),
    ],
)
def test_why_by_the_kernel(run: Run, changes: dict[str, object], expected: str) -> None:
    kernel(run, changes=changes)
    assert expected in run("why").out


def test_why_names_what_no_daemon_knows(run: Run, backend: Backend) -> None:
    kernel(run)
    put(run.tree.parent / "kernel", {"config/dlm/cluster/recover_callbacks": 0, "dlm/data/id": 7})
    backend.waits = []
    got = run("why").out
    assert got.startswith("the DLM waits\n  for     recover_callbacks is 0:") and "lockspace data waits\n" in got


def test_nodes_and_groups_by_the_kernel(run: Run) -> None:
    kernel(run)
    nodes = run("nodes", "--json").json["nodes"]
    assert [(n["nodeid"], n["local"], n["incarnation"]) for n in nodes] == [(1, True, "000000000000000a"), (2, False, ""), (3, False, "")]
    (group,) = run("groups", "--json").json["groups"]
    assert " 3 of them " in run("groups").out
    assert group == {
        "name": "gfs2:data", "level": "lock_manager", "flags": ["persistent", "needs_fence"], "state": "member", "event": "34.2",
        "phase": "finish", "acked": True, "members": [], "nr_members": 3, "owner": "dlm_glue", "orphan_since_ms": 0, "age_ms": 1000,
    }  # fmt: skip


def test_which_cluster(run: Run) -> None:
    got = run("status")
    assert (got.code, got.err) == (69, "vcs: the kernel module vcs is not loaded; `modprobe vcs`, then start vcsd\n")
    (run.tree / "providers").mkdir(parents=True)
    got = run("nodes")
    assert (got.code, got.err) == (69, "vcs: this kernel holds no cluster; start vcsd: `systemctl start vcsd`\n")
    kernel(run)
    kernel(run, "beta")
    got = run("groups")
    assert (got.code, got.err) == (1, "vcs: this kernel holds 2 clusters; say which with --handle: alpha, beta\n")
    assert run("groups", "--handle", "beta").code == 0
    got = run("groups", "--handle", "gamma")
    assert (got.code, got.err) == (69, "vcs: no cluster with the handle 'gamma'; there are alpha, beta\n")


def test_what_vanishes_or_is_odd_in_sysfs_is_no_traceback(run: Run) -> None:
    kernel(run, changes={"view/members": "1-,x,7-9,4-2,\xff", "view/generation": "many"})
    (run.tree / "alpha" / "view" / "ring").unlink()
    shutil.rmtree(run.tree / "alpha" / "groups")
    assert run("status").code == run("groups").code == run("why").code == 0
    assert [n["nodeid"] for n in run("nodes", "--json").json["nodes"]] == [1, 7, 8, 9]


def test_commands_that_change_need_vcsd(run: Run) -> None:
    kernel(run)
    for command in (("leave",), ("fence", "ack", "2", "--yes")):
        got = run(*command)
        assert (got.code, got.err) == (75, "vcs: vcsd is not running; start it with `systemctl start vcsd`\n")


def test_events_from_the_file(run: Run, tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "events.jsonl"), "node1", "dlm_glue")
    log.note("plan", steps=2, text="two words")
    assert run("events").out.endswith(' node1 dlm_glue plan steps=2 text="two words"\n')


def test_events_follow_goes_on(tmp_path: Path) -> None:
    """A process of its own: following ends only by a signal."""
    log = EventLog(str(tmp_path / "events.jsonl"), "node1", "vcsd")
    for number in range(3):
        log.note("before", n=number)
    # A shell that puts the tests in the background has SIGINT ignored, and a child would inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "vcs.cli.main", "events", "--follow", "--json", "--last", "1",
               "--run-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"version": 1}
        assert json.loads(process.stdout.readline())["n"] == 2
        log.note("after", n=3)
        assert json.loads(process.stdout.readline())["n"] == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert process.stderr is not None and process.stderr.read().strip() == ""


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "events.jsonl"), "node1", "vcsd")
    for number in range(2000):
        log.note("e", n=number, text="x" * 100)
    command = [sys.executable, "-m", "vcs.cli.main", "events", "--run-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(WAIT_S), process.stderr.read()) == (1, b"")


# --- configuration and key --------------------------------------------------------------------------------------------

CONFIG = '[cluster]\nname = "alpha"\nkey_file = "k"\n[[node]]\nid = 1\nname = "a"\naddress = "192.0.2.1"\n'
