# SPDX-License-Identifier: GPL-2.0-only
"""Quorum: the majority of the votes of those who count, by the names of votequorum.

Why shrinking is safe. *By a leave*: the voters change one at a time, by an ordered clean leave; a majority of n voters and one of n-1
of them always share a node. The last one keeps its vote: its knowledge is the newest there is, and when all are back, and part again
before the others have theirs, one side alone may go on. A leave that was delivered in a *transitional* configuration may be known to
this side alone: its sender stays expected (others may still count with it), and of all such senders that are here one single vote counts
(others may already count without them: with k of n voters leaving, a majority of n-k and the rest plus one vote are never both enough).
*By the ballot* (ballot.py: a dead node's vote is withdrawn, a returned node's given back, any number at once): everybody of the primary
configuration has written it to its disk before, so whoever knows the older voters only meets at most those who were outside of it,
which are no majority of them. Where it is uncertain whether the others have carried a ballot out, both sets of voters must give quorum.

When everybody is here, there is nobody left to disagree. The tie-breaker is one fixed node among the voters, so at most one of two
halves has it; a witness (witness.py) is a tie-breaker that is granted to one configuration at a time.
With ``two_node`` quorum is *not* exclusive: both halves have it, and the fence alone decides (SAFETY S12).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bridge.coordinator.state import LEAVING, Ballot, Node
from vcs.config.model import ClusterConfig, NodeConfig

NO_BALLOT = Ballot()


@dataclass(frozen=True, slots=True)
class Votes:
    present: int
    expected: int
    tie: bool = False
    "The tie-breaker node is here, or the witness's grant: half of the votes are enough."
    two_node: bool = False
    "One of two is enough."

    @property
    def needed(self) -> int:
        """Votes that make quorum: more than half of what is expected."""
        if self.two_node and self.expected == 2:
            return 1
        half = self.expected // 2
        return half if self.tie and self.expected == 2 * half else half + 1

    @property
    def quorate(self) -> bool:
        return self.present >= self.needed


def exclusive(config: ClusterConfig) -> bool:
    """Can at most one side of a split be quorate? What counts on a lost lease needs that (SAFETY S12)."""
    return not config.quorum.two_node or config.quorum.auto_tie_breaker


def tie_breaker(config: ClusterConfig, voters: Collection[int]) -> int:
    """Nodeid of the tie-breaker among ``voters``, 0 if there is none."""
    if not config.quorum.auto_tie_breaker or not voters:
        return 0
    wanted = config.quorum.auto_tie_breaker_node
    if wanted == "lowest":
        return min(voters)
    if wanted == "highest":
        return max(voters)
    return next((n for n in map(int, wanted.split()) if n in voters), 0)


def voters(config: ClusterConfig, nodes: Mapping[int, Node]) -> set[int]:
    """Configured nodes whose votes are expected; some have none to give."""
    return {n.id for n in config.nodes if (k := nodes.get(n.id)) is None or k.voter}


def count(
    config: ClusterConfig, nodes: Mapping[int, Node], present: Collection[int], ballot: Ballot = NO_BALLOT,
    ring_members: Collection[int] = (), granted: bool = False,
) -> Votes:
    """The votes of ``present``, judged by ``nodes`` (the state of the last primary configuration, whose members were ``ring_members``)
    and by its ``ballot``. ``granted``: the witness says that half is enough for them."""
    voting = voters(config, nodes)
    found = _count(config, nodes, present, voting, ballot, granted)
    if not (ballot.add or ballot.drop) or not ballot.agreed.issuperset(ring_members):
        return found
    # Somebody may have carried it out in the regular configuration; we only know that everybody had agreed.
    other = _count(config, nodes, present, (voting | set(ballot.add)) - set(ballot.drop), ballot, granted)
    return found if not found.quorate else other if not other.quorate else found


def _count(
    config: ClusterConfig, nodes: Mapping[int, Node], present: Collection[int], voters: Collection[int], ballot: Ballot,
    granted: bool,
) -> Votes:
    leavers = {n for n, k in nodes.items() if k.status == LEAVING}
    expected = extra_votes(config, ballot)
    have = pooled = 0
    for node in config.nodes:
        if node.id not in voters:
            continue
        expected += node.votes
        if node.id in present and node.id not in leavers:
            have += node.votes
        elif node.id in present and node.votes == 1:
            pooled = 1
    two_node = config.quorum.two_node and one_vote_each(config.nodes) and not config.quorum.auto_tie_breaker
    if all(n.id in present for n in config.nodes):
        return Votes(max(expected, 1), expected, two_node=two_node)
    if config.quorum.auto_tie_breaker:
        # Half without the tie-breaker plus a leaver's vote could meet half with it, so a leaver has none here.
        tie = tie_breaker(config, [n.id for n in config.nodes if n.id in voters and n.votes])
        return Votes(have, expected, tie in present and tie not in leavers)
    if config.quorum.witness is not None:
        return Votes(have, expected, granted)  # no leaver's vote, for the same reason
    return Votes(have + pooled, expected, two_node=two_node)


def one_vote_each(nodes: Collection[NodeConfig]) -> bool:
    """Two nodes with a vote each: what two_node is for."""
    return [n.votes for n in nodes] == [1, 1]


def extra_votes(config: ClusterConfig, ballot: Ballot) -> int:
    """Expected votes that no node holds."""
    return ballot.extra if ballot.extra >= 0 else config.expected_votes - sum(n.votes for n in config.nodes)
