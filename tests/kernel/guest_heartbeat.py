# SPDX-License-Identifier: GPL-2.0-only
"""The provider `heartbeat`: several nodes of several clusters in one kernel, with real sockets. Runs as root inside a virtual machine
(tests/kernel/test_heartbeat.py starts it)."""

from __future__ import annotations

import errno
import random
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.contract_world import World, refused
from tests.kernel.guest_contract import SYSFS, KernelBackend
from tests.kernel.guest_module import CONSUMER, STATE, load, loaded, unload
from tests.kernel.heartbeat_wire import BYE, LOCAL, Beat, Peer, Wire, own_key
from vcs.heartbeat import MISSED, MODULE, TYPE, Heartbeat, Node
from vcs.netlink import KernelSwitch

DEBUG = Path("/sys/kernel/debug/vcs_heartbeat")
KEY = b"a key that all nodes share"
INTERVAL_MS = 400
BEAT_S = INTERVAL_MS / 1000
LATE_S = 1.5
"What a busy host may add to anything; figures are recorded."
FLOOD = 3000
_numbers = count(1)


def free_port(address: str = LOCAL) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])


class Instance:
    """One node of one cluster, in this kernel."""

    def __init__(self, backend: KernelBackend, name: str, nodeid: int, nodes: Iterable[Node], interval_ms: int = INTERVAL_MS) -> None:
        self.backend, self.name, self.nodeid = backend, name, nodeid
        self.nodes = tuple(nodes)
        self.interval_ms = interval_ms
        self.handle = f"{name}-{nodeid}"
        self.port = next(n.port for n in self.nodes if n.nodeid == nodeid)
        self.switch = backend.port()
        self.reader = backend.port()
        self.switch.cluster_add(self.handle, name, nodeid)
        self.attached = False

    def attach(self, key: bytes = KEY) -> None:
        self.switch.attach_kernel(self.handle, TYPE, Heartbeat(key, self.nodes, self.interval_ms).attributes())
        self.attached = True

    def detach(self) -> None:
        self.switch.detach_kernel(self.handle)
        self.attached = False

    def close(self) -> None:
        if self.attached:
            self.detach()
        self.switch.cluster_del(self.handle)

    def members(self) -> list[int]:
        return [m.nodeid for m in self.reader.view(self.handle).members]

    def quorate(self) -> bool:
        return self.reader.view(self.handle).quorate

    def generation(self) -> int:
        return self.reader.view(self.handle).generation

    def sees(self, *members: int) -> None:
        """Wait until the view has these members."""
        what = f"{self.handle} to see {members}; it sees {self.members()}\n{self.said()}"
        self.backend.wait(what, lambda: self.members() == list(members), self.reader)

    def has_boot(self, boot: int) -> None:
        """Wait until the view's last member is of this boot."""
        self.backend.wait(f"boot {boot:#x}", lambda: self.reader.view(self.handle).members[-1].incarnation == boot, self.reader)

    def said(self) -> str:
        return (DEBUG / self.handle).read_text() if self.attached else "detached"

    def line(self, nodeid: int = 0) -> dict[str, int]:
        """What debugfs says of the peer ``nodeid``, or of this node."""
        lines = [dict(pair.split("=") for pair in line.split()) for line in self.said().splitlines()]
        found = lines[0] if not nodeid else next(x for x in lines[1:] if int(x["nodeid"]) == nodeid)
        return {key: int(value) for key, value in found.items()}

    def wait_count(self, what: str, least: int) -> None:
        self.backend.wait(f"{least} packets {what}\n{self.said()}", lambda: self.line()[what] >= least, self.reader)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    load(MODULE)
    backend = KernelBackend()
    yield backend
    for cluster in KernelSwitch().clusters():
        if cluster.provider == TYPE and cluster.provider_state.name == "ATTACHED":
            KernelSwitch().detach_kernel(cluster.handle)
    if loaded(CONSUMER):
        subprocess.run(["rmmod", CONSUMER], timeout=30, check=False)
    backend.clean()


Cluster = dict[int, Instance]


def wired(backend: KernelBackend, wire: Wire, size: int = 2) -> Cluster:
    """Nodes that reach each other over a wire that can be cut."""
    name, ports = f"w{next(_numbers)}", {n: free_port() for n in range(1, size + 1)}
    made = {}
    for me, own in ports.items():
        others = {n: wire.way(me, n, ports[n]) for n in ports if n != me}
        nodes = [Node(n, LOCAL, own if n == me else others[n]) for n in ports]
        made[me] = Instance(backend, name, me, nodes)
        made[me].attach()
    for one in made.values():
        one.sees(*ports)
    return made


def direct(backend: KernelBackend, addresses: dict[int, str]) -> Cluster:
    """Nodes on addresses of their own, attached and up."""
    name, port = f"d{next(_numbers)}", free_port()
    nodes = [Node(n, address, port) for n, address in addresses.items()]
    made = {n: Instance(backend, name, n, nodes) for n in addresses}
    for one in made.values():
        one.attach()
    for one in made.values():
        one.sees(*addresses)
    return made


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


# --- live and die -------------------------------------------------------------------------------------------------


def test_two_nodes_see_each_other_live_and_leave(backend: KernelBackend) -> None:
    two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
    assert two[1].quorate() and two[2].quorate()
    boot = KernelSwitch().info().incarnation
    assert {m.incarnation for m in two[1].reader.view(two[1].handle).members} == {boot}
    began = time.monotonic()
    two[2].detach()
    two[1].sees(1)
    assert time.monotonic() - began < BEAT_S + LATE_S, "who says goodbye is not waited for"
    assert not two[1].quorate()
    two[2].attach()
    two[1].sees(1, 2)
    two[2].sees(1, 2)
    assert two[1].quorate()


def more_beats(backend: KernelBackend, wire: Wire, sender: int, to: int) -> None:
    """Wait until some were delivered this way."""
    enough = len(wire.seen[sender, to]) + MISSED + 1
    backend.wait(f"beats from {sender}", lambda: len(wire.seen[sender, to]) >= enough, backend.port())


def gone_after(one: Instance, since: float, *members: int) -> float:
    """Seconds from ``since`` until the view has these members."""
    one.sees(*members)
    return time.monotonic() - since


def test_who_falls_silent_is_down_after_three_beats(
    backend: KernelBackend, wire: Wire, record_property: Callable[..., None]
) -> None:
    two = wired(backend, wire)
    for repeat in range(3):
        wire.cut((1, 2), (2, 1))
        last = wire.seen[2, 1][-1].at
        silent_s = gone_after(two[1], last, 1)
        record_property(f"silent_to_view_ms_{repeat}", round(silent_s * 1000))
        assert (MISSED - 1) * BEAT_S < silent_s < MISSED * BEAT_S + LATE_S
        two[2].sees(2)
        assert not two[1].quorate() and not two[2].quorate()
        wire.heal()
        two[1].sees(1, 2)
        two[2].sees(1, 2)


def test_a_one_way_link_is_seen_by_both_sides(
    backend: KernelBackend, wire: Wire, record_property: Callable[..., None]
) -> None:
    two = wired(backend, wire)
    for sender, to in ((1, 2), (2, 1)):
        since = wire.cut((sender, to))
        deaf_s = gone_after(two[to], since, to)
        mute_s = gone_after(two[sender], since, sender)
        record_property(f"one_way_{sender}_{to}_deaf_ms", round(deaf_s * 1000))
        record_property(f"one_way_{sender}_{to}_mute_ms", round(mute_s * 1000))
        assert deaf_s < MISSED * BEAT_S + LATE_S
        assert mute_s < (MISSED + 1) * BEAT_S + LATE_S
        assert two[sender].line(to)["heard"] > two[sender].line(to)["proven"], "it goes on hearing the deaf one"
        generations = [two[n].generation() for n in (1, 2)]
        more_beats(backend, wire, to, sender)
        assert [two[n].generation() for n in (1, 2)] == generations, "neither comes back before the link does"
        wire.heal()
        two[1].sees(1, 2)
        two[2].sees(1, 2)


def test_one_lost_link_of_three_leaves_a_majority_to_all(backend: KernelBackend, wire: Wire) -> None:
    """Views are not agreed upon: everybody has his own, and the switch says so."""
    three = wired(backend, wire, 3)
    wire.cut((1, 2), (2, 1))
    three[1].sees(1, 3)
    three[2].sees(2, 3)
    three[3].sees(1, 2, 3)
    assert all(n.quorate() for n in three.values())
    for n in three.values():
        assert (SYSFS / n.handle / "view" / "agreed").read_text() == "0\n"


# --- eight of them -------------------------------------------------------------------------------------------------


def test_eight_instances_of_one_cluster(backend: KernelBackend) -> None:
    eight = direct(backend, {n: f"127.0.0.{n}" for n in range(1, 9)})
    for gone in (8, 7, 6):
        eight[gone].detach()
    for n in range(1, 6):
        eight[n].sees(1, 2, 3, 4, 5)
        assert eight[n].quorate()
    eight[5].detach()
    for n in range(1, 5):
        eight[n].sees(1, 2, 3, 4)
        assert not eight[n].quorate(), "half is no majority"


def test_clusters_with_one_key_do_not_meet(backend: KernelBackend) -> None:
    """The same nodeids and the same key, but a name each."""
    ports = {n: free_port() for n in (1, 2)}
    first = [Node(n, LOCAL, port) for n, port in ports.items()]
    pair = {n: Instance(backend, "first", n, first) for n in (1, 2)}
    # Of another name, and sends to the first one's node 1.
    other = Instance(backend, "second", 2, [Node(1, LOCAL, ports[1]), Node(2, LOCAL, free_port())])
    for one in (*pair.values(), other):
        one.attach()
    pair[1].sees(1, 2)
    pair[1].wait_count("forged", 2)
    other.sees(2)
    assert other.line(1)["heard"] == 0
    pair[2].detach()
    pair[1].wait_count("forged", 4)
    pair[1].sees(1)
    assert other.members() == [2]


def test_three_clusters_at_once(backend: KernelBackend) -> None:
    """Eight instances of three clusters: what befalls one is not seen by the others."""
    clusters = [direct(backend, {n: f"127.0.{c}.{n}" for n in range(1, size + 1)}) for c, size in ((1, 3), (2, 3), (3, 2))]
    first, second, third = clusters
    untouched = {one.handle: one.generation() for one in (*second.values(), *third.values())}
    first[1].detach()
    first[2].sees(2, 3)
    first[3].sees(2, 3)
    first[2].detach()
    first[3].sees(3)
    assert not first[3].quorate()
    assert {one.handle: one.generation() for one in (*second.values(), *third.values())} == untouched
    assert all(one.quorate() for one in (*second.values(), *third.values()))


def test_ipv6(backend: KernelBackend) -> None:
    ports = {n: free_port("::1") for n in (1, 2)}
    nodes = [Node(n, "::1", port) for n, port in ports.items()]
    two = {n: Instance(backend, "six", n, nodes) for n in (1, 2)}
    for one in two.values():
        one.attach()
    two[1].sees(1, 2)
    two[2].sees(1, 2)


# --- forged, replayed, for somebody else ---------------------------------------------------------------------------


@pytest.fixture
def faced(backend: KernelBackend) -> Iterator[tuple[Instance, Peer]]:
    """Node 1 in the kernel, node 2 in this process."""
    name = f"p{next(_numbers)}"
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


# --- the seat --------------------------------------------------------------------------------------------------------


def test_a_view_consumer_is_moved_from_user_to_heartbeat(backend: KernelBackend) -> None:
    """The same module, loaded once, and not a line of it changed: what feeds the switch is none of its business."""
    world = World(backend)
    load(CONSUMER, f"cluster={world.handle}", "group=")

    def seen() -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in STATE.read_text().splitlines())}

    generation = world.view()
    world.wait("the daemon's view", lambda: seen()["view_generation"] == generation and seen()["view_members"] == 2)
    world.provider.detach(world.handle, world.session)
    port, other = free_port(), free_port()
    nodes = (Node(1, LOCAL, port), Node(2, LOCAL, other))
    switch = backend.port()
    switch.attach_kernel(world.handle, TYPE, Heartbeat(KEY, nodes, INTERVAL_MS).attributes())
    world.wait("this node alone", lambda: seen()["view_members"] == 1)
    peer = Instance(backend, f"name-of-{world.handle}", 2, nodes)
    peer.attach()
    world.wait("the heartbeat's view", lambda: seen()["view_members"] == 2)
    assert world.reader.view(world.handle).quorate
    peer.detach()
    world.wait("the other's end", lambda: seen()["view_members"] == 1)
    assert seen()["nested"] == seen()["view_older"] == 0
    assert seen()["view_generation"] == world.reader.view(world.handle).generation > generation
    switch.detach_kernel(world.handle)
    world.attach()
    generation = world.view()
    world.wait("the daemon's view again", lambda: seen()["view_generation"] == generation)
    assert unload(CONSUMER) == ""


def test_the_seat_outlives_the_socket_and_takes_no_orders(backend: KernelBackend) -> None:
    two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
    one = two[1]
    one.switch.close()
    one.switch = backend.port()
    stranger = backend.port()
    with refused(errno.ESTALE, attribute="session"):
        stranger.detach(one.handle, 7)
    with refused(errno.EBUSY):
        stranger.attach(one.handle, 0)
    with refused(errno.EBUSY):
        stranger.cluster_del(one.handle)
    assert (SYSFS / one.handle / "provider" / "state").read_text() == "attached\n"
    one.sees(1, 2)
    one.detach()
    assert (SYSFS / one.handle / "provider" / "state").read_text() == "none\n"
    assert not one.quorate(), "nobody vouches for it any more"
    with refused(errno.ESTALE):
        one.switch.detach_kernel(one.handle)
    seated = World(backend)
    with refused(errno.ESTALE):
        stranger.detach_kernel(seated.handle)
    assert seated.provider_state() == "ATTACHED"


def test_what_needs_agreement_is_refused(backend: KernelBackend) -> None:
    world = World(backend)
    consumer = world.consumer()
    config = Heartbeat(KEY, (Node(1, LOCAL, free_port()),), INTERVAL_MS).attributes()
    world.die()
    with refused(errno.EOPNOTSUPP, attribute="provider"):
        KernelSwitch().attach_kernel(world.handle, TYPE, config)
    consumer.leave()
    world.wait_gone()
    with refused(errno.EOPNOTSUPP, attribute="lease-ms"):
        KernelSwitch()._do("provider-attach", handle=world.handle, provider=TYPE, lease_ms=1000, config=[config])
    KernelSwitch().attach_kernel(world.handle, TYPE, config)
    with refused(errno.EOPNOTSUPP, attribute="handle"):
        world.consumer("late")
    assert world.reader.view(world.handle).quorate, "the only one of the list is a majority of it"


NODES = [{"nodeid": n, "address": bytes((127, 0, 0, n)), "port": 5999} for n in (1, 2)]
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "no key": (errno.EINVAL, {"node": NODES}),
    "a short key": (errno.ERANGE, {"key": b"x" * 15, "node": NODES}),
    "a long key": (errno.ERANGE, {"key": b"x" * 65, "node": NODES}),
    "no nodes": (errno.EINVAL, {"key": KEY}),
    "others alone": (errno.EINVAL, {"key": KEY, "node": NODES[1:]}),
    "a nodeid twice": (errno.EINVAL, {"key": KEY, "node": [NODES[0], NODES[0]]}),
    "not in order": (errno.EINVAL, {"key": KEY, "node": NODES[::-1]}),
    "nodeid 0": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "nodeid": 0}]}),
    "no address": (errno.EINVAL, {"key": KEY, "node": [{"nodeid": 1, "port": 1}]}),
    "5 bytes of address": (errno.EINVAL, {"key": KEY, "node": [{**NODES[0], "address": b"x" * 5}]}),
    "17 bytes of address": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "address": b"x" * 17}]}),
    "two families": (errno.EINVAL, {"key": KEY, "node": [NODES[0], {**NODES[1], "address": bytes(15) + b"\1"}]}),
    "port 0": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "port": 0}]}),
    "port 65536": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "port": 65536}]}),
    "too quick": (errno.ERANGE, {"key": KEY, "interval-ms": 19, "node": NODES}),
    "too slow": (errno.ERANGE, {"key": KEY, "interval-ms": 10001, "node": NODES}),
    "65 nodes": (errno.EINVAL, {"key": KEY, "node": [{**NODES[0], "nodeid": n} for n in range(1, 66)]}),
    "not our address": (errno.EADDRNOTAVAIL, {"key": KEY, "node": [{**NODES[0], "address": bytes((192, 0, 2, 1))}]}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_refused_and_leaves_nothing(backend: KernelBackend, case: str) -> None:
    world = World(backend, attach=False)
    code, config = BAD[case]
    with refused(code):
        KernelSwitch().attach_kernel(world.handle, TYPE, config)
    assert world.provider_state() == "NONE"
    assert (SYSFS / "providers" / TYPE / "refcount").read_text() == "0\n"
    world.attach()


def test_other_refusals_of_an_attach(backend: KernelBackend) -> None:
    world = World(backend, attach=False)
    config = Heartbeat(KEY, (Node(1, LOCAL, free_port()),)).attributes()
    with refused(errno.EINVAL):
        KernelSwitch()._do("provider-attach", handle=world.handle, provider=TYPE)
    with refused(errno.EINVAL, attribute="config"):
        KernelSwitch().attach_kernel(world.handle, "user", config)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind((LOCAL, 0))
        taken = Heartbeat(KEY, (Node(1, LOCAL, squatter.getsockname()[1]),)).attributes()
        with refused(errno.EADDRINUSE, attribute="config"):
            KernelSwitch().attach_kernel(world.handle, TYPE, taken)
    with backend.unprivileged() as port, refused(errno.EPERM):
        port.attach_kernel(world.handle, TYPE, config)
    KernelSwitch().attach_kernel(world.handle, TYPE, config)
    with backend.unprivileged() as port, refused(errno.EPERM):
        port.detach_kernel(world.handle)


def test_64_nodes(backend: KernelBackend) -> None:
    """The largest list: 63 beats each time, to nobody."""
    nodes = [Node(n, "127.0.0.1", 6000 + n) for n in range(1, 65)]
    one = Instance(backend, "large", 64, nodes, interval_ms=20)
    one.attach()
    one.backend.wait("some beats", lambda: one.line()["seq"] > 20, one.reader)
    assert one.members() == [64]
    assert not one.quorate()


# --- the module ------------------------------------------------------------------------------------------------------


def test_loading_and_unloading_while_others_beat(backend: KernelBackend) -> None:
    assert (SYSFS / "providers" / TYPE / "caps").read_text() == "0x20\n"
    for _ in range(3):
        two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
        assert "in use" in unload(MODULE)
        assert "in use" in unload()
        two[1].sees(1, 2)
        for one in two.values():
            one.close()
        assert unload(MODULE) == ""
        assert not (SYSFS / "providers" / TYPE).exists()
        assert not DEBUG.exists()
        world = World(backend, attach=False)
        with refused(errno.ENOENT, attribute="provider"):
            KernelSwitch().attach_kernel(world.handle, TYPE, Heartbeat(KEY, (Node(1, LOCAL, 1),)).attributes())
        load(MODULE)


def test_attached_and_detached_again_and_again(backend: KernelBackend) -> None:
    """A beat every 20 ms, and an end at any moment of it."""
    ports = {n: free_port() for n in (1, 2)}
    two = {n: Instance(backend, "again", n, [Node(i, LOCAL, p) for i, p in ports.items()], interval_ms=20) for n in (1, 2)}
    for n in range(60):
        one = two[n % 2 + 1]
        if one.attached:
            one.detach()
        one.attach()
    for one in two.values():
        one.sees(1, 2)
    assert re.search(r"lives=[1-9]", two[1].said())


# --- the command -------------------------------------------------------------------------------------------------------

TOML = """
[cluster]
name = "cli"
key_file = "key"
[[node]]
id = 1
name = "one"
address = "127.0.0.1"
[[node]]
id = 2
name = "two"
address = "127.0.0.2"
"""


def vcs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["python3", "-m", "vcs.cli.main", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_command_starts_and_stops_it(backend: KernelBackend, tmp_path: Path) -> None:
    config = tmp_path / "cluster.toml"
    config.write_text(TOML)
    assert vcs("keygen", str(tmp_path / "key")).returncode == 0
    for name in ("one", "two"):
        done = vcs("heartbeat", "start", "--config", str(config), "--node", name, "--handle", f"cli-{name}", "--interval-ms", "300")
        assert done.returncode == 0, done.stderr
    reader = backend.port()
    backend.wait("both", lambda: len(reader.view("cli-one").members) == len(reader.view("cli-two").members) == 2, reader)
    said = vcs("status", "--handle", "cli-one")
    assert "heartbeat" in said.stdout and "quorate" in said.stdout, said
    again = vcs("heartbeat", "start", "--config", str(config), "--node", "one", "--handle", "cli-one")
    assert again.returncode != 0 and "has a provider already" in again.stderr
    for name in ("one", "two"):
        assert vcs("heartbeat", "stop", f"cli-{name}").returncode == 0
    assert not {"cli-one", "cli-two"} & {c.handle for c in reader.clusters()}
    done = vcs("heartbeat", "stop", "cli-one")
    assert done.returncode == 69 and "no such cluster" in done.stderr
