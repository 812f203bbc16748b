# SPDX-License-Identifier: GPL-2.0-only
"""The hub step by step, with an order that the test makes: what counts, what is repeated, who has missed something, who may send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bridge.channel.hub import MISSED, Hub
from bridge.channel.limits import Limits
from bridge.channel.order import GroupOrder
from vcs import batch
from vcs.batch import Batch, Event, Position, What
from vcs.channel import SOCKET_BUFFER, Channel, ChannelClosed
from vcs.errors import VcsError


class Side:
    """Nodes that hear each other. What a hub submits waits until :meth:`order` gives it a place."""

    def __init__(self, *nodes: int, limits: Limits | None = None) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.hubs = {n: Hub(n, lambda p, n=n: self.submit(n, p), lambda _n, _f: None, limits) for n in nodes}  # type: ignore[misc]
        self.full: set[int] = set()
        self.place = 0
        self.ring = 0

    def submit(self, node: int, payload: bytes) -> None:
        if node in self.full:
            raise VcsError("the send queue is full")
        self.sent.append((node, payload))

    def new_ring(self, ring: int, *companions: int, among: tuple[int, ...] = (), merged: bool = True) -> None:
        self.ring, self.place = ring, 0
        for n in among or self.hubs:
            self.hubs[n].new_ring(ring, frozenset(companions or self.hubs))
        if merged:
            for n in among or self.hubs:
                self.hubs[n].merged()

    def start(self, event: int, *members: int) -> None:
        for n in members:
            self.hubs[n].start("g", event, members)
            self.hubs[n].processed("g", event)

    def order(self, count: int = 1 << 30, ring: int = 0, to: tuple[int, ...] = ()) -> None:
        """Deliver what was sent, to everybody or to some; ``ring``: the one that the engine sent it in."""
        for _ in range(min(count, len(self.sent))):
            sender, payload = self.sent.pop(0)
            self.place += 1
            for n in to or self.hubs:
                self.hubs[n].payload(payload, sender, ring or self.ring, self.place)

    def close(self) -> None:
        for hub in self.hubs.values():
            hub.close("the test ends")


def story(tell: Callable[[Side], Awaitable[None]], *nodes: int, limits: Limits | None = None) -> None:
    async def run() -> None:
        side = Side(*nodes, limits=limits)
        try:
            await tell(side)
        finally:
            side.close()

    asyncio.run(run())


def opened(hub: Hub) -> Channel:
    """A channel whose node has processed what was started."""
    channel = Channel(hub.open("g", False))
    if "g" in hub.orders:
        hub.processed("g", hub.orders["g"].event)
    return channel


async def turn() -> None:
    """Let the hubs read what programs have sent."""
    for _ in range(5):
        await asyncio.sleep(0.001)


def got(channel: Channel) -> list[object]:
    """What came: an event by its members, a batch by its messages."""
    found: list[object] = []
    while (delivery := channel.receive(0)) is not None:
        found += [delivery.members] if isinstance(delivery, Event) else delivery.messages
    return found


def ended(channel: Channel) -> str:
    try:
        while channel.receive(0) is not None:
            pass
    except ChannelClosed as closed:
        return str(closed)
    return ""


def test_what_is_delivered_in_a_later_ring_is_void_and_repeated_in_order() -> None:
    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1, 2)
        one, two = opened(side.hubs[1]), opened(side.hubs[2])
        for message in (b"a", b"b", b"c"):
            one.send(message)
        await turn()
        side.order(1)
        assert got(two) == [(1, 2), b"a"]
        # A ring that never merges, and one that does. What waits in the engine is sent there, with the old ring's name on it.
        side.new_ring(2, merged=False)
        side.order(1)
        side.new_ring(3, merged=False)
        one.send(b"d")
        await turn()
        assert len(side.sent) == 1, "something was taken from a program before the ring was merged"
        for hub in side.hubs.values():
            hub.merged()
        await turn()
        side.order()
        assert got(one) == [(1, 2), b"a", b"b", b"c", b"d"] and got(two) == [b"b", b"c", b"d"]
        assert side.hubs[2].counters["void"] == 2 and not side.hubs[1]._outstanding
        assert side.hubs[1]._inflight == 0

    story(tell, 1, 2)


def test_a_full_engine_delays_and_keeps_the_order() -> None:
    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1)
        one = opened(side.hubs[1])
        one.send(b"a")
        await turn()
        side.full.add(1)
        one.send(b"b")
        await turn()
        one.send(b"c")
        await turn()
        side.full.clear()
        side.order(1)  # its own message comes back: there is room again
        side.order()
        assert got(one) == [(1,), b"a", b"b", b"c"]
        side.full.add(1)
        one.send(b"d")
        await turn()
        side.full.clear()
        await asyncio.sleep(0.05)  # nothing of its own comes back: the timer tries
        side.order()
        assert got(one) == [b"d"] and side.hubs[1].counters["engine_full"] == 2

    story(tell, 1)


def test_who_was_with_fewer_has_missed_messages() -> None:
    """1 and 2 come from one side of a short split, 3 from the other, where a message of 1 did not come. No event of the group says so."""

    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1, 2, 3)
        programs = {n: opened(side.hubs[n]) for n in (1, 2, 3)}
        side.order()
        programs[1].send(b"for two")
        await turn()
        side.order(1, to=(1, 2))
        for n in (1, 2):
            side.hubs[n].new_ring(2, frozenset({1, 2}))
        side.hubs[3].new_ring(2, frozenset({3}))
        side.ring = 2
        for hub in side.hubs.values():
            hub.merged()
        side.order()
        assert MISSED in ended(programs[3])
        assert got(programs[1]) == [(1, 2, 3), b"for two"] == got(programs[2])
        # A new channel there counts on with the others.
        again = opened(side.hubs[3])
        programs[2].send(b"for all")
        await turn()
        side.order()
        found = [again.receive(0), again.receive(0)]
        assert found == [Event(10, (1, 2, 3)), Batch(10, 2, 2, 10, [b"for all"])]
        assert got(programs[1]) == [b"for all"]

    story(tell, 1, 2, 3)


class Restarts(Side):
    """Group g in event 10 on all, and daemons that become other processes without a new event."""

    def meet(self, stayed: tuple[int, ...], restarted: tuple[int, ...] = (), heard: bool = True) -> None:
        """The next ring, with all; unless ``heard``, it breaks before anybody's first message has come."""
        self.new_ring(self.ring + 1, *stayed, among=stayed, merged=False)
        for n in restarted:
            self.hubs[n].close("killed")
            self.hubs[n] = Hub(n, lambda p, n=n: self.submit(n, p), lambda _n, _f: None)  # type: ignore[misc]
            self.hubs[n].new_ring(self.ring, frozenset({n}))
            self.hubs[n].start("g", 10, self.hubs, over=True)
            self.hubs[n].processed("g", 10)
        for hub in self.hubs.values():
            hub.merged()
        if heard:
            self.order()
        self.sent.clear()

    async def number_of(self, word: bytes) -> int:
        """1 says the word; all must hear it alike."""
        programs = {n: opened(hub) for n, hub in self.hubs.items()}
        programs[1].send(word)
        await turn()
        self.order()
        found = set()
        for program in programs.values():
            assert program.receive(0) == Event(10, tuple(self.hubs))
            heard = program.receive(0)
            assert isinstance(heard, Batch) and heard.messages == [word]
            found.add(heard.seq)
            program.close()
        await turn()
        assert len(found) == 1, f"{word!r} has the numbers {found}"
        return found.pop()


def test_a_restarted_daemon_counts_on_with_the_others() -> None:
    """Also when the ring breaks before anybody has said where it stands, and when nobody is left who was there from the beginning."""

    async def run() -> None:
        side = Restarts(1, 2, 3)
        side.new_ring(1)
        side.start(10, 1, 2, 3)
        assert await side.number_of(b"one") == 1
        side.meet((1, 2), restarted=(3,), heard=False)
        side.meet((1, 2, 3))
        assert await side.number_of(b"two") == 2
        side.meet((1, 3), restarted=(2,))
        assert await side.number_of(b"three") == 3
        side.meet((2,), restarted=(1, 3))
        assert await side.number_of(b"four") == 4
        side.meet((3,), restarted=(1, 2), heard=False)
        side.meet((1, 2), restarted=(3,))
        assert await side.number_of(b"nobody knows better") > 4
        side.close()

    asyncio.run(run())


def test_equal_histories_are_told_from_different_ones() -> None:
    def came(*senders: int, event: int = 5) -> GroupOrder:
        order = GroupOrder("g")
        order.start(event, frozenset({1, 2, 3, 4}))
        for place, sender in enumerate(senders):
            assert order.accept(sender, 1, place, 1)
        return order

    one, same, other, longer, later = came(1, 2), came(1, 2), came(2, 1), came(1, 2, 3), came(event=6)
    for order, companions in ((one, {1, 2}), (same, {1, 2}), (other, {3, 4}), (longer, {3}), (later, {4})):
        order.new_ring(frozenset(companions))
    marks = [o.mark for o in (one, same, other, longer, later)]
    assert all(isinstance(m, Position) for m in marks)
    positions = [m for m in marks if m is not None]
    table = [[o.missed(p) for p in positions] for o in (one, same, other, longer, later)]
    assert table == [
        [False, False, False, False, True],  # with two, among them the lowest
        [False, False, False, False, True],
        [True, True, False, False, True],  # as many, but not the lowest
        [True, True, True, False, True],  # longer, but alone
        [False, False, False, False, False],  # a later event
    ]
    assert not GroupOrder("g").missed(positions[0]), "who was in no event has missed nothing"
    assert one.accept(9, 1, 9, 1) == 0, "no member"


def test_a_window_stops_the_reading_and_a_delivery_begins_it_again() -> None:
    limits = Limits(window=100_000, node_window=150_000)

    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1)
        one, two = opened(side.hubs[1]), opened(side.hubs[1])
        taken = [0, 0]
        for i, channel in enumerate((one, two)):
            channel.put(bytes(50_000))
            while channel.flush(0.01):
                taken[i] += 1
                channel.put(bytes(50_000))
                await turn()
        assert 2 <= len(side.sent) <= 4 and side.hubs[1]._inflight < 150_000 + batch.PACKET_MAX
        assert min(taken) >= 1 and max(taken) * 50_000 < 4 * SOCKET_BUFFER, "the socket does not fill"
        before = len(side.sent)
        side.order(1)
        await turn()
        assert len(side.sent) == before, "one came back, one more was taken"
        while side.sent:
            side.order(1)
            await turn()
        assert side.hubs[1]._inflight == 0 == sum(p.inflight for p in side.hubs[1]._ports.values())
        got(one), got(two)

    story(tell, 1, limits=limits)


def test_a_program_that_is_behind_stops_the_whole_group() -> None:
    limits = Limits(socket=32 << 10, behind=64 << 10, caught_up=16 << 10, backlog=1 << 20)

    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1, 2)
        one, two = opened(side.hubs[1]), opened(side.hubs[2])
        for _ in range(12):
            one.send(bytes(30_000))
            await turn()
            side.order()
            got(one)
        assert side.hubs[2].counters["pauses"] == 1 and side.hubs[1].orders["g"].paused == {2}
        sent = side.hubs[1].counters["bundles"]
        assert sent < 12, "it was not stopped"
        while len(got(two)) or side.sent:
            got(one)
            await turn()
            side.order()
        assert not side.hubs[1].orders["g"].paused
        assert side.hubs[1].counters["bundles"] == 12
        # A new ring forgets who was behind; who still is says so again.
        side.hubs[1].orders["g"].paused.add(2)
        side.new_ring(2)
        assert not side.hubs[1].orders["g"].paused
        side.order()
        assert got(one) == got(two) == []

    story(tell, 1, 2, limits=limits)


def test_all_programs_of_a_node_together_have_a_limit() -> None:
    limits = Limits(socket=16 << 10, behind=50_000, backlog=1 << 20, node_backlog=400_000)

    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1, 2)
        deaf = [opened(side.hubs[2]) for _ in range(4)]
        for i in range(40):
            body = batch.pack(10, [bytes(10_000)])
            side.sent.append((1, batch.bundle_head(What.MESSAGES, b"g", 1, 1) + body))
            side.order()
            assert sum(p.backlog for p in side.hubs[2]._ports.values()) <= 400_000 + 10_100, i
        assert side.hubs[2].counters["closed"] >= 2
        reasons = []
        for channel in deaf:
            reason = ended(channel)
            await turn()  # there is room for the reason now
            reasons.append(reason or ended(channel))
        assert any("all programs of this node together" in reason for reason in reasons), reasons

    story(tell, 1, 2, limits=limits)


def test_noise_from_a_peer_is_counted() -> None:
    async def tell(side: Side) -> None:
        side.new_ring(1)
        side.start(10, 1, 2)
        one = opened(side.hubs[1])
        got(one)
        body = batch.pack(10, [b"x"])
        for noise in (
            b"\xb5",
            batch.bundle_head(What.MESSAGES, b"g", 1, 1),
            batch.bundle_head(What.SYNC, b"g", 1, 1) + b"short",
            batch.bundle_head(What.MESSAGES, b"g", 1, 1)[:-1] + b"\xff" + body,
            b"\xb5\1\7" + batch.bundle_head(What.MESSAGES, b"g", 1, 1)[3:] + body,
        ):
            side.sent.append((2, noise))
        side.order()
        assert side.hubs[1].counters["garbage"] == 5
        for foreign in (b"other", b"g"):
            side.sent.append((3, batch.bundle_head(What.MESSAGES, foreign, 1, 1) + body))
        side.order()
        assert side.hubs[1].counters["not_a_member"] == 1 and got(one) == []

    story(tell, 1, 2)


def test_a_program_that_looks_while_its_packet_waits_does_not_spin() -> None:
    """The socket is full: receive(0) says that nothing came, at once, and the packet is made once, not at every look."""

    async def tell(side: Side) -> None:
        one = opened(side.hubs[1])  # no event yet: nothing is read from it
        one.put(bytes(50_000))
        while one.flush(0):
            one.put(bytes(50_000))
        packed = one._packed
        assert packed and not one._messages
        one.put(b"behind")
        for _ in range(3):
            assert one.receive(0) is None and one._packed is packed
        side.new_ring(1)
        side.start(10, 1)
        last: list[object] = []
        while last != [b"behind"]:
            await turn()
            side.order()
            last = got(one)[-1:] or last
            one.flush(0)
        assert not one._packed and not one._messages

    story(tell, 1)
