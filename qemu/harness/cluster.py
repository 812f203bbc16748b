# SPDX-License-Identifier: GPL-2.0-only
"""Several machines, one network, one shared disk, one power switch: what a test tells its story with."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

from harness import accel, image, kernels, payload
from harness.cache import run
from harness.console import SplatWatch
from harness.errors import KernelSplat, LabError, LabTimeout
from harness.machine import BOOT_LIMIT_S, ClockOffset, Machine
from harness.network import Network
from harness.power import PowerSwitch
from harness.spec import MachineSpec
from harness.timeline import Timeline

T = TypeVar("T")
POLL_S = 0.1
OWN_DISK_MIB = 32

#: for a failed test: processes, what blocked ones wait in, the state of DLM and the switch
DIAGNOSIS = r"""
ps -eo pid,ppid,stat,wchan:24,args
for p in /proc/[0-9]*; do
	read -r _ name state _ < $p/stat && [ "$state" = D ] && echo "== $p $name" && cat $p/stack
done
cd /sys/kernel && grep -rs . vcs dlm config/dlm 2>/dev/null | head -500
cat /sys/kernel/debug/dlm/* 2>/dev/null | head -300
cat /proc/mounts /proc/meminfo
echo w > /proc/sysrq-trigger
"""


def _supports_direct_io(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.close(os.open(probe.name, os.O_RDWR | os.O_DIRECT))
        except OSError:
            return False
    return True


def _temporary(kind: str) -> tempfile.TemporaryDirectory[str]:
    """A folder on a real disk, named after this process; those of processes that were killed are removed."""
    for left in Path("/var/tmp").glob(f"vcs-{kind}-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"vcs-{kind}-{os.getpid()}-", dir="/var/tmp")


class Cluster:
    """Machines 1..nodes. `with` boots them all at once and cuts their power at the end.

    Artifacts (consoles, kernel logs, files streamed by the nodes, fence history, timeline.txt) are in `artifacts`.
    Leaving the block raises KernelSplat if a kernel complained, unless another error is already on its way.
    """

    live: ClassVar[list[Cluster]] = []  #: those not closed yet
    at_close: ClassVar[list[Callable[[Cluster], None]]] = []  #: called with each that closes, its machines still on

    def __init__(self, nodes: int = 3, kernel: str = "6.12", *, shared_disk_mib: int = 0, shared_disks: int = 1,
                 artifacts: Path | None = None, memory_mib: int = 768, cpus: int = 1, append: str = "",
                 boot: bool = True, image_kind: str = "base", roots_kept: bool = False) -> None:
        self._owned = None if artifacts else _temporary("lab")
        self.artifacts = Path(artifacts or self._owned.name)  # type: ignore[union-attr]
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.kernel = kernels.get(kernel)
        self.timeline = Timeline()
        self.splats = SplatWatch()
        self._boot_all = boot
        self.failed = False  #: set by the pytest plugin: a test failed while this cluster lived
        self._disks = _temporary("disks")
        disks = self._make_disks(shared_disk_mib, shared_disks)
        self.network = Network(list(range(1, nodes + 1)), self.artifacts, self.timeline.host)
        self._machines: dict[int, Machine] = {}
        self.power = PowerSwitch(self._machines, nodes, self.timeline.host, self.artifacts / "fence.jsonl")
        root = image.get(image_kind)
        # a copy: a machine that boots again in an hour must find what it found the first time
        source = Path(shutil.copy(payload.get(self.kernel), self._disks.name))
        mode, tsc = accel.choose(self.kernel), accel.host_tsc_khz()
        for node in range(1, nodes + 1):
            spec = MachineSpec(
                node, self.kernel, self._copy(root, node) if roots_kept else root, source, mode, tsc, memory_mib, cpus, disks,
                _supports_direct_io(Path(self._disks.name)), append, self._make_own_disk(node), roots_kept,
            )
            self._machines[node] = Machine(
                spec, self.artifacts / spec.name, self.splats, self.timeline, self.power.answer, self.network.plug
            )
        Cluster.live.append(self)

    def _make_own_disk(self, node: int) -> Path:
        """What a machine's own disk is to it: the only place where something written before a power cut is found after it."""
        path = Path(self._disks.name) / f"own{node}.img"
        with open(path, "wb") as file:
            file.truncate(OWN_DISK_MIB << 20)
        run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "own", str(path)])
        return path

    def _copy(self, root: Path, node: int) -> Path:
        """The root image as a file of the node's own."""
        path = Path(self._disks.name) / f"root{node}.img"
        run(["cp", "--reflink=auto", "--sparse=always", root, path])
        return path

    def _make_disks(self, size_mib: int, count: int) -> tuple[Path, ...]:
        paths = [Path(self._disks.name) / f"shared{n}.img" for n in range(count if size_mib else 0)]
        for path in paths:
            with open(path, "wb") as file:
                file.truncate(size_mib << 20)
        return tuple(paths)

    def __getitem__(self, node: int) -> Machine:
        return self._machines[node]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._machines.values())

    def __len__(self) -> int:
        return len(self._machines)

    def __enter__(self) -> Cluster:
        try:
            if self._boot_all:
                self.boot()
        except BaseException:
            self.close(check=False)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(check=error is None)

    def boot(self, *nodes: int, timeout: float = BOOT_LIMIT_S) -> None:
        """Boot `nodes` (default: all that are off) at the same time and wait for their agents."""
        machines = [self[n] for n in nodes] if nodes else [m for m in self if not m.on]
        for machine in machines:
            machine.power_on()
        for machine in machines:
            machine.wait_ready(timeout)

    def each(self, action: Callable[[Machine], T], *nodes: int) -> list[T]:
        """`action` on `nodes` (default: all that are on) at the same time; the results in their order."""
        machines = [self[n] for n in nodes] if nodes else [m for m in self if m.on]
        with ThreadPoolExecutor(max(1, len(machines))) as pool:
            return list(pool.map(action, machines))

    def wait(self, condition: Callable[[], T], timeout: float, what: str, *, poll: float = POLL_S) -> T:
        """Call `condition` until it gives something true. On time-out the error says what was waited for and the last answer.

        A condition may raise while things are in motion; the last exception is then part of the message.
        """
        deadline = time.monotonic() + timeout
        last: object = None
        while True:
            try:
                value = condition()
            except (OSError, RuntimeError, AssertionError, ValueError, KeyError) as error:
                last = error
            else:
                if value:
                    return value
                last = value
            if time.monotonic() > deadline:
                raise LabTimeout(f"waited {timeout:.0f} s for {what}; last: {last!r}. {self.where()}")
            time.sleep(poll)

    def clock_offsets(self) -> dict[int, ClockOffset]:
        """Guest clocks against the host's monotonic clock, of every machine that is on."""
        return {m.spec.node: m.measure_clock() for m in self if m.on}

    def where(self) -> str:
        """For error messages: where the logs are."""
        return f"Logs and timeline: {self.artifacts}"

    def check_splats(self) -> None:
        """Raises KernelSplat if a kernel complained so far."""
        found = self.splats.found
        if found:
            lines = "\n  ".join(str(splat) for splat in found[:10])
            raise KernelSplat(f"{len(found)} kernel report(s):\n  {lines}\n{self.where()}")

    def diagnose(self) -> None:
        """After a failure: what every node is waiting in, to nodeN/bootK/diagnosis.txt; never raises."""

        def ask(machine: Machine) -> None:
            with contextlib.suppress(LabError, OSError):
                found = machine.run(DIAGNOSIS, timeout=20)
                (machine.logs.folder / "diagnosis.txt").write_text(found.out + found.err, encoding="utf-8")

        self.each(ask)
        self.timeline.write(self.artifacts / "timeline.txt")

    def close(self, *, check: bool = True) -> None:
        """Cut all power, write the timeline, drop the disks; with `check`, raise KernelSplat for kernel reports. Once."""
        if self not in Cluster.live:
            return
        Cluster.live.remove(self)
        for hook in Cluster.at_close:
            with contextlib.suppress(LabError, OSError):
                hook(self)
        self.each(lambda machine: machine.power_off(), *self._machines)
        self.network.close()
        self.timeline.write(self.artifacts / "timeline.txt")
        self._disks.cleanup()
        try:
            if check:
                self.check_splats()
        finally:
            if self._owned is not None:
                with contextlib.suppress(OSError):
                    self._owned.cleanup()
