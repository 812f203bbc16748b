# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of batch channels are told with: three Totem engines on 127.0.0.x in this process, and programs that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bridge.channel.engine import EngineChannels
from bridge.channel.limits import Limits
from membership.api import Engine, EngineContext, Processor
from membership.registry import factory
from tests.process.story import make_config, until
from vcs.batch import Batch, Event
from vcs.channel import Channel, Delivery
from vcs.channel_async import AsyncChannel
from vcs.config.model import ClusterConfig

Line = tuple[int, int, int, bytes]
"(event, sequence, sender, message)"


class Program:
    """A program with one channel, on this loop; it writes down what comes."""

    def __init__(self, channel: Channel) -> None:
        self.got: list[Delivery] = []
        self.closed = ""
        self.channel = AsyncChannel(channel, self.got.append, self._on_closed)

    def _on_closed(self, reason: str) -> None:
        self.closed = reason

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            await self.channel.drain()
            self.channel.send(message)

    def lines(self) -> list[Line]:
        return [(b.event, b.seq + i, b.sender, m) for b in self.got if isinstance(b, Batch) for i, m in enumerate(b.messages)]

    def members(self) -> tuple[int, ...]:
        """Of the newest event."""
        return next((e.members for e in reversed(self.got) if isinstance(e, Event)), ())

    def of(self, sender: int) -> list[bytes]:
        return [m for _event, _seq, s, m in self.lines() if s == sender]


class EngineNode:
    """One engine with its channels."""

    def __init__(self, config: ClusterConfig, nodeid: int, folder: Path, limits: Limits | None = None) -> None:
        self.id = nodeid
        self.socket = str(folder / f"{nodeid}.sock")
        state = folder / f"engine{nodeid}"
        state.mkdir(parents=True)
        self.engine: Engine
        self.notes: list[tuple[str, dict[str, object]]] = []
        self.channels = EngineChannels(nodeid, self._submit, self._note, limits)
        local = Processor(nodeid, 1000 + nodeid, 2000 + nodeid)
        self.engine = factory("totem")(EngineContext(config, local, str(state), self.channels.sink, lambda _name, _fields: None))
        self.dead = False

    def _submit(self, payload: bytes) -> None:
        self.engine.submit(payload)

    def _note(self, name: str, fields: dict[str, object]) -> None:
        self.notes.append((name, fields))

    async def start(self) -> None:
        await self.engine.start()
        self.channels.listen(self.socket)

    def program(self, group: str = "g") -> Program:
        return Program(Channel.at(self.socket, group))

    def die(self) -> None:
        """As a killed process: without a word, its sockets closed."""
        if not self.dead:
            self.dead = True
            abort: Callable[[], None] = getattr(self.engine, "abort")  # noqa: B009
            abort()
            self.channels.close()


class EngineNodes:
    """Three of them, in one ring."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        config = make_config(None)
        self.all = [EngineNode(config, n.id, folder, limits) for n in config.nodes]

    def __getitem__(self, nodeid: int) -> EngineNode:
        return self.all[nodeid - 1]

    async def __aenter__(self) -> EngineNodes:
        for node in self.all:
            await node.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for node in self.all:
            if not node.dead:
                await node.engine.leave()
                node.channels.close()

    async def programs(self) -> list[Program]:
        """One at each node, all told of the event that runs on everybody."""
        found = [node.program() for node in self.all]
        await until(lambda: all(len(p.members()) == len(self.all) for p in found))
        return found


async def settle(what: Callable[[], object], timeout_s: float = 20.0) -> None:
    await until(what, timeout_s)


def run(story: Callable[[], object]) -> None:
    """Run a coroutine function."""
    asyncio.run(story())  # type: ignore[arg-type]
