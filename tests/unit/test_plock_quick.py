# SPDX-License-Identifier: GPL-2.0-only
"""The short way of a plain request does what the long one does, and leaves the rest alone."""

from __future__ import annotations

import random

import pytest

from dlm_glue.plock_node import Node
from dlm_glue.plock_quick import quick
from dlm_glue.plock_wire import RECORD, VERSION, Op, read_record, unpack
from tests.fakes.plock import FSID, SPACE, cancel, get, lock, unlock


def record(op: Op) -> bytes:
    return RECORD.pack(*VERSION, *op[:5], 0, 0, FSID, *op[5:])


def alone() -> Node:
    """A node that is alone in its lockspace: what it sends comes back at once."""
    node = Node(1)
    node.join(FSID, SPACE, 1)
    member = node.members[FSID]
    member.ready, member.fresh, member.members = True, False, (1,)
    return node


def settle(node: Node) -> None:
    member = node.members[FSID]
    while member.space.out:
        said, member.space.out = member.space.out, []
        for raw in said:
            member.space.deliver(1, unpack(raw))
    node._collect(member)


def some(dice: random.Random) -> Op:
    """Mostly one process that locks and unlocks a byte, and now and then anything."""
    number, owner, start, length = dice.randint(1, 4), 1, 0, 0
    if dice.random() < 0.2:
        owner, start, length = dice.randint(1, 2), dice.randint(0, 2), dice.randint(0, 2)
    ex, wait, kind = dice.random() < 0.7, dice.random() < 0.1, dice.random()
    if kind < 0.45:
        return lock(number, owner, start, start + length, ex, wait)
    if kind < 0.96:
        return unlock(number, owner, start, start + length, close=dice.random() < 0.1)
    return get(number, owner, start, start + length) if kind < 0.98 else cancel(lock(number, owner, start, start + length, ex))


@pytest.mark.parametrize("seed", range(40))
def test_both_ways_lead_to_the_same(seed: int) -> None:
    dice = random.Random(seed)
    long, short = alone(), alone()
    taken = 0
    for slot in range(300):
        op = some(dice)
        long.take(record(op), slot)
        settle(long)
        if quick(short, record(op)):
            taken += 1
            (answer,) = long.writes
            values = RECORD.unpack(answer.record)
            assert (answer.slot, values[9], read_record(answer.record)) == (slot, 0, (FSID, op)), "the answer is the request with a 0"
        else:
            short.take(record(op), slot)
            settle(short)
            assert [(w.slot, w.record) for w in short.writes] == [(w.slot, w.record) for w in long.writes]
        assert short.dump()[0] == long.dump()[0]
        for node in (long, short):
            node.writes.clear()
            node.done.clear()
    assert taken


def test_an_answer_that_stands_before_it_comes_first() -> None:
    node = alone()
    node.take(record(lock(1, 1, 0, 0)), 0)
    settle(node)
    assert quick(node, record(unlock(1, 1, 0, 0))) and quick(node, record(lock(1, 1, 0, 0)))
    node.take(record(lock(2, 1, 0, 0, wait=False)), 2)  # on its way, and the kernel wants it answered first
    assert not quick(node, record(unlock(1, 1, 0, 0)))
    settle(node)
    assert quick(node, record(unlock(1, 1, 0, 0)))
    node.members[FSID].ready = False
    assert not quick(node, record(lock(1, 1, 0, 0)))
