# SPDX-License-Identifier: GPL-2.0-only
"""The clocks of failure detection one by one: what asks, what answers, when the alarm and the verdict come, self-doubt; parking."""

from __future__ import annotations

import pytest

from membership.api import Health, Processor
from membership.totem import control, gather, parked, verdict, watch
from membership.totem.core import Core, CoreConfig, Deliver, Send
from membership.totem.limits import ASKS_MIN, DOUBT_MAX, HOLD_MAX_NS, HOLD_MIN_NS, HOLD_PROBE_MAX_NS, RTO_MIN_NS, Timing
from membership.totem.ring import Ring
from membership.totem.seal import Sealer
from membership.totem.states import Event
from membership.totem.suspects import NUMBER_STEP, Watch
from membership.totem.wire import Beacon, Join, decode
from tests.sim.engine_node import CheapSuite
from vcs.config.model import TotemConfig
from vcs.model import RingId

MS = 1_000_000
P = tuple(Processor(n, n, n * 100) for n in range(1, 6))
RING = RingId(8, 1)
T0 = 1_000_000 * MS


def make(me: int = 1, members: int = 3, links: int = 1) -> Core:
    core = Core(CoreConfig(P[me - 1], (1, 2, 3, 4, 5), Timing.of(TotemConfig()), links=links), Sealer("t", P[me - 1], CheapSuite()))
    core.ring = Ring(RING, P[:members], P[me - 1])
    for p in P:
        if p.nodeid in core.peers:
            core.peers[p.nodeid].current = p
    core.proc = set(P[:members])
    watch.began(core, T0)
    return core


def sent(core: Core, kind: type) -> list[tuple[tuple[int, ...], object]]:
    """Messages of a kind that went out since the last call, with their receivers."""
    opener = Sealer("t", P[4], CheapSuite())
    out = [(e.to, decode(opener.open(e.data)[2])) for e in core.out if isinstance(e, Send)]
    core.out = [e for e in core.out if not isinstance(e, Send)]
    return [(to, m) for to, m in out if isinstance(m, kind)]


def health(core: Core) -> list[tuple[int, str]]:
    return [(e.event.nodeid, e.event.what) for e in core.out if isinstance(e, Deliver) and isinstance(e.event, Health)]


def run(core: Core, since: int, until: int) -> None:
    """Fire the watch's timer, and the token's, as a driver does."""
    now = since
    while True:
        at = min(core.timers.get(Event.WATCH_TIMER, until), core.timers.get(Event.RETRANSMIT_TIMER, until))
        now = max(now, at)
        if now >= until:
            return
        if core.timers.get(Event.RETRANSMIT_TIMER, until) <= now:
            del core.timers[Event.RETRANSMIT_TIMER]
            watch.resend(core, core.ring, control.encode(control.TokenAck(RING, 5)), now)
        if core.timers.get(Event.WATCH_TIMER, until) <= now:
            del core.timers[Event.WATCH_TIMER]
            verdict.on_timer(core, None, None, now)


# --- asks and answers -------------------------------------------------------------------------------------------------------


def test_a_probe_is_answered_on_the_link_that_it_came_on() -> None:
    core = make(links=2)
    core.arrived_on = 1
    watch.receive(core, P[1], control.Probe(7), T0)
    (effect,) = core.out
    assert isinstance(effect, Send)
    assert (effect.to, effect.link) == ((2,), 1)
    assert sent(core, control.ProbeAck) == [((2,), control.ProbeAck(7))]


def test_only_the_answer_to_an_open_question_stops_the_clock() -> None:
    core = make()
    clock = core.watch.clocks[2]
    watch.probe(core, 2, T0)
    watch.receive(core, P[1], control.ProbeAck(clock.nonce), T0 + MS)
    assert (clock.asked_ns, clock.asks, clock.mean_ns) == (0, 0, MS)
    old = clock.nonce
    watch.probe(core, 2, T0 + 10 * MS)
    watch.receive(core, P[1], control.ProbeAck(old), T0 + 11 * MS)
    watch.receive(core, P[1], control.ProbeAck(clock.nonce + NUMBER_STEP), T0 + 11 * MS)
    watch.receive(core, P[2], control.ProbeAck(clock.nonce), T0 + 11 * MS)
    assert clock.asked_ns == T0 + 10 * MS, "an old answer, one to no question, and another's answer prove nothing"
    watch.probe(core, 2, T0 + 40 * MS)
    assert (clock.asked_ns, clock.asks) == (T0 + 10 * MS, 2), "the clock runs from the first one"
    watch.receive(core, P[1], control.ProbeAck(clock.nonce - NUMBER_STEP), T0 + 50 * MS)
    assert clock.asked_ns == 0, "a slow answer to the first question is one"
    assert clock.mean_ns > MS, "and it tells how slow"


def test_every_link_is_asked_with_a_number_of_its_own() -> None:
    core = make(links=2)
    watch.probe(core, 2, T0)
    assert [(e.link, e.to) for e in core.out if isinstance(e, Send)] == [(0, (2,)), (1, (2,))]
    last = core.watch.clocks[2].nonce
    assert [m for _to, m in sent(core, control.Probe)] == [control.Probe(last - NUMBER_STEP), control.Probe(last)]


def test_an_answer_to_another_node_or_to_a_former_life_answers_nothing() -> None:
    core = make()
    watch.probe(core, 2, T0)
    to_two = core.watch.clocks[2].nonce
    watch.probe(core, 3, T0)
    watch.probe(core, 2, T0 + MS)
    watch.receive(core, P[2], control.ProbeAck(to_two), T0 + 2 * MS)
    assert core.watch.clocks[3].asked_ns, "node 3 answers what node 2 was asked: somebody carried it there"
    former = Watch([2, 3])
    assert former.number(core.local._replace(engine=core.local.engine + 1), 2) >> 31 != to_two >> 31


# --- the token's hop --------------------------------------------------------------------------------------------------------


def test_a_hop_is_sent_again_until_it_is_acknowledged() -> None:
    core = make()
    watch.token_sent(core, core.ring, 5, T0)
    first = core.timers[Event.RETRANSMIT_TIMER] - T0
    assert RTO_MIN_NS <= first <= RTO_MIN_NS + MS
    run(core, T0, T0 + 60 * MS)
    assert core.counters["token_retransmits"] == 2, "after 10 and 30 ms: it doubles"
    watch.receive(core, P[2], control.TokenAck(RING, 5), T0 + 61 * MS)
    watch.receive(core, P[1], control.TokenAck(RING, 4), T0 + 61 * MS)
    assert Event.RETRANSMIT_TIMER in core.timers, "not the successor's, not of this token"
    watch.receive(core, P[1], control.TokenAck(RING, 5), T0 + 61 * MS)
    assert Event.RETRANSMIT_TIMER not in core.timers
    clock = core.watch.clocks[2]
    assert (clock.asked_ns, clock.mean_ns) == (0, 0), "nobody knows which copy was answered"


def test_the_pace_follows_what_is_measured() -> None:
    core = make()
    for i in range(20):
        watch.token_sent(core, core.ring, i, T0 + i * 100 * MS)
        watch.receive(core, P[1], control.TokenAck(RING, i), T0 + i * 100 * MS + 40 * MS)
    watch.token_sent(core, core.ring, 99, T0 + 9000 * MS)
    assert 40 * MS < core.watch.rto_ns <= core.timing.retransmit


def test_the_tokens_return_answers_for_both_neighbours() -> None:
    core = make()
    watch.token_sent(core, core.ring, 5, T0)
    watch.probe(core, 3, T0)
    watch.token_came(core, core.ring, True, T0 + 8 * MS)
    assert not core.watch.clocks[2].asked_ns
    assert not core.watch.clocks[3].asked_ns
    assert core.watch.rotation_ns == MS


# --- alarm and verdict ------------------------------------------------------------------------------------------------------


def test_silence_raises_an_alarm_and_then_a_claim() -> None:
    core = make()
    watch.token_sent(core, core.ring, 5, T0)
    alarm, detect = core.timing.alarm, core.timing.detect
    run(core, T0, T0 + 110 * MS)
    watch.answered(core, 3, T0 + 110 * MS)  # no token: both neighbours were asked
    run(core, T0 + 110 * MS, T0 + alarm - MS)
    assert not health(core)
    assert not sent(core, control.Alarm)
    run(core, T0 + alarm - MS, T0 + alarm + 2 * MS)
    ((to, message),) = sent(core, control.Alarm)
    assert isinstance(message, control.Alarm)
    assert (to, message.nodeids) == ((2, 3), (2,))
    watch.receive(core, P[2], control.ProbeAck(message.nonce), T0 + alarm + 3 * MS)
    run(core, T0 + alarm + 3 * MS, T0 + detect - MS)
    assert not core.raised
    run(core, T0 + detect - MS, T0 + detect + 2 * MS)
    assert core.raised == [Event.SUSPECT]
    assert core.watch.verdicts == [P[1]]
    assert list(core.watch.held) == [P[1]]
    assert [what for about, what in health(core) if about == 2] == ["silent", "suspect"]
    assert (3, "suspect") not in health(core), "it answered the alarm"


def test_neighbours_that_failed_together_are_judged_together() -> None:
    core = make(members=5)
    watch.token_sent(core, core.ring, 5, T0)
    run(core, T0, T0 + core.timing.alarm + 2 * MS)
    ((_to, message),) = sent(core, control.Alarm)
    assert isinstance(message, control.Alarm)
    for p in (P[3], P[4]):
        watch.receive(core, p, control.ProbeAck(message.nonce), T0 + core.timing.alarm + 3 * MS)
    run(core, T0 + core.timing.alarm + 3 * MS, T0 + core.timing.detect + 2 * MS)
    assert core.watch.verdicts == [P[1], P[2]], "node 3 was never our neighbour: the alarm asked it"


def test_an_alarm_makes_us_ask_too_and_is_answered() -> None:
    core = make(me=3)
    watch.receive(core, P[0], control.Alarm(9, (2, 4)), T0)
    assert sent(core, control.ProbeAck) == [((1,), control.ProbeAck(9))]
    run(core, T0, T0 + core.timing.probe + MS)
    assert {to for to, _m in sent(core, control.Probe)} == {(2,)}, "node 4 is not of this ring"


def test_few_asks_are_no_evidence() -> None:
    core = make()
    watch.ask(core, 2, T0)
    verdict.judge(core, (2, 3), T0 + 10 * core.timing.detect)
    assert not core.watch.verdicts, f"at least {ASKS_MIN}"


def test_what_others_claim_needs_only_to_be_confirmed() -> None:
    core = make()
    assert verdict.patience(core, 2) == core.timing.detect
    core.claims.add((P[2], P[1]))
    assert verdict.patience(core, 2) == core.timing.confirm
    assert verdict.patience(core, 3) == core.timing.detect
    for _ in range(20):
        core.watch.clocks[2].took(150 * MS)
    assert verdict.patience(core, 2) > 150 * MS, "never less than it takes to answer"


def test_slow_peers_get_more_time_and_not_for_ever() -> None:
    core = make()
    clock = core.watch.clocks[2]
    for _ in range(50):
        clock.took(200 * MS)
        clock.took(20 * MS)
    assert core.timing.detect < verdict.patience(core, 2) <= 2 * core.timing.detect
    clock.took(10_000 * MS)
    assert verdict.patience(core, 2) == 2 * core.timing.detect


def test_with_all_own_links_down_nobody_is_accused() -> None:
    core = make(links=2)
    watch.token_sent(core, core.ring, 5, T0)
    core.links.down = {0, 1}
    run(core, T0, T0 + 1000 * MS)
    assert not core.watch.verdicts
    core.links.down = {0}
    run(core, T0 + 1000 * MS, T0 + 1100 * MS)
    assert core.watch.verdicts == [P[1], P[2]]


# --- self-doubt -------------------------------------------------------------------------------------------------------------


def test_time_that_we_slept_through_is_nobodys_silence() -> None:
    core = make()
    watch.token_sent(core, core.ring, 5, T0)
    core.arm(Event.TOKEN_LOSS, T0 + 600 * MS)
    woken = T0 + 5000 * MS
    verdict.called(core, woken, T0 + 10 * MS)
    assert woken - core.watch.clocks[2].asked_ns == 10 * MS
    assert core.timers[Event.TOKEN_LOSS] == woken + 590 * MS
    assert health(core) == [(1, "late")]
    verdict.called(core, woken + MS, T0 + 10 * MS)
    assert woken - core.watch.clocks[2].asked_ns == 10 * MS, "forgiven once"


def test_who_is_late_often_is_patient_and_forgets() -> None:
    core = make()
    for i in range(2 * DOUBT_MAX):
        verdict.called(core, T0 + i * 1000 * MS + 500 * MS, T0 + i * 1000 * MS)
    assert verdict.patience(core, 2) == core.timing.detect * (2 + DOUBT_MAX) // 2
    run(core, T0 + 10_000 * MS, T0 + 40_000 * MS)
    assert core.watch.doubt == 0


# --- parking ----------------------------------------------------------------------------------------------------------------


def test_a_claim_ends_when_the_answers_are_steady_and_the_ring_is_told() -> None:
    core = make(members=2)
    parked.hold(core, P[2], T0)
    held = core.watch.held[P[2]]
    parked.answered(core, P[2], T0 + 10 * MS)
    parked.answered(core, P[2], T0 + 110 * MS)
    assert P[2] in core.watch.held
    parked.answered(core, P[2], T0 + 10 * MS + held.hold_ns)
    assert P[2] not in core.watch.held
    assert sent(core, control.Links) == [((2,), control.Links(()))]


def test_each_return_costs_twice_the_patience_up_to_a_limit() -> None:
    core = make(members=2)
    holds = []
    for i in range(10):
        parked.hold(core, P[2], T0 + i * 1000 * MS)
        holds.append(core.watch.held[P[2]].hold_ns)
        parked.release(core, P[2], T0 + i * 1000 * MS + 500 * MS)
    assert holds[:3] == [HOLD_MIN_NS, 2 * HOLD_MIN_NS, 4 * HOLD_MIN_NS]
    assert holds[-1] == HOLD_MAX_NS
    parked.hold(core, P[2], T0 + 1_000_000 * MS)
    assert core.watch.held[P[2]].hold_ns == HOLD_MIN_NS, "forgiven after a long time of peace"


def test_the_dead_are_asked_less_and_less() -> None:
    core = make(members=2)
    parked.hold(core, P[2], T0)
    asked = [T0 + i * 10 * MS for i in range(2000) if 3 in parked.due(core, T0 + i * 10 * MS) and watch.ask(core, 3, T0 + i * 10 * MS)]
    pauses = [b - a for a, b in zip(asked, asked[1:], strict=False)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == HOLD_PROBE_MAX_NS


def test_another_incarnation_has_its_own_chance() -> None:
    core = make(members=2)
    parked.hold(core, P[2], T0)
    core.peers[3].current = Processor(3, 3, 301)
    assert parked.due(core, T0 + 1000 * MS) == []
    assert not core.watch.held


@pytest.mark.parametrize(("members", "claims", "wanted"), [
    ((3,), [], True),
    ((3,), [(3, 1)], False),
    ((3,), [(1, 3)], False),
    ((3, 4), [(4, 1)], True),
    ((3, 4), [(3, 1), (4, 2)], False),
    ((3, 4, 5), [(5, 1)], True),
])
def test_rings_meet_when_a_larger_one_can_come_of_it(members: tuple[int, ...], claims: list[tuple[int, int]], wanted: bool) -> None:
    """Ours is {1, 2} and we are node 2; the beacon comes from the lowest of the others."""
    core = make(me=2, members=2)
    core.watch.told = {p: frozenset({q}) for p, q in claims if p in (1, 2)}
    theirs = [c for c in claims if c[0] in members]
    assert parked.worthwhile(core, members[0], members, theirs, T0) is wanted


def test_while_claims_change_rings_wait() -> None:
    core = make(me=2, members=2)
    beacon = Beacon(RingId(8, 3), (3, 4), ((1, 0b10),), ())
    assert not parked.heard_beacon(core, 3, beacon, T0), "node 4 claims node 1: this is new"
    assert parked.heard_beacon(core, 3, beacon, T0 + 1000 * MS), "node 3 fits"


def test_what_a_member_told_long_ago_is_asked_again() -> None:
    core = make(me=2, members=2)
    core.watch.told = {1: frozenset({3})}
    assert not parked.worthwhile(core, 3, (3,), (), T0)
    assert sent(core, control.Links) == [((1,), control.Links((), reply=True))]
    watch.receive(core, P[0], control.Links(()), T0 + MS)
    assert parked.worthwhile(core, 3, (3,), (), T0 + 2 * MS)


# --- claims in a gathering ------------------------------------------------------------------------------------------------------


def join(seq: int, *claims: tuple[Processor, Processor]) -> Join:
    return Join(8, seq, P[:4], (), P, (), (), claims)


def test_each_node_is_the_authority_on_its_own_claims() -> None:
    core = make(members=4)
    gather.enter(core, T0, "test")
    two, three, four = P[1:4]
    gather.on_join(core, three, join(1, (two, four), (core.local, four)), T0)
    assert core.claims == {(two, four)}, "of node 2 it is repeated what it said once; our own we know better"
    gather.on_join(core, two, join(1), T0)
    assert core.claims == set(), "it has taken it back"
    gather.on_join(core, three, join(2, (two, four), (three, four)), T0)
    assert core.claims == {(three, four)}, "who has spoken itself is not quoted"
    gather.on_join(core, two, join(2, (two, three)), T0)
    gather.on_join(core, two, join(1), T0)
    assert core.claims == {(three, four), (two, three)}, "an older word that comes late changes nothing"


def test_a_new_gathering_begins_with_the_claims_that_we_still_make() -> None:
    core = make(members=4)
    parked.hold(core, P[1], T0)
    core.claims = {(core.local, P[1]), (core.local, P[2]), (P[2], P[3])}
    gather.enter(core, T0, "test")
    assert core.claims == {(core.local, P[1]), (P[2], P[3])}
