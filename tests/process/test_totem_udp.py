# SPDX-License-Identifier: GPL-2.0-only
"""Three real Totem processes on 127.0.77.x: they form a ring, order messages, survive a kill, and drop what is not theirs."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from membership.api import Processor
from membership.totem.aes import aes_gcm
from membership.totem.limits import MESSAGE_MAX
from membership.totem.seal import Sealer
from membership.totem.wire import NO_RING, Leave, encode
from tests.process.netlab import Child
from tests.process.totem_node import KEY

ROOT = Path(__file__).parents[2]
Event = dict[str, object]


def start(nodeid: int, port: int, folder: Path) -> Child:
    folder.mkdir(parents=True, exist_ok=True)
    return Child(nodeid, ["3", str(port), str(folder)])


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.77.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[tuple[dict[int, Child], int]]:
    port = free_port()
    children = {n: start(n, port, tmp_path / str(n)) for n in (1, 2, 3)}
    try:
        for child in children.values():
            child.configured([1, 2, 3])
        yield children, port
    finally:
        for child in children.values():
            child.end()


def test_order_kill_restart_leave(ring: tuple[dict[int, Child], int], tmp_path: Path) -> None:
    children, port = ring
    for n, child in children.items():
        for i in range(20):
            child.say(f"{'safe' if i % 3 == 0 else 'submit'} {n}.{i}")
    everything = {f"{n}.{i}" for n in children for i in range(20)}
    for child in children.values():
        child.wait("all messages", partial(lambda c, _e: set(c.texts()) >= everything, child))
    assert children[1].texts() == children[2].texts() == children[3].texts(), "one order for all"
    for n in children:
        own = [t for t in children[1].texts() if str(t).startswith(f"{n}.")]
        assert own == [f"{n}.{i}" for i in range(20)], "each sender's order is kept"

    killed = time.monotonic_ns()
    children[1].process.send_signal(signal.SIGKILL)
    confs = [children[n].configured([2, 3]) for n in (2, 3)]
    assert confs[0]["ring"] == confs[1]["ring"]
    took_ms = max(int(str(c["t"])) - killed for c in confs) / 1e6
    assert took_ms < 5000, "token loss and consensus together are 0.9 s"

    children[1].end()
    children[1] = start(1, port, tmp_path / "1")
    for child in children.values():
        child.configured([1, 2, 3])
    children[3].say("leave")
    children[3].wait("goodbye", lambda e: e["kind"] == "left")
    for n in (1, 2):
        children[n].configured([1, 2])


def test_what_is_not_ours_is_counted_and_dropped(ring: tuple[dict[int, Child], int]) -> None:
    children, port = ring
    stranger = Processor(3, 5, 5)
    leave = encode(Leave(NO_RING))
    sealer = Sealer("udp", stranger, aes_gcm(KEY))
    nonsense, ours = sealer.seal(b"\xff nonsense"), sealer.seal(leave)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for data in (
            b"", b"hello", os.urandom(300),
            Sealer("other", stranger, aes_gcm(KEY)).seal(leave),
            Sealer("udp", stranger, aes_gcm(bytes(32))).seal(leave),
            Sealer("udp", Processor(9, 5, 5), aes_gcm(KEY)).seal(leave),
            nonsense, ours, ours, ours,
        ):
            s.sendto(data, ("127.0.77.1", port))
    children[1].say("submit after")
    children[2].wait("the message", lambda e: e.get("text") == "after")
    counters = children[1].status()["counters"]
    assert isinstance(counters, dict)
    assert counters["dropped_short"] == 2
    assert counters["dropped_magic"] == 1
    assert counters["dropped_cluster"] == 1
    assert counters["dropped_key"] == 1
    assert counters["dropped_unknown_node"] == 1
    assert counters["dropped_malformed"] == 1
    assert counters["dropped_replayed"] == 2
    assert counters["dropped_not_introduced"] == 1, "a Leave of an incarnation that nobody has met"
    for child in children.values():
        assert child.status()["members"] == [1, 2, 3]


def test_large_messages(ring: tuple[dict[int, Child], int]) -> None:
    children, _port = ring
    text = "y" * 40_000
    children[2].say(f"safe {text}")
    for child in children.values():
        assert child.wait("the large message", lambda e: e["kind"] == "message")["text"] == text
    assert len(text) < MESSAGE_MAX
