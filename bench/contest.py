# SPDX-License-Identifier: GPL-2.0-only
"""What both contestants have in common: programs on machines, their lines, rings of nodes, and clients.

Every time is CLOCK_MONOTONIC of this machine in ns: taken by the bench for what it does (a kill), by the programs for what they notice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.lab import Lab, Machine, now_ns

T = TypeVar("T")
CLIENT = ("chrt", "-r", "1")
"""How clients run on both sides: with the engines' real-time priority, as cluster daemons do. Otherwise what else the machine does would
meet the side whose client works more."""
START_SECONDS = 90.0
"How long a ring may take to form; corosync at its defaults needs a consensus timeout for it."


class Program:
    """A process on a machine, whose lines a thread collects, so that no pipe ever fills."""

    def __init__(self, argv: Sequence[str], *, stderr: bool = False, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._told = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if stderr else None,
            env={**os.environ, **(env or {})}, start_new_session=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            with self._told:
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                self._told.notify_all()
        with self._told:
            self._ended = True
            self._told.notify_all()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def mark(self) -> int:
        """Where the lines stand now, for ``wait``."""
        return len(self.lines)

    def wait(self, what: str, pick: Callable[[str], T | None], since: int = 0, seconds: float = START_SECONDS) -> T:
        """The first thing that ``pick`` makes of a line after ``since``. Raises RuntimeError when the time or the program ends."""
        end = now_ns() + int(seconds * 1e9)
        with self._told:
            while True:
                while since < len(self.lines):
                    got = pick(self.lines[since])
                    if got is not None:
                        return got
                    since += 1
                left = (end - now_ns()) / 1e9
                if left <= 0 or self._ended:
                    why = "the program ended" if self._ended else f"not in {seconds} s"
                    raise RuntimeError(f"no {what}: {why}; last lines: {self.lines[-5:]}")
                self._told.wait(left)

    def send_signal(self, number: signal.Signals) -> int:
        """Returns the time just before (ns)."""
        began = now_ns()
        os.kill(self.process.pid, number)
        return began

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._thread.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@dataclass(frozen=True, slots=True)
class Formed:
    """A configuration as one node saw it."""

    time_ns: int
    "When its engine had it."
    ring: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What one client was delivered up to an end mark."""

    sender: int
    count: int
    octets: int
    first_ns: int
    last_ns: int
    latencies: tuple[int, ...]

    @classmethod
    def of(cls, line: str) -> Tally | None:
        if not line.startswith("end "):
            return None
        sender, count, octets, first, last, *latencies = map(int, line.split()[1:])
        return cls(sender, count, octets, first, last, tuple(latencies))

    @property
    def rate(self) -> float:
        """Messages per second between the first and the last delivery."""
        return (self.count - 1) / ((self.last_ns - self.first_ns) / 1e9) if self.count > 1 else 0.0


class Node(ABC):
    """One contestant's engine on one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.number = machine.number

    @property
    @abstractmethod
    def engine(self) -> Program:
        """The process that a kill is aimed at."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def formed(self, members: Iterable[int], seconds: float) -> Formed:
        """Wait for the configuration of exactly ``members`` that follows the last ``mark_now``."""

    @abstractmethod
    def mark_now(self) -> None:
        """What was seen up to now does not count for the next ``formed``."""

    @abstractmethod
    def configurations(self) -> list[str]:
        """The lines of all configurations since ``mark_now``."""

    def noticed(self) -> list[str]:
        """What it noticed of others since ``mark_now``, if it says so."""
        return []

    @abstractmethod
    def end(self) -> None:
        """Stop whatever of it runs. Idempotent."""

    def kill(self) -> int:
        return self.engine.send_signal(signal.SIGKILL)

    def leave(self) -> int:
        return self.engine.send_signal(signal.SIGTERM)


class Ring(ABC):
    """A contestant's cluster in a lab."""

    name: str

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nodes: dict[int, Node] = {n: self.make(m) for n, m in lab.machines.items()}

    @abstractmethod
    def make(self, machine: Machine) -> Node: ...

    @abstractmethod
    def client(self, machine: Machine) -> Program:
        """A client process on that machine, in the group ("ready" was read)."""

    def start(self) -> None:
        for node in self.nodes.values():
            node.mark_now()
            node.start()
        self.await_all(self.nodes)

    def await_all(self, members: Iterable[int], seconds: float = START_SECONDS) -> dict[int, Formed]:
        wanted = sorted(members)
        return {n: self.nodes[n].formed(wanted, seconds) for n in wanted}

    def mark(self) -> None:
        for node in self.nodes.values():
            node.mark_now()

    def end(self) -> None:
        for node in self.nodes.values():
            node.end()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()
