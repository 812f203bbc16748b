# SPDX-License-Identifier: GPL-2.0-only
"""Fence agents that are started before they are needed, and wait for what they are told.

Starting an agent is often most of its time: an interpreter, its libraries, and a disk that may be busy with the very failure. A failed
node's locks wait for two calls, one that cuts it off and one that asks whether it is off, so for each agent that a first method uses two
processes wait (for each of its devices). They are not kept for long: whenever the devices were asked whether they answer, by agents that
are started for that, new ones take their places, so that an upgrade does not leave old programs behind.

What waits when vcsd is killed goes on waiting, and does nothing (vcs/agent_process.py). Its successor ends it: who waits is in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vcs.agent_process import Agent
from vcs.child import start_time
from vcs.config.model import ClusterConfig
from vcs.events import EventLog
from vcs.realtime import as_we_are

CALLS = 2
"Of each device in a fence: off, status."
EACH_MAX = 4
"Waiting processes of one program."
PATIENT = 19
"Nice value of who waits."
REFILL_S = 2.0
"After a fence the recovery has the processor first."


def wanted(config: ClusterConfig, paths: Mapping[str, str], local: int) -> dict[str, int]:
    """How many of each program should wait: what the first method of any other node needs. ``paths``: device -> program."""
    found: dict[str, int] = {}
    for node in config.nodes:
        for method in config.fence_methods(node.id)[:1] if node.id != local else ():
            needs: dict[str, int] = {}
            for device in method.devices:
                needs[paths[device]] = needs.get(paths[device], 0) + CALLS
            for path, count in needs.items():
                found[path] = min(max(found.get(path, 0), count), EACH_MAX)
    return found


class Standby:
    """Those that wait. ``prepare`` blocks: call it in a thread, one at a time."""

    def __init__(self, note: str) -> None:
        """``note``: the file that says who waits."""
        self._note = Path(note)
        self._waiting: dict[str, list[Agent]] = {}
        self._begun = self._closed = False

    def prepare(self, counts: Mapping[str, int]) -> int:
        """Let so many of each program wait, new ones in the place of those that waited before; how many wait. Where no new one can be
        started, the old one stays."""
        if not self._begun:
            self._begun = True
            self._end_predecessors()
        before, now = self._waiting, {path: _started(path, count) for path, count in counts.items()}
        for path, agents in now.items():
            while len(agents) < counts[path] and before.get(path):
                agents.append(before[path].pop())
        self._waiting = now
        _close(before)
        if self._closed:
            _close(now)
        else:
            self._remember()
        return self.count()

    def take(self, path: str) -> Agent | None:
        """One that waits, if there is one. It is the caller's from here on."""
        agents = self._waiting.get(path, [])
        while agents:
            agent = agents.pop()
            if agent.waits:
                return agent
            agent.close()
        return None

    def count(self) -> int:
        return sum(agent.waits for agents in self._waiting.values() for agent in agents)

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        _close(self._waiting)
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)

    # --- what a killed vcsd leaves ------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """A start time goes with each id, so that an id used again is not taken for it; and the boot, for all of them."""
        pids = [agent.child.pid for agents in self._waiting.values() for agent in agents]
        text = json.dumps({"boot": _boot(), "agents": [[pid, start_time(pid)] for pid in pids]})
        temporary = self._note.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(text, encoding="ascii")
            temporary.replace(self._note)

    def _end_predecessors(self) -> None:
        """Those that still wait. Who was told what to do has another priority, and does it."""
        try:
            noted = json.loads(self._note.read_text(encoding="ascii"))
            left = [(int(pid), int(started)) for pid, started in noted["agents"]] if noted["boot"] == _boot() else []
        except (OSError, ValueError, KeyError, TypeError):
            return
        for pid, started in left:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if started and start_time(pid) == started and os.getpriority(os.PRIO_PROCESS, pid) == PATIENT:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(path: str, count: int) -> list[Agent]:
    agents: list[Agent] = []
    with contextlib.suppress(OSError):  # the check of the devices tells people
        while len(agents) < count:
            agents.append(Agent(path))
            # Nobody is in a hurry for it until it is told.
            os.setpriority(os.PRIO_PROCESS, agents[-1].child.pid, PATIENT)
    return agents


def _close(waiting: Mapping[str, list[Agent]]) -> None:
    for agents in waiting.values():
        while agents:
            agents.pop().close()


class Keeper:
    """Sees to it that agents wait, on the running loop."""

    def __init__(self, standby: Standby, counts: Mapping[str, int], log: EventLog) -> None:
        self._standby, self._counts, self._log = standby, counts, log
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "standby", as_we_are())
        self._timer: asyncio.TimerHandle | None = None
        self._known = -1

    def refresh(self, delay_s: float = 0.0) -> None:
        """New ones, after a pause."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._begin)

    def after_fence(self) -> None:
        self.refresh(REFILL_S)

    def _begin(self) -> None:
        self._timer = None
        self._loop.run_in_executor(self._thread, self._standby.prepare, self._counts).add_done_callback(self._prepared)

    def _prepared(self, done: asyncio.Future[int]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        found = 0 if error else done.result()
        if found != self._known:
            self._known = found
            self._log.note("fence_standby", waiting=found, wanted=sum(self._counts.values()), problem=str(error or ""))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._standby.close()
        self._thread.shutdown(wait=False)
