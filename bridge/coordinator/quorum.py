# SPDX-License-Identifier: GPL-2.0-only
"""Quorum: the majority of the votes of those who have not left.

Why shrinking is safe. The voters change one at a time, by an ordered clean leave or by the first merge after a return; a majority of
n voters and one of n-1 of them always share a node. A leave that was delivered in a *transitional* configuration may be known to this
side alone: its sender stays expected (others may still count with it), and of all such senders that are here one single vote counts
(others may already count without them: with k of n voters leaving, a majority of n-k and the rest plus one vote are never both
enough). When everybody is here, there is nobody left to disagree. A node that returns votes only after the merge that readmits it:
the configuration is judged by the state of the last primary, in which it is not a voter (SAFETY S21).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bridge.coordinator.state import LEAVING, LEFT, Node
from vcs.config.model import ClusterConfig


@dataclass(frozen=True, slots=True)
class Votes:
    present: int
    expected: int

    @property
    def needed(self) -> int:
        """Votes that make a majority. 0 when everybody has left: then the last leaver's own knowledge is the newest there is."""
        return self.expected // 2 + 1 if self.expected > 0 else 0

    @property
    def quorate(self) -> bool:
        return self.present >= self.needed


def count(config: ClusterConfig, nodes: Mapping[int, Node], present: Collection[int]) -> Votes:
    """The votes of ``present``, judged by ``nodes`` (the state of the last primary configuration)."""
    expected = config.expected_votes
    have = leaving = 0
    for node in config.nodes:
        known = nodes.get(node.id)
        status = known.status if known else ""
        if status == LEFT:
            expected -= node.votes
        elif node.id in present:
            if status != LEAVING:
                have += node.votes
            elif node.votes == 1:
                leaving = 1
    expected = max(expected, 0)
    if all(n.id in present for n in config.nodes):
        return Votes(expected, expected)
    return Votes(have + leaving, expected)
