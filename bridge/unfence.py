# SPDX-License-Identifier: GPL-2.0-only
"""Storage fencing: a node opens its own way to the storage when it joins, once in the life of its kernel (SAFETY S24).

A node that was cut off from its storage still holds what it wanted to write. If its way were opened again, it would write that, long after
others have repaired the file system: so a boot incarnation that had its way opened, and finds it closed, is refused. Only a reboot, which
forgets all that, makes a new one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from bridge.fence_agent import STATUS_OFF, Fences
from bridge.storage import RecordFile
from vcs.agents import how, last_line
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, NodeConfig
from vcs.errors import VcsError
from vcs.events import EventLog


class NeedsReboot(VcsError):
    """This boot of the machine was cut off from its storage."""

    exit_code = 69

    def __init__(self, device: str) -> None:
        super().__init__(f"this node was fenced while its kernel went on: {device} has closed its way to the storage",
                         "reboot it; what it still holds in memory must never be written")


def storage_devices(config: ClusterConfig, fences: Fences, node: NodeConfig) -> Iterator[tuple[FenceDevice, FenceMethod]]:
    """The devices that cut ``node`` off from its storage, each once."""
    seen = set()
    for method in config.fence_methods(node.id):
        for name in method.devices:
            device = config.devices[name]
            wanted = device.unfence == "on" or (device.unfence == "auto" and fences.metadata[name].unfences)
            if wanted and name not in seen:
                seen.add(name)
                yield device, method


async def open_storage(config: ClusterConfig, fences: Fences, nodeid: int, boot: int, state_dir: str, log: EventLog) -> None:
    """Before this node joins. Raises NeedsReboot, or VcsError when a device does not do it."""
    node = config.node(nodeid)
    assert node is not None
    devices = list(storage_devices(config, fences, node))
    if not devices:
        return
    file = RecordFile(state_dir, "unfenced")
    found = json.loads(file.load() or b"{}")
    opened: list[str] = found.get("devices", []) if found.get("boot") == boot else []
    for device, method in devices:
        if device.name in opened:
            ended = await fences.ask(device, method, node, "status")
            if ended.code == STATUS_OFF:
                log.note("unfence_refused", device=device.name)
                raise NeedsReboot(device.name)
            continue
        ended = await fences.ask(device, method, node, "on")
        if ended.code != 0:
            raise VcsError(f"{device.name} does not open this node's way to the storage: {last_line(ended) or how(ended)}",
                           "mend the device: a node that cannot write must not join")
        opened.append(device.name)
        await asyncio.to_thread(file.save, json.dumps({"boot": boot, "devices": opened}).encode())
        log.note("unfenced", device=device.name)
