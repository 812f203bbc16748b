# SPDX-License-Identifier: GPL-2.0-only
"""`vcs`, verb by verb: against a real control socket with a fixed backend, and against a tree like /sys/kernel/vcs."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import vcs
from tests.fakes.wishes import Wishes
from vcs import sysfs
from vcs.cli import leave as leave_module
from vcs.cli.main import COMMANDS, main
from vcs.cli.render import clean, duration, ranges
from vcs.control import ControlServer
from vcs.errors import VcsError
from vcs.events import EventLog

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0


class Backend(Wishes):
    """Node 1 of alpha: node 2 has failed and is being fenced, a lockspace waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.acked: list[int] = []
        self.refuse_leave = True
        self.quorum: Any = {"votes": 2, "expected": 3, "needed": 2}
        self.maintained: Any = None
        self.ring_report: Any = {}
        self.waits: list[Any] = [
            {"subject": "node node2", "what": "the fence agent", "on": ["node1"], "remedy": "vcs fence ack 2", "since_ms": 65_000},
            {"subject": "group gfs2:data", "what": "the fence of node2", "on": ["node1", "node3"], "remedy": ""},
        ]

    def status(self) -> Any:
        return {
            "source": "vcsd", "handle": "alpha", "cluster": "alpha", "nodeid": 1, "node": "node1",
            "provider": {"type": "user", "state": "attached"},
            "view": {"generation": 7, "ring": "34.1", "quorate": True, "members": [1, 3]},
            "groups": 1,
            "daemon": {"pid": 4711, "version": "0.1.0", "uptime_ms": 7_500_000},
            "quorum": self.quorum,
            **({"maintenance": self.maintained} if self.maintained else {}),
            "lease": {"lease_ms": 5000, "remaining_ms": 4950},
            "engine": {"type": "totem", "state": "operational", "ring": {"hidden": 1}},
            "fencing": [{"nodeid": 2, "name": "node2", "incarnation": "00000000000000ff", "state": "failed",
                         "detail": "agent said no", "groups": ["gfs2:data"]}],
            "notes": ["a note"],
        }  # fmt: skip

    def nodes(self) -> Any:
        return [
            {"nodeid": 1, "name": "node1", "state": "member", "local": True, "votes": 1, "incarnation": "0" * 15 + "a",
             "addresses": ["192.0.2.1"]},
            {"nodeid": 2, "name": "node2", "state": "failed", "local": False, "votes": 1, "incarnation": "", "addresses": ["192.0.2.2"]},
        ]  # fmt: skip

    def groups(self) -> Any:
        return [{"name": "gfs2:data", "level": "lock_manager", "flags": ["persistent", "needs_fence"], "state": "member", "event": "34.2",
                 "phase": "stop", "acked": False, "members": [1, 2, 3], "owner": "dlm_glue", "orphan_since_ms": 0}]  # fmt: skip

    def why(self) -> Any:
        return self.waits

    async def leave(self) -> None:
        if self.refuse_leave:
            error = VcsError("node 1 is in groups: gfs2:data", "unmount and stop what uses them, then try again")
            error.exit_code = 3
            raise error

    def fence_ack(self, nodeid: int) -> None:
        self.acked.append(nodeid)

    def ring(self) -> Any:
        return self.ring_report

    def describe(self) -> Any:
        return {}

    async def metrics(self) -> str:
        return "# TYPE vcs_quorate gauge\nvcs_quorate 1.0\n"

    def open_channel(self, group: str, explicit: bool) -> Any:
        raise VcsError("no channel here")

    async def events(self, follow: bool) -> AsyncIterator[Mapping[str, object]]:
        assert not follow  # the command follows the file itself
        yield {"t": 1, "wall": 1, "node": "node1", "source": "vcsd", "event": "view", "members": [1, 3]}
        yield {"t": 2, "wall": 2, "node": "node1", "source": "vcsd", "event": "evil", "text": "\x1b[2J gone"}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """Served on tmp_path/vcs.sock, which VCS_RUN_DIR of the fixture `run` names."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = Backend()
    server = ControlServer(str(tmp_path / "vcs.sock"), served)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(WAIT_S)
    yield served
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(WAIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WAIT_S)
    loop.close()


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Run:
    """Calls `vcs` in this process, as the shell would: main() with its exit codes, not click alone."""

    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.tree = tmp_path / "sysfs"

    def __call__(self, *arguments: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        got = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, got.out, got.err)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("VCS_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("VCS_SYSFS", str(tmp_path / "sysfs"))
    return Run(tmp_path, capsys)


def put(root: Path, files: Mapping[str, object]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


CLUSTER = {
    "cluster_name": "alpha", "nodeid": 1, "incarnation": 10, "change_seq": 9,
    "provider/type": "user", "provider/state": "attached", "provider/session_age_ms": 5,
    "view/generation": 7, "view/ring": "34.1", "view/quorate": 1, "view/nr_members": 3, "view/members": "1-3",
    "lease/state": "armed", "lease/lease_ms": 5000, "lease/remaining_ms": 4000,
    "groups/gfs2:data/level": "lock-manager", "groups/gfs2:data/flags": "persistent,needs-fence", "groups/gfs2:data/state": "member",
    "groups/gfs2:data/event": 34 << 20 | 2, "groups/gfs2:data/phase": "finish", "groups/gfs2:data/acked_event": 34 << 20 | 2,
    "groups/gfs2:data/nr_members": 3, "groups/gfs2:data/owner": "dlm_glue",
    "groups/gfs2:data/orphan_since_ms": 0, "groups/gfs2:data/age_ms": 1000,
}  # fmt: skip


def kernel(run: Run, handle: str = "alpha", changes: Mapping[str, object] = {}) -> None:
    """A switch that holds one cluster; ``changes`` are named as in CLUSTER."""
    (run.tree / "providers" / "user").mkdir(parents=True, exist_ok=True)
    put(run.tree, {"api_version": 1, "providers/user/caps": 7})
    put(run.tree / handle, {**CLUSTER, **changes})


# --- with vcsd --------------------------------------------------------------------------------------------------------


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


def test_config_check_and_keygen(run: Run, tmp_path: Path) -> None:
    path, key = tmp_path / "cluster.toml", tmp_path / "k"
    path.write_text(CONFIG)
    got = run("config", "check", str(path))
    assert (got.code, got.out) == (78, "")
    assert got.err.startswith(f"{path}:3: cluster.key_file: {key} does not exist; make it once with `vcs keygen {key}`")
    assert run("config", "check", str(path), "--json").json["check"]["problems"] == got.err.splitlines()
    assert run("config", "check", str(path), "--no-key").code == 0
    assert run("keygen", str(key)).code == 0
    got = run("keygen", str(key))
    assert got.code == 1 and "exists and is left as it is" in got.err
    assert run("config", "check", str(path)).out == f"{path}: cluster alpha, 1 node: no error\n"
    assert run("keygen", str(tmp_path / "k2"), "--json").json == {"version": 1, "keygen": {"file": str(tmp_path / "k2")}}


def test_config_show_has_no_secrets(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(
        CONFIG
        + 'fence = { plug = 1, passwd = "hush" }\n[fencing]\nagent = "f"\noptions = { Password_Script = "hush", ip = "x" }\n'
    )
    out = run("config", "show", str(path)).out
    assert "hush" not in out
    for line in ("cluster.name = alpha", "node.1.fence.plug = 1", "node.1.fence.passwd = (hidden)", "quorum.wait_for_all = true",
                 "fencing.options.ip = x", "totem.token_ms = 600", "node.1.addresses = 192.0.2.1"):  # fmt: skip
        assert line in out.splitlines()
    document = run("config", "show", str(path), "--json")
    assert "hush" not in document.out
    assert document.json["config"]["node"][0]["addresses"] == ["192.0.2.1"]
    assert document.json["config"]["cluster"] == {"name": "alpha", "key_file": "k", "engine": "totem"}


def test_config_show_of_lockspaces(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    node = '[[node]]\nid = 1\nname = "n1"\naddress = "192.0.2.1"\n'
    path.write_text('[cluster]\nname = "a"\n' + node + '[[dlm.lockspace]]\nname = "x"\nnodir = true\nweights = { n1 = 2 }\n')
    shown = run("config", "show", str(path), "--key", "dlm.lockspace").out
    assert shown == "dlm.lockspace.x.name = x\ndlm.lockspace.x.nodir = true\ndlm.lockspace.x.weights.1 = 2\n"
    assert run("config", "show", str(path), "--key", "dlm.lockspace.nodir", "--json").json["config"] == {"dlm.lockspace.x.nodir": True}


def test_config_show_of_some_keys(run: Run) -> None:
    example = str(ROOT / "etc" / "cluster.toml.example")
    got = run("config", "show", example, "--key", "metrics", "--key", "node.name")
    assert got.out == "node.1.name = node1\nnode.2.name = node2\nnode.3.name = node3\nmetrics.listen = \n"
    assert run("config", "show", example, "--key", "dlm.port", "--json").json["config"] == {"dlm.port": 21064}
    got = run("config", "show", example, "--key", "quorum.wait_for_al")
    assert got.code == 2 and "did you mean 'quorum.wait_for_all'?" in got.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vcs st", ["status"]),
        ("vcs fence ", ["ack", "check", "history", "list", "status"]),
        ("vcs config show --key me", ["metrics", "metrics.listen"]),
    ],
)
def test_completion(words: str, expected: list[str]) -> None:
    environment = {**os.environ, "_VCS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    got = subprocess.run([sys.executable, "-m", "vcs.cli.main"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert [line.partition(",")[2] for line in got.stdout.splitlines()] == expected


# --- the command itself -----------------------------------------------------------------------------------------------


def test_usage_errors(run: Run) -> None:
    assert run("statsu").code == 2
    assert run("status", "--bogus").code == 2
    assert run("events", "--last", "x").code == 2


def test_every_verb_is_what_the_table_says(run: Run) -> None:
    text = run("--help").out
    for name, (module, line) in COMMANDS.items():
        assert module == f"vcs.cli.{name}"
        assert f"  {name} " in text and line in text
        assert run(name, "--help").code == 0
    assert run("--version").out == f"vcs {vcs.__version__}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == vcs.__version__


def test_a_command_imports_little() -> None:
    """What makes a command slow to start must not come in by accident."""
    code = "import sys, vcs.cli.main, vcs.cli.status; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyroute2", "asyncvarlink", "cryptography", "asyncio", "yaml", "bridge", "membership"} & set(found)


def test_small_words() -> None:
    assert ranges([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"
    assert sysfs.parse_ranges("1-3,7,9-10") == [1, 2, 3, 7, 9, 10]
    assert len(sysfs.parse_ranges("1-4294967295")) == 100_001  # bounded, whatever the file says
    assert [duration(ms) for ms in (5, 9_999, 10_000, 120_000, 7_260_000, 200_000_000, None)] == [
        "5 ms", "9999 ms", "10 s", "2 min", "2 h 1 min", "2 d 7 h", ""]  # fmt: skip
    assert clean("a\x1b[31mb\u202ec\n") == "a?[31mb?c?"
    assert importlib.import_module("vcs.cli.main").cli.name == "cli"
    assert os.path.exists(ROOT / "docs" / "man" / "vcs.1.md")
