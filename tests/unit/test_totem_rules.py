# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the ring one by one: the table is total, the token's arithmetic, flow control, replay, packing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membership.api import Order, Processor
from membership.totem import engine, flow, frames, states, wire
from membership.totem.aes import aes_gcm
from membership.totem.core import Core, CoreConfig, Send
from membership.totem.limits import (
    CLAIM_NS,
    LOSS_SAMPLE,
    MESSAGE_MAX,
    PAYLOAD_MAX,
    PAYLOAD_MIN,
    PER_VISIT,
    PIECE_MAX,
    PIECED_MAX,
    QUEUE_MESSAGES_MAX,
    RANGE_MAX,
    REPLAY_WINDOW,
    STORE_BYTES_MAX,
    STORE_MAX,
    WINDOW,
    Timing,
)
from membership.totem.packing import Reassembly, SendQueue
from membership.totem.peers import Peer, ReplayWindow
from membership.totem.repair import Asks, Pieces, wanted, without
from membership.totem.ring import Ring
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


def frame(seq: int, origin: int = 1) -> frames.Regular:
    return frames.make_regular(RING, seq, origin, False, [b"x"])


def pass_token(core: Core, ring: Ring, token: frames.Token, payloads: int = 0) -> frames.Token:
    queue = [b"p"] * payloads

    def next_frame(r: Ring, seq: int) -> frames.Regular | None:
        return frames.make_regular(r.id, seq, r.local.nodeid, False, [queue.pop()]) if queue else None

    visit(core, ring, token, 0, lambda: len(queue), next_frame)
    return token


def test_new_messages_take_the_next_places_and_the_successor_gets_the_token() -> None:
    core, ring = make_core()
    token = pass_token(core, ring, frames.Token(RING, token_seq=5), payloads=3)
    assert (token.seq, token.aru, token.aru_id, token.token_seq) == (3, 3, 0, 6)
    sends = [e for e in core.out if isinstance(e, Send)]
    assert [s.to for s in sends] == [(1, 3)] * 3 + [(3,)]


def test_who_lacks_something_lowers_the_aru_and_only_it_raises_it() -> None:
    core, ring = make_core()
    ring.add(frame(1))
    token = pass_token(core, ring, frames.Token(RING, seq=3, aru=3))
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
    token = pass_token(core, ring, frames.Token(RING, seq=6, aru=0, aru_id=3))
    assert token.rtr == [], "they may be on their way from others than the token's sender"
    pass_token(core, ring, token)
    assert token.rtr == [(2, 1, 1, 0), (2, 3, 5, 0)]


def test_repairs_are_served_and_struck_off() -> None:
    core, ring = make_core()
    for s in (1, 2, 4):
        ring.add(frame(s))
    token = pass_token(core, ring, frames.Token(RING, seq=4, aru=0, aru_id=3, rtr=[frames.Range(3, 1, 4)]))
    assert token.rtr == [(3, 3, 3, 0)]
    assert core.counters["repaired"] == token.repaired == 3
    assert [s.to for s in core.out if isinstance(s, Send)] == [(3,)] * 4, "to the member that asked, and the token to the successor"


def test_large_frames_that_were_repaired_in_vain_are_sent_in_pieces() -> None:
    core, ring = make_core()
    large = frames.make_regular(RING, 1, 2, False, [bytes(5000)])
    ring.add(large)
    ring.add(frame(2))
    rtr = [frames.Range(1, 1, 2, 1), frames.Range(3, 1, 1)]
    pass_token(core, ring, frames.Token(RING, seq=2, aru=0, aru_id=3, rtr=rtr))
    to = [s.to for s in core.out if isinstance(s, Send)]
    assert to == [(1, 3)] * 4 + [(1,), (3,)]
    other = make_core(me=3)[1]
    cut = [wire.decode(body) for body in frames.cut(large)]
    whole = [other.take_piece(piece) for piece in cut[::-1] if isinstance(piece, frames.Piece)]
    assert whole[:-1] == [None] * 3
    assert whole[-1] is not None and whole[-1].body == large.body
    assert not other.pieces


def test_who_serves_in_vain_gives_way_to_the_next_holder() -> None:
    """The way from the asker's successor to the asker may be broken: from the third request on others serve, in turn."""
    n = 5
    for tries in range(12):
        serving = [hops for hops in range(1, n) if wanted(
            [frames.Range(9, 3, 3, tries)], 1, 9, {9: hops, **dict.fromkeys(range(n - 2), 1)})]
        assert serving[0] == (1 if tries < 2 else (tries - 1) % (n - 1) + 1)
        assert serving[-1] == n - 1, "somebody always serves"


def test_pieces_take_bounded_memory_and_the_lowest_frames_come_first() -> None:
    pieces = Pieces()
    for seq in range(20, 0, -1):
        assert pieces.feed(frames.Piece(RING, seq, 2 * PIECE_MAX, 0, bytes(PIECE_MAX))) is None
        assert len(pieces) <= PIECED_MAX
    for seq in range(1, 21):
        got = pieces.feed(frames.Piece(RING, seq, 2 * PIECE_MAX, PIECE_MAX, bytes(PIECE_MAX)))
        assert (got is not None) is (seq <= PIECED_MAX)
    pieces.forget(20)
    assert not pieces


def test_a_hole_is_asked_for_less_and_less_often() -> None:
    """A member that cannot be repaired: requests at the token's pace of 1/ms would be 10 000 in ten seconds."""
    asks = Asks()
    asked = [(ms, r.tries) for ms in range(10_000) for r in asks.due(7, [(5, 5)], ms * 1_000_000, 8)]
    assert [ms for ms, _ in asked[:6]] == [0, 1, 2, 4, 8, 16]
    assert [tries for _, tries in asked[:4]] == [0, 1, 2, 3]
    assert len(asked) < 170
    assert asks.due(7, [], 0, 8) == []
    assert len(asks) == 0, "what is here is forgotten"


def test_of_many_holes_only_so_many_ranges_are_asked_for() -> None:
    asks = Asks()
    holes = [(n, n) for n in range(1, 100, 2)]
    assert [r.first for r in asks.due(1, holes, 0, 3)] == [1, 3, 5]
    assert [r.first for r in asks.due(1, holes[3:], 0, 3)] == [7, 9, 11], "those that were asked for give way"
    assert asks.due(1, [(1, 9)], 0, 3)[0][:3] == (1, 1, 6)


def test_others_notice_who_fails_to_receive_and_never_the_node_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from membership.totem import token as token_rules
    monkeypatch.setattr(token_rules, "FAIL_TO_RECEIVE_VISITS", 4)
    monkeypatch.setattr(token_rules, "FAIL_TO_RECEIVE_NS", 0)
    for me, suspects in ((2, True), (3, False)):
        core, ring = make_core(me=me)
        if me == 2:
            for s in (1, 2):
                ring.add(frame(s))
        token = frames.Token(RING, seq=2, aru=0, aru_id=3)
        for _ in range(6):
            pass_token(core, ring, token)
        assert (states.Event.FAIL_TO_RECEIVE in core.raised) is suspects
        assert core.suspect == (P[2] if suspects else None)


ranges = st.sets(st.integers(1, 70), max_size=30)


def as_ranges(who: int, seqs: set[int]) -> list[frames.Range]:
    return [frames.Range(who, n, n) for n in sorted(seqs)] if len(seqs) % 2 else Asks().due(
        who, [(n, n) for n in sorted(seqs)], 0, 99)


def numbers(rtr: list[frames.Range], who: int) -> set[int]:
    return {n for r in rtr if r.who == who for n in range(r.first, r.last + 1)}


@given(ranges, ranges, ranges, ranges)
def test_who_wants_what(mine: set[int], second: set[int], third: set[int], served: set[int]) -> None:
    rtr = as_ranges(1, mine) + as_ranges(2, second) + as_ranges(3, third)
    got = wanted(rtr, 10, 50, {2: 1, 3: 2})
    assert {n for n, (who, _) in got.items() if 2 in who} == {n for n in second if 10 <= n <= 50}
    assert {n for n, (who, _) in got.items() if 3 in who} == {n for n in third if 10 <= n <= 50}
    assert list(got) == sorted(got)
    left = without(rtr, {(who, n) for who in (2, 3) for n in served}, 1)
    assert left == sorted(left)
    assert (numbers(left, 1), numbers(left, 2), numbers(left, 3)) == (set(), second - served, third - served)


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


def test_store_is_bounded_in_bytes_and_always_takes_the_next_frame() -> None:
    ring = Ring(RING, P[:3], P[0])
    big = [frames.make_regular(RING, n, 1, False, [bytes(PAYLOAD_MAX - 4)]) for n in range(1, 40)]
    ring.stored_bytes = 2 * STORE_BYTES_MAX - 1
    assert ring.add(big[5])
    assert not ring.add(big[6])
    assert ring.add(big[0])
    ring.delivered = 1
    ring.release(1)
    assert ring.stored_bytes == 2 * STORE_BYTES_MAX - 1 + len(big[5].body)


def test_a_gap_as_large_as_the_store_closes() -> None:
    """T7: no constant stands between a hole and the acknowledgement."""
    ring = Ring(RING, P[:3], P[0])
    for seq in range(STORE_MAX, 1, -1):
        assert ring.add(frame(seq))
    assert ring.aru == 0
    assert ring.add(frame(1))
    assert ring.aru == STORE_MAX
    ring.delivered = STORE_MAX
    ring.release(STORE_MAX)
    assert (ring.store, ring.stored_bytes) == ({}, 0)


# --- flow control -----------------------------------------------------------------------------------------------------------


@given(*[st.integers(0, 2**32 - 1)] * 6)
def test_allowance_is_bounded_whatever_the_token_says(fcc: int, sent: int, backlog: int, own: int, last: int, window: int) -> None:
    n = flow.allowance(fcc, sent, backlog, own, last, window)
    assert 0 <= n <= PER_VISIT
    assert n == 0 or fcc - sent < min(WINDOW, window)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_counters_never_wrap(counter: int, now: int, before: int) -> None:
    assert 0 <= flow.update(counter, now, before) <= 2**32 - 1


@pytest.mark.parametrize(("fcc", "own_sent", "backlog", "own", "own_last", "window", "room", "why"), [
    (0, 0, 0, 100, 0, WINDOW, PER_VISIT, "alone"),
    (PER_VISIT, PER_VISIT, 0, 100, 0, WINDOW, PER_VISIT, "our own last visit takes nothing from this one"),
    (0, 0, 10**6, 1, 0, WINDOW, 1, "others' queues starve nobody"),
    (0, 0, 600, 600, 0, WINDOW, WINDOW // 2, "half of what waits is ours"),
    (WINDOW - 3, 0, 0, 100, 0, WINDOW, 3, "the rest of the window"),
    (2**32 - 1, 0, 0, 100, 0, WINDOW, 0, "no wrap"),
    (0, 0, 0, 100, 0, 40, 40, "the smallest receive buffer of the ring"),
    (50, 0, 0, 100, 0, 40, 0, "... and it is full"),
    (0, 0, 0, 100, 0, 2**32 - 1, PER_VISIT, "a window that a token invents"),
])
def test_allowance(fcc: int, own_sent: int, backlog: int, own: int, own_last: int, window: int, room: int, why: str) -> None:
    assert flow.allowance(fcc, own_sent, backlog, own, own_last, window) == room, why


@pytest.mark.parametrize(("granted", "units"), [(16 << 20, WINDOW), (8 << 20, 1497), (425_984, 76), (0, 1)])
def test_window_of_a_receive_buffer(granted: int, units: int) -> None:
    assert flow.window(granted) == units


def test_units() -> None:
    assert [flow.units(n) for n in (0, 1, 1350, 1400, 2799, 60_000)] == [1, 1, 1, 2, 2, 43]


def test_frames_shrink_when_they_get_lost_and_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PAYLOAD_MAX", 61_440)
    size = flow.FrameSize()
    size.payload_max = 61_440
    assert not size.judge(LOSS_SAMPLE - 1, 99), "too few to judge"
    sizes = []
    for again in (1, 3, 9, 16, 16, 16, 16, 16):
        assert size.judge(LOSS_SAMPLE, again)
        sizes.append(size.payload_max)
    assert sizes[:3] == [61_440, 30_720, 15_360]
    assert sizes[-1] == PAYLOAD_MIN
    for _ in range(40):
        size.judge(LOSS_SAMPLE, 0)
    assert size.payload_max == 61_440


def test_the_larger_part_of_a_visit_follows_the_token() -> None:
    core, ring = make_core()
    queue = [bytes(1000)] * 5

    def next_frame(r: Ring, seq: int) -> frames.Regular | None:
        return frames.make_regular(r.id, seq, 2, False, [queue.pop()]) if queue else None

    token = frames.Token(RING, token_seq=5)
    visit(core, ring, token, 0, lambda: len(queue), next_frame, ahead=3)
    assert [s.to for s in core.out if isinstance(s, Send)] == [(1, 3)] * 2 + [(3,)] + [(1, 3)] * 3
    assert (token.seq, token.aru, token.rest_at) == (5, 5, 2)
    assert ring.token.own_sent == 5


def test_the_token_carries_the_smallest_window() -> None:
    core, ring = make_core()
    core.window = 77
    assert pass_token(core, ring, frames.Token(RING)).window == 77
    assert pass_token(core, ring, frames.Token(RING, window=5)).window == 5


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


def test_a_former_life_heard_late_does_not_take_the_seat() -> None:
    """Another incarnation is believed when the current one, asked, was silent long enough; who answers keeps the seat."""
    peer, never = Peer(2, current=Processor(2, 7, 70), heard_ns=1000), -(1 << 62)
    assert (peer.contest(never, 1050), peer.contest(never, 1149)) == (0, 99)
    assert peer.contest(1140, 1150) == 0, "it answered: its silence counts from here"
    peer.heard_ns = 1200
    assert peer.contest(1140, 1250) == 100, "what is only heard may have been held back"
    late = 1250 + CLAIM_NS + 1
    assert peer.contest(1140, late) == 0, "nobody claimed the seat for long: it is asked anew"
    assert peer.contest(1140, late + CLAIM_NS) == CLAIM_NS


# --- packing ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=30).map(lambda b: b * 150), st.sampled_from(Order)), max_size=20),
       st.integers(100, PAYLOAD_MAX))
def test_messages_come_out_as_they_went_in(messages: list[tuple[bytes, Order]], room: int) -> None:
    queue, reassembly = SendQueue(), Reassembly()
    for payload, order in messages:
        queue.put(payload, order)
    out: list[tuple[bytes, Order]] = []
    while (packed := queue.next_frame(room)) is not None:
        content, safe = packed
        body = frames.make_regular(RING, 1, 1, safe, content).body
        assert len(body) - frames.FRAME_OVERHEAD <= room
        again = wire.decode(body)
        assert isinstance(again, frames.Regular)
        content = again.content()
        whole = [reassembly.feed(1, content)] if isinstance(content, frames.Fragment) else content
        out += [(m, Order.SAFE if again.safe else Order.AGREED) for m in whole if m is not None]
    assert out == messages
    assert queue.backlog == 0


def test_a_message_sent_in_part_is_sent_again_whole_after_a_configuration() -> None:
    queue, reassembly = SendQueue(), Reassembly()
    queue.put(b"x" * 5000, Order.AGREED)
    first = queue.next_frame(1000)
    assert first is not None and isinstance(first[0], frames.Fragment)
    assert reassembly.feed(1, first[0]) is None
    queue.restart()
    reassembly.clear()
    whole = None
    while (packed := queue.next_frame(1200)) is not None:
        assert isinstance(packed[0], frames.Fragment)
        whole = reassembly.feed(1, packed[0])
    assert whole == b"x" * 5000


def test_pieces_that_do_not_fit_are_dropped() -> None:
    reassembly = Reassembly()
    assert reassembly.feed(1, frames.Fragment(30, 0, b"a" * 10)) is None
    assert reassembly.feed(1, frames.Fragment(30, 20, b"c" * 10)) is None, "a hole: the message is given up"
    assert reassembly.feed(1, frames.Fragment(30, 10, b"b" * 10)) is None


def test_queue_limits() -> None:
    queue = SendQueue()
    with pytest.raises(VcsError, match="too large"):
        queue.put(bytes(MESSAGE_MAX + 1), Order.AGREED)
    for _ in range(QUEUE_MESSAGES_MAX):
        queue.put(b"", Order.AGREED)
    with pytest.raises(VcsError, match="full"):
        queue.put(b"", Order.AGREED)
