# SPDX-License-Identifier: GPL-2.0-only
"""One call of a fence agent: a program that gets ``name=value`` lines on its standard input and answers by its exit code.

No shell is involved. The child gets a fixed environment, its own session, and no descriptor of ours that is of any use to it. Its end is
an event (pidfd), so is the wish to call it off; a call that is too long, and whatever it has left behind, dies with its process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
import weakref
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


class Agent:
    """A started agent that has not been told anything yet. It does nothing before it has read all of its options, to the end of its input.

    An input that just ends would be an order, too: agents have defaults, and `reboot` is the usual action. So it does not end when we
    die: a copy of the pipe's writing end lies in a socket that the agent itself keeps open, and is taken out when all is said.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if it cannot be executed. Blocks for a fork and an exec."""
        reading, writing = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(writing, "wb", 0)
        keeper, giver = socket.socketpair()
        self._keeper = keeper
        try:
            with giver:
                socket.send_fds(giver, [b"w"], [writing])
            self.child = subprocess.Popen(
                [path],
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                pass_fds=(keeper.fileno(),),
            )
        except BaseException:
            self.stdin.close()
            keeper.close()
            raise
        finally:
            os.close(reading)
        # Also when nobody knows of it any more, and at our own end: an agent that is never told anything would wait for ever.
        self._end = weakref.finalize(self, _abandon, self.child, self.stdin, keeper)
        with contextlib.suppress(OSError), open(f"/proc/{self.child.pid}/oom_score_adj", "w", encoding="ascii") as score:
            score.write("0")  # our own protection is not for somebody else's program

    @property
    def waits(self) -> bool:
        """It is alive. It is not reaped here: until then its id is its own."""
        return os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def hurry(self) -> None:
        """The whole cluster waits for it: before the busy file system's own processes, behind the daemons' real-time priority."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.child.pid, -20)

    def told(self) -> None:
        """All is said: its input ends here. Idempotent."""
        if self._keeper.fileno() >= 0:
            with self._keeper:
                _data, copies, _flags, _address = socket.recv_fds(self._keeper, 1, 1)
            for copy in copies:
                os.close(copy)
            self.stdin.close()

    def close(self) -> None:
        """It is not needed. Idempotent."""
        self._end()


def _abandon(child: subprocess.Popen[bytes], stdin: IO[bytes], keeper: socket.socket) -> None:
    """Kill it first: only then may its input end."""
    _end(child)
    keeper.close()
    for pipe in (stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def call(path: str, options: Mapping[str, str], timeout_s: float, stop: Stop | None = None, agent: Agent | None = None) -> Call:
    """Run ``path`` once, or tell ``agent``, which is that program and waits. Blocks at most ``timeout_s`` (and REAP_S). Raises BadOption,
    or OSError if it cannot be executed."""
    text = lines(options)
    deadline = time.monotonic() + max(timeout_s, 0.01)
    if agent is None or not agent.waits:
        agent = Agent(path)
    agent.hurry()
    talk = _Talk(agent, text)
    try:
        how = talk.until(deadline, stop)
    finally:
        code = _end(agent.child)
        talk.drain()
        talk.close()
        agent.close()
    out, err = (bytes(b).decode("utf-8", "replace") for b in (talk.out, talk.err))
    return Call(code if how == "ended" else None, out, err, how == "stopped")


class _Talk:
    """The pipes of a child, all of them at once."""

    def __init__(self, agent: Agent, text: bytes) -> None:
        child = agent.child
        assert child.stdout is not None and child.stderr is not None
        self._pidfd = os.pidfd_open(child.pid)
        self._agent = agent
        self._stdin = agent.stdin
        self._rest = memoryview(text)
        self.out, self.err = bytearray(), bytearray()
        self._pipes: dict[int, tuple[IO[bytes], bytearray]] = {
            child.stdout.fileno(): (child.stdout, self.out), child.stderr.fileno(): (child.stderr, self.err),
        }
        for pipe in (self._stdin, child.stdout, child.stderr):
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
                    self._agent.told()

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


def _end(child: subprocess.Popen[bytes]) -> int | None:
    """Nothing of the call outlives it. Its exit code, None if it cannot even be killed."""
    if child.returncode is not None:
        return child.returncode
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
