# SPDX-License-Identifier: GPL-2.0-only
"""POSIX locks on several nodes under random orders, joins, deaths and restarts: no two callers ever hold what excludes each other, every
caller is answered, the kernel's own rules are kept, and all copies of the state stay alike."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from dlm_glue.plock_entry import Mode
from dlm_glue.plock_log import Log
from dlm_glue.plock_wire import Op, Verb
from tests.fakes.plock import FSID, Call, FakeNode, Order, cancel, lock, unlock

BYTES = 6
FILES = 3
BOOT = bytes(16)


@dataclass(slots=True)
class Process:
    """A caller: one call at a time, and what it believes to hold, byte by byte."""

    pid: int
    node: FakeNode
    call: Call | None = None
    cancel: Call | None = None
    holds: dict[tuple[int, int], bool] = field(default_factory=dict)
    "(file, byte) -> exclusive."


class Story:
    def __init__(self, seed: int, nodes: int) -> None:
        self.random = random.Random(seed)
        self.order = Order()
        self.join_id = 0
        self.nodes: dict[int, FakeNode] = {}
        self.processes: list[Process] = []
        self.granted = 0
        for me in range(1, nodes + 1):
            self.boot(me)

    def boot(self, me: int) -> None:
        log = Log(os.memfd_create("plock"), BOOT)
        self.join_id += 1
        node = self.nodes[me] = FakeNode(me, self.order, log)
        node.join(self.join_id)
        self.order.change(tuple(sorted({*self.order.members, me})))
        node.open()
        self.processes += [Process(me * 100 + n, node) for n in range(3)]

    def die(self, me: int, gone: bool) -> None:
        """Power cut. ``gone``: an event without it follows; else it is back before one came."""
        node = self.nodes.pop(me)
        node.log.close()
        self.processes = [p for p in self.processes if p.node is not node]
        if gone:
            self.order.change(tuple(n for n in self.order.members if n != me))

    # --- processes --------------------------------------------------------------------------------------------------------------------

    def look(self, process: Process) -> None:
        """What the kernel's answers mean to the caller."""
        call = process.call
        if process.cancel is not None and process.cancel.rv == 0:
            assert call is not None and call.rv is None
            process.node.kernel.cancelled(call)
            process.call = process.cancel = None
            return
        if process.cancel is not None and process.cancel.rv is not None:
            assert process.cancel.rv == -2
            process.cancel = None
        if call is None or call.rv is None or process.cancel is not None:
            return
        process.call = None
        if call.op.verb == Verb.LOCK and call.rv == 0:
            self.granted += 1
            for byte in range(call.op.start, call.op.end + 1):
                for other in self.processes:
                    held = other.holds.get((call.op.number, byte))
                    if other is not process and held is not None:
                        assert not held and not call.op.ex, f"{other.pid} and {process.pid} hold byte {byte} of {call.op.number}"
                process.holds[call.op.number, byte] = bool(call.op.ex)
        else:
            assert call.rv == (0 if call.op.verb == Verb.UNLOCK else -11), call

    def act(self, process: Process) -> None:
        choose = self.random
        if process.call is not None:
            waits = process.call.op.wait and process.cancel is None and process.call.op.verb == Verb.LOCK
            if waits and process.call not in process.node.kernel.sent and choose.random() < 0.2:
                process.cancel = process.node.kernel.call(cancel(process.call.op))
            return
        number, start = choose.randrange(FILES), choose.randrange(BYTES)
        end = choose.randrange(start, BYTES)
        if choose.random() < 0.5:
            op = lock(number, process.pid, start, end, choose.random() < 0.6, choose.random() < 0.6)
            for byte in range(start, end + 1):
                if not op.ex and (number, byte) in process.holds:
                    process.holds[number, byte] = False  # a downgrade lets others in before its caller hears of it
        else:
            op = unlock(number, process.pid, start, end, choose.random() < 0.1)
            if op.flags:
                op = op._replace(start=0, end=BYTES)
            self.release(process, op)
        process.call = process.node.kernel.call(op)

    def release(self, process: Process, op: Op) -> None:
        for byte in range(op.start, op.end + 1):
            process.holds.pop((op.number, byte), None)

    # --- steps ------------------------------------------------------------------------------------------------------------------------

    def step(self, quiet: bool = False) -> bool:
        """One random thing; whether something moved."""
        choose = self.random
        node = choose.choice(list(self.nodes.values()))
        moved = False
        for what in choose.sample(range(4), 4):
            if what == 0:
                moved |= node.deliver()
            elif what == 1:
                moved |= node.send()
            elif what == 2 and node.kernel.sent:
                node.read()
                moved = True
            elif what == 3 and node.node.writes:
                node.answer(choose.randrange(1, 4))
                moved = True
        if not quiet and choose.random() < 0.02:
            node.checkpoint()
        if not quiet and choose.random() < 0.01:
            node.tidy()
        for process in self.processes:
            self.look(process)
        return moved

    def settle(self, quiet: bool = True) -> None:
        idle = 0
        while idle < 20 * len(self.nodes):
            idle = 0 if self.step(quiet) else idle + 1

    def restart(self, node: FakeNode) -> None:
        if self.random.random() < 0.3:
            node.answer(self.random.randrange(1, 3), die_before_write=True)
        elif self.random.random() < 0.5:
            node.answer(self.random.randrange(1, 3), die_after_write=True)
        for process in self.processes:
            self.look(process)
        node.restart()
        node.open()

    def finish(self) -> None:
        """Everybody lets go of everything, in whatever order; then nobody waits and nothing is left. Deadlocks are the callers' own: who
        is in one gets a signal."""
        for turn in range(200):
            self.settle()
            stuck = [p for p in self.processes if p.call is not None and p.call.op.wait and p.cancel is None]
            if turn > 5 and stuck and all(p.call is not None or not p.holds for p in self.processes):
                assert stuck[0].call is not None
                stuck[0].cancel = stuck[0].node.kernel.call(cancel(stuck[0].call.op))
            for process in self.processes:
                if process.call is None and process.holds:
                    number = min(process.holds)[0]
                    op = unlock(number, process.pid, 0, BYTES)
                    self.release(process, op)
                    process.call = process.node.kernel.call(op)
            if all(p.call is None and not p.holds for p in self.processes):
                break
        else:
            raise AssertionError(f"somebody waits for ever: {[p for p in self.processes if p.call or p.holds]}")
        self.settle()
        self.alike()
        for node in self.nodes.values():
            assert not node.node.pending
            assert not node.kernel.received
            for entry in node.node.members[FSID].space.entries.values():
                if entry.mode is Mode.SHARED or entry.node == node.me:
                    assert entry.file.idle(), entry

    def alike(self) -> None:
        trees = []
        for node in self.nodes.values():
            member = node.node.members[FSID]
            assert member.ready
            assert member.garbage == 0
            space = member.space
            entries = {
                e.number: (e.mode, e.node, e.epoch, [list(e.file.locks), list(e.file.waiters)] if e.mode is Mode.SHARED else None)
                for e in space.entries.values()
            }
            trees.append((entries, space.applied, space.made, space.epoch, member.stateless, member.members))
        assert all(tree == trees[0] for tree in trees), trees


@contextmanager
def story(seed: int, nodes: int) -> Iterator[Story]:
    found = Story(seed, nodes)
    try:
        yield found
    finally:
        for node in found.nodes.values():
            node.log.close()


def run(seed: int, faults: bool) -> int:
    with story(seed, 3) as s:
        for _ in range(400):
            s.step()
            if s.random.random() < 0.4:
                s.act(s.random.choice(s.processes))
            if not faults:
                continue
            chance = s.random.random()
            me = s.random.choice(list(s.nodes))
            if chance < 0.008:
                s.restart(s.nodes[me])
            elif chance < 0.04:
                s.nodes[me].hurry()
            elif chance < 0.044 and len(s.nodes) > 1:
                s.die(me, gone=True)
            elif chance < 0.047:
                s.die(me, gone=False)
                s.boot(me)
            elif chance < 0.054:
                missing = sorted({1, 2, 3} - s.nodes.keys())
                if missing:
                    s.boot(missing[0])
            elif chance < 0.056:
                for node in list(s.nodes.values()):
                    s.restart(node)
        s.finish()
        return s.granted


@pytest.mark.parametrize("seed", range(10))
def test_random_orders(seed: int) -> None:
    run(seed, faults=False)


@pytest.mark.parametrize("seed", range(40))
def test_random_faults(seed: int) -> None:
    run(seed, faults=True)


def test_what_is_granted_too_late_is_given_back() -> None:
    """A waiter is cancelled without the order and granted in it: its owner keeps what it held before, and not more."""
    with story(1, 2) as s:
        one, two = s.nodes[1], s.nodes[2]

        def call(node: FakeNode, op: Op) -> Call:
            made = node.kernel.call(op)
            node.read()
            return made

        call(one, lock(0, 1, 0, 9))
        call(two, lock(0, 2, 20, 29, ex=False))
        s.settle()
        waits = call(two, lock(0, 2, 5, 34))
        s.settle()
        let_go = call(one, unlock(0, 1, 0, 9))
        one.send()
        taken_back = call(two, cancel(waits.op))
        two.hurry()
        two.answer()
        assert taken_back.rv == 0
        two.kernel.cancelled(waits)
        s.settle()
        assert let_go.rv == 0
        for node in (one, two):
            locks = node.node.members[FSID].space.entries[0].file.locks
            assert [(h.owner, h.ex, h.start, h.end) for h in locks] == [(2, False, 20, 29)]
        assert not two.node.abandoned


def test_it_grants_something() -> None:
    assert sum(run(seed, faults=False) for seed in range(5)) > 50
