# SPDX-License-Identifier: GPL-2.0-only
"""What the heartbeat in the kernel decides (kmod/heartbeat/peer.c, compiled here): two nodes, a network that loses, repeats, delays and
replays, nodes that die, come back and have wrong clocks. A failing seed is in the test's name."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from tests.kernel.heartbeat_wire import Beat
from tests.unit.heartbeat_c import RECENT, HeartbeatC, Packet, Peer, Self
from vcs.heartbeat import MISSED

MS = 1_000_000
INTERVAL = 200 * MS
HEARD, REPLAYED, INTERVAL_DIFFERS = 0, 5, 4
KEY = b"not looked at by these functions"
SEEDS = 400
STEPS = 120


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> HeartbeatC:
    return HeartbeatC(tmp_path_factory.mktemp("peer"))


def test_the_layouts_agree(c: HeartbeatC) -> None:
    assert c.sizes() == [len(bytes(Self())), len(bytes(Peer())), len(bytes(Packet())), RECENT, MISSED]


def test_what_is_said_is_what_the_page_says(c: HeartbeatC) -> None:
    me = Self(nodeid=7, interval_ms=200, boot=11, life=12)
    assert c.beat(me, 5 * MS)
    peer = Peer(nodeid=9, life=21, seq=22)
    said = c.say(me, peer, 1)
    expected = Beat(7, 9, 11, 12, 1, 21, 22, 200, flags=1)
    assert said[:64] == expected.pack(KEY)[:64]
    assert c.sane(said)


@pytest.mark.parametrize("data", [b"", bytes(96), bytes(97), Beat(1, 2, 3, 4, 5, 0, 0, 200).pack(KEY)[:95]])
def test_what_is_no_beat(c: HeartbeatC, data: bytes) -> None:
    assert not c.sane(data)


def test_beats_are_on_a_grid_and_not_made_up_for(c: HeartbeatC) -> None:
    me = Self(nodeid=1, interval_ms=200, boot=1, life=1)
    assert c.beat(me, 0) and not c.beat(me, INTERVAL - 1)
    assert c.beat(me, INTERVAL + 30 * MS)
    assert me.next == 2 * INTERVAL
    assert c.beat(me, 10 * INTERVAL + 7)
    assert (me.seq, me.next) == (3, 11 * INTERVAL + 7)
    assert list(me.sent)[1:4] == [0, INTERVAL + 30 * MS, 10 * INTERVAL + 7]


@dataclass
class Node:
    """A node, its one peer, and the time of its own clock."""

    c: HeartbeatC
    nodeid: int
    me: Self = field(default_factory=Self)
    peer: Peer = field(default_factory=Peer)
    alive: bool = False
    boots: int = 0
    last_alive: int = -1
    "When it was last alive, in the world's time."

    def begin(self, life: int) -> None:
        self.boots += 1
        self.me = Self(nodeid=self.nodeid, interval_ms=200, boot=1000 * self.nodeid + self.boots, life=life)
        self.peer = Peer(nodeid=3 - self.nodeid)
        self.alive = True

    def up(self, now: int) -> bool:
        return self.alive and self.c.until(self.me, self.peer) > now


class Pair:
    """Two nodes and everything that was ever sent between them."""

    def __init__(self, c: HeartbeatC, seed: int) -> None:
        self.c, self.rng = c, random.Random(seed)
        self.now = 1000 * INTERVAL
        self.nodes = {n: Node(c, n) for n in (1, 2)}
        self.flying: list[tuple[int, int, bytes]] = []
        self.ever: list[tuple[int, bytes]] = []
        self.dead_ways: set[int] = set()
        "Nodes whom nothing reaches."
        for n in self.nodes.values():
            self.begin(n)

    def begin(self, node: Node) -> None:
        """Mostly later than before; sometimes its clock is wrong."""
        right = self.now + self.rng.randrange(MS)
        node.begin(right if self.rng.random() < 0.8 else self.rng.randrange(1, right))

    def step(self, good: bool = False) -> None:
        self.now += self.rng.randrange(1, INTERVAL // 3)
        for node in self.nodes.values():
            if node.alive:
                node.last_alive = self.now
            if node.alive and self.c.beat(node.me, self.now):
                self.send(node, good)
        for item in sorted(self.flying):
            if item[0] <= self.now:
                self.flying.remove(item)
                self.deliver(item[1], item[2])

    def send(self, node: Node, good: bool, flags: int = 0) -> None:
        data, to = self.c.say(node.me, node.peer, flags), 3 - node.nodeid
        self.ever.append((to, data))
        if good:
            self.deliver(to, data)
        elif to not in self.dead_ways and self.rng.random() < 0.9:
            for _ in range(self.rng.choice((1, 1, 2))):
                self.flying.append((self.now + self.rng.choice((0, MS, INTERVAL, 3 * INTERVAL, 20 * INTERVAL)), to, data))

    def deliver(self, to: int, data: bytes) -> None:
        node = self.nodes[to]
        if node.alive:
            self.c.hear(node.me, node.peer, data, self.now)

    def mischief(self) -> None:
        """Somebody dies, comes back, is cut off, or an old packet is delivered again."""
        what, node = self.rng.random(), self.rng.choice((self.nodes[1], self.nodes[2]))
        if what < 0.06 and node.alive:
            if self.rng.random() < 0.5:
                node.me.next = 0
                self.c.beat(node.me, self.now)
                self.send(node, False, 1)
            node.alive = False
        elif what < 0.2 and not node.alive:
            self.begin(node)
        elif what < 0.3:
            self.dead_ways ^= {node.nodeid}
        elif what < 0.8 and self.ever:
            self.deliver(*self.rng.choice(self.ever))

    def check(self) -> None:
        """The whole promise: who is called up was alive four intervals ago or later."""
        for node in self.nodes.values():
            other = self.nodes[3 - node.nodeid]
            if node.up(self.now):
                assert self.now - other.last_alive <= (MISSED + 1) * INTERVAL, f"node {node.nodeid} sees a ghost"
                wake = self.c.wake(node.me, [node.peer], self.now)
                assert wake <= max(node.me.next, self.now), "it sleeps over its own beat"
                assert wake <= self.c.until(node.me, node.peer), "it sleeps over the other's end"


@pytest.mark.parametrize("block", range(8))
def test_no_ghosts_and_back_together(c: HeartbeatC, block: int) -> None:
    ups = 0
    for seed in range(block * SEEDS // 8, (block + 1) * SEEDS // 8):
        pair = Pair(c, seed)
        for _ in range(STEPS):
            pair.mischief()
            pair.step()
            pair.check()
            ups += sum(n.up(pair.now) for n in pair.nodes.values())
        for node in pair.nodes.values():
            if not node.alive:
                pair.begin(node)
        pair.dead_ways.clear()
        pair.flying.clear()
        end = pair.now + (RECENT + 2) * INTERVAL
        while pair.now < end:
            pair.step(good=True)
        assert all(n.up(pair.now) for n in pair.nodes.values()), f"seed {seed}: a good network, and not both are up"
        for n in pair.nodes.values():
            assert n.peer.boot == pair.nodes[3 - n.nodeid].me.boot, f"seed {seed}: the wrong boot"
        for _ in range(30):
            pair.step(good=True)
            pair.deliver(*pair.rng.choice(pair.ever))
            assert all(n.up(pair.now) for n in pair.nodes.values()), f"seed {seed}: a replay took somebody down"
    assert ups > SEEDS // 8 * STEPS // 10, "the mischief is so bad that nothing is shown"


def test_members_and_their_order(c: HeartbeatC) -> None:
    me = Self(nodeid=2, interval_ms=200, boot=22, life=1)
    up = Peer(nodeid=1, boot=11, heard=10 * INTERVAL, proven=10 * INTERVAL)
    down = Peer(nodeid=3, boot=33, heard=7 * INTERVAL, proven=7 * INTERVAL)
    assert c.members(me, [up, Peer(nodeid=2), down], 10 * INTERVAL) == [(1, 1, 11), (2, 1, 22)]
    assert c.until(me, up) == 13 * INTERVAL
    assert c.members(me, [up, Peer(nodeid=2), down], 13 * INTERVAL) == [(2, 1, 22)]
    up.proven = 8 * INTERVAL
    assert c.until(me, up) == 12 * INTERVAL


def test_another_rhythm_is_refused(c: HeartbeatC) -> None:
    me, peer = Self(nodeid=1, interval_ms=200, boot=1, life=5, seq=3), Peer(nodeid=2)
    assert c.hear(me, peer, Beat(2, 1, 9, 9, 1, 5, 3, 201).pack(KEY), INTERVAL) == INTERVAL_DIFFERS
    assert c.hear(me, peer, Beat(2, 1, 9, 9, 1, 0, 0, 200).pack(KEY), INTERVAL) == HEARD
    assert c.hear(me, peer, Beat(2, 1, 9, 9, 1, 0, 0, 200).pack(KEY), INTERVAL) == REPLAYED
    assert c.hear(me, peer, Beat(2, 1, 9, 8, 9, 0, 0, 200).pack(KEY), INTERVAL) == REPLAYED


def test_a_life_that_is_over_does_not_come_back_with_an_echo_that_is_still_recent(c: HeartbeatC) -> None:
    """Of two lives within eight beats, the one that echoes less was before."""
    me, peer = Self(nodeid=1, interval_ms=200, boot=1, life=5), Peer(nodeid=2)
    for n in range(4):
        assert c.beat(me, n * INTERVAL + 1)
    now = 4 * INTERVAL
    assert c.hear(me, peer, Beat(2, 1, 21, 90, 1, 5, 2, 200).pack(KEY), now) == HEARD
    assert c.hear(me, peer, Beat(2, 1, 22, 80, 1, 5, 3, 200).pack(KEY), now) == HEARD
    for seq in (2, 3):
        assert c.hear(me, peer, Beat(2, 1, 21, 90, seq, 5, 3, 200).pack(KEY), now) == REPLAYED
    assert (peer.boot, peer.life, peer.lives) == (22, 80, 2)
    assert c.until(me, peer) > now


def test_who_went_down_comes_up_by_a_new_proof_alone(c: HeartbeatC) -> None:
    me, peer = Self(nodeid=1, interval_ms=200, boot=1, life=5), Peer(nodeid=2)
    assert c.beat(me, 1)
    assert c.hear(me, peer, Beat(2, 1, 21, 90, 1, 5, 1, 200).pack(KEY), 2) == HEARD
    end = c.until(me, peer)
    assert end == 2 + MISSED * INTERVAL
    assert c.hear(me, peer, Beat(2, 1, 21, 90, 2, 5, 1, 200).pack(KEY), end) == HEARD
    assert c.until(me, peer) == 0
    assert c.beat(me, end)
    assert c.hear(me, peer, Beat(2, 1, 21, 90, 3, 5, 2, 200).pack(KEY), end + 1) == HEARD
    assert c.until(me, peer) > end + 1
