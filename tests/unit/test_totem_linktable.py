# SPDX-License-Identifier: GPL-2.0-only
"""Which link is taken, by evidence alone."""

from __future__ import annotations

from membership.totem.limits import (
    DATAGRAM_MAX,
    LINK_CHECK_NS,
    LINK_RETURN_MAX_NS,
    LINK_RETURN_NS,
    LOST_SAMPLE,
    SEGMENT_PAYLOAD_MIN,
    SMALL_SEGMENT,
)
from membership.totem.links import FOLLOW_FRAMES, LinkTable

MS = 1_000_000


def test_an_answer_on_another_link_moves_the_peer_at_once() -> None:
    table = LinkTable((2, 3), 2)
    assert table.common == 0
    table.asked(2, 0, 1 * MS)
    table.asked(2, 1, 1 * MS)
    table.answered(2, 1, 2 * MS, 300_000)
    assert table.best == {2: 1, 3: 0} and table.common == -1
    assert sorted(table.route((2, 3))) == [(0, (3,)), (1, (2,))]
    assert table.paths[2][1].srtt_ns == 300_000


def test_answers_on_both_links_leave_it_where_it_is() -> None:
    table = LinkTable((2,), 2)
    for i in range(1, 50):
        for link in (0, 1):
            table.asked(2, link, i * MS)
        for link in (0, 1):
            table.answered(2, link, i * MS + 1)
    assert table.best[2] == 0 and not table.moves


def test_a_peer_that_answers_on_no_link_stays_where_it_is() -> None:
    table = LinkTable((2,), 2)
    for i in range(20):
        table.asked(2, 0, i * MS)
        table.asked(2, 1, i * MS)
    assert table.best[2] == 0 and not table.moves
    table.neutral(2)
    table.answered(2, 1, 30 * MS)
    assert table.best[2] == 0, "the first link owes nothing any more"


def test_a_peer_that_speaks_on_another_link_is_followed_and_copies_prove_nothing() -> None:
    table = LinkTable((2,), 2)
    table.heard(2, 0, 1, 0)
    for _ in range(10):
        table.heard(2, 1, 2, 1)
    assert table.best[2] == 0, "one frame and its copies"
    for counter in range(3, 3 + 2 * FOLLOW_FRAMES, 2):
        table.heard(2, 1, counter, 1)
        table.heard(2, 0, counter + 1, 1)
    assert table.best[2] == 0, "it speaks on both"
    for counter in range(20, 20 + FOLLOW_FRAMES):
        table.heard(2, 1, counter, 2)
    assert table.best[2] == 1
    table.forget(2)
    table.heard(2, 1, 1, 3)
    assert table.paths[2][1].counter == 1, "another incarnation counts from one"


def test_links_that_carry_nothing_are_tried_and_what_fails_is_told_once() -> None:
    table = LinkTable((2, 3, 4), 2)
    assert table.to_check((2, 4), (2, 3, 4), LINK_CHECK_NS) == {2, 4}
    assert table.to_check((2, 4), (2, 3, 4), LINK_CHECK_NS + 1) == set(), "not so soon"
    for i in range(10):
        table.asked(3, 1, i)
        table.asked(4, 0, i)
        table.asked(4, 1, i)
    assert table.told() == [(3, 1, False)], "node 4 does not answer at all: that is no matter of links"
    assert table.told() == []
    assert table.to_check((2,), (2, 3, 4), 3 * LINK_CHECK_NS) == {2, 3, 4}
    table.answered(3, 1, 20)
    assert table.told() == [(3, 1, True)]
    assert LinkTable((2,), 1).to_check((2,), (2,), 1 << 60) == set()


def test_our_own_end_down() -> None:
    table = LinkTable((2, 3), 2)
    table.own_end(0, False, 1)
    assert table.common == 1
    table.answered(2, 0, 2 * LINK_RETURN_NS)
    assert table.best[2] == 1, "it is down, whatever comes"
    table.own_end(1, False, 2)
    assert table.common == 1, "all down: nothing is better"
    table.add(4)
    assert table.best[4] == 0


def test_the_first_link_returns_when_it_is_steady_and_later_each_time_it_breaks() -> None:
    table = LinkTable((2,), 2)

    def breaks(now: int) -> None:
        table.asked(2, 0, now)
        table.asked(2, 1, now)
        table.answered(2, 1, now + 1)
        assert table.best[2] == 1

    breaks(0)
    table.answered(2, 0, LINK_RETURN_NS // 2)
    assert table.best[2] == 1
    table.answered(2, 0, 2 * LINK_RETURN_NS)
    assert table.best[2] == 0
    now, waits = 2 * LINK_RETURN_NS, []
    for _ in range(8):
        now += MS
        breaks(now)
        began = now
        while table.best[2] == 1:
            now += 100 * MS
            table.answered(2, 0, now)
        waits.append(now - began)
    assert waits == sorted(waits) and waits[-1] <= LINK_RETURN_MAX_NS + 100 * MS and waits[-1] > 10 * waits[0]


def test_large_segments_that_vanish_are_made_smaller_and_tried_again_later() -> None:
    table = LinkTable((2, 3), 1)
    path = table.paths[2][0]
    table.mtu(2, 0, 1472)
    table.mtu(3, 0, 1472)
    seen = [path.limit]
    while path.limit > SEGMENT_PAYLOAD_MIN:
        for _ in range(LOST_SAMPLE):
            table.frames += 1
            table.lost(2, 60_000)
        seen.append(path.limit)
    assert seen == [1472, 1452, SMALL_SEGMENT, 972, SEGMENT_PAYLOAD_MIN]
    assert table.paths[3][0].limit == 1472, "another path"
    for _ in range(10):
        table.mtu(2, 0, 1472)
    assert path.limit == 1472 and path.ceiling == DATAGRAM_MAX


def test_chance_does_not_make_segments_smaller() -> None:
    table = LinkTable((2,), 1)
    table.mtu(2, 0, 1472)
    for i in range(10_000):
        table.frames += 1
        if i % 4 == 0:
            table.lost(2, 60_000)
    assert table.paths[2][0].limit == 1472 and not table.steps


def test_whom_multicast_does_not_reach_is_sent_to_directly() -> None:
    table = LinkTable((2, 3), 1, multicast=True)
    for _ in range(LOST_SAMPLE):
        table.frames += 1
        table.lost(2, 100)
    assert table.deaf == {2} and not table.steps
    table.mtu(2, 0, 1472)
    assert not table.deaf, "tried again from time to time"
