# SPDX-License-Identifier: GPL-2.0-only
"""Quorum: the majority of the votes of those who have not left.

Why shrinking is safe. The voters change one at a time, by an ordered clean leave or by the first merge after a return; a majority of
n voters and one of n-1 of them always share a node. A leave that was delivered in a *transitional* configuration may be known to this
side alone: its sender stops voting (others may already count without it) but stays expected (others may still count with it) until
the next merge. A node that returns votes only after the merge that readmits it: the configuration is judged by the state of the last
primary, in which it is not a voter (SAFETY S21).
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
    have = 0
    for node in config.nodes:
        known = nodes.get(node.id)
        status = known.status if known else ""
        if status == LEFT:
            expected -= node.votes
        elif status != LEAVING and node.id in present:
            have += node.votes
    return Votes(have, max(expected, 0))
