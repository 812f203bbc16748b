# SPDX-License-Identifier: GPL-2.0-only
"""What every cluster stack of the lab shares: GFS2 on the shared disk, writers on it, and what they have written.

Nothing here knows which membership drives the DLM, so that figures of two stacks come from the same hands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Cluster
from harness.machine import Machine

HANDLE = "demo"
FSNAME = "shared"
MOUNTPOINT = "/mnt/shared"
SHARED_DISK = "/dev/vdd"
DLM = "/sys/kernel/config/dlm/cluster"
WORKLOAD = "/tmp/workload.py"


class Gfs2Lab:
    """Machines of a harness Cluster with one GFS2 between them."""

    helper = True
    "Whether mount(8) may call mount.gfs2, which asks the switch first."

    def __init__(self, lab: Cluster, *, name: str = HANDLE) -> None:
        self.lab = lab
        self.name = name
        self._workload = Path(__file__).with_name("workload.py").read_text(encoding="utf-8")
        self.writers = 0

    def __getitem__(self, node: int) -> Machine:
        return self.lab[node]

    def wait(self, condition: Callable[[], Any], timeout: float, what: str) -> Any:
        return self.lab.wait(condition, timeout, what)

    @staticmethod
    def now_ns() -> int:
        """The host's clock, that of the timeline and of all evidence."""
        return time.monotonic_ns()

    def prepare(self, node: int, also: str = "true") -> None:
        """The file system's modules, the mount point and the writer's program, after the command ``also``. One shell does it all: under
        emulation each command of its own takes a quarter of a second, on a busy host more."""
        m = self[node]
        m.write(WORKLOAD, self._workload)
        m.run(f"{also} && modprobe -a dlm gfs2 && mkdir -p {MOUNTPOINT}", timeout=60, check=True)

    # --- GFS2 ---------------------------------------------------------------------------------------------------------

    def mkfs(self, node: int = 1, *, table: str = "", journals: int = 3) -> None:
        table = table or f"{self.name}:{FSNAME}"
        self[node].run(
            f"mkfs.gfs2 -O -p lock_dlm -t {table} -j {journals} -J 8 {SHARED_DISK}", timeout=120, check=True
        )

    def mount(self, node: int, timeout: float = 90) -> None:
        self[node].run(f"mount {'' if self.helper else '-i '}-t gfs2 {SHARED_DISK} {MOUNTPOINT}", timeout=timeout, check=True)
        if not self.mounted(node):
            raise AssertionError(f"node {node}: mount succeeded but /proc/mounts does not show {MOUNTPOINT}")

    def mount_on(self, first: int, *others: int) -> None:
        """Mount on one, which may find a file system that nobody has ever mounted, and then on the others at once."""
        self.mount(first)
        if others:
            self.lab.each(lambda m: self.mount(m.spec.node), *others)

    def mounted(self, node: int) -> bool:
        return any(line.split()[1:3] == [MOUNTPOINT, "gfs2"] for line in self[node].read("/proc/mounts").splitlines())

    def umount(self, node: int, timeout: float = 90) -> None:
        self[node].run(f"umount {MOUNTPOINT}", timeout=timeout, check=True)
        if self.mounted(node):
            raise AssertionError(f"node {node}: still mounted after umount")

    # --- the workload -------------------------------------------------------------------------------------------------

    def start_writer(self, node: int, *, pause_ms: float = 10, limit: int = 0, name: str = "journal") -> str:
        """Start a writer on the file ``name``; returns the name of its log, whose lines are records that were fsynced."""
        self.writers += 1
        log = f"writer{self.writers}"
        self[node].spawn(
            f"exec python3 -S {WORKLOAD} write {MOUNTPOINT}/{name} {node} {self.writers:x} {pause_ms} {limit}", log=log
        )
        return log

    def written(self, node: int, log: str, *, boot: int = 0) -> list[dict[str, Any]]:
        """The fsynced records that the writer has reported so far, with ``host_ns`` of their completion."""
        m = self[node]
        folder = m.folder / f"boot{boot or m.boots}"
        path = folder / f"{log}.log"
        offset = m.offset.boottime_ns if m.offset else 0
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a node that lost power
            records.append(record | {"host_ns": record["t"] + offset})
        return records

    def stop_writers(self, node: int) -> None:
        """SIGTERM to this node's writers, and wait until they are gone (one may wait for a lock)."""
        self[node].run(f"pkill -f '^python3 -S {WORKLOAD}'")
        self.wait(lambda: self[node].run(f"pgrep -f '^python3 -S {WORKLOAD}'").rc == 1, 60, f"writers of node {node} to end")

    def check_file(self, node: int, name: str = "journal") -> dict[str, Any]:
        """Read the shared file on ``node``: {"records", "writers", "problems"}."""
        result = self[node].run(f"python3 -S {WORKLOAD} check {MOUNTPOINT}/{name}", timeout=60)
        answer: dict[str, Any] = json.loads(result.out)
        return answer
