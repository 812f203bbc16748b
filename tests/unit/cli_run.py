# SPDX-License-Identifier: GPL-2.0-only
"""Runs `vcs` for its tests: against a real control socket with a fixed backend, and against a tree like /sys/kernel/vcs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.wishes import Wishes
from vcs.cli.main import main
from vcs.control import ControlServer
from vcs.errors import VcsError

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
    monkeypatch.setenv("VCS_KERNEL", str(tmp_path / "kernel"))
    put(tmp_path / "kernel", DLM)
    (tmp_path / "kernel/dlm").mkdir()
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


DLM = {"config/dlm/cluster/comms/1/local": 1, "config/dlm/cluster/cluster_name": "alpha", "config/dlm/cluster/recover_callbacks": 1}
"What the DLM's users need, in /sys/kernel."


def kernel(run: Run, handle: str = "alpha", changes: Mapping[str, object] = {}) -> None:
    """A switch that holds one cluster; ``changes`` are named as in CLUSTER."""
    (run.tree / "providers" / "user").mkdir(parents=True, exist_ok=True)
    put(run.tree, {"api_version": 1, "providers/user/caps": 7})
    put(run.tree / handle, {**CLUSTER, **changes})


# --- with vcsd --------------------------------------------------------------------------------------------------------
