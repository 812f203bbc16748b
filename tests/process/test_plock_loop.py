# SPDX-License-Identifier: GPL-2.0-only
"""The thread that serves POSIX locks, over real channels of a real ring, with a device that keeps the kernel's rules."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from dlm_glue.plock_log import Log
from dlm_glue.plock_loop import Membership, Plocks
from dlm_glue.plock_wire import Op
from tests.fakes.plock import FSID, SPACE, Call, FakeKernel, LiveDevice, cancel, lock, unlock
from tests.process.channels import EngineNodes, run, settle
from vcs.channel import Channel

BOOT = bytes(16)


class Seat:
    """dlm_glue's locks on one node, which can be killed and started again."""

    def __init__(self, path: str, me: int, folder: Path) -> None:
        self.path, self.me, self.log = path, me, str(folder / f"plock{me}.log")
        self.kernel = FakeKernel()
        self.errors: list[BaseException] = []
        self.start()

    def start(self) -> None:
        self.device = LiveDevice(self.kernel)
        log = Log.open(self.log, BOOT)
        self.plocks = Plocks(self.me, self.device, log, lambda group: Channel.at(self.path, group, explicit=True), self.errors.append)
        self.plocks.start()
        self.plocks.update({SPACE: Membership(self.me, False)})

    def stop(self) -> None:
        self.plocks.close()

    async def does(self, op: Op) -> int:
        """The result of a call that ends."""
        call = self.device.call(op)
        await settle(lambda: call.rv is not None)
        assert call.rv is not None
        return call.rv

    async def sleeps(self, op: Op) -> Call:
        """A call that waits, once its request has reached everybody."""
        call = self.device.call(op)
        await settle(lambda: any(r.waiting and r.owner == op.owner for r in self.plocks.rows(SPACE)))
        assert call.rv is None
        return call


class Seats:
    def __init__(self, nodes: EngineNodes, folder: Path) -> None:
        self.all = [Seat(node.socket, node.id, folder) for node in nodes.all]

    async def ready(self) -> list[Seat]:
        await settle(lambda: not any(seat.plocks.without_state() or not seat.plocks.node.members for seat in self.all))
        return self.all

    def close(self) -> None:
        for seat in self.all:
            seat.stop()
            assert not seat.errors


def test_a_lock_goes_through_all_nodes_in_the_order_of_requests(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, two, three = await seats.ready()
            assert await one.does(lock(5, 10, 0, 0)) == 0
            second = await two.sleeps(lock(5, 20, 0, 0))
            third = await three.sleeps(lock(5, 30, 0, 0))
            assert await three.does(lock(5, 31, 0, 0, wait=False)) == -11
            assert await one.does(unlock(5, 10, 0, 0)) == 0
            await settle(lambda: second.rv == 0)
            assert third.rv is None
            assert await two.does(unlock(5, 20, 0, 0)) == 0
            await settle(lambda: third.rv == 0)
            assert [r.line() for r in one.plocks.rows(SPACE)] == ["5 WR 0-0 nodeid 3 pid 30 owner 1e rown 0"]
            seats.close()

    run(story)


def test_a_wait_is_cancelled_and_a_node_dies(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, two, three = await seats.ready()
            assert await three.does(lock(5, 30, 0, 0)) == 0
            assert await three.does(lock(6, 30, 0, 0)) == 0
            waits, ends = await one.sleeps(lock(5, 10, 0, 0)), await two.sleeps(lock(5, 20, 0, 0))
            assert await two.does(cancel(ends.op)) == 0
            two.device.cancelled(ends)
            assert await two.does(cancel(ends.op)) == -2
            nodes[3].die()
            await settle(lambda: waits.rv == 0)
            assert await two.does(lock(6, 20, 0, 0)) == 0, "a file that only the dead node had used"
            seats.close()

    run(story)


def test_glue_is_restarted_on_every_node_with_requests_queued(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, two, three = await seats.ready()
            assert await one.does(lock(5, 10, 0, 0)) == 0
            assert await one.does(lock(6, 10, 0, 0)) == 0
            waits = await two.sleeps(lock(5, 20, 0, 0))
            for seat in seats.all:
                seat.stop()
            asked = one.kernel.call(lock(6, 11, 0, 0, wait=False))
            more = three.kernel.call(lock(5, 30, 0, 0))
            for seat in seats.all:
                seat.start()
            await seats.ready()
            await settle(lambda: asked.rv == -11)
            assert waits.rv is None and more.rv is None
            assert await one.does(unlock(5, 10, 0, 0)) == 0
            await settle(lambda: waits.rv == 0)
            assert more.rv is None
            assert await two.does(unlock(5, 20, 0, 0)) == 0
            await settle(lambda: more.rv == 0)
            seats.close()

    run(story)


def test_a_wait_is_cancelled_while_there_is_no_order(tmp_path: Path) -> None:
    """vcsd is gone, and the lock may have been granted meanwhile: nobody stays in a sleep that cannot be killed, nor does an unlock
    that the kernel wants answered first."""

    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, two, _three = await seats.ready()
            assert await one.does(lock(5, 10, 0, 9)) == 0
            assert await two.does(lock(5, 20, 20, 29, ex=False)) == 0
            waits = await two.sleeps(lock(5, 20, 5, 24))
            nodes[2].die()
            unlocks = two.device.call(unlock(5, 21, 0, 0))
            assert await two.does(cancel(waits.op)) == 0
            two.device.cancelled(waits)
            assert unlocks.rv == 0
            seats.close()

    run(story)


def cpu_ns(plocks: Plocks) -> int:
    """What the thread has used by now."""
    tid = next(t.native_id for t in threading.enumerate() if t is plocks._thread)
    return int(Path(f"/proc/self/task/{tid}/schedstat").read_text().split()[0])


def test_who_has_something_to_say_and_nobody_to_say_it_to_sleeps(tmp_path: Path) -> None:
    """dlm_glue is back before its vcsd, with real-time priority: were it to spin, vcsd could not come up on the same processor."""

    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, two, _three = await seats.ready()
            assert await one.does(lock(5, 10, 0, 0)) == 0
            waits = await two.sleeps(lock(5, 20, 0, 0))
            nodes[2].die()
            two.stop()
            asked = two.kernel.call(lock(5, 21, 0, 0))
            two.start()
            await settle(lambda: any(p.op.owner == 21 for p in list(two.plocks.node.pending.values())))
            assert two.plocks.node.members[FSID].space.out, "there is something to say"
            before, begun = cpu_ns(two.plocks), time.monotonic()
            await asyncio.sleep(0.5)
            share = (cpu_ns(two.plocks) - before) / 1e9 / (time.monotonic() - begun)
            assert share < 0.1, f"{share:.0%} of a processor"
            assert waits.rv is None and asked.rv is None
            seats.close()

    run(story)


def test_what_one_node_uses_costs_no_message(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            seats = Seats(nodes, tmp_path)
            one, _two, _three = await seats.ready()
            assert await one.does(lock(5, 10, 0, 0)) == 0
            before = nodes[1].channels.hub.counters["bundles"]
            begun = time.monotonic()
            for _ in range(100):
                assert await one.does(unlock(5, 10, 0, 0)) == 0
                assert await one.does(lock(5, 10, 0, 0)) == 0
            print(f"{100 / (time.monotonic() - begun):.0f} pairs/s")
            assert nodes[1].channels.hub.counters["bundles"] == before
            await asyncio.sleep(0)
            seats.close()

    run(story)
