# SPDX-License-Identifier: GPL-2.0-only
"""One Totem engine in a process of its own, for tests and measurements: events as JSON lines on stdout, commands on stdin.

    python -m tests.process.totem_node NODEID NODES PORT STATE_DIR [key=value of TotemConfig ...]

Commands: ``submit TEXT``, ``safe TEXT``, ``flood COUNT SIZE`` (as fast as the queue takes them), ``quiet`` (messages are no longer
printed), ``status``, ``leave``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from membership.api import Configuration, EngineContext, EngineEvent, Message, Order, Processor, Rotation
from membership.totem.driver import TotemEngine
from vcs.config.model import ClusterConfig, NodeConfig, TotemConfig
from vcs.errors import VcsError

KEY = bytes(range(32))


def cluster(nodes: int, totem: TotemConfig) -> ClusterConfig:
    members = tuple(NodeConfig(n, f"n{n}", (f"127.0.77.{n}",)) for n in range(1, nodes + 1))
    return ClusterConfig("udp", members, KEY, totem=totem)


def say(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, "t": time.monotonic_ns(), **fields}), flush=True)


async def main() -> None:
    nodeid, nodes, port, state_dir = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    totem = {k: int(v) for k, v in (arg.split("=") for arg in sys.argv[5:])}
    told = 0
    quiet = False

    def sink(event: EngineEvent) -> None:
        nonlocal told
        match event:
            case Configuration():
                say("conf", what=event.kind.name, ring=str(event.ring), members=[m.nodeid for m in event.members])
            case Message():
                told += 1
                if not quiet:
                    say("message", sender=event.sender.nodeid, seq=event.seq, text=event.payload.decode())
            case Rotation():
                pass
            case _:
                say("health", nodeid=event.nodeid, what=event.what)

    config = cluster(nodes, TotemConfig(port=port, **totem))
    local = Processor(nodeid, int.from_bytes(os.urandom(7), "big") + 1, int.from_bytes(os.urandom(7), "big") + 1)
    engine = TotemEngine(EngineContext(config, local, state_dir, sink, lambda _name, _fields: None))
    await engine.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split(maxsplit=1):
        rest = line[1].strip() if len(line) > 1 else ""
        match line[0]:
            case "submit":
                engine.submit(rest.encode())
            case "safe":
                engine.submit(rest.encode(), Order.SAFE)
            case "flood":
                count, size = map(int, rest.split())
                left, told = count, 0
                began = time.monotonic()
                while left or told < count:
                    try:
                        while left:
                            engine.submit(b"x" * size)
                            left -= 1
                    except VcsError:
                        pass
                    await asyncio.sleep(0.001)
                say("flooded", count=count, seconds=time.monotonic() - began)
            case "quiet":
                quiet = True
            case "status":
                say("status", cpu=time.process_time(), **engine.status())
            case "leave":
                await engine.leave()
                say("left")
                return


if __name__ == "__main__":
    asyncio.run(main())
