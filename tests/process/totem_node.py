# SPDX-License-Identifier: GPL-2.0-only
"""One Totem engine in a process of its own, for tests and measurements: events as JSON lines on stdout, commands on stdin.

    python -m tests.process.totem_node NODEID NODES PORT STATE_DIR [key=value of TotemConfig ...]
    python -m tests.process.totem_node NODEID CLUSTER_TOML STATE_DIR

Commands: ``submit TEXT``, ``safe TEXT``, ``flood COUNT SIZE`` (as fast as the queue takes them), ``quiet`` (messages are no longer
printed), ``status``, ``leave``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import replace

from membership.api import Configuration, EngineContext, EngineEvent, Message, Order, Processor, Rotation
from membership.totem.driver import TotemEngine
from vcs.config.load import load
from vcs.config.model import ClusterConfig, NodeConfig, TotemConfig
from vcs.errors import VcsError

KEY = bytes(range(32))


def cluster(nodes: int, totem: TotemConfig) -> ClusterConfig:
    members = tuple(NodeConfig(n, f"n{n}", (f"127.0.77.{n}",)) for n in range(1, nodes + 1))
    return ClusterConfig("udp", members, KEY, totem=totem)


def say(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, "t": time.monotonic_ns(), **fields}), flush=True)


class Node:
    """The engine, its sink, and the commands."""

    def __init__(self, nodeid: int, config: ClusterConfig, state_dir: str) -> None:
        self.told = 0
        self.quiet = False
        local = Processor(nodeid, int.from_bytes(os.urandom(7), "big") + 1, int.from_bytes(os.urandom(7), "big") + 1)
        self.engine = TotemEngine(EngineContext(
            config, local, state_dir, self.sink, lambda name, fields: say("note", name=name, fields=fields)))

    def sink(self, event: EngineEvent) -> None:
        match event:
            case Configuration():
                say("conf", what=event.kind.name, ring=str(event.ring), members=[m.nodeid for m in event.members])
            case Message():
                self.told += 1
                if not self.quiet:
                    say("message", sender=event.sender.nodeid, seq=event.seq, text=event.payload.decode())
            case Rotation():
                pass
            case _:
                say("health", nodeid=event.nodeid, what=event.what, detail=event.detail)

    async def obey(self, command: str, rest: str) -> bool:
        """False: it was the last one."""
        match command:
            case "submit":
                self.engine.submit(rest.encode())
            case "safe":
                self.engine.submit(rest.encode(), Order.SAFE)
            case "flood":
                await self.flood(*map(int, rest.split()))
            case "quiet":
                self.quiet = True
            case "status":
                guardian = self.engine._guardian
                say("status", cpu=time.process_time(), guardian=guardian.pid if guardian is not None else None, **self.engine.status())
            case "reload":
                try:
                    self.engine.reconfigure(load(rest))
                    say("reloaded")
                except VcsError as e:
                    say("reloaded", error=str(e))
            case "leave":
                await self.engine.leave()
                say("left")
                return False
        return True

    async def flood(self, count: int, size: int) -> None:
        left, self.told = count, 0
        began = time.monotonic()
        while left or self.told < count:
            with contextlib.suppress(VcsError):
                while left:
                    self.engine.submit(b"x" * size)
                    left -= 1
            await asyncio.sleep(0.001)
        say("flooded", count=count, seconds=time.monotonic() - began)


async def main() -> None:
    nodeid = int(sys.argv[1])
    with contextlib.suppress(PermissionError):
        # As vcsd does: other work on the machine must not look like a fault of the engine.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if sys.argv[2].endswith(".toml"):
        config, state_dir = load(sys.argv[2]), sys.argv[3]
    else:
        totem = {k: int(v) for k, v in (arg.split("=") for arg in sys.argv[5:])}
        config = cluster(int(sys.argv[2]), replace(TotemConfig(port=int(sys.argv[3])), **totem))  # type: ignore[arg-type]
        state_dir = sys.argv[4]
    node = Node(nodeid, config, state_dir)
    await node.engine.start()
    reader = asyncio.StreamReader(1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split(maxsplit=1):
        if not await node.obey(line[0], line[1].strip() if len(line) > 1 else ""):
            return


if __name__ == "__main__":
    asyncio.run(main())
