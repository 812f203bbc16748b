# SPDX-License-Identifier: GPL-2.0-only
"""Runs in a virtual machine with vcs.ko and the stock DLM: dlm_glue alone on one node, this process in the bridge's place.

Nothing is faked but the other nodes, and those only as members of views: a lockspace is joined, stopped, started, given a member that
does not answer, taken over from a killed dlm_glue, and left; after each step the kernel's own files are looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vcs.child import uevent_socket
from vcs.model import Group, Member, Phase, RingId
from vcs.netlink import KernelSwitch

HANDLE, ME = "lab", 1
CONFIG = Path("/sys/kernel/config/dlm/cluster")
DLM = Path("/sys/kernel/dlm")
LOCK = str(Path(__file__).resolve().parents[1] / "cluster" / "dlm_lock.py")
EVENTS = Path("/run/vcs/events.jsonl")
TOML = """[cluster]
name = "lab"
engine = "static"
[[node]]
id = 1
name = "node1"
addresses = ["10.77.0.1"]
[[node]]
id = 2
name = "node2"
addresses = ["10.77.0.2"]
"""


def wait(what: Callable[[], bool], name: str, seconds: float = 30.0) -> float:
    """Until ``what()`` holds; returns the milliseconds it took."""
    begun = time.monotonic()
    while not what():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"{name}: not within {seconds} s")
        time.sleep(0.005)
    return (time.monotonic() - begun) * 1000


class GlueWorld:
    """The bridge's side, by hand."""

    def __init__(self, folder: Path, dlm: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "cluster.toml"
        self.config.write_text(TOML + dlm)
        self.port = KernelSwitch()
        self.info = self.port.info()
        self.port.cluster_add(HANDLE, "lab", ME)
        attached = self.port.attach(HANDLE, 0)
        self.session, self.event, self.ring = attached.session, attached.highest_event, 0
        self.descriptors = {"VCS_UEVENT_FD": uevent_socket(), "VCS_JOURNAL_FD": os.memfd_create("vcs-journal")}
        self.members = {ME: self.info.incarnation}
        self.process: subprocess.Popen[bytes] | None = None
        self.view()

    def glue(self, *options: str) -> None:
        environment = {**os.environ, **{k: str(v) for k, v in self.descriptors.items()}}
        argv = [sys.executable, "-m", "dlm_glue", "--config", str(self.config), "--handle", HANDLE, *options]
        self.process = subprocess.Popen(argv, env=environment, pass_fds=tuple(self.descriptors.values()), start_new_session=True)
        pid = self.process.pid
        wait(lambda: any(e["event"] == "glue_started" and self._after(e, pid) for e in events()), "dlm_glue is up", 60)

    def _after(self, event: dict[str, object], pid: int) -> bool:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return int(str(event["t"])) > ticks * 10_000_000

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def view(self) -> None:
        self.ring += 1
        self.port.view_set(HANDLE, self.session, RingId(self.ring, ME), True, [Member(n, i) for n, i in self.members.items()])

    def group(self, name: str) -> Group:
        return self.port.group(HANDLE, f"dlm:{name}")

    def has_group(self, name: str) -> bool:
        return any(g.name == f"dlm:{name}" for g in self.port.groups(HANDLE))

    def acked(self, name: str, phase: Phase) -> bool:
        g = self.group(name)
        return g.acked_event == g.event and g.acked_phase >= phase

    def stop(self, name: str) -> float:
        self.event += 1
        self.port.group_stop(HANDLE, self.session, f"dlm:{name}", self.event)
        return wait(lambda: self.acked(name, Phase.STOP), "stop acknowledged")

    def start(self, name: str, members: dict[int, int], *, wait_for_ack: bool = True) -> float:
        who = [Member(n, self.members[n], 1, j) for n, j in members.items()]
        self.port.group_start(HANDLE, self.session, f"dlm:{name}", self.event, who)
        return wait(lambda: self.acked(name, Phase.START), "start acknowledged") if wait_for_ack else 0.0

    def finish(self, name: str) -> None:
        self.port.group_finish(HANDLE, self.session, f"dlm:{name}", self.event)

    def change(self, name: str, members: dict[int, int]) -> tuple[float, float]:
        stopped, started = self.stop(name), self.start(name, members)
        self.finish(name)
        return stopped, started

    def left(self, name: str) -> None:
        self.port.group_left(HANDLE, self.session, f"dlm:{name}")


def events() -> list[dict[str, object]]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in EVENTS.read_text().splitlines()]
    return []


def status(name: str) -> int:
    return int((DLM / name / "recover_status").read_text(), 16)


def nodes(name: str) -> set[str]:
    path = CONFIG / "spaces" / name / "nodes"
    return set(os.listdir(path)) if path.is_dir() else set()


def kernel_log() -> str:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout


def lock(*arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, LOCK, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def joining(world: GlueWorld, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that creates the lockspace, and the group that this leads to."""
    process = lock(name, "create")
    wait(lambda: world.has_group(name), "group asked for")
    yield process
