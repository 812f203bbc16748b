# SPDX-License-Identifier: GPL-2.0-only
"""The fencing of one running node, put together: devices and their checks, its own way to the storage, and what is remembered of it all."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.coordinator.api import Notice
from bridge.driver import Fencer
from bridge.fence_agent import Fences
from bridge.fence_check import DeviceChecks
from bridge.recorder import Recorder
from bridge.standby import Keeper, Standby, wanted
from bridge.unfence import NeedsReboot, open_storage, storage_devices
from vcs.config.model import ClusterConfig
from vcs.errors import VcsError
from vcs.events import EventLog
from vcs.report import DeviceReport, MethodReport

STANDBY = "standby.json"


class Fencing:
    """``check()``, then ``join(boot)``, then ``begin()``; ``close()`` at the end. ``fencer`` is what the driver launches with."""

    def __init__(self, config: ClusterConfig, nodeid: int, state_dir: str, log: EventLog, fencer: Fencer | None = None) -> None:
        """``fencer``: somebody else's, for tests; then there are no devices to look after."""
        self._config, self._nodeid, self._state_dir, self._log = config, nodeid, state_dir, log
        self.fencer = fencer
        self.recorder = Recorder(log, state_dir)
        self._fences: Fences | None = None
        self._checks: DeviceChecks | None = None
        self._keeper: Keeper | None = None
        self._boot = 0

    async def check(self) -> None:
        """Are all agents there, and would they take what they are given? Raises FenceAgentError."""
        if self.fencer is not None or not self._config.devices:
            return
        standby = Standby(f"{self._state_dir}/{STANDBY}") if self._config.fencing.standby else None
        fences = Fences(self._config, standby)
        await fences.check()
        for name, metadata in fences.metadata.items():
            self._log.note("fence_agent", device=name, path=fences.path(name), name=metadata.name)
        self._fences = self.fencer = fences
        self._checks = DeviceChecks(self._config, fences, self._nodeid, self._log)
        fences.before_launch = self._checks.interrupt
        if standby is not None:
            counts = wanted(self._config, {name: fences.path(name) for name in fences.metadata}, self._nodeid)
            self._keeper = Keeper(standby, counts, self._log)
            fences.after_fence, self._checks.after_check = self._keeper.after_fence, self._after_check

    def _after_check(self) -> None:
        """None waits for longer than from one check of the devices to the next."""
        if self._keeper is not None and self._fences is not None and not self._fences.busy:
            self._keeper.refresh()

    async def join(self, boot: int) -> None:
        """The seat is taken, and this kernel is the incarnation ``boot``. Raises VcsError when this node must not join."""
        self._boot = boot
        self.recorder.start()
        if self._fences is not None:
            await open_storage(self._config, self._fences, self._nodeid, boot, self._state_dir, self._log)

    def begin(self) -> None:
        """The node runs."""
        if self._checks is not None:
            self._checks.start()
        if self._keeper is not None:
            self._keeper.refresh()

    def close(self) -> None:
        if self._checks is not None:
            self._checks.close()
        if self._keeper is not None:
            self._keeper.close()
        self.recorder.close()

    def cut_off(self, notice: Notice) -> VcsError | None:
        """What to end with, when ``notice`` says that this very incarnation was fenced, and storage is what it was cut off from."""
        node, fields = self._config.node(self._nodeid), notice.fields
        if notice.event != "fence_result" or not fields.get("ok") or self._fences is None or node is None:
            return None
        if (fields.get("nodeid"), fields.get("incarnation")) != (self._nodeid, self._boot):
            return None
        device = next((d.name for d, _ in storage_devices(self._config, self._fences, node)), "")
        return NeedsReboot(device) if device else None

    # --- what others ask ----------------------------------------------------------------------------------------------

    def methods(self) -> list[MethodReport]:
        """Every node's methods, best first."""
        devices = self._config.devices
        return [
            {
                "nodeid": node.id, "priority": i, "devices": list(method.devices), "parallel": method.parallel,
                "actions": [devices[d].action for d in method.devices], "agents": [devices[d].agent for d in method.devices],
            }
            for node in self._config.nodes for i, method in enumerate(self._config.fence_methods(node.id), 1)
        ]  # fmt: skip

    def devices(self) -> list[DeviceReport]:
        return self._checks.reports() if self._checks is not None else []

    async def check_devices(self) -> list[DeviceReport]:
        """Ask all devices now."""
        return await self._checks.check() if self._checks is not None else []

    def alarms(self, names: Mapping[int, str]) -> list[str]:
        """Devices that did not answer when they were asked last, for people."""
        return [
            f"fence device {d['device']} (for {names.get(d['nodeid'], d['nodeid'])}) does not answer: {d['detail']}"
            for d in self.devices() if not d["ok"]
        ]
