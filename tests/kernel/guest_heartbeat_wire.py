# SPDX-License-Identifier: GPL-2.0-only
"""What the provider `heartbeat` takes from the wire, and what it refuses: forged, replayed, held back, for somebody else. Like
guest_heartbeat.py."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from tests.kernel.guest_contract import KernelBackend
from tests.kernel.heartbeat_wire import BYE, LOCAL, Beat, Peer, Wire, own_key
from tests.kernel.heartbeat_world import INTERVAL_MS, KEY, Instance, direct, free_port, more_beats, numbers, wired
from vcs.heartbeat import MISSED, Node
from vcs.netlink import KernelSwitch

pytest_plugins = ("tests.kernel.heartbeat_world",)
FLOOD = 3000


@pytest.fixture
def faced(backend: KernelBackend) -> Iterator[tuple[Instance, Peer]]:
    """Node 1 in the kernel, node 2 in this process."""
    name = f"p{next(numbers)}"
    peer = Peer(2, 1, own_key(KEY, name), INTERVAL_MS, life=1 << 50)
    one = Instance(backend, name, 1, [Node(1, LOCAL, free_port()), Node(2, LOCAL, peer.port)])
    one.attach()
    yield one, peer
    peer.close()


def bring_up(one: Instance, peer: Peer) -> None:
    """As a node does it: it echoes what it hears."""
    def up() -> bool:
        peer.hear()
        peer.say(one.port)
        return one.members() == [1, 2]

    one.backend.wait(f"node 2 to be up\n{one.said()}", up, one.reader)


def test_the_wire_is_as_the_page_says(faced: tuple[Instance, Peer]) -> None:
    one, peer = faced
    first = peer.hear()
    assert (first.sender, first.to, first.echo_life, first.interval_ms, first.flags) == (1, 2, 0, INTERVAL_MS, 0)
    assert first.boot == KernelSwitch().info().incarnation
    assert peer.hear().seq > first.seq
    bring_up(one, peer)
    (_me, other) = one.reader.view(one.handle).members
    assert (other.nodeid, other.incarnation, other.votes) == (2, 0xB007, 1)
    echoed = peer.hear()
    while echoed.echo_seq != peer.next.seq:
        echoed = peer.hear()
    assert (echoed.life, echoed.echo_life) == (first.life, peer.next.life)
    peer.say(one.port, flags=BYE)
    one.sees(1)
    one.detach()
    last = peer.hear()
    while not last.flags & BYE:
        last = peer.hear()
    assert last.life == first.life


def test_a_beat_that_proves_nothing_brings_nobody_up(faced: tuple[Instance, Peer]) -> None:
    """The key alone is not enough: what it signs must be new."""
    one, peer = faced
    beat = peer.hear()
    for changes in (
        {"echo_life": 0, "echo_seq": 0}, {"echo_life": beat.life + 1}, {"echo_life": beat.life, "echo_seq": 0},
        {"echo_seq": beat.seq + 1000}, {"echo_seq": 2**64 - 1},
    ):  # fmt: skip
        peer.say(one.port, **changes)
    one.wait_count("heard", 5)
    assert one.line(2)["proven"] == 0
    assert one.members() == [1]
    bring_up(one, peer)


def test_an_echo_that_is_old_proves_nothing(faced: tuple[Instance, Peer]) -> None:
    one, peer = faced
    old = peer.hear()
    while peer.hear().seq < old.seq + 8:
        pass
    peer.say(one.port, echo_life=old.life, echo_seq=old.seq)
    one.wait_count("heard", 1)
    assert one.line(2)["proven"] == 0
    assert one.members() == [1]


def test_forged_packets_are_refused(faced: tuple[Instance, Peer]) -> None:
    """Whatever bit of a good beat is changed, and whatever other key it is made with."""
    one, peer = faced
    beat = peer.hear()
    good = Beat(2, 1, 0xB007, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS).pack(peer.key)
    for byte in range(8, len(good)):
        bad = bytearray(good)
        bad[byte] ^= 1 << byte % 8
        peer.send(one.port, bytes(bad))
    for key in (KEY, own_key(KEY, "another"), own_key(b"another key of this length", one.name), b""):
        peer.send(one.port, Beat(2, 1, 0xB007, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS).pack(key))
    # Fields that must not be 0 are looked at first.
    one.backend.wait("all of them", lambda: one.line()["forged"] + one.line()["malformed"] >= len(good) - 8 + 4, one.reader)
    assert one.line()["heard"] == 0
    assert one.members() == [1]
    peer.send(one.port, good)
    one.wait_count("heard", 1)


def test_malformed_packets_are_refused(faced: tuple[Instance, Peer]) -> None:
    one, peer = faced
    beat = peer.hear()
    good = Beat(2, 1, 0xB007, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS)
    packets = [
        b"", b"x", good.pack(peer.key)[:-1], good.pack(peer.key) + b"\0", bytes(4000),
        Beat(2, 1, 0xB007, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS, magic=1).pack(peer.key),
        Beat(2, 1, 0xB007, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS, version=2).pack(peer.key),
        Beat(2, 1, 0, 1 << 50, 7, beat.life, beat.seq, INTERVAL_MS).pack(peer.key),
        Beat(2, 1, 0xB007, 0, 7, beat.life, beat.seq, INTERVAL_MS).pack(peer.key),
        Beat(2, 1, 0xB007, 1 << 50, 0, beat.life, beat.seq, INTERVAL_MS).pack(peer.key),
    ]  # fmt: skip
    for data in packets:
        peer.send(one.port, data)
    one.wait_count("malformed", len(packets))
    assert one.line()["heard"] == 0


def test_strangers_are_refused(faced: tuple[Instance, Peer]) -> None:
    """Who is not in the list, speaks to somebody else, beats in another rhythm, or is this node."""
    one, peer = faced
    beat = peer.hear()
    for changes in ({"sender": 3}, {"sender": 1}, {"to": 2}, {"to": 0}):
        peer.say(one.port, **{"sender": 2, "to": 1, **changes})
    one.wait_count("stranger", 4)
    peer.say(one.port, sender=2, to=1, interval_ms=INTERVAL_MS + 1, echo_life=beat.life)
    one.wait_count("interval_differs", 1)
    assert one.line()["heard"] == 0
    peer.next = Beat(2, 1, 0xB007, 1 << 50, peer.next.seq, 0, 0, INTERVAL_MS)
    bring_up(one, peer)


def test_a_replay_keeps_nobody_alive(backend: KernelBackend, wire: Wire) -> None:
    two = wired(backend, wire)
    more_beats(backend, wire, 2, 1)
    wire.cut((1, 2), (2, 1))
    two[1].sees(1)
    generation, before = two[1].generation(), two[1].line()["replayed"]
    sent = wire.replay(2, 1)
    assert sent > 2
    two[1].wait_count("replayed", before + sent)
    assert two[1].members() == [1]
    assert two[1].generation() == generation
    # Nor after an attach of a new life, which knows nothing of what it has heard.
    two[1].detach()
    two[1].attach()
    wire.replay(2, 1)
    two[1].wait_count("heard", 1)
    assert two[1].line(2)["proven"] == 0
    assert two[1].members() == [1]
    wire.heal()
    two[1].sees(1, 2)
    two[2].sees(1, 2)


def test_a_replay_disturbs_nobody_who_is_up(backend: KernelBackend, wire: Wire) -> None:
    """Beats of an earlier life of node 2, and of this one, while node 2 lives: nobody goes down, no view changes."""
    two = wired(backend, wire)
    two[2].detach()
    two[1].sees(1)
    two[2].attach()
    two[1].sees(1, 2)
    two[2].sees(1, 2)
    lives, generations = two[1].line(2)["lives"], [two[n].generation() for n in (1, 2)]
    before = two[1].line()["replayed"]
    sent = 0
    for _ in range(10):
        sent += wire.replay(2, 1)
        two[1].wait_count("replayed", before + sent)
    more_beats(backend, wire, 2, 1)
    assert [two[n].generation() for n in (1, 2)] == generations
    assert two[1].line(2)["lives"] == lives


def test_beats_that_were_held_back_bring_nobody_back(faced: tuple[Instance, Peer]) -> None:
    """Never delivered, so not known by their number: what they echo is too old by then. Four beats after its death a node is down,
    whatever is held back."""
    one, peer = faced
    bring_up(one, peer)
    echoed = peer.hear()
    held = [Beat(2, 1, 0xB007, 1 << 50, peer.next.seq + n, echoed.life, echoed.seq, INTERVAL_MS) for n in (1, 2, 3)]
    one.sees(1)
    while peer.hear().seq <= echoed.seq + MISSED + 1:
        pass
    generation, heard = one.generation(), one.line()["heard"]
    for beat in held:
        peer.send(one.port, beat.pack(peer.key))
    one.wait_count("heard", heard + len(held))
    assert one.members() == [1]
    assert one.generation() == generation


def test_a_node_comes_back_whose_clock_went_back(faced: tuple[Instance, Peer]) -> None:
    """A new life has a lower number only when a clock is wrong; then it needs proof, and can give it."""
    one, peer = faced
    bring_up(one, peer)
    old = peer.next
    peer.hear()
    peer.say(one.port, life=5, boot=0xB008, seq=1, echo_life=0, echo_seq=0)
    one.wait_count("replayed", 1)
    assert one.line(2)["life"] == old.life
    peer.hear()
    peer.say(one.port, seq=2)
    one.has_boot(0xB008)
    assert one.line(2)["life"] == 5
    before = one.line()["replayed"]
    peer.hear()
    peer.say(one.port)
    peer.send(one.port, old.pack(peer.key))
    one.wait_count("replayed", before + 1)
    assert one.line(2)["life"] == 5


def test_a_new_boot_is_a_new_member_at_once(faced: tuple[Instance, Peer]) -> None:
    """Back before it was missed: the view changes all the same (SAFETY S2)."""
    one, peer = faced
    changes = []
    for boot in (0xB010, 0xB011, 0xB012):
        bring_up(one, peer)
        generation = one.generation()
        peer.hear()
        peer.say(one.port, life=peer.next.life + 1, boot=boot, seq=1)
        one.has_boot(boot)
        changes.append(one.generation() - generation)
    # A busy host may let it be missed now and then; not each time.
    assert 1 in changes, changes


def test_a_flood_of_garbage_brings_nobody_down(backend: KernelBackend) -> None:
    two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
    generation, before = two[1].generation(), two[1].line()
    rng = random.Random(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
        for _ in range(FLOOD):
            flooder.sendto(rng.randbytes(96), ("127.0.0.1", two[1].port))
    two[1].wait_count("malformed", before["malformed"] + FLOOD // 10)
    assert two[1].generation() == generation
    assert two[1].members() == [1, 2]
