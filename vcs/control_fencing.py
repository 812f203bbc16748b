# SPDX-License-Identifier: GPL-2.0-only
"""The control socket's second interface: fencing, its devices and its history, and the timelines of failovers."""
# No ``from __future__ import annotations``: the library makes the interface description from the annotations themselves.

from collections.abc import Sequence
from typing import Any, Protocol

from asyncvarlink import VarlinkInterface, varlinkmethod

from vcs.client import FENCING
from vcs.control_errors import told
from vcs.failover import Failover
from vcs.report import DeviceReport, FenceReport, MethodReport


class FencingBackend(Protocol):
    """What vcsd offers here. All are called on the event loop; a VcsError becomes the caller's error."""

    def fence_methods(self) -> Sequence[MethodReport]: ...
    def fence_devices(self) -> Sequence[DeviceReport]: ...
    def fence_history(self) -> Sequence[FenceReport]: ...
    def failovers(self) -> Sequence[Failover]: ...

    async def fence_check(self) -> Sequence[DeviceReport]:
        """Ask all devices now."""

    async def fence_node(self, nodeid: int, action: str) -> None:
        """Have the node fenced. Returns when it is ordered, raises VcsError if it cannot be."""


class FencingInterface(VarlinkInterface, name=FENCING):
    """How failed nodes are made sure of, and what came of it. Shapes grow by keys, as those of the other interface."""

    def __init__(self, backend: FencingBackend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="methods", allow_foreign=True)
    def Methods(self) -> list[Any]:
        """Every node's methods, best first."""
        with told():
            return list(self._backend.fence_methods())

    @varlinkmethod(return_parameter="devices", allow_foreign=True)
    def Devices(self) -> list[Any]:
        """What the last check of each device said, at this node."""
        with told():
            return list(self._backend.fence_devices())

    @varlinkmethod(return_parameter="devices", allow_foreign=True)
    async def Check(self) -> list[Any]:
        """Ask every device now whether it answers."""
        with told():
            return list(await self._backend.fence_check())

    @varlinkmethod(return_parameter="fences", allow_foreign=True)
    def History(self) -> list[Any]:
        """The last fences, oldest first."""
        with told():
            return list(self._backend.fence_history())

    @varlinkmethod
    async def Fence(self, *, nodeid: int, action: str = "") -> None:
        """Fence a node, whether it has failed or not: off, reboot, or (empty) as configured. Answers when it is ordered."""
        with told():
            await self._backend.fence_node(nodeid, action)

    @varlinkmethod(return_parameter="failovers", allow_foreign=True)
    def Failovers(self) -> list[Any]:
        """The timelines of the last failovers, oldest first."""
        with told():
            return list(self._backend.failovers())
