# SPDX-License-Identifier: GPL-2.0-only
"""The driver alone: order, durability before effects, what follows a refusal, and that nothing nests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.coordinator.api import (
    Effect,
    FenceDone,
    Input,
    InstallView,
    LaunchFence,
    LeaveCluster,
    LeaveDone,
    LocalGroups,
    Notice,
    Persist,
    RenewLease,
    StartGroup,
    StopGroup,
    Submit,
    Tick,
    WakeAt,
)
from bridge.driver import Driver, SeatLost
from bridge.fence_agent import FenceOrder, Outcome
from bridge.storage import RecordFile, StorageError
from membership.api import Engine, Order, Rotation
from tests.fakes.switch import FakeSwitch
from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import VcsError
from vcs.events import EventLog, boottime_ns
from vcs.model import GroupFlags, Level, Member, RingId, event_id

MEMBER = Member(1, 77)


class Script:
    """A coordinator that answers each input with what the test wants."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.answer: Callable[[Input], Sequence[Effect]] = lambda _what: ()
        self.depth = 0

    def handle(self, what: Input, now_ns: int, /) -> Sequence[Effect]:
        assert self.depth == 0 and now_ns > 0, "nested"
        self.depth += 1
        try:
            self.inputs.append(what)
            return self.answer(what)
        finally:
            self.depth -= 1

    def still_owed(self, nodeid: int, incarnation: int, /) -> bool:
        return True

    def count(self, kind: type) -> int:
        return sum(isinstance(i, kind) for i in self.inputs)


class LoopEngine(Engine):
    """Delivers what is submitted inside submit(), as an engine alone may."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.full = False
        self.deliver: Callable[[bytes], None] = lambda _payload: None

    async def start(self) -> None: ...
    async def leave(self) -> None: ...

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        if self.full:
            raise VcsError("queue full")
        self.sent.append(payload)
        self.deliver(payload)

    @property
    def max_message(self) -> int:
        return 1000

    def status(self) -> dict[str, object]:
        return {}


class SlowDisk(RecordFile):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.go.set()
        self.broken = False

    def save(self, record: bytes) -> None:
        self.go.wait(10)
        if self.broken:
            raise StorageError("disk on fire")
        super().save(record)


class HandFencer:
    def __init__(self) -> None:
        self.calls: list[tuple[int, asyncio.Future[Outcome]]] = []
        self.cancelled: list[int] = []

    def launch(self, order: FenceOrder) -> asyncio.Future[Outcome]:
        self.calls.append((order.nodeid, asyncio.get_running_loop().create_future()))
        if order.nodeid == 9:
            self.calls[-1][1].set_result(Outcome(False, f"no fence agent is configured for node {order.nodeid}"))
        return self.calls[-1][1]

    def cancel(self, nodeid: int, incarnation: int) -> None:
        self.cancelled.append(nodeid)

    def close(self) -> None: ...


class Bench:
    def __init__(self, folder: Path) -> None:
        self.script, self.engine, self.disk, self.fencer = Script(), LoopEngine(), SlowDisk(folder / "state"), HandFencer()
        self.switch = FakeSwitch(77, boottime_ns)
        self.port = self.switch.provider()
        self.port.cluster_add("c", "c", 1)
        seat = self.port.attach("c", 5000)
        self.log = EventLog(str(folder / "events"), "n", "test")
        self.left = 0
        self.failures: list[BaseException] = []
        config = ClusterConfig("c", (NodeConfig(1, "one", ("127.0.0.1",)), NodeConfig(2, "two", ("127.0.0.2",))))
        self.driver = Driver(
            config,
            self.script,
            self.port,
            seat=("c", seat.session),
            storage=self.disk,
            fencer=self.fencer,
            log=self.log,
            on_left=self._on_left,
            on_failed=self.failures.append,
        )

    def _on_left(self) -> None:
        self.left += 1

    def noted(self, event: str) -> list[dict[str, Any]]:
        return [dict(r) for r in self.log.ring if r["event"] == event]


def tell(folder: Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(folder)
        await bench.driver.start(bench.engine)
        try:
            await story(bench)
        finally:
            bench.disk.go.set()
            bench.driver.close()

    asyncio.run(run())


async def until(what: Callable[[], object]) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


def once(kind: type, *effects: Effect) -> Callable[[Input], Sequence[Effect]]:
    return lambda what: effects if isinstance(what, kind) else ()


def test_the_groups_come_first_and_persist_is_durable_before_what_follows(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert isinstance(b.script.inputs[0], LocalGroups)
        b.script.answer = once(Tick, Submit(b"before", Order.AGREED), Persist(b"record"), Submit(b"after", Order.AGREED))
        b.disk.go.clear()
        b.driver.feed(Tick())
        b.driver.feed(LeaveCluster())  # waits behind
        await asyncio.sleep(0.1)
        assert b.engine.sent == [b"before"] and b.script.count(LeaveCluster) == 0
        b.disk.go.set()
        await until(lambda: b.script.count(LeaveCluster))
        assert b.engine.sent == [b"before", b"after"] and b.disk.load() == b"record"
        b.driver.feed(Tick())
        await until(lambda: len(b.engine.sent) == 4)
        assert b.disk.saves == 1, "the same record is on the disk already"

    tell(tmp_path, story)


def test_a_disk_that_fails_ends_the_bridge_before_the_effect(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.disk.broken = True
        b.script.answer = once(Tick, Persist(b"x"), Submit(b"after", Order.AGREED))
        b.driver.feed(Tick())
        await until(lambda: b.failures)
        assert isinstance(b.failures[0], StorageError) and not b.engine.sent

    tell(tmp_path, story)


def test_a_delivery_inside_submit_does_not_nest(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.engine.deliver = lambda payload: b.driver.feed(Tick())
        left = [3]

        def answer(what: Input) -> Sequence[Effect]:
            if isinstance(what, LocalGroups) or not left[0]:
                return ()
            left[0] -= 1
            return (Submit(b"%d" % left[0], Order.SAFE),)

        b.script.answer = answer
        b.driver.feed(Tick())
        assert b.engine.sent == [b"2", b"1", b"0"]

    tell(tmp_path, story)


def test_a_full_engine_gets_everything_later_in_order(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.script.answer = once(Tick, *(Submit(b"%d" % i, Order.AGREED) for i in range(5)))
        b.engine.full = True
        b.driver.feed(Tick())
        await asyncio.sleep(0.05)
        b.engine.full = False
        await until(lambda: len(b.engine.sent) == 5)
        assert b.engine.sent == [b"0", b"1", b"2", b"3", b"4"] and not b.failures

    tell(tmp_path, story)


def test_a_refused_call_is_followed_by_what_the_switch_holds_but_never_by_a_spin(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        consumer = b.switch.consumer()
        consumer.join("c", "x", Level.USER, GroupFlags.NONE, "t")
        await until(lambda: any(isinstance(i, LocalGroups) and i.groups for i in b.script.inputs))
        ring = RingId(1, 1)
        start = StartGroup("x", event_id(1, 1), (MEMBER,))
        b.script.answer = lambda what: (start,) if isinstance(what, LocalGroups) else ()
        before = b.script.count(LocalGroups)
        b.driver.feed(b.script.inputs[0])
        await asyncio.sleep(1)
        fed = b.script.count(LocalGroups) - before
        assert 3 <= fed <= 8, "read again, with longer and longer pauses"
        assert b.noted("switch_refused")[0]["errno"] == "EPROTO" and not b.failures
        b.script.answer = once(
            Tick, InstallView(ring, True, (MEMBER,)), StopGroup("x", event_id(1, 1)), StopGroup("nobody", event_id(1, 2))
        )
        b.driver.feed(Tick())
        assert consumer.group("c", "x").event == event_id(1, 1)
        assert [r["errno"] for r in b.noted("switch_refused")][-1] == "ENOENT" and not b.failures

    tell(tmp_path, story)


def test_a_lost_seat_ends_the_bridge(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.switch._lose(b.switch._clusters["c"])
        await until(lambda: b.failures)
        assert isinstance(b.failures[0], SeatLost)

    tell(tmp_path, story)


def test_hints_that_were_lost_lead_to_a_reading(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        consumer = b.switch.consumer()
        before = b.script.count(LocalGroups)
        for i in range(400):  # more than one socket holds, in one turn of the loop
            consumer.join("c", f"g{i}", Level.USER, GroupFlags.NONE, "t")
        await until(lambda: len(b.script.inputs[-1].groups) == 400 if isinstance(b.script.inputs[-1], LocalGroups) else False)
        assert b.script.count(LocalGroups) - before <= 3, "one reading for many hints"

    tell(tmp_path, story)


def test_time_comes_when_asked_for_and_only_the_newest_wish_counts(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        now = boottime_ns()
        b.script.answer = once(LeaveCluster, WakeAt(now + 10**7), WakeAt(now + 10**8))
        b.driver.feed(LeaveCluster())
        await asyncio.sleep(0.05)
        assert b.script.count(Tick) == 0
        await until(lambda: b.script.count(Tick) == 1)
        assert boottime_ns() >= now + 10**8

    tell(tmp_path, story)


def test_fences_answer_once_each_and_an_unknown_node_is_told(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.script.answer = once(Tick, LaunchFence(2, 5), LaunchFence(9, 5))
        b.driver.feed(Tick())
        assert [n for n, _ in b.fencer.calls] == [2, 9]
        b.fencer.calls[0][1].set_result(Outcome(True, "off"))
        await until(lambda: b.script.count(FenceDone) == 2)
        done = {i.nodeid: i for i in b.script.inputs if isinstance(i, FenceDone)}
        assert done[2].ok and not done[9].ok and "no fence agent is configured for node 9" in done[9].detail

    tell(tmp_path, story)


def test_renewals_are_thinned_and_rotations_do_not_pile_up(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        ring = RingId(1, 1)
        b.script.answer = lambda what: (RenewLease(what.began_ns),) if isinstance(what, Rotation) else ()
        now = boottime_ns()
        for i in range(100):
            b.driver.sink(Rotation(ring, now + i * 1000))
        assert b.driver.counters["renewals"] == 1
        b.script.answer = once(Tick, Persist(b"x"))
        b.disk.go.clear()
        b.driver.feed(Tick())
        before = b.script.count(Rotation)
        for i in range(100):
            b.driver.sink(Rotation(ring, now + i))
        b.disk.go.set()
        await until(lambda: b.script.count(Rotation) > before)
        assert b.script.count(Rotation) == before + 1

    tell(tmp_path, story)


def test_nothing_happens_after_the_leave(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        b.script.answer = once(LeaveCluster, Notice("bye", {}), LeaveDone(), Submit(b"late", Order.AGREED))
        b.driver.feed(LeaveCluster())
        b.driver.feed(Tick())
        await asyncio.sleep(0.05)
        assert b.left == 1 and not b.engine.sent and b.script.count(Tick) == 0 and b.noted("bye")

    tell(tmp_path, story)


@pytest.mark.parametrize("error", [ValueError("bug"), VcsError("no")])
def test_a_coordinator_that_raises_ends_the_bridge_once(tmp_path: Path, error: Exception) -> None:
    async def story(b: Bench) -> None:
        def answer(_what: Input) -> Sequence[Effect]:
            raise error

        b.script.answer = answer
        b.driver.feed(Tick())
        b.driver.feed(Tick())
        assert b.failures == [error]

    tell(tmp_path, story)
