# SPDX-License-Identifier: GPL-2.0-only
"""One virtual machine: boot, commands, power, freeze."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import process
from harness.argv import Descriptors, qemu_argv
from harness.channel import FrameSocket, Rpc
from harness.errors import ChannelClosed, CommandFailed, LabError, LabTimeout
from harness.logs import BootLogs
from harness.qmp import Qmp
from harness.spec import MachineSpec, Result, Spawned

if TYPE_CHECKING:
    from harness.console import SplatWatch
    from harness.timeline import Timeline

BOOT_LIMIT_S = 120.0  # seconds; three machines on two busy cores take ten
Command = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Guest to host: host monotonic ns = guest ns + offset, within +- error (half a round trip)."""

    boottime_ns: int
    realtime_ns: int
    error_ns: int


class Machine:
    """A node's machine over all its boots. Threads of a boot end with its process."""

    def __init__(self, spec: MachineSpec, folder: Path, splats: SplatWatch, timeline: Timeline,
                 on_fence: Callable[[Machine, str], str], plug: Callable[[int, socket.socket], None] | None) -> None:
        self.spec = spec
        self.folder = folder
        self.boots = 0
        self._on_ns = 0
        self.stop_reason = ""
        self.spawned: dict[str, Spawned] = {}
        self.offset: ClockOffset | None = None
        self._splats, self._timeline, self._on_fence, self._plug = splats, timeline, on_fence, plug
        self._watcher: process.Watcher | None = None
        self._ready = threading.Event()
        self._power = threading.RLock()
        self._frozen = ""

    # --- power --------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def on(self) -> bool:
        """Whether a process runs for it (booting and frozen machines are on)."""
        return self._watcher is not None and not self._watcher.wait(0)

    @property
    def pid(self) -> int:
        """QEMU's process id. Raises ChannelClosed if off."""
        if self._watcher is None or not self.on:
            raise ChannelClosed(f"{self.name}: the machine is off")
        return self._watcher.process.pid

    def boot(self, timeout: float = BOOT_LIMIT_S) -> int:
        """Power on and wait for the agent. The host's ns when it was ready. Raises LabError with the console's end."""
        self.power_on()
        self.wait_ready(timeout)
        return time.monotonic_ns()

    def power_on(self) -> None:
        """Start the machine; see wait_ready. Raises LabError if it is on already."""
        with self._power:
            if self.on:
                raise LabError(f"{self.name} is on already")
            self.boots += 1
            self._on_ns = time.monotonic_ns()
            self.offset, self.stop_reason, self._frozen = None, "", ""
            self.spawned = {}
            self._ready = threading.Event()
            self.logs = BootLogs(self.folder / f"boot{self.boots}", self.name, self.boots, self._splats)
            pairs = {name: socket.socketpair() for name in ("qmp", "console", "rpc", "stream", "fence", "network")}
            if self._plug is None:
                for end in pairs.pop("network"):
                    end.close()
            theirs = {name: pair[1] for name, pair in pairs.items()}
            numbers = {name: end.fileno() for name, end in theirs.items()}
            argv = qemu_argv(self.spec, Descriptors(network=numbers.pop("network", None), **numbers))
            (self.logs.folder / "qemu.argv").write_text("\n".join(argv) + "\n", encoding="utf-8")
            self._attach({name: pair[0] for name, pair in pairs.items()})
            self._timeline.host("power on", self.spec.node, boot=self.boots)
            child = process.start(argv, list(theirs.values()), self.logs.folder / "qemu.log")
            self._watcher = process.Watcher(child, self._ended)

    def _attach(self, ours: dict[str, socket.socket]) -> None:
        logs, boot = self.logs, self.boots
        for sock in ours.values():
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._qmp = Qmp(ours["qmp"], self.name, self._event)
        self.console = logs.console_from(ours["console"])
        self._rpc = Rpc(ours["rpc"], self.name)
        self._stream = FrameSocket(ours["stream"], f"stream-{self.name}", lambda h, b: self._streamed(boot, h, b))
        self._fence = FrameSocket(ours["fence"], f"fence-{self.name}", self._fence_asked)
        if self._plug is not None:
            self._plug(self.spec.node, ours["network"])

    def wait_ready(self, timeout: float = BOOT_LIMIT_S) -> None:
        """Wait for the agent of the current boot, and measure the clocks. A boot that the emulator has broken is made again, once."""
        deadline, again = time.monotonic() + timeout, self.spec.cpus > 1
        while not self._ready.wait(0.25):
            if not self.on:
                self._drain()
                if again and self._splats.excuse(self.name, self.boots):
                    again, deadline = False, time.monotonic() + timeout
                    self._timeline.host("broken by the emulator", self.spec.node, boot=self.boots)
                    self.power_on()
                    continue
                raise LabError(f"{self.name} ended while booting ({self.stop_reason or 'no reason given'}), {self.logs.tail()}")
            if time.monotonic() > deadline:
                raise LabTimeout(f"{self.name} did not boot in {timeout:.0f} s, {self.logs.tail()}")
        self.offset = self.measure_clock()
        self._timeline.add_boot(self.spec.node, self.boots, self.logs, self.offset)
        self._timeline.host("ready", self.spec.node, boot=self.boots)

    def power_off(self) -> int:
        """Cut the power: SIGKILL to QEMU. The host's ns at which the machine, its I/O included, was gone."""
        with self._power:
            if self._watcher is None:
                return time.monotonic_ns()
            if self.on:
                self._timeline.host("power cut", self.spec.node)
                self.stop_reason = "power cut"
                os.kill(self._watcher.process.pid, signal.SIGKILL)
            if not self._watcher.wait(30):
                raise LabTimeout(f"{self.name}: QEMU did not die in 30 s")
            self._drain()
            return self._watcher.ended_ns

    def _drain(self) -> None:
        """What the machine said before its end is on disk when this returns."""
        self._qmp.join(2)
        self._stream.join(2)
        self.console.join(2)

    def wait_off(self, timeout: float) -> int:
        """Wait until the guest has stopped by itself (power off, reset, panic). The host's ns of its end; see stop_reason."""
        if self._watcher is None:
            return time.monotonic_ns()
        if not self._watcher.wait(timeout):
            raise LabTimeout(f"{self.name} is still on after {timeout:.0f} s")
        self._drain()
        return self._watcher.ended_ns

    def freeze(self, *, clock_runs: bool = True) -> int:
        """Stop the machine dead, host's ns. With `clock_runs` its clocks jump at resume, else they stood still."""
        if clock_runs:
            os.kill(self.pid, signal.SIGSTOP)
        else:
            self._qmp.command("stop")
        self._frozen = "signal" if clock_runs else "qmp"
        self._timeline.host("freeze", self.spec.node)
        return time.monotonic_ns()

    def resume(self) -> int:
        """Undo freeze, host's ns."""
        self._timeline.host("resume", self.spec.node)
        if self._frozen == "signal":
            os.kill(self.pid, signal.SIGCONT)
        elif self._frozen == "qmp":
            self._qmp.command("cont")
        self._frozen = ""
        return time.monotonic_ns()

    def throttle(self, disk: str = "shared0", *, iops: int = 0, bytes_per_s: int = 0) -> int:
        """Make a disk (its serial) slow: at most so many requests or bytes a second; 0 and 0: as fast as it is. Host's ns."""
        limits = {"iops": iops, "iops_rd": 0, "iops_wr": 0, "bps": bytes_per_s, "bps_rd": 0, "bps_wr": 0}
        self._qmp.command("block_set_io_throttle", device=disk, **limits)
        self._timeline.host("throttle", self.spec.node, disk=disk, iops=iops, bytes_per_s=bytes_per_s)
        return time.monotonic_ns()

    def writes(self, disk: str = "shared0") -> int:
        """How many writes of this boot the disk (its serial) has completed, by QEMU's own count."""
        return next(int(d["stats"]["wr_operations"]) for d in self._qmp.command("query-blockstats") if d["device"] == disk)

    def stand_after_reset(self) -> None:
        """From now on a reset leaves the machine standing still, so that it can be asked for its writes, until power_off()."""
        self._qmp.command("set-action", shutdown="pause")

    def wait_reset(self, timeout: float) -> int:
        """After stand_after_reset: wait until the guest has reset itself. The host's ns at which QEMU said so."""
        deadline = time.monotonic() + timeout
        while not (said := [e for e in self._timeline.acts("qemu shutdown", self.spec.node) if e.host_ns > self._on_ns]):
            if time.monotonic() > deadline:
                raise LabTimeout(f"{self.name} has not reset itself in {timeout:.0f} s")
            time.sleep(0.001)
        return said[0].host_ns

    def _ended(self, code: int, when_ns: int) -> None:
        self._timeline.host("machine gone", self.spec.node, at_ns=when_ns, reason=self.stop_reason or f"exit {code}")

    def _event(self, name: str, data: dict[str, Any]) -> None:
        if name in ("SHUTDOWN", "WATCHDOG", "GUEST_PANICKED"):
            if name == "SHUTDOWN" and not self.stop_reason:
                self.stop_reason = str(data.get("reason", ""))
            elif name == "WATCHDOG":
                self.stop_reason = "watchdog"
            self._timeline.host(f"qemu {name.lower()}", self.spec.node, **data)

    # --- what comes from the guest ------------------------------------------------------------------------------------

    def _streamed(self, boot: int, header: dict[str, Any], blob: bytes) -> None:
        if "file" in header:
            self.logs.append_file(header["file"], blob)
        elif "kmsg" in header:
            for record in blob.split(b"\0"):
                self.logs.append_kmsg(record)
        elif "exit" in header:
            for job in self.spawned.values():
                if job.pid == header["pid"] and job.boot == boot:
                    job.rc = header["rc"]
            self._timeline.host("process ended", self.spec.node, process=header["exit"], rc=header["rc"])
        elif "ready" in header:
            self._ready.set()

    def _fence_asked(self, header: dict[str, Any], blob: bytes) -> None:
        def serve() -> None:
            answer = self._on_fence(self, blob.decode(errors="replace").strip())
            with contextlib.suppress(ChannelClosed):
                self._fence.send({"id": header["id"]}, answer.encode())

        threading.Thread(target=serve, name=f"fence-by-{self.name}", daemon=True).start()

    # --- commands -----------------------------------------------------------------------------------------------------

    def run(self, command: Command, timeout: float = 30.0, *, check: bool = False, stdin: str | bytes = b"",
            env: dict[str, str] | None = None) -> Result:
        """Run `command` (a string goes to a shell) to its end; after `timeout` seconds it is killed.

        With `check`, anything but exit 0 raises CommandFailed, and a time-out LabTimeout.
        """
        started = time.monotonic_ns()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        words = command if isinstance(command, str) else list(command)
        header, blob = self._rpc.call("run", data, wait=timeout + 20, command=words, timeout=timeout, env=env or {})
        out, err = blob[: header["out"]], blob[header["out"] :]
        rc = header["rc"] if header["rc"] is not None else -9
        result = Result(rc, out.decode(errors="replace"), err.decode(errors="replace"), started, time.monotonic_ns(),
                        header["timed_out"])
        if check and result.timed_out:
            raise LabTimeout(f"{self.name}: {command!r} ran into its limit of {timeout:.0f} s\n{result.out}{result.err}")
        if check and result.rc:
            raise CommandFailed(f"{self.name}: {command!r} exited {result.rc}\n{result.out}{result.err}")
        return result

    def spawn(self, command: Command, log: str, *, env: dict[str, str] | None = None) -> Spawned:
        """Start `command` in the background; its output is streamed to `<artifacts>/nodeN/bootK/<log>.log`."""
        words = command if isinstance(command, str) else list(command)
        header, _ = self._rpc.call("spawn", wait=30, command=words, log=log, env=env or {})
        self.spawned[log] = Spawned(log, header["pid"], self.boots, log=self.logs.folder / f"{log}.log")
        self._timeline.host("process started", self.spec.node, process=log, pid=header["pid"])
        return self.spawned[log]

    def follow(self, job: Spawned, write: Callable[[str], object]) -> int:
        """Pass a background process's output to `write` as it comes, until it ends; its exit status.

        Raises ChannelClosed if the machine goes away first.
        """
        at = 0
        while True:
            ended, alive = job.rc is not None, self.on and self.boots == job.boot
            if job.log.exists():
                with open(job.log, "rb") as file:
                    file.seek(at)
                    data = file.read()
                at += len(data)
                if data:
                    write(data.decode(errors="replace"))
            if ended:
                return job.rc or 0
            if not alive:
                raise ChannelClosed(f"{self.name}: the machine went away")
            time.sleep(0.03)

    def read(self, path: str) -> str:
        """A file's text. Raises OSError as in the guest."""
        return self.read_bytes(path).decode(errors="replace")

    def read_bytes(self, path: str) -> bytes:
        return self._rpc.call("read", wait=30, path=path)[1]

    def write(self, path: str, data: str | bytes, *, append: bool = False, mode: int = 0o644) -> None:
        """Write a file (in sysfs and the like: one write). Raises OSError as in the guest."""
        blob = data.encode() if isinstance(data, str) else data
        self._rpc.call("write", blob, wait=30, path=path, append=append, mode=mode)

    def clock(self) -> dict[str, int]:
        """The guest's `boottime` and `realtime` in ns."""
        header, _ = self._rpc.call("clock", wait=30)
        return {"boottime": header["boottime"], "realtime": header["realtime"]}

    def measure_clock(self, samples: int = 16) -> ClockOffset:
        """Guest clocks against the host's monotonic clock: the sample with the shortest round trip."""
        best: ClockOffset | None = None
        for _ in range(samples):
            before = time.monotonic_ns()
            guest = self.clock()
            after = time.monotonic_ns()
            middle = (before + after) // 2
            sample = ClockOffset(middle - guest["boottime"], middle - guest["realtime"], (after - before) // 2)
            if best is None or sample.error_ns < best.error_ns:
                best = sample
        assert best is not None
        return best

    def events(self) -> list[dict[str, Any]]:
        """The current boot's events.jsonl as streamed so far."""
        path = self.logs.folder / "events.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = []
        for line in lines:
            with contextlib.suppress(ValueError):
                parsed.append(json.loads(line))
        return parsed
