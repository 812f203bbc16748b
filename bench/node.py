# SPDX-License-Identifier: GPL-2.0-only
"""One of our engines in a process of its own, as vcsd runs it (real-time priority, locked memory), for measurements.

    python -m bench.node --local 2 --nodes 1=10.77.0.1,2=10.77.0.2 --state DIR [--socket PATH] [--ordinary]

It prints a line per event: "conf T RING MEMBER...", "health T NODEID WHAT"; and takes the words of bench/cpg_client.c on stdin: then
the load is made inside of this process ("without a client"). Further words: "status", "cpu". SIGTERM leaves the ring. With
``--socket``, clients get the batch channel there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.load import Load, gap
from bridge.channel.engine import EngineChannels
from membership.api import Configuration, EngineContext, EngineEvent, Health, Kind, Message, Processor
from membership.totem.driver import TotemEngine
from vcs import realtime
from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import VcsError

KEY = bytes(range(32))
AHEAD_BYTES = 2 << 20
"How much of a flood may be on its way: enough to keep every queue of the ring filled."
AHEAD_MESSAGES = 4096


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class InProcess:
    """The load of ``bench.load`` on the engine itself."""

    def __init__(self, engine: TotemEngine, load: Load) -> None:
        self.engine = engine
        self.load = load
        self.own = asyncio.Event()
        self.on_way = 0

    def delivered(self, message: Message) -> None:
        if self.load.take(message.sender.nodeid, message.payload, time.monotonic_ns()):
            self.on_way -= 1
            self.own.set()

    async def submit(self, payload: bytes) -> None:
        while True:
            try:
                self.engine.submit(payload)
            except VcsError:  # the queue is full: a delivery of our own makes room
                await self.more()
            else:
                self.on_way += 1
                return

    async def more(self) -> None:
        self.own.clear()
        await self.own.wait()

    async def run(self, words: list[str]) -> None:
        match words:
            case ["flood", size, seconds]:
                payload = self.load.flood(int(size))
                ahead = max(8, min(AHEAD_MESSAGES, AHEAD_BYTES // len(payload)))
                until = time.monotonic() + float(seconds)
                while time.monotonic() < until:
                    while self.on_way >= ahead:
                        await self.more()
                    for _ in range(min(64, ahead)):
                        await self.submit(payload)
                await self.submit(self.load.end())
            case ["ping", count, gap_us, size]:
                for _ in range(int(count)):
                    await asyncio.sleep(gap(int(gap_us)))
                    await self.one(int(size))
                await self.submit(self.load.end())
            case ["one", size]:
                await self.one(int(size))
                say(f"pong {self.load.last_own}")
            case ["mark"]:
                await self.submit(self.load.end())
            case _:
                raise ValueError(words)

    async def one(self, size: int) -> None:
        target = self.load.own_pings + 1
        await self.submit(self.load.ping(size, time.monotonic_ns()))
        while self.load.own_pings < target:
            await self.more()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--local", type=int, required=True)
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--socket", default="")
    parser.add_argument("--ordinary", action="store_true")
    return parser.parse_args()


def configuration(args: argparse.Namespace) -> ClusterConfig:
    nodes = tuple(
        NodeConfig(int(n), f"n{n}", tuple(addresses.split("/"))) for n, addresses in (pair.split("=") for pair in args.nodes.split(",")))
    return ClusterConfig("bench", nodes, KEY)


def boot_id(nodeid: int) -> int:
    """The machines of the lab share one kernel: each gets an incarnation of its own out of the kernel's."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return (int(text.replace("-", "")[:12], 16) << 8) + nodeid


async def main(args: argparse.Namespace) -> None:
    local = Processor(args.local, boot_id(args.local), int.from_bytes(os.urandom(7), "big") + 1)
    load = Load(args.local, say)
    inside: InProcess | None = None
    channels: EngineChannels | None = None

    def sink(event: EngineEvent) -> None:
        if channels is not None:
            channels.sink(event)
        match event:
            case Message():
                if channels is None and inside is not None:
                    inside.delivered(event)
            case Configuration(kind=Kind.REGULAR):
                say(f"conf {time.monotonic_ns()} {event.ring.rep}.{event.ring.seq} " + " ".join(str(m.nodeid) for m in event.members))
            case Health():
                say(f"health {time.monotonic_ns()} {event.nodeid} {event.what} {event.detail}")

    engine = TotemEngine(EngineContext(configuration(args), local, args.state, sink, lambda _name, _fields: None))
    if args.socket:
        channels = EngineChannels(args.local, engine.submit)
        channels.listen(args.socket)
    else:
        inside = InProcess(engine, load)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    if not args.ordinary:
        for step in realtime.setup(reset_on_fork=True):
            if not step.ok:
                say(f"realtime {step.name} {step.detail}")
    gc.freeze()
    await engine.start()
    say("ready")
    await serve(engine, inside, ended)
    if channels is not None:
        channels.close()
    await engine.leave()


async def serve(engine: TotemEngine, inside: InProcess | None, ended: asyncio.Event) -> None:
    """Carry out stdin's words until SIGTERM."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    end = asyncio.create_task(ended.wait())
    while not ended.is_set():
        line = asyncio.create_task(reader.readline())
        await asyncio.wait((line, end), return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            line.cancel()
            return
        words = line.result().decode().split()
        if not words:
            return
        if words[0] == "status":
            say("status " + json.dumps(engine.status()))
        elif words[0] == "cpu":
            say(f"cpu {time.process_time()}")
        elif inside is not None:
            await inside.run(words)


if __name__ == "__main__":
    asyncio.run(main(options()))
