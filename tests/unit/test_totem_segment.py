# SPDX-License-Identifier: GPL-2.0-only
"""Segments: what is cut comes together again, in any order; what is forged is dropped in bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.totem import segment
from membership.totem.limits import PENDING_FRAMES_MAX

KNOWN = frozenset({7})


def frame(length: int, counter: int = 1, nodeid: int = 7, engine: int = 0x1122334455667788) -> bytes:
    head = bytes(12) + nodeid.to_bytes(4, "big") + bytes(8) + engine.to_bytes(8, "big") + counter.to_bytes(8, "big")
    return head + random.Random(length * 31 + counter).randbytes(length - len(head))


def datagrams(data: bytes, limit: int) -> list[bytes]:
    return [batch[i:i + size] for batch, size in segment.cut(data, limit) for i in range(0, len(batch), size)]


@given(st.integers(40, 61_600), st.integers(512, 65_507), st.randoms(use_true_random=False))
def test_a_frame_comes_together_in_any_order(length: int, limit: int, rng: random.Random) -> None:
    data = frame(length)
    if -(-length // (limit - segment.SIZE)) > segment.COUNT_MAX:
        return
    pieces = datagrams(data, limit)
    assert all(len(p) <= limit for p in pieces)
    if len(pieces) == 1:
        assert pieces == [data]
        return
    rng.shuffle(pieces)
    box = segment.Assembler()
    got = [box.feed(memoryview(p), KNOWN) for p in pieces + pieces]
    assert [g for g in got if g is not None] == [data], "once, whatever comes twice"


@given(st.integers(2000, 61_600), st.integers(600, 9000))
def test_a_train_is_recognised_and_nothing_else_is(length: int, limit: int) -> None:
    data = frame(length)
    batches = segment.cut(data, limit)
    if len(batches) > 1 or batches[0][1] >= len(batches[0][0]):
        return
    train, size = batches[0]
    assert segment.whole_train(memoryview(train), size) == data
    for wrong in (train[:-1], train + b"x", train[size:], train[:size] + train[:size] + train[2 * size:],
                  train[size:2 * size] + train[:size] + train[2 * size:], train[:size]):
        assert segment.whole_train(memoryview(wrong), size) is None
    other = datagrams(frame(length, counter=2), limit)
    assert segment.whole_train(memoryview(other[0] + train[size:]), size) is None, "two frames' segments"


def test_too_small_a_path_is_refused_and_the_largest_frame_fits_the_smallest() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        segment.cut(bytes(400_000), 576)
    assert len(datagrams(frame(61_600), 512)) <= segment.COUNT_MAX


def test_two_links_complete_one_frame() -> None:
    pieces = datagrams(frame(5000), 1472)
    box = segment.Assembler()
    first, second = pieces[::2], pieces[1::2]
    assert [box.feed(memoryview(p), KNOWN) for p in first] == [None] * len(first)
    assert box.feed(memoryview(first[0]), KNOWN) is None, "a copy completes nothing"
    assert [box.feed(memoryview(p), KNOWN) for p in second][-1] == frame(5000)


def test_memory_is_bounded_and_an_unknown_sender_costs_nothing() -> None:
    box = segment.Assembler()
    for counter in range(1, 1000):
        box.feed(memoryview(datagrams(frame(60_000, counter), 1472)[0]), KNOWN)
        box.feed(memoryview(datagrams(frame(60_000, counter, nodeid=8), 1472)[0]), KNOWN)
    assert len(box._pending[7]) == PENDING_FRAMES_MAX and 8 not in box._pending
    assert box.counters["frame_incomplete"] == 999 - PENDING_FRAMES_MAX and box.counters["segment_unknown_node"] == 999
    box.keep(frozenset())
    assert not box._pending


@given(st.binary(max_size=80), st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))
def test_any_bytes_are_harmless(tail: bytes, index: int, count: int, total: int) -> None:
    box = segment.Assembler()
    data = segment.HEADER.pack(segment.MAGIC, index, count, total, 7, 1, 1) + tail
    got = box.feed(memoryview(data), KNOWN)
    assert got is None
    for size in (0, 1, 22, 23, 40, len(data)):
        whole = segment.whole_train(memoryview(data), size)
        assert whole is None or len(whole) < len(data)
