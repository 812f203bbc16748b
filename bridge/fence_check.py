# SPDX-License-Identifier: GPL-2.0-only
"""Fence devices are asked now and then whether they answer, so that a broken one is known before it is needed (SAFETY S24).

Every node asks by itself, for it is its own way to the device that counts, and each at another time. A fence that begins ends a check
that runs: nothing stands in its way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bridge.fence_agent import STATUS_OFF, STATUS_ON, Fences
from vcs.agent_process import BadOption
from vcs.agents import call_options, how, last_line
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, NodeConfig
from vcs.events import EventLog, boottime_ns
from vcs.report import DeviceReport

FIRST_S: Final = 30.0
"The first check comes within this time."
GOLDEN: Final = 0.6180339887
"Multiples of it spread over an interval as evenly as can be, however many nodes there are."


def phase(nodeid: int) -> float:
    """Where in an interval a node checks: 0 to 1."""
    return nodeid * GOLDEN % 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: a device, as it would be called for ``node``."""

    device: FenceDevice
    method: FenceMethod
    node: NodeConfig
    action: str


def targets(config: ClusterConfig, fences: Fences, local: int) -> Iterator[Target]:
    """One for each device that fences somebody else, and one for each node where the device is another one for each (``ip`` differs)."""
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for node in config.nodes:
        if node.id == local:
            continue
        for method in config.fence_methods(node.id):
            for name in method.devices:
                device, metadata = config.devices[name], fences.metadata[name]
                action = next((a for a in ("monitor", "status") if a in metadata.actions), "")
                told = call_options(device, method, node, metadata, action)
                plain = {k: v for k, v in told.items() if action == "status" or k not in ("plug", "port", "nodename")}
                key = (name, tuple(sorted(plain.items())))
                if action and key not in seen:
                    seen.add(key)
                    yield Target(device, method, node, action)


class DeviceChecks:
    """``reports`` is what is known by now; the event log hears of every change."""

    def __init__(self, config: ClusterConfig, fences: Fences, local: int, log: EventLog) -> None:
        self._config, self._fences, self._local, self._log = config, fences, local, log
        self._known: dict[tuple[str, int], DeviceReport] = {}
        self._task: asyncio.Task[None] | None = None
        self._now: asyncio.Task[None] | None = None
        self.after_check: Callable[[], None] = lambda: None

    def start(self) -> None:
        if self._config.fencing.check_interval_s and not self._task:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="fence-check")

    def close(self) -> None:
        for task in (self._task, self._now):
            if task is not None:
                task.cancel()

    def interrupt(self) -> None:
        """A fence begins: it must not wait for us."""
        if self._now is not None:
            self._now.cancel()

    def reports(self) -> list[DeviceReport]:
        return [self._known[key] for key in sorted(self._known)]

    async def check(self) -> list[DeviceReport]:
        """Ask all of them now."""
        with contextlib.suppress(asyncio.CancelledError):
            self._now = asyncio.ensure_future(self._all())
            await asyncio.shield(self._now)
        return self.reports()

    async def _run(self) -> None:
        every = self._config.fencing.check_interval_s
        await asyncio.sleep(1.0 + phase(self._local) * min(FIRST_S, every))
        while True:
            await self.check()
            self.after_check()
            await asyncio.sleep(every)

    async def _all(self) -> None:
        await asyncio.gather(*(self._ask(t) for t in targets(self._config, self._fences, self._local)))

    async def _ask(self, target: Target) -> None:
        began = boottime_ns()
        try:
            ended = await self._fences.ask(target.device, target.method, target.node, target.action)
            ok = ended.code in (STATUS_ON, STATUS_OFF)
            detail = "" if ok else last_line(ended) or how(ended)
        except (BadOption, OSError) as error:
            ok, detail = False, str(error)
        now = boottime_ns()
        key = (target.device.name, target.node.id)
        before = self._known.get(key)
        self._known[key] = {
            "device": target.device.name, "agent": target.device.agent, "nodeid": target.node.id, "ok": ok, "detail": detail,
            "action": target.action, "checked_ns": now, "took_ms": round((now - began) / 1e6, 1),
            "since_ns": before["since_ns"] if before is not None and before["ok"] == ok else now,
        }  # fmt: skip
        if before is None or before["ok"] != ok:
            note: Callable[..., None] = self._log.note
            if ok:
                if before is not None:
                    note("fence_device_ok", device=target.device.name, nodeid=target.node.id)
            else:
                note("fence_device_failed", device=target.device.name, nodeid=target.node.id, detail=detail)
