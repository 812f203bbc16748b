# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the ring one by one: the table is total, the token's arithmetic, flow control, replay, packing, promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.api import Order, Processor
from membership.totem import engine, flow, recovery, states, wire
from membership.totem.aes import aes_gcm
from membership.totem.core import Core, CoreConfig, Send
from membership.totem.limits import MESSAGE_MAX, PAYLOAD_MAX, PER_VISIT, QUEUE_MESSAGES_MAX, RANGE_MAX, REPLAY_WINDOW, WINDOW, Timing
from membership.totem.packing import Reassembly, SendQueue
from membership.totem.peers import ReplayWindow
from membership.totem.ring import Ring, merge_ranges, subtract
from membership.totem.ringseq import RingSeqFile
from membership.totem.seal import Sealer
from membership.totem.token import visit
from vcs.config.model import TotemConfig
from vcs.errors import VcsError
from vcs.model import RingId

P = tuple(Processor(n, n * 10, n * 100) for n in range(1, 6))
RING = RingId(8, 1)


# --- the table ------------------------------------------------------------------------------------------------------------


def test_table_is_total_and_bound() -> None:
    assert set(states.TABLE) == {(s, e) for s in states.State for e in states.Event}
    rows = engine.bind_table()
    for (state, event), cell in states.TABLE.items():
        assert cell.why
        assert cell.action or cell.to == (state,), "what is ignored changes nothing"
        assert callable(rows[state][event])


def test_diagram_in_the_documentation_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "totem.md").read_text()  # python docs/make_totem.py writes it
    assert states.mermaid() in text
    assert states.table_text() in text


# --- the token ------------------------------------------------------------------------------------------------------------


def make_core(me: int = 2, members: int = 3) -> tuple[Core, Ring]:
    nodes = tuple(range(1, members + 1))
    core = Core(CoreConfig(P[me - 1], nodes, Timing.of(TotemConfig())), Sealer("t", P[me - 1], aes_gcm(bytes(32))))
    core.ring = Ring(RING, P[:members], P[me - 1])
    return core, core.ring


def frame(seq: int, origin: int = 1) -> wire.Regular:
    return wire.make_regular(RING, seq, origin, False, ((1, 0, b"x"),))


def pass_token(core: Core, ring: Ring, token: wire.Token, payloads: int = 0) -> wire.Token:
    queue = [b"p"] * payloads

    def next_frame(r: Ring, seq: int) -> wire.Regular | None:
        return wire.make_regular(r.id, seq, r.local.nodeid, False, ((1, 0, queue.pop()),)) if queue else None

    visit(core, ring, token, 0, lambda: len(queue), next_frame)
    return token


def test_new_messages_take_the_next_places_and_the_successor_gets_the_token() -> None:
    core, ring = make_core()
    token = pass_token(core, ring, wire.Token(RING, token_seq=5), payloads=3)
    assert (token.seq, token.aru, token.aru_id, token.token_seq) == (3, 3, 0, 6)
    sends = [e for e in core.out if isinstance(e, Send)]
    assert [s.to for s in sends] == [(1, 3)] * 3 + [(3,)]


def test_who_lacks_something_lowers_the_aru_and_only_it_raises_it() -> None:
    core, ring = make_core()
    ring.add(frame(1))
    token = pass_token(core, ring, wire.Token(RING, seq=3, aru=3))
    assert (token.aru, token.aru_id) == (1, 2)
    other_core, other = make_core(me=3)
    for s in (1, 2, 3):
        other.add(frame(s))
    pass_token(other_core, other, token)
    assert (token.aru, token.aru_id) == (1, 2), "another member does not raise what node 2 lowered"
    ring.add(frame(2))
    ring.add(frame(3))
    pass_token(core, ring, token)
    assert (token.aru, token.aru_id) == (3, 0)


def test_holes_are_asked_for_one_rotation_later_as_ranges() -> None:
    core, ring = make_core()
    ring.add(frame(2))
    ring.add(frame(6))
    token = pass_token(core, ring, wire.Token(RING, seq=6, aru=0, aru_id=3))
    assert token.rtr == [], "they may be on their way from others than the token's sender"
    pass_token(core, ring, token)
    assert token.rtr == [(1, 1), (3, 5)]


def test_repairs_are_served_and_struck_off() -> None:
    core, ring = make_core()
    for s in (1, 2, 4):
        ring.add(frame(s))
    token = pass_token(core, ring, wire.Token(RING, seq=4, aru=0, aru_id=3, rtr=[(1, 4)]))
    assert token.rtr == [(3, 3)]
    assert core.counters["repaired"] == 3


def test_others_notice_who_fails_to_receive_and_never_the_node_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from membership.totem import token as token_rules
    monkeypatch.setattr(token_rules, "FAIL_TO_RECEIVE_VISITS", 4)
    for me, suspects in ((2, True), (3, False)):
        core, ring = make_core(me=me)
        if me == 2:
            for s in (1, 2):
                ring.add(frame(s))
        token = wire.Token(RING, seq=2, aru=0, aru_id=3)
        for _ in range(6):
            pass_token(core, ring, token)
        assert (states.Event.FAIL_TO_RECEIVE in core.raised) is suspects
        assert core.suspect == (P[2] if suspects else None)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), max_size=12), st.sets(st.integers(1, 70)))
def test_ranges(pieces: list[tuple[int, int]], served: set[int]) -> None:
    ranges: list[tuple[int, int]] = []
    for first, length in pieces:
        ranges = merge_ranges(ranges, [(first, first + length)])
    numbers = {n for first, length in pieces for n in range(first, first + length + 1)}
    assert {n for a, b in ranges for n in range(a, b + 1)} == numbers
    assert all(b < c for (_, b), (c, _) in zip(ranges, ranges[1:], strict=False))
    left = subtract(ranges, served)
    assert {n for a, b in left for n in range(a, b + 1)} == numbers - served


@given(st.permutations(range(1, 30)))
def test_aru_and_missing_in_any_order(order: list[int]) -> None:
    ring = Ring(RING, P[:3], P[0])
    have: set[int] = set()
    for seq in order:
        assert ring.add(frame(seq))
        assert not ring.add(frame(seq)), "a copy"
        have.add(seq)
        aru = next(n for n in range(31) if n + 1 not in have)
        assert ring.aru == aru
        assert {n for a, b in ring.missing(29) for n in range(a, b + 1)} == set(range(1, 30)) - have


def test_store_is_bounded() -> None:
    ring = Ring(RING, P[:3], P[0])
    assert not ring.add(frame(RANGE_MAX + 1))
    assert ring.add(frame(RANGE_MAX))
    assert ring.missing(1 << 60) == [(1, RANGE_MAX - 1)]


# --- flow control -----------------------------------------------------------------------------------------------------------


@given(*[st.integers(0, 2**32 - 1)] * 4)
def test_allowance_is_bounded_whatever_the_token_says(fcc: int, backlog: int, own: int, last: int) -> None:
    n = flow.allowance(fcc, backlog, own, last)
    assert 0 <= n <= PER_VISIT
    assert n == 0 or fcc < WINDOW


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_counters_never_wrap(counter: int, now: int, before: int) -> None:
    assert 0 <= flow.update(counter, now, before) <= 2**32 - 1


def test_the_window_is_shared_and_nobody_starves() -> None:
    assert flow.allowance(0, 0, 100, 0) == PER_VISIT
    assert flow.allowance(0, 10_000, 1, 0) == 1
    assert flow.allowance(WINDOW - 3, 0, 100, 0) == 3
    assert flow.allowance(2**32 - 1, 0, 100, 0) == 0


# --- replay -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_replay_window_takes_each_number_once(numbers: list[int]) -> None:
    window = ReplayWindow()
    taken: set[int] = set()
    high = 0
    for n in numbers:
        expected = n not in taken and n > high - REPLAY_WINDOW
        assert window.accept(n) is expected
        if expected:
            taken.add(n)
            high = max(high, n)
    assert not window.accept(0)


# --- packing ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=30).map(lambda b: b * 150), st.sampled_from(Order)), max_size=20))
def test_messages_come_out_as_they_went_in(messages: list[tuple[bytes, Order]]) -> None:
    queue, reassembly = SendQueue(), Reassembly()
    for payload, order in messages:
        queue.put(payload, order)
    out = []
    while (packed := queue.next_frame()) is not None:
        parts, safe = packed
        assert len(wire.pack_parts(parts)) <= PAYLOAD_MAX
        for part in parts:
            whole = reassembly.feed(1, part)
            if whole is not None:
                out.append((whole, Order.SAFE if safe else Order.AGREED))
    assert out == messages
    assert queue.backlog == 0


def test_a_message_sent_in_part_is_sent_again_whole_after_a_configuration() -> None:
    queue, reassembly = SendQueue(), Reassembly()
    queue.put(b"x" * 5000, Order.AGREED)
    first = queue.next_frame()
    assert first is not None
    assert reassembly.feed(1, first[0][0]) is None
    queue.restart()
    reassembly.clear()
    whole = None
    while (packed := queue.next_frame()) is not None:
        whole = reassembly.feed(1, packed[0][0])
    assert whole == b"x" * 5000


def test_pieces_that_do_not_fit_are_dropped() -> None:
    reassembly = Reassembly()
    assert reassembly.feed(1, (30, 0, b"a" * 10)) is None
    assert reassembly.feed(1, (30, 20, b"c" * 10)) is None, "a hole: the message is given up"
    assert reassembly.feed(1, (30, 10, b"b" * 10)) is None
    assert reassembly.feed(2, (3, 0, b"abc")) == b"abc"


def test_queue_limits() -> None:
    queue = SendQueue()
    with pytest.raises(VcsError, match="too large"):
        queue.put(bytes(MESSAGE_MAX + 1), Order.AGREED)
    for _ in range(QUEUE_MESSAGES_MAX):
        queue.put(b"", Order.AGREED)
    with pytest.raises(VcsError, match="full"):
        queue.put(b"", Order.AGREED)


# --- promises ---------------------------------------------------------------------------------------------------------------


def entry(p: Processor, attempt: int = 0, *obliged: Processor) -> wire.Entry:
    mask = recovery.mask_of(P, obliged)
    return wire.Entry(p, True, RING, attempt=RingId(attempt, 1) if attempt else wire.NO_RING, obligations=mask)


def test_nothing_promised_all_present_are_obliged() -> None:
    assert recovery.promise(P, [entry(P[0]), entry(P[1])]) == (0b11, True)


def test_a_completed_attempt_binds_for_ever_even_those_who_are_gone() -> None:
    done = [entry(p, 12, *P[:3]) for p in P[:2]]
    assert recovery.promise(P, done) == (0b111, False)
    assert recovery.promise(P, done[:1]) == (0b111, False)


def test_an_attempt_that_a_member_did_not_complete_is_void() -> None:
    assert recovery.promise(P, [entry(P[0], 12, *P[:3]), entry(P[1])]) == (0b011, True)


def test_a_later_promise_stays_in_force_beside_a_void_one() -> None:
    """Node 2 completed attempt 16 with node 3, which is gone and may have installed it; node 1 had completed 12 with both."""
    one, two = entry(P[0], 12, *P[:3]), entry(P[1], 16, P[1], P[2])
    assert not recovery.in_force(P, one, [one, two])
    assert recovery.promise(P, [one, two]) == (0b111, True)


# --- the ring sequence on disk ------------------------------------------------------------------------------------------------


def test_ring_sequence_file(tmp_path: Path) -> None:
    file = RingSeqFile(str(tmp_path / "ring_seq"))
    assert (file.load(), file.problem) == (0, "")
    file.store(4444)
    assert (file.load(), file.problem) == (4444, "")
    data = (tmp_path / "ring_seq").read_bytes()
    for bad in (data[:-1], data + b"x", b"", data[:9] + b"\xff" + data[10:]):
        (tmp_path / "ring_seq").write_bytes(bad)
        assert file.load() == 0
        assert "damaged" in file.problem
    with pytest.raises(VcsError, match="cannot store"):
        RingSeqFile(str(tmp_path / "no" / "ring_seq")).store(4)
