# SPDX-License-Identifier: GPL-2.0-only
"""votequorum's rules: two nodes, the tie-breaker, the last man standing, expected votes at run time; counted, then told as stories."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from bridge.coordinator import api as co
from bridge.coordinator import quorum
from bridge.coordinator.messages import Expect
from bridge.coordinator.state import LEAVING, LEFT, MEMBER, Ballot, Node
from tests.unit.coordinator_story import H, Story, config
from vcs.config.model import QuorumConfig, WitnessConfig
from vcs.model import GroupFlags, Phase

TIE = QuorumConfig(auto_tie_breaker=True)
LAST_MAN = QuorumConfig(last_man_standing=True)
LAST_MAN_TIE = QuorumConfig(last_man_standing=True, auto_tie_breaker=True)
TWO = QuorumConfig(two_node=True)


def quorate(story: Story, n: int) -> bool:
    return story.nodes[n].switch.view(H).quorate


def sides(count: int) -> Iterator[tuple[list[int], list[int]]]:
    """Every pair of disjoint sides, neither of them empty."""
    for bits in itertools.product((0, 1, 2), repeat=count):
        a = [n for n, b in enumerate(bits, 1) if b == 1]
        b = [n for n, b in enumerate(bits, 1) if b == 2]
        if a and b:
            yield a, b


# --- counted -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("wanted", "side", "enough"), [
    ("lowest", (1, 2), True), ("lowest", (3, 4), False), ("highest", (1, 2), False), ("highest", (2, 4), True),
    ("9 3 1", (3, 4), True), ("9 3 1", (1, 2), False), ("9", (1, 2), False), ("lowest", (1,), False), ("lowest", (2, 3, 4), True),
])
def test_half_of_the_votes_need_the_tie_breaker(wanted: str, side: tuple[int, ...], enough: bool) -> None:
    rules = QuorumConfig(auto_tie_breaker=True, auto_tie_breaker_node=wanted)
    assert quorum.count(config(4, quorum=rules), {}, side).quorate is enough


def test_a_tie_breaker_without_a_vote_is_passed_over() -> None:
    nodes = {1: Node(LEFT, voter=False), 2: Node(MEMBER, voter=False), 3: Node(MEMBER), 4: Node(MEMBER)}
    assert quorum.count(config(4, quorum=TIE), nodes, (3,)).quorate
    assert not quorum.count(config(4, quorum=TIE), nodes, (4,)).quorate


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("gone", range(3))
def test_no_two_sides_with_a_tie_breaker(count: int, gone: int) -> None:
    """Also when one side does without some leavers, and the other was told of their leave in a transitional configuration."""
    rules = config(count, quorum=TIE)
    everybody = range(1, count + 1)
    for leavers in itertools.combinations(everybody, min(gone, count)):
        sure, unsure = ({n: Node(status if n in leavers else MEMBER) for n in everybody} for status in (LEFT, LEAVING))
        for a, b in sides(count):
            rest = [n for n in a if n not in leavers]
            assert not (rest and quorum.count(rules, sure, rest).quorate and quorum.count(rules, unsure, b).quorate), (leavers, a, b)
            assert not (quorum.count(rules, unsure, a).quorate and quorum.count(rules, unsure, b).quorate), (leavers, a, b)


WITNESS = QuorumConfig(witness=WitnessConfig("10.0.0.99"))


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("gone", range(3))
def test_no_two_sides_with_a_witness_that_grants_to_one(count: int, gone: int) -> None:
    """Whichever side has the grant, whatever the sides know of leavers; and a majority needs none."""
    rules = config(count, quorum=WITNESS)
    everybody = range(1, count + 1)
    for leavers in itertools.combinations(everybody, min(gone, count)):
        sure, unsure = ({n: Node(status if n in leavers else MEMBER) for n in everybody} for status in (LEFT, LEAVING))
        for a, b in sides(count):
            rest = [n for n in a if n not in leavers]
            for grant in (True, False):
                one = rest and quorum.count(rules, sure, rest, granted=grant).quorate
                assert not (one and quorum.count(rules, unsure, b, granted=not grant).quorate), (leavers, a, b, grant)
                both = quorum.count(rules, unsure, a, granted=grant).quorate and quorum.count(rules, unsure, b, granted=not grant).quorate
                assert not both, (leavers, a, b, grant)
            if not leavers and 2 * len(a) > count:
                assert quorum.count(rules, {}, a).quorate


@pytest.mark.parametrize("rules", [QuorumConfig(), TIE])
@pytest.mark.parametrize("count", range(2, 7))
def test_an_uncertain_ballot_needs_the_majority_of_both(count: int, rules: QuorumConfig) -> None:
    """Some know that votes were withdrawn (or given back), some that it may have happened, some nothing of it."""
    cluster = config(count, quorum=rules)
    everybody = range(1, count + 1)
    for size in range(1, count):
        changed = tuple(range(count - size + 1, count + 1))
        ring = [n for n in everybody if n not in changed]
        old = {n: Node(MEMBER) for n in everybody}
        new = {n: Node(MEMBER, voter=n not in changed) for n in everybody}
        withdrawn, given = Ballot(drop=changed, agreed=set(ring)), Ballot(add=changed, agreed=set(ring))
        for before, after, ballot in ((old, new, withdrawn), (new, old, given)):
            for a, b in sides(count):
                maybe = quorum.count(cluster, before, a, ballot, ring).quorate
                assert not (maybe and quorum.count(cluster, after, b).quorate)
                assert not (maybe and quorum.count(cluster, before, b).quorate)


def test_a_ballot_on_which_not_all_agreed_changes_nothing() -> None:
    ballot = Ballot(drop=(4, 5), agreed={1, 2})
    nodes = {n: Node(MEMBER) for n in range(1, 6)}
    assert quorum.count(config(5), nodes, (1, 2, 3), ballot, (1, 2, 3)) == quorum.Votes(3, 5)


@pytest.mark.parametrize(("rules", "alone"), [
    (TWO, True), (QuorumConfig(two_node=True, auto_tie_breaker=True), False), (QuorumConfig(), False),
])
def test_two_nodes(rules: QuorumConfig, alone: bool) -> None:
    cluster = config(2, quorum=rules)
    assert quorum.count(cluster, {}, (2,)).quorate is alone
    assert quorum.count(cluster, {}, (1,)).quorate is (alone or rules.auto_tie_breaker)
    assert quorum.exclusive(cluster) is not alone


def test_two_node_says_nothing_of_three() -> None:
    assert not quorum.count(config(3, quorum=TWO), {}, (1,)).quorate


# --- two nodes ---------------------------------------------------------------------------------------------------------------

@pytest.fixture
def pair() -> Story:
    story = Story(2, quorum=TWO)
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    return story


def test_of_two_nodes_the_higher_one_fences_later(pair: Story) -> None:
    pair.form(1)
    pair.form(2)
    assert quorate(pair, 1) and quorate(pair, 2)
    assert pair.nodes[1].fences == [(2, 201)]
    assert pair.nodes[2].fences == []
    pair.later(1.9)
    assert pair.nodes[2].fences == []
    pair.later(0.2)
    assert pair.nodes[2].fences == [(1, 101)]
    assert pair.running("gfs") == {}
    pair.power_off(2)
    pair.fence_done(1, 2, 201)
    assert pair.running("gfs") == {1: (1,)}


def test_two_halves_meet_before_anybody_fenced() -> None:
    story = Story(2, agent="", quorum=TWO)
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    story.form(1)
    story.form(2)
    story.form(1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_one_of_two_starts_nothing_of_any_kind_before_the_other_is_dead(pair: Story) -> None:
    """Both halves are quorate: also what asks for no fencing would run twice."""
    pair.form(1)
    pair.join("svc", 1, flags=GroupFlags.NONE)
    group = pair.nodes[1].group("svc")
    assert group is not None and group.phase is Phase.STOP
    pair.fence_done(1, 2, 201)
    assert pair.running("svc") == {1: (1,)}


def test_one_of_two_that_boots_alone_waits_for_the_other() -> None:
    story = Story(2, quorum=TWO)
    story.boot(1)
    story.form(1)
    assert not quorate(story, 1)
    assert story.nodes[1].notices("waiting_for_all")


# --- the last man standing ---------------------------------------------------------------------------------------------------

def five(rules: QuorumConfig = LAST_MAN) -> Story:
    story = Story(5, quorum=rules)
    story.boot(1, 2, 3, 4, 5)
    story.form(1, 2, 3, 4, 5)
    story.join("gfs", 1, 2, 3, 4, 5)
    return story


def lose(story: Story, *nodeids: int) -> None:
    """These nodes lose power, and are fenced by the lowest of the rest."""
    boots = {n: story.nodes[n].who.boot for n in nodeids}
    story.power_off(*nodeids)
    story.form(*story.nodes)
    for n, boot in boots.items():
        if quorate(story, min(story.nodes)):
            story.fence_done(min(story.nodes), n, boot)


def expected(story: Story, n: int) -> int:
    quorum_now = story.nodes[n].coordinator.describe()["quorum"]
    assert isinstance(quorum_now, dict)
    return int(quorum_now["expected"])


def test_the_last_two_of_five_go_on() -> None:
    story = five()
    lose(story, 4, 5)
    story.later(9.9)
    assert expected(story, 1) == 5
    story.later(0.2)
    assert expected(story, 1) == 3
    lose(story, 3)
    assert quorate(story, 1)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}
    story.later(11)
    lose(story, 2)
    assert not quorate(story, 1)


def test_with_a_tie_breaker_one_of_five_is_left() -> None:
    story = five(LAST_MAN_TIE)
    for rest in (5, 4, 3, 2):
        lose(story, rest)
        story.later(0.1)  # its absence is seen
        story.later(11)
    assert quorate(story, 1)
    assert expected(story, 1) == 1
    assert story.running("gfs") == {1: (1,)}


def test_no_vote_goes_before_the_fence() -> None:
    story = five()
    story.power_off(4, 5)
    story.form(1, 2, 3)
    story.later(0.1)
    story.later(60)
    assert expected(story, 1) == 5
    story.fence_done(1, 4, 401)
    assert expected(story, 1) == 4
    story.fence_done(1, 5, 501)
    assert expected(story, 1) == 3


def test_who_held_nothing_is_fenced_for_its_vote() -> None:
    story = Story(3, quorum=LAST_MAN)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.power_off(3)
    story.form(1, 2)
    assert story.nodes[1].fences == []
    story.later(0.1)
    story.later(11)
    assert story.nodes[1].fences == [(3, 301)]
    story.fence_done(1, 3, 301)
    assert expected(story, 1) == 2


def test_who_returns_has_its_vote_again() -> None:
    story = five()
    lose(story, 4, 5)
    story.later(0.1)
    story.later(11)
    story.boot(4)
    story.form(1, 2, 3, 4)
    assert expected(story, 1) == 4
    story.boot(5)
    story.form(1, 2, 3, 4, 5)
    assert expected(story, 5) == 5


def test_a_vote_is_withdrawn_by_all_or_not_at_all() -> None:
    """The last agreement is delivered when the ring breaks: who cannot know whether the others withdrew it needs both majorities."""
    story = five()
    lose(story, 4, 5)
    story.later(0.1)
    story.nodes[3].outbox.clear()
    story.now += 11_000_000_000
    story.tell(1, co.Tick())
    while story.nodes[1].outbox or story.nodes[2].outbox:
        story.deliver_one()
    assert story.nodes[1].coordinator.state.ballot.agreed == {1, 2}
    story.transitional(2, 3)
    story.settle()
    assert story.nodes[2].coordinator.state.ballot.agreed == {1, 2, 3}
    assert story.nodes[2].coordinator.state.nodes[5].voter
    story.form(2, 3)
    assert not quorate(story, 2)
    assert expected(story, 2) == 5


# --- expected votes at run time ------------------------------------------------------------------------------------------------

def test_expected_votes_go_down_by_those_who_are_dead() -> None:
    story = five(QuorumConfig())
    lose(story, 4)
    story.power_off(5)
    story.form(1, 2, 3)
    done = story.command(2, Expect(3))
    assert not done["ok"]
    assert "node 5 may be alive" in str(done["why"])
    assert story.command(2, Expect(4))["ok"]
    assert expected(story, 3) == 4
    story.fence_done(1, 5, 501)
    assert story.command(2, Expect(3))["ok"]
    assert expected(story, 1) == 3
    lose(story, 3)
    assert quorate(story, 1)


def test_expected_votes_go_up() -> None:
    story = Story(3)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    assert story.command(1, Expect(5))["ok"]
    assert expected(story, 2) == 5
    assert "4 votes would be needed" in str(story.command(1, Expect(7))["why"])
    assert story.command(1, Expect(5)) == {"ticket": 77, "ok": False, "why": "nothing is to be changed"}
    story.form(1, 2)
    assert not quorate(story, 1)


def test_a_present_node_keeps_its_vote() -> None:
    story = Story(3)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    assert story.command(1, Expect(2)) == {"ticket": 77, "ok": False, "why": "the nodes that are here have 3 votes"}


def test_without_quorum_nothing_is_ordered() -> None:
    story = Story(3)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.form(1)
    assert "no quorum" in str(story.command(1, Expect(1))["why"])
