# SPDX-License-Identifier: GPL-2.0-only
"""One call of a fence agent: a program that gets ``name=value`` lines on its standard input and answers by its exit code.

No shell is involved. The child gets a fixed environment, its own session, and none of our descriptors. Its end is an event (pidfd), so
is the wish to call it off; a call that is too long, and whatever it has left behind, dies with its whole process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from vcs.errors import VcsError

SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
OUTPUT_MAX = 1 << 20
"Of an agent's output, this much is kept (bytes)."
REAP_S = 2.0
"How long a killed agent may take to go before it is given up on (it hangs in the kernel)."
ENVIRONMENT = {"PATH": SEARCH, "LC_ALL": "C.UTF-8", "HOME": "/"}


class BadOption(VcsError):
    """An option that the protocol cannot carry."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Call:
    """How a call ended."""

    code: int | None
    "None: it did not end by itself."
    out: str = ""
    err: str = ""
    stopped: bool = False
    "It was called off."


class Stop:
    """Calls a running call off, from any thread."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lines(options: Mapping[str, str]) -> bytes:
    """What the agent reads. Raises BadOption."""
    for name, value in options.items():
        if not name or any(c in name for c in "= \t\n") or "\n" in value:
            raise BadOption(f"fence option {name!r} cannot be given to an agent")
    return "".join(f"{name}={value}\n" for name, value in options.items()).encode()


def call(path: str, options: Mapping[str, str], timeout_s: float, stop: Stop | None = None) -> Call:
    """Run ``path`` once. Blocks at most ``timeout_s`` (and REAP_S). Raises BadOption, or OSError if it cannot be executed."""
    text = lines(options)
    deadline = time.monotonic() + max(timeout_s, 0.01)
    child = subprocess.Popen(
        [path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    # The whole cluster waits for it: before the busy file system's own processes, behind the daemons' real-time priority.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, child.pid, -20)
    with contextlib.suppress(OSError), open(f"/proc/{child.pid}/oom_score_adj", "w", encoding="ascii") as score:
        score.write("0")  # our own protection is not for somebody else's program
    talk = _Talk(child, text)
    try:
        how = talk.until(deadline, stop)
    finally:
        code = _end(child)
        talk.drain()
        talk.close()
    out, err = (bytes(b).decode("utf-8", "replace") for b in (talk.out, talk.err))
    return Call(code if how == "ended" else None, out, err, how == "stopped")


class _Talk:
    """The pipes of a child, all of them at once."""

    def __init__(self, child: subprocess.Popen[bytes], text: bytes) -> None:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        self._pidfd = os.pidfd_open(child.pid)
        self._stdin: IO[bytes] = child.stdin
        self._rest = memoryview(text)
        self.out, self.err = bytearray(), bytearray()
        self._pipes: dict[int, tuple[IO[bytes], bytearray]] = {
            child.stdout.fileno(): (child.stdout, self.out), child.stderr.fileno(): (child.stderr, self.err),
        }
        for pipe in (child.stdin, child.stdout, child.stderr):
            os.set_blocking(pipe.fileno(), False)

    def until(self, deadline: float, stop: Stop | None) -> str:
        """Serve the pipes until the child has ended, was called off, or its time is up: ended, stopped or late."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._stdin.fileno(), select.POLLOUT)
        for fd in self._pipes:
            poll.register(fd, select.POLLIN)
        if stop is not None:
            poll.register(stop.fileno(), select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "late"
            ready = [fd for fd, _what in poll.poll(left * 1000)]
            if stop is not None and stop.fileno() in ready:
                return "stopped"
            if self._pidfd in ready:
                return "ended"
            for fd in ready:
                if fd in self._pipes:
                    if not self._read(fd):
                        poll.unregister(fd)
                elif not self._write():
                    poll.unregister(fd)
                    self._stdin.close()

    def _read(self, fd: int) -> bool:
        """False: nothing more will come."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        kept = self._pipes[fd][1]
        kept += data[: OUTPUT_MAX - len(kept)]
        return bool(data)

    def _write(self) -> bool:
        """False: all is said, or nobody listens."""
        try:
            self._rest = self._rest[os.write(self._stdin.fileno(), self._rest) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(self._rest)

    def drain(self) -> None:
        """What the dead child has said last."""
        for fd, (_pipe, kept) in self._pipes.items():
            with contextlib.suppress(OSError):
                while len(kept) < OUTPUT_MAX and (data := os.read(fd, 1 << 16)):
                    kept.extend(data)

    def close(self) -> None:
        os.close(self._pidfd)
        for pipe in (self._stdin, *(pipe for pipe, _kept in self._pipes.values())):
            with contextlib.suppress(OSError):
                pipe.close()


def _end(child: subprocess.Popen[bytes]) -> int | None:
    """Nothing of the call outlives it. Its exit code, None if it cannot even be killed."""
    # Not reaped yet, so its id, which is also its group's, cannot belong to anybody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    pidfd = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return child.wait() if poll.poll(REAP_S * 1000) else None
    finally:
        os.close(pidfd)
