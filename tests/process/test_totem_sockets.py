# SPDX-License-Identifier: GPL-2.0-only
"""One link's sockets on loopback: with and without the kernel's segmentation, bursts, and what the kernel says about peers."""

from __future__ import annotations

import random
import select
from collections.abc import Iterator

import pytest

from membership.totem import segment
from membership.totem.sockets import DRAIN_MAX, LinkSocket, path_payload, resolve
from vcs.errors import VcsError

KNOWN = frozenset({7})


def frame(length: int, counter: int) -> bytes:
    head = bytes(12) + (7).to_bytes(4, "big") + bytes(8) + (5).to_bytes(8, "big") + counter.to_bytes(8, "big")
    return head + random.Random(counter).randbytes(length - len(head))


class Pair:
    def __init__(self) -> None:
        self.box = segment.Assembler()
        self.a = LinkSocket(0, "127.0.80.1", 0, segment.Assembler())
        self.b = LinkSocket(0, "127.0.80.2", 0, self.box)
        self.to_b = self.b.sock.getsockname()
        self.got: list[bytes] = []

    def take(self) -> bool:
        return self.b.receive(lambda data, _link: self.got.append(bytes(data)), KNOWN)

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("limit", [512, 1232, 1472, 9000, 65507])
def test_frames_of_all_lengths_arrive(pair: Pair, gso: bool, limit: int) -> None:
    pair.a._gso = gso
    sent = [frame(length, i + 1) for i, length in enumerate((40, 511, 512, 513, 1472, 1473, 20_000, 61_500))]
    for data in sent:
        assert pair.a.send(segment.cut(data, limit), pair.to_b)
        assert pair.take()
    assert pair.got == sent
    assert not pair.box.counters and pair.a.counters == {}


def test_a_device_that_refuses_trains_gets_single_datagrams(pair: Pair) -> None:
    """UDP_SEGMENT with a size beyond the path's is refused as a device would; the socket goes on without it."""
    data = frame(60_000, 1)
    batches = segment.cut(data, 1472)
    real = pair.a.sock

    class Refuses:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def sendmsg(self, *_arguments: object) -> int:
            raise OSError(5, "Input/output error")

    pair.a.sock = Refuses()  # type: ignore[assignment]
    assert pair.a.send(batches, pair.to_b)
    pair.a.sock = real
    assert pair.take() and pair.got == [data]
    assert pair.a.counters["gso_refused"] == 1 and not pair.a._gso


def test_a_burst_is_read_in_parts(pair: Pair) -> None:
    sent = [frame(100 + i, i + 1) for i in range(DRAIN_MAX + 20)]
    for data in sent:
        pair.a.send([(data, len(data))], pair.to_b)
    assert not pair.take(), "the loop's other work gets its turn"
    assert pair.take() and pair.got == sent


def test_too_large_for_the_path_is_told_to_the_caller(pair: Pair) -> None:
    assert not pair.a.send([(bytes(65_520), 65_520)], pair.to_b)
    assert path_payload(pair.to_b, pair.b.family) == 65_535 - 28


def test_nobody_listens_and_the_next_peer_gets_its_frame_all_the_same(pair: Pair) -> None:
    with LinkSocket(0, "127.0.80.3", 0, segment.Assembler()).sock as gone:
        nobody = gone.getsockname()
    data = frame(100, 1)
    for _ in range(3):
        pair.a.send([(data, 100)], nobody)
        assert pair.a.send([(data, 100)], pair.to_b)
    ready = select.poll()
    ready.register(pair.a.sock, select.POLLERR)
    ready.poll(1000)
    pair.a.receive(lambda _data, _link: None, KNOWN)
    assert pair.take() and pair.got == [data] * 3
    assert ("127.0.80.3", "refused") in [(h.address, h.what) for h in pair.a.hints]
    assert len(pair.a.hints) <= 3


@pytest.mark.parametrize(("address", "what"), [("node1", "cannot be used"), ("192.0.2.1", "cannot bind")])
def test_bad_addresses(address: str, what: str) -> None:
    with pytest.raises(VcsError, match=what):
        LinkSocket(0, address, 0, segment.Assembler())
    assert resolve("::1", 5)[1][:2] == ("::1", 5)
