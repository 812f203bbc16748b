# SPDX-License-Identifier: GPL-2.0-only
"""Messages under trouble: large frames that vanish, holes, rests, nonsense, fragments across configurations, slow receivers."""

from __future__ import annotations

from membership.totem import wire
from membership.totem.frames import Range, Token, make_regular
from membership.totem.limits import MESSAGE_MAX
from membership.totem.states import State
from tests.scenarios.forge import forge
from tests.scenarios.golden import scenario
from tests.scenarios.script import Script
from vcs.errors import VcsError
from vcs.model import RingId

EXCLUDED_MS = 10_000
"Who receives no data is excluded, or gets it, within this time."
SMALL = 400
"Bytes of a frame that passes where large ones do not: tokens, Joins and probes of three nodes are smaller."


@scenario(cases=["to", "from", "both"])
def test_t04_large_frames_to_one_node_vanish(s: Script, case: str) -> None:
    """Frames above 400 bytes to, from or on both ways of node 3 vanish for good: repaired or without it, in bounded time."""
    if case in ("to", "both"):
        s.links(to=3, drop_above=SMALL)
    if case in ("from", "both"):
        s.links(source=3, drop_above=SMALL)
    sent = [s.submit(n, 1200) for n in (1, 2)]
    if case == "from":
        sent.append(s.submit(3, 1200))
    s.told(sent[:2], 1, 2, within=EXCLUDED_MS)
    s.load(50, 1, 2, size=1200)
    since = s.now
    s.run(10_000)
    for n in (1, 2):
        s.at_most(6000, f"longest silence at {n} in ms", round(s.gap(n, since)))
    s.at_most(14, "configurations at 1 in 10 s", len(s.rings(1, since=since)))


@scenario(seeds=2)
def test_t04_small_messages_pass_where_large_ones_do_not(s: Script) -> None:
    """A path that drops what is above 400 bytes does not hurt a ring whose frames are small."""
    s.links(drop_above=SMALL)
    s.load(20, size=100, safe=True)
    s.stands(3000)


@scenario(cases=[300, 60])
def test_t04_a_rate_limit_before_one_node(s: Script, case: int) -> None:
    """Only so many datagrams a second reach node 3: the others serve, with it or without it."""
    passed: dict[int, int] = {}

    def limit(_source: int, target: int, _data: bytes) -> int | None:
        if target != 3:
            return 0
        second = s.world.now // 1_000_000_000
        passed[second] = passed.get(second, 0) + 1
        return 0 if passed[second] <= case else None

    s.load(20, 1, 2, size=600)
    s.run(200)
    s.say(f"limit to 3: {case} datagrams a second")
    s.wires.filter = limit
    since = s.now
    s.run(20_000)
    for n in (1, 2):
        s.at_most(3000, f"longest silence at {n} in ms", round(s.gap(n, since)))
    s.wires.filter = None
    s.say("no limit")
    s.ring(1, 2, 3, within=35_000)


@scenario(seeds=2)
def test_t05_a_lossy_idle_ring_stays_quiet(s: Script) -> None:
    """One datagram of ten is lost on an idle ring: no storm of repairs, no configuration."""
    s.run(2000)
    before = s.packets()
    s.run(10_000)
    calm = s.packets() - before
    s.links(loss=0.1)
    before = s.packets()
    s.stands(10_000)
    s.at_most(3 * calm, "datagrams in 10 s", s.packets() - before)
    s.links(loss=0.0)


@scenario(seeds=2)
def test_t05_a_hole_that_cannot_be_filled_at_once(s: Script) -> None:
    """Data to one node is lost for 200 ms while the rest is idle: requests for it do not spin the ring."""
    s.run(500)
    s.links(source=1, to=3, drop_above=180)
    s.links(source=2, to=3, drop_above=180)
    before = s.packets()
    payload = s.submit(1, 300)
    s.run(200)
    s.at_most(4000, "datagrams in 200 ms", s.packets() - before)
    s.links(drop_above=0)
    s.told([payload], within=100)


@scenario(cases=[(1, 3), (1, 2), (3, 1), (2, 3)])
def test_t06_the_last_message_before_a_rest_is_lost(s: Script, case: tuple[int, int]) -> None:
    """The only message on an idle ring is lost at one node: repaired within 50 ms."""
    source, deaf = case
    s.run(500)
    lost = [0]

    def once(a: int, b: int, data: bytes) -> int | None:
        if (a, b) == (source, deaf) and len(data) > 300 and not lost[0]:
            lost[0] += 1
            return None
        return 0

    s.wires.filter = once
    payload = s.submit(source, 300)
    s.told([payload], within=50)
    if not lost[0]:
        s.fail("nothing was lost")


@scenario(seeds=2)
def test_t07_a_gap_larger_than_any_window(s: Script) -> None:
    """Node 3 gets no data for 150 ms under full load, more than every window: it catches up, and nobody leaves."""
    s.load(1, size=900)
    s.run(100)
    s.links(source=1, to=3, drop_above=SMALL)
    s.links(source=2, to=3, drop_above=SMALL)
    s.stands(150)
    s.links(drop_above=0)
    s.quiet()
    s.told([s.submit(n) for n in s.ids], within=3000)
    for n in s.ids:
        if s.seen[n].payloads != s.seen[1].payloads:
            s.fail(f"{n} was told something else than 1")


EXTREMES = (0, 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)


@scenario(seeds=1)
def test_t08_extreme_numbers_from_a_member(s: Script) -> None:
    """A member with the key sends every extreme number in every place: nobody raises, memory stays, and it goes on without it."""
    s.load(20, 1, 2)
    ring = s.hosts[1].core.core.ring.id
    liar = forge(s, 3)
    for value in EXTREMES:
        for at in (RingId(ring.seq, ring.rep), RingId(min(value, 2**42 - 1), 3)):
            liar.send(Token(at, max(1, value), value, min(value, 5), 3, min(value, 2**32 - 1), min(value, 2**32 - 1), False, []))
            liar.send(Token(at, max(1, value), value, 0, 0, 0, 0, True, [Range(3, 1, min(value, 64))] if value > 1 else []))
            liar.send(make_regular(at, max(1, value), 3, False, (b"evil",)))
            liar.send(wire.Hurry(at))
            liar.send(wire.Leave(RingId(at.seq, 99)))
        s.run(30)
    s.kill(3)
    s.ring(1, 2, within=15_000)
    s.quiet()
    s.told([s.submit(1), s.submit(2)], 1, 2, within=1000)


@scenario(cases=[(3, 9000), (1, 9000), (2, 20_000)], seeds=2)
def test_t11_a_node_restarts_in_a_loop_under_fragmented_load(s: Script, case: tuple[int, int]) -> None:
    """Messages of many frames while one node restarts all the time: every payload whole, once, in one order."""
    node, size = case
    s.links(delay_ns=2_000_000)
    s.load(10, size=size, safe=True)
    for _ in range(8):
        s.run(300)
        s.restart(node)
    s.run(500)
    s.quiet()
    s.ring(1, 2, 3, within=5000)
    last = [s.submit(n, size, safe=True) for n in s.ids]
    s.told(last, within=5000)


@scenario(seeds=1)
def test_t12_the_largest_messages_in_recovery(s: Script) -> None:
    """The largest messages are under way when a member dies: the survivors recover and deliver them."""
    large = [s.submit(n, MESSAGE_MAX - n, safe=True) for n in (1, 2)]
    s.run(4)
    s.kill(3)
    s.told(large, 1, 2, within=10_000)
    s.ring(1, 2, within=1000)
    s.start(3)
    s.ring(1, 2, 3, within=5000)


@scenario(seeds=1)
def test_t12_full_frames_are_exchanged_in_recovery(s: Script) -> None:
    """One member lacks full frames when another dies: they travel encapsulated, whole, to the one that lacks them."""
    s.run(100)
    s.links(source=1, to=2, drop_above=SMALL)
    sent = [s.submit(1, 30_000)]
    s.run(3)
    s.kill(1)
    s.links(source=1, to=2, drop_above=0)
    s.ring(2, 3, within=1500)
    if (sent[0] in s.seen[2].payloads) != (sent[0] in s.seen[3].payloads):
        s.fail("only one of two that went on together has the message")


@scenario(cases=[1, 3, 5], seeds=2)
def test_t18_data_is_slower_than_the_token(s: Script, case: int) -> None:
    """Data comes up to so many ms after the token that was sent behind it: nothing is asked for in vain without end."""
    rng = s.world.rng("slow data")
    s.wires.filter = lambda _a, _b, data: rng.randrange(case * 1_000_000) if len(data) > 600 else 0
    s.load(5, size=900)
    before = s.packets()
    s.stands(5000)
    s.quiet()
    messages = len(s.seen[1].messages)
    sent = s.packets() - before
    s.wires.filter = None
    s.told([s.submit(n) for n in s.ids], within=1000)
    s.say(f"{sent} datagrams for {messages} messages")
    # Requests go out one rotation late, before the slowest data; what counts is that they do not repeat themselves.
    s.at_most(3 * messages, "repairs", sum(s.counter(n, "repaired") for n in s.ids))


@scenario(cases=[10, 30])
def test_t26_one_slow_node(s: Script, case: int) -> None:
    """One node takes ten times as long for everything: the ring is slower, and nobody is excluded."""
    s.slow(2, 20 * case)
    s.load(5, size=900)
    s.stands(10_000)
    for n in s.ids:
        s.at_most(300, f"longest silence at {n} in ms", round(s.gap(n, 500)))


@scenario(seeds=1)
def test_t26_a_flood_with_one_slow_node(s: Script) -> None:
    """Everybody sends as fast as the queue takes it, one node is slow: flow control holds the others back, nobody is excluded."""
    s.slow(3, 150)
    since = s.now
    for _ in range(40):
        for n in s.ids:
            try:
                for _i in range(50):
                    s.submit(n, 1000, quietly=True)
            except VcsError:
                continue
        s.run(50)
    s.at_most(0, "configurations in 2 s", len(s.rings(since=since + 1)))
    s.until("everything is delivered", lambda: len({len(x.messages) for x in s.seen.values()}) == 1 and not any(
        h.core.core.queue for h in s.hosts.values()), within=30_000)


@scenario(seeds=0)
def test_t08_states_of_the_old_ring_do_not_raise(s: Script) -> None:
    """Frames of every kind in the states in which they make no sense."""
    liar = forge(s, 3)
    ring = s.hosts[1].core.core.ring.id
    for state in (State.GATHER, State.COMMIT, State.RECOVERY):
        s.restart(2)
        s.state(1, state)
        for at in (ring, RingId(ring.seq + 4, 1), RingId(ring.seq + 4, 3)):
            liar.send(Token(at, 7, 3, 1, 3, 0, 0, False, [Range(3, 2, 3)]))
            liar.send(make_regular(at, 2, 3, True, (b"evil",)))
        s.run(2000)
    s.kill(3)
    s.ring(1, 2, within=15_000)
