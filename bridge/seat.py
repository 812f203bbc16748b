# SPDX-License-Identifier: GPL-2.0-only
"""The provider's seat in the switch: made, adopted, taken."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import Final

from bridge.switch import Attachment, ProviderPort
from vcs import _spec
from vcs.config.model import ClusterConfig
from vcs.errors import SwitchError, VcsError

CAP_RESET: Final = _spec.ENUMS["capability"]["reset"]
"The module resets the machine when a lease with a grace has run out."
SEAT_WAIT_S: Final = 1.0
"How long we wait for the seat of a vcsd that was killed just before."


async def take_seat(switch: ProviderPort, config: ClusterConfig, nodeid: int, handle: str, grace_ms: int) -> Attachment:
    """Make or adopt the cluster in the switch and become its provider. Raises VcsError."""
    try:
        switch.cluster_add(handle, config.name, nodeid)
    except SwitchError as error:
        if error.errno != errno.EEXIST:
            raise
        _adopt(switch, config, nodeid, handle)
    return await _attach(switch, handle, config.lease.lease_ms, grace_ms)


def give_back(switch: ProviderPort, handle: str, session: int) -> None:
    """Give the seat back. Who asked to join after this node had left is told that the cluster has ended here. Raises SwitchError."""
    while True:
        try:
            switch.detach(handle, session)
        except SwitchError as error:
            late = [g.name for g in switch.groups(handle) if not g.event]
            if error.errno != errno.EBUSY or not late:
                raise
            for name in late:
                switch.group_left(handle, session, name, errno.ESHUTDOWN)
        else:
            return


async def _attach(switch: ProviderPort, handle: str, lease_ms: int, grace_ms: int) -> Attachment:
    """Wait a moment for a seat whose holder has just been killed: the kernel frees it after the process is gone."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    fd = switch.hints_fd()
    loop.add_reader(fd, changed.set)
    deadline = loop.time() + SEAT_WAIT_S
    try:
        while True:
            try:
                return switch.attach(handle, lease_ms, grace_ms)
            except SwitchError as error:
                if error.errno != errno.EBUSY:
                    raise
                if error.attribute == "grace-ms":
                    remedy = 'set [lease] self_fencing = "off" in one of them'
                    raise VcsError(f"{error.message}, so that of {handle} cannot", remedy) from error
                if loop.time() >= deadline:
                    raise VcsError(
                        f"cluster {handle} has a provider already", "stop the other vcsd, or give another --handle"
                    ) from error
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), deadline - loop.time())
            changed.clear()
            switch.hints()
    finally:
        loop.remove_reader(fd)


def _adopt(switch: ProviderPort, config: ClusterConfig, nodeid: int, handle: str) -> None:
    """Raises VcsError if the cluster that exists under our handle is another one."""
    there = next(c for c in switch.clusters() if c.handle == handle)
    if (there.name, there.nodeid) != (config.name, nodeid):
        raise VcsError(
            f"handle {handle} is node {there.nodeid} of cluster {there.name!r} in this kernel, "
            f"not node {nodeid} of {config.name!r}",
            "correct the configuration or --node, or give another --handle",
        )
