# SPDX-License-Identifier: GPL-2.0-only
"""The witness: what it grants to whom, what it drops, and how long who believes in it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.coordinator import groups
from bridge.coordinator.api import AskWitness, WitnessAnswer
from bridge.coordinator.messages import decode, encode
from bridge.coordinator.state import DETACHED, LEFT, MEMBER, GroupRec, Node, State
from bridge.coordinator.witness import Witness
from bridge.coordinator.witness_words import WitnessGrant, WitnessLost, WitnessPulse
from bridge.witness.arbiter import MS, Arbiter
from bridge.witness.session import Session
from bridge.witness.wire import Answer, Ask, Verdict, decode_answer, decode_ask, encode_answer, encode_ask
from membership.api import Processor
from vcs.config.model import ClusterConfig, NodeConfig, QuorumConfig, WitnessConfig
from vcs.errors import RemoteError
from vcs.model import RingId

LENGTH_MS = 1000
HELD_MS = 1050
"What the witness counts itself."
WINDOW_MS = 100


class Table:
    """An arbiter and who asks it; times in ms."""

    def __init__(self, nodes: int = 4, quiet: bool = False) -> None:
        self.arbiter = Arbiter(LENGTH_MS, 99, 0)
        if not quiet:
            self.arbiter.quiet_ns = 0
        self.nodes = range(1, nodes + 1)
        self.counter = dict.fromkeys(self.nodes, 0)

    def ask(self, at_ms: float, seq: int, *members: int, wanted: bool = True, term: int = 0) -> Answer:
        asker = members[0]
        self.counter[asker] += 1
        others = tuple(n for n in self.nodes if n not in members)
        ask = Ask(self.counter[asker], wanted, 99, RingId(seq, asker), members, others, term, LENGTH_MS)
        answer = self.arbiter.ask(Processor(asker, 1, 1), self.counter[asker], ask, int(at_ms * MS), 5000)
        assert answer is not None
        return answer

    def said(self, at_ms: float, seq: int, *members: int, wanted: bool = True) -> str:
        return self.ask(at_ms, seq, *members, wanted=wanted).verdict.name.lower()


# --- who gets it -------------------------------------------------------------------------------------------------------------


def test_who_cannot_be_beaten_has_it_at_once_and_nobody_else_until_its_end() -> None:
    t = Table()
    assert t.said(0, 8, 1, 2) == "granted"
    assert t.said(1, 12, 3, 4) == "held"
    assert t.said(900, 8, 1, 2) == "granted"
    assert t.ask(HELD_MS + 1, 12, 3, 4).left_ms == 899, "it counts from the last answer to the holder"
    assert t.said(900 + HELD_MS, 12, 3, 4) == "wait"


@pytest.mark.parametrize(("first", "second", "best"), [((3, 4), (1, 2), (1, 2)), ((2, 3), (1, 4), (1, 4)), ((4,), (1, 2, 3), (1, 2, 3))])
def test_the_better_side_has_a_window_to_ask_in(first: tuple[int, ...], second: tuple[int, ...], best: tuple[int, ...]) -> None:
    t = Table()
    assert t.said(0, 8, *first) == "wait"
    assert t.said(WINDOW_MS / 2, 12, *second) == "granted", "nobody is better"
    assert t.said(WINDOW_MS * 2, 8, *first) == "held"
    held = t.arbiter.holder
    assert held is not None and held.members == {*best}


def test_who_is_alone_waits_for_the_window_and_no_longer() -> None:
    t = Table(2)
    assert t.said(0, 8, 2) == "wait"
    assert t.said(50, 8, 2) == "wait"
    assert t.said(WINDOW_MS, 8, 2) == "granted"


def test_who_stops_asking_is_no_candidate_any_more() -> None:
    t = Table(6)
    assert t.said(0, 8, 3, 4, 5) == "wait"
    assert t.said(300, 8, 3, 4, 5) == "wait", "its window begins anew"
    assert t.said(350, 8, 3, 4, 5) == "wait"
    assert t.said(400, 8, 3, 4, 5) == "granted"


def test_a_configuration_with_all_of_the_holder_follows_it_and_no_other() -> None:
    t = Table()
    assert t.said(0, 8, 1, 2) == "granted"
    assert t.said(10, 12, 1, 3) == "held", "node 2 may still believe in the first"
    assert t.said(20, 12, 2, 4) == "held"
    before = t.arbiter.term
    assert t.said(30, 16, 1, 2) == "granted"
    assert t.arbiter.term > before
    assert t.said(40, 20, 1, 2, 3, wanted=False) == "noted"
    assert t.arbiter.holder is None
    assert t.said(50, 24, 1, 2) == "granted"
    assert t.said(60, 22, 3, 4, wanted=False) == "noted" and t.arbiter.holder is not None, "not theirs to give back"


def test_a_new_process_grants_nothing_for_as_long_as_the_old_one_may_have() -> None:
    t = Table(2, quiet=True)
    assert t.ask(0, 8, 1).verdict is Verdict.STARTING
    assert t.ask(HELD_MS - 1, 8, 1).left_ms == 1
    assert t.said(HELD_MS, 8, 1) == "granted"


def test_terms_rise_over_restarts_and_over_clocks_that_go_back() -> None:
    t = Table(2)
    assert t.ask(0, 8, 1, term=7).term == 5000
    assert t.ask(2000, 12, 1, term=9000).term == 9001
    assert t.ask(4000, 16, 1).term == 9002


# --- what is dropped -----------------------------------------------------------------------------------------------------------


def test_old_questions_are_worth_nothing() -> None:
    a = Arbiter(LENGTH_MS, 99, 0)
    a.quiet_ns = 0
    one, again = Processor(1, 1, 1), Processor(1, 1, 2)
    ask = Ask(1, True, 99, RingId(8, 1), (1,), (2,), 0, LENGTH_MS)
    assert a.ask(one, 5, ask, 0, 0) is not None
    assert a.ask(one, 5, ask, 1, 0) is None and a.ask(one, 4, ask, 1, 0) is None
    assert a.ask(Processor(3, 1, 1), 1, ask, 1, 0) is None, "of a configuration that it is not in"
    later = replace(ask, ring=RingId(12, 1))
    assert a.ask(again, 1, later, 2, 0) is not None
    assert a.ask(one, 6, later, 3, 0) is None, "a process that was replaced"
    assert a.ask(again, 2, ask, 3, 0) is None, "a ring that is over"
    assert (a.counters["replayed"], a.counters["retired"], a.counters["old ring"], a.counters["not a member"]) == (2, 1, 1, 1)


def test_another_life_of_the_witness_and_another_time_out_are_told() -> None:
    a = Arbiter(LENGTH_MS, 99, 0)
    ask = Ask(1, True, 98, RingId(8, 1), (1,), (2,), 0, LENGTH_MS)
    answer = a.ask(Processor(1, 1, 1), 1, ask, 0, 0)
    assert answer is not None and answer.verdict is Verdict.HELLO and answer.witness == 99 and not a.askers
    answer = a.ask(Processor(1, 1, 1), 1, replace(ask, witness=99, timeout_ms=2000), 0, 0)
    assert answer is not None and (answer.verdict, answer.timeout_ms) == (Verdict.TIMEOUT, LENGTH_MS)


@given(st.binary(max_size=120))
def test_nothing_but_a_refusal_comes_out_of_noise(noise: bytes) -> None:
    for decoder, kind in ((decode_ask, 1), (decode_answer, 2)):
        for body in (noise, bytes([kind]) + noise):
            try:
                decoder(body)
            except RemoteError:
                continue


@given(st.integers(0, 2**64 - 1), st.booleans(), st.sets(st.integers(1, 2**32 - 1), min_size=2, max_size=9), st.integers(1, 8))
def test_what_is_said_is_what_is_heard(number: int, wanted: bool, ids: set[int], cut: int) -> None:
    row = sorted(ids)
    cut = min(cut, len(row) - 1)
    ask = Ask(number, wanted, number, RingId(number, row[0]), tuple(row[:cut]), tuple(row[cut:]), number, row[-1])
    assert decode_ask(encode_ask(ask)) == ask
    answer = Answer(number, Verdict.HELD, number, number, number, RingId(number, 3), row[0], row[-1])
    assert decode_answer(encode_answer(answer)) == answer


def test_an_answer_to_another_process_is_dropped_and_a_hello_asks_again() -> None:
    s = Session(7, LENGTH_MS)
    first = s.ask(AskWitness(1, True, RingId(8, 1), (1,), (2,), 0))
    assert first.witness == 0
    assert s.hear(Answer(1, Verdict.GRANTED, 99, 6)) is None
    again = s.hear(Answer(1, Verdict.HELLO, 99, 7))
    assert isinstance(again, Ask) and (again.number, again.witness) == (1, 99)
    assert s.hear(Answer(1, Verdict.HELLO, 99, 7)) is None, "once is enough"
    assert s.hear(Answer(1, Verdict.GRANTED, 98, 7)) is None, "of a former process"
    assert s.hear(Answer(1, Verdict.HELD, 99, 7, 3, RingId(8, 2), 10)) == WitnessAnswer(1, "held", 3, "8.2", 10)


# --- how long who believes in it ---------------------------------------------------------------------------------------------------


def member(nodeid: int = 1) -> Witness:
    nodes = tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in (1, 2, 3, 4))
    config = ClusterConfig("x", nodes, quorum=QuorumConfig(witness=WitnessConfig("10.0.0.9", timeout_ms=LENGTH_MS)))
    w = Witness(config, Processor(nodeid, 1, 1))
    w.exchanged(10 * MS)
    w.open((1, 2), 20 * MS)
    return w


def test_a_member_counts_from_its_own_pulse_before_the_question() -> None:
    one, two = member(1), member(2)
    assert not one.holds(20 * MS)
    ask = one.ask(True, RingId(8, 1), (1, 2), 0, 30 * MS)
    two.pulse(35 * MS)
    one.heard[2] = 1  # delivered after the question
    grant = one.answered(WitnessAnswer(ask.number, "granted", 5), 900 * MS)
    assert grant == WitnessGrant(1, 5, (1, 0, 2, 0))
    for w in (one, two):
        w.granted(1, grant, 950 * MS)
        assert w.holds(1009 * MS) and not w.holds(1010 * MS), "1 s from its Exchange, though the news is fresh"
    assert one.lapsed(1010 * MS) and not one.lapsed(1011 * MS)
    later = one.ask(True, RingId(8, 1), (1, 2), 0, 1020 * MS)
    grant = one.answered(WitnessAnswer(later.number, "granted", 6), 1030 * MS)
    assert grant is not None and grant.marks == (1, 0, 2, 1)
    two.granted(1, grant, 1030 * MS)
    one.granted(1, grant, 1030 * MS)
    assert two.holds(1034 * MS) and not two.holds(1035 * MS) and not one.holds(1030 * MS)


def test_late_and_strange_answers_are_nothing() -> None:
    w = member()
    ask = w.ask(True, RingId(8, 1), (1, 2), 0, 30 * MS)
    assert w.answered(WitnessAnswer(ask.number + 1, "granted", 5), 40 * MS) is None
    assert w.answered(WitnessAnswer(ask.number, "held", 0), 40 * MS) is None
    assert w.answered(WitnessAnswer(ask.number, "granted", 5), 40 * MS) is None, "each question is answered once"
    ask = w.ask(True, RingId(8, 1), (1, 2), 0, 50 * MS)
    w.new_ring()
    w.open((1, 2), 60 * MS)
    assert w.answered(WitnessAnswer(ask.number, "granted", 5), 70 * MS) is None, "of an earlier configuration"


def test_only_the_newest_grant_can_be_lost() -> None:
    w = member()
    w.granted(1, WitnessGrant(4, 1, (1, 0)), 30 * MS)
    w.granted(2, WitnessGrant(9, 1, (1, 0)), 40 * MS)
    assert not w.lost(WitnessLost(1, 4), 50 * MS) and w.holds(50 * MS)
    assert w.lost(WitnessLost(2, 9), 50 * MS) and not w.holds(50 * MS)


def test_half_starts_nothing_while_a_daemon_is_away() -> None:
    """It announced its restart, and may live on in the other half instead, where the same group would start."""
    state = State(nodes={1: Node(MEMBER), 2: Node(DETACHED)}, ring_members=(1,))
    new = GroupRec("new", 2, 0, members={1: (1, 1)})
    assert groups.may_start(state, new)
    state.by_witness = True
    assert not groups.may_start(state, new)
    state.nodes[2].status = LEFT
    assert groups.may_start(state, new)


@pytest.mark.parametrize("body", [WitnessPulse(3), WitnessGrant(3, 8, (1, 2, 2, 0)), WitnessGrant(3, 0, ()), WitnessLost(1, 3)])
def test_what_members_tell_each_other(body: WitnessPulse | WitnessGrant | WitnessLost) -> None:
    assert decode(encode(body)) == body


@pytest.mark.parametrize("seed", range(20))
def test_two_rings_never_believe_at_one_time(seed: int) -> None:
    """Questions of any configurations, answers and questions late and lost, restarts: what a ring believes in, counted from its question,
    ends before another one that does not contain it is granted anything."""
    rng = Random(seed)
    a, life, counter = Arbiter(LENGTH_MS, 1, 0), 1, dict.fromkeys(range(1, 5), 0)
    believed: dict[RingId, tuple[frozenset[int], float]] = {}
    rings: list[tuple[RingId, tuple[int, ...]]] = [(RingId(8, 1), (1, 2)), (RingId(8, 3), (3, 4))]
    now, seq = 0.0, 8
    for _ in range(600):
        now += rng.uniform(0, 60)
        if rng.random() < 0.05:
            ids = [1, 2, 3, 4]
            rng.shuffle(ids)
            seq += 4
            rings = [(RingId(seq, min(half)), tuple(sorted(half))) for half in (ids[:2], ids[2:])]
        if rng.random() < 0.01:
            life += 1
            a = Arbiter(LENGTH_MS, life, int(now * MS))
        ring, members = rng.choice(rings)
        asker = rng.choice(members)
        counter[asker] += 1
        asked, now = now, now + rng.uniform(0, 30)
        ask = Ask(1, True, life, ring, members, tuple({1, 2, 3, 4} - {*members}), 0, LENGTH_MS)
        answer = a.ask(Processor(asker, 1, 1), counter[asker], ask, int(now * MS), 0)
        if answer is None or answer.verdict is not Verdict.GRANTED:
            continue
        for other, (others, until) in believed.items():
            assert other == ring or others <= {*members} or until <= now, (ring, members, other, others, now, until)
        believed[ring] = (frozenset(members), asked + LENGTH_MS)
    assert len(believed) > 1
