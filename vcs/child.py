# SPDX-License-Identifier: GPL-2.0-only
"""A child that outlives its parent: dlm_glue under vcsd (SAFETY S15, S17).

It runs in its own session and gets no parent-death signal. What the kernel tells only once comes through descriptors that belong to
us and that every incarnation of the child inherits. A parent that is started again finds the living child by its pid file (pid and
start time, so a reused pid is not taken for it), leaves it alone, and takes copies of its descriptors, so they survive the child
too. When the child dies it is started again with the same descriptors, more slowly each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vcs.events import EventLog

BACKOFF_S, BACKOFF_MAX_S, STABLE_S = 0.5, 10.0, 30.0
"Pause before a restart, doubled up to the maximum. A child that lived for STABLE_S is started again at once: others wait for it."
SYS_PIDFD_GETFD = 438
NETLINK_KOBJECT_UEVENT = 15
JOURNAL = "dlm_glue.journal"
UEVENT_BUFFER = 8 << 20
"Receive buffer of the uevent socket (bytes): a uevent that does not fit is gone for good."

logger = logging.getLogger("vcsd")


def uevent_socket() -> int:
    """A socket that holds the kernel's uevents until somebody reads them. Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT)
    force = 33  # SO_RCVBUFFORCE: above rmem_max, needs CAP_NET_ADMIN
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, UEVENT_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UEVENT_BUFFER)
    sock.bind((0, 1))
    return sock.detach()


def journal_file(folder: str) -> Callable[[], int]:
    """Opens the file that keeps what was read from the uevent socket and is not answered yet, in ``folder`` (a tmpfs). It outlives parent
    and child, also when they die at once, and no boot: what another boot was asked is nobody's wish any more. Raises OSError."""

    def opened() -> int:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        path = Path(folder) / f"{JOURNAL}.{boot}"
        for old in Path(folder).glob(f"{JOURNAL}.*"):
            if old != path:
                old.unlink(missing_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    return opened


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (clock ticks since boot); 0 if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def copy_descriptor(pidfd: int, number: int) -> int:
    """Our own copy of a descriptor of another process (pidfd_getfd(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


class OutlivingChild:
    """``makers`` maps the environment variable that names a descriptor to the function that makes it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        pid_file: str | Path,
        makers: dict[str, Callable[[], int]],
        log: EventLog,
    ) -> None:
        self._name = name
        self._argv = list(argv)
        self._pid_file = Path(pid_file)
        self._makers = makers
        self._log = log
        self._fds: dict[str, int] = {}
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._born = 0.0
        self.pid = 0
        self.restarts = 0

    async def start(self) -> None:
        """Find the living child or start one, and watch it from then on. Raises OSError."""
        adopted = self._adopt()
        for variable, make in self._makers.items():
            if variable not in self._fds:
                self._fds[variable] = make()
        if not adopted:
            await self._spawn()
        self._task = asyncio.create_task(self._watch(), name=f"watch-{self._name}")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """End the child: SIGTERM, after the time-out SIGKILL."""
        self._stopping = True
        if self._pidfd >= 0:
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._gone.wait(), timeout_s)
            except TimeoutError:
                logger.warning("%s did not end within %g s: killed", self._name, timeout_s)
                self._signal(signal.SIGKILL)
                await self._gone.wait()
            self._pid_file.unlink(missing_ok=True)
        await self.abandon()

    async def abandon(self) -> None:
        """Stop watching; the child lives on."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._forget()
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _adopt(self) -> bool:
        try:
            noted = json.loads(self._pid_file.read_text())
            pid, started, numbers = int(noted["pid"]), int(noted["start"]), dict(noted["fds"])
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        # Compared after the open: from here on the descriptor means this process and no later one of the same pid.
        if not started or start_time(pid) != started:
            os.close(pidfd)
            return False
        for variable in self._makers:
            try:
                self._fds[variable] = copy_descriptor(pidfd, int(numbers[variable]))
            except (OSError, KeyError, ValueError) as error:
                logger.warning("%s (pid %d): no copy of %s: %s", self._name, pid, variable, error)
        self._attend(pid, pidfd)
        self._log.note("child_adopted", child=self._name, pid=pid, descriptors=sorted(self._fds))
        logger.info("%s runs as pid %d: left alone", self._name, pid)
        return True

    async def _spawn(self) -> None:
        environment = {**os.environ, **{variable: str(fd) for variable, fd in self._fds.items()}}
        # It finds its modules where we found ours, installed or not, whatever the working directory is.
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in sys.path)
        environment.pop("NOTIFY_SOCKET", None)

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=tuple(self._fds.values()),
                start_new_session=True,
            )

        # In a thread: an exec waits for the disk.
        self._popen = popen = await asyncio.to_thread(begin)
        self._attend(popen.pid, os.pidfd_open(popen.pid))
        note = {"pid": popen.pid, "start": start_time(popen.pid), "fds": self._fds}
        temporary = self._pid_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(note))
        temporary.replace(self._pid_file)
        self._log.note("child_started", child=self._name, pid=popen.pid)
        logger.info("%s started as pid %d", self._name, popen.pid)

    def _attend(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd, self._born = pid, pidfd, time.monotonic()
        self._gone.clear()
        asyncio.get_running_loop().add_reader(pidfd, self._on_gone)

    def _on_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._gone.set()

    def _forget(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._pidfd, self.pid = -1, 0

    async def _watch(self) -> None:
        pause = BACKOFF_S
        while True:
            await self._gone.wait()
            code = self._popen.wait() if self._popen is not None else None
            self._popen = None
            lived = time.monotonic() - self._born
            pid = self.pid
            self._log.note("child_ended", child=self._name, pid=pid, code=code, lived_ms=round(lived * 1000))
            if self._stopping:
                return
            self._forget()
            pause = 0.0 if lived > STABLE_S else pause
            how = "ended" if code is None else f"ended with code {code}"
            logger.error("%s (pid %d) %s after %.1f s: started again in %g s", self._name, pid, how, lived, pause)
            while True:
                await asyncio.sleep(pause)
                pause = min(max(pause * 2, BACKOFF_S), BACKOFF_MAX_S)
                try:
                    await self._spawn()
                    self.restarts += 1
                    break
                except OSError as error:
                    logger.error("%s cannot be started: %s; again in %g s", self._name, error, pause)
