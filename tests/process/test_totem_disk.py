# SPDX-License-Identifier: GPL-2.0-only
"""T30: the disk that holds the ring sequence is slow, full or broken. Engines in one process, on 127.0.79.x."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from membership.api import Configuration, EngineContext, EngineEvent, Kind, Processor
from membership.totem import driver
from membership.totem.driver import TotemEngine
from membership.totem.limits import RING_SEQ_STEP
from membership.totem.ringseq import RingSeqFile
from vcs.config.model import ClusterConfig, NodeConfig, TotemConfig
from vcs.errors import VcsError


class Disk(RingSeqFile):
    """A file whose disk answers when the test lets it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.go = threading.Event()
        self.go.set()
        self.full = False
        self.stores: list[int] = []

    def store(self, seq: int) -> None:
        assert self.go.wait(20)
        if self.full:
            raise VcsError("no space left on device", "make room")
        super().store(seq)
        self.stores.append(seq)


class One:
    """An engine with its disk and what it said."""

    def __init__(self, nodeid: int, port: int, folder: Path, life: int = 1) -> None:
        self.events: list[EngineEvent] = []
        self.notes: list[str] = []
        nodes = tuple(NodeConfig(n, f"n{n}", (f"127.0.79.{n}",)) for n in (1, 2))
        config = ClusterConfig("disk", nodes, b"k" * 32, totem=TotemConfig(port=port))
        folder.mkdir(exist_ok=True)
        context = EngineContext(config, Processor(nodeid, 1, life), str(folder), self.events.append,
                                lambda name, _fields: self.notes.append(name))
        self.engine = TotemEngine(context)
        self.disk = self.engine._file = Disk(str(folder / "ring_seq"))

    def rings(self) -> list[list[int]]:
        return [[m.nodeid for m in e.members] for e in self.events if isinstance(e, Configuration) and e.kind is Kind.REGULAR]


async def until(what: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.005)


def tell(story: Callable[[int], Awaitable[None]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.79.1", 0))
        port = int(s.getsockname()[1])

    async def run() -> None:
        await story(port)

    asyncio.run(run())


def test_nothing_is_said_before_the_sequence_is_stored_and_the_loop_goes_on(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        one = One(1, port, tmp_path / "1")
        one.disk.go.clear()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.79.2", port))
            peer.settimeout(0)
            starting = asyncio.create_task(one.engine.start())
            turns, longest, end = 0, 0.0, time.monotonic() + 0.5
            while (before := time.monotonic()) < end:
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - before)
                turns += 1
            assert turns > 20 and longest < 0.3, "the loop waits for the disk"
            assert not starting.done() and not one.events
            with pytest.raises(BlockingIOError):
                peer.recv(2000)
            one.disk.go.set()
            await starting
            assert one.rings() == [[1]]
            await until(lambda: readable(peer))
        await one.engine.leave()

    tell(story)


def readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(2000))
    except BlockingIOError:
        return False


def test_new_rings_need_no_disk(tmp_path: Path) -> None:
    """The range that was reserved at the start is enough: a disk that hangs delays no configuration. A restart uses none twice, and
    costs the others one write."""
    async def story(port: int) -> None:
        one, two = One(1, port, tmp_path / "1"), One(2, port, tmp_path / "2")
        await one.engine.start()
        await two.engine.start()
        one.disk.go.clear()
        two.disk.go.clear()
        await until(lambda: one.rings()[-1] == [1, 2] == two.rings()[-1])
        two.engine.abort()
        await until(lambda: one.rings()[-1] == [1])
        seen = [e.ring.seq for e in two.events if isinstance(e, Configuration)]
        assert len(one.disk.stores) == len(two.disk.stores) == 1
        one.disk.go.set()  # who restarts skips what it had reserved, and that may be beyond what the others have
        again = One(2, port, tmp_path / "2", life=2)
        await again.engine.start()
        await until(lambda: one.rings()[-1] == [1, 2] == again.rings()[-1])
        assert min(e.ring.seq for e in again.events if isinstance(e, Configuration)) > max(seen)
        assert len(one.disk.stores) <= 2
        await again.engine.leave()
        await one.engine.leave()

    tell(story)


def test_a_full_disk_is_told_early_and_ends_the_engine_when_the_reserve_is_used_up(tmp_path: Path,
                                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "RING_SEQ_RESERVE", 4 * RING_SEQ_STEP)

    async def story(port: int) -> None:
        ended: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: ended.append(context["exception"]))
        one = One(1, port, tmp_path / "1")
        await one.engine.start()
        one.disk.full = True
        life = 1
        while not ended:
            two = One(2, port, tmp_path / f"2-{life}", life)  # an empty disk: its sequence is low
            await two.engine.start()
            count = len(one.rings())
            await until(lambda count=count: ended or len(one.rings()) > count)  # type: ignore[misc]
            two.engine.abort()
            life += 1
            await until(lambda: ended or one.rings()[-1] == [1])
            assert life < 20
        assert one.notes.index("ring_seq_not_reserved") < one.notes.index("ring_seq_not_stored")
        assert "no space left" in str(ended[0])
        stored = one.disk.stores[-1]
        assert all(e.ring.seq <= stored for e in one.events if isinstance(e, Configuration)), "a ring that was never stored"
        with pytest.raises(VcsError, match="not running"):
            one.engine.submit(b"x")

    tell(story)
