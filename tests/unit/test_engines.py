# SPDX-License-Identifier: GPL-2.0-only
"""The registry, and the engine for one node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from membership.api import Configuration, EngineContext, EngineEvent, Kind, Message, Order, Processor, Rotation
from membership.registry import factory, known
from membership.static import StaticEngine
from membership.totem.driver import TotemEngine
from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import ConfigError, VcsError

ME = Processor(1, 7, 8)


def context(tmp_path: Path, events: list[EngineEvent], nodes: int = 1, key: bytes = b"k" * 32) -> EngineContext:
    config = ClusterConfig("c", tuple(NodeConfig(n, f"n{n}", (f"127.0.78.{n}",)) for n in range(1, nodes + 1)), key)
    return EngineContext(config, ME, str(tmp_path), events.append, lambda _name, _fields: None)


def test_names() -> None:
    assert {"static", "totem"} <= set(known())
    assert factory("totem") is TotemEngine
    with pytest.raises(ConfigError, match=r"unknown engine 'tottem'.*static, totem"):
        factory("tottem")


def test_static_orders_also_what_is_submitted_from_within(tmp_path: Path) -> None:
    events: list[EngineEvent] = []

    async def run() -> None:
        made: list[StaticEngine] = []

        def sink(event: EngineEvent) -> None:
            events.append(event)
            if isinstance(event, Message) and event.payload == b"first":
                made[0].submit(b"second", Order.SAFE)
                events.append(Rotation(event.ring, -1))

        made.append(StaticEngine(EngineContext(context(tmp_path, events).config, ME, str(tmp_path), sink, lambda _n, _f: None)))
        await made[0].start()
        made[0].submit(b"first")
        with pytest.raises(VcsError, match="too large"):
            made[0].submit(bytes(made[0].max_message + 1))
        await made[0].leave()
        before = len(events)
        made[0].submit(b"late")
        await asyncio.sleep(0.12)
        assert len(events) == before

    asyncio.run(run())
    assert isinstance(events[0], Configuration)
    assert events[0].kind is Kind.REGULAR
    assert events[0].members == (ME,)
    told = [e.payload if isinstance(e, Message) else "mark" for e in events if isinstance(e, Message) or e == Rotation(events[0].ring, -1)]
    assert told == [b"first", "mark", b"second"], "the second is told after the first's handler has ended"


@pytest.mark.parametrize("name", ["static", "totem"])
def test_ring_sequence_rises_over_restarts(tmp_path: Path, name: str) -> None:
    events: list[EngineEvent] = []

    async def run() -> None:
        engine = factory(name)(context(tmp_path, events))
        await engine.start()
        engine.submit(b"alone")
        assert any(isinstance(e, Message) and e.payload == b"alone" for e in events)
        await asyncio.sleep(0.12)
        await engine.leave()
        await engine.leave()

    asyncio.run(run())
    asyncio.run(run())
    rings = [e.ring.seq for e in events if isinstance(e, Configuration)]
    assert len(rings) == 2
    assert rings[0] < rings[1]
    assert sum(isinstance(e, Rotation) for e in events) >= 4, "a ring of one gives its evidence too"


def test_bad_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one node"):
        StaticEngine(context(tmp_path, [], nodes=2))
    with pytest.raises(VcsError, match="32"):
        TotemEngine(context(tmp_path, [], key=b"short"))


def test_address_in_use_is_one_line(tmp_path: Path) -> None:
    async def run() -> None:
        first = TotemEngine(context(tmp_path, []))
        await first.start()
        with pytest.raises(VcsError, match=r"cannot bind UDP 127\.0\.78\.1 port 5405"):
            await TotemEngine(context(tmp_path, [])).start()
        await first.leave()

    asyncio.run(run())
