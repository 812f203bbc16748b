# SPDX-License-Identifier: GPL-2.0-only
"""Who can form a ring with whom, when some cannot reach some others: the same answer at every node that knows the same.

A *claim* (p, q) is p's word that it has no round trip with q. A ring needs a pair without a claim of either end between any two of
its members. The processors are divided so: the largest set without such a pair first (of several, the one with the lowest
processors), then the largest set of the rest, and so on. So those who are left outside form rings of their own, and nobody is in two.

The largest set is the largest independent set of the graph of claimed pairs. That graph is nearly empty: each of its components is
searched alone, by branch and bound. The search of a component ends after WORK_MAX steps with the best that it has found, which is
the same at every node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from membership.api import Processor

WORK_MAX = 1500
"Steps (a few microseconds each) of the search of one component."

Claim = tuple[Processor, Processor]


def share(processors: Sequence[Processor], claims: Iterable[Claim], who: Processor) -> tuple[tuple[Processor, ...], bool]:
    """The part of ``processors`` (ascending) that ``who`` belongs to, and whether it is the first and largest.

    Two incarnations of one node are never together.
    """
    claims = list(claims)
    if not claims and len({p.nodeid for p in processors}) == len(processors):
        return tuple(processors), True
    at = {p: i for i, p in enumerate(processors)}
    conflicts = [0] * len(processors)
    for p, q in claims:
        if p in at and q in at:
            conflicts[at[p]] |= 1 << at[q]
            conflicts[at[q]] |= 1 << at[p]
    for i in range(1, len(processors)):
        if processors[i].nodeid == processors[i - 1].nodeid:
            for j in range(i):
                if processors[j].nodeid == processors[i].nodeid:
                    conflicts[i] |= 1 << j
                    conflicts[j] |= 1 << i
    rest = (1 << len(processors)) - 1
    mine = 1 << at[who]
    first = True
    while True:
        part = largest(rest, conflicts)
        if part & mine:
            return tuple(p for i, p in enumerate(processors) if part >> i & 1), first
        first = False
        rest &= ~part


def largest(alive: int, conflicts: Sequence[int]) -> int:
    """The largest subset of the mask ``alive`` without a conflict; of several, the one that has the lowest where they differ."""
    chosen = 0
    rest = alive
    while rest:
        component = _component(rest & -rest, rest, conflicts)
        rest &= ~component
        chosen |= component if component & component - 1 == 0 else _Search(conflicts).run(component)
    return chosen


def _component(seed: int, within: int, conflicts: Sequence[int]) -> int:
    found, new = 0, seed
    while new:
        found |= new
        reached = 0
        while new:
            low = new & -new
            reached |= conflicts[low.bit_length() - 1]
            new ^= low
        new = reached & within & ~found
    return found


class _Search:
    """Depth first, with the lowest and taking before leaving: of the largest sets it meets the wanted one first."""

    def __init__(self, conflicts: Sequence[int]) -> None:
        self._conflicts = conflicts
        self._best = 0
        self._size = 0
        self._steps = 0

    def run(self, component: int) -> int:
        stack = [(0, component)]
        while stack and self._steps < WORK_MAX:
            chosen, candidates = stack.pop()
            self._steps += 1
            free, disputed = self._split(candidates)
            chosen |= free
            if chosen.bit_count() > self._size:
                self._best, self._size = chosen, chosen.bit_count()
            if not disputed or chosen.bit_count() + self._bound(disputed) <= self._size:
                continue
            low = disputed & -disputed
            stack.append((chosen, disputed ^ low))
            stack.append((chosen | low, disputed & ~low & ~self._conflicts[low.bit_length() - 1]))
        return self._best

    def _split(self, candidates: int) -> tuple[int, int]:
        """(those without a conflict among the candidates, the others)."""
        free, rest = 0, candidates
        while rest:
            low = rest & -rest
            rest ^= low
            if not self._conflicts[low.bit_length() - 1] & candidates:
                free |= low
        return free, candidates ^ free

    def _bound(self, candidates: int) -> int:
        """At most so many of ``candidates`` go together: of each conflicting pair of a greedy matching one stays out."""
        pairs, rest = 0, candidates
        while rest:
            low = rest & -rest
            rest ^= low
            partner = self._conflicts[low.bit_length() - 1] & rest
            if partner:
                rest ^= partner & -partner
                pairs += 1
        return candidates.bit_count() - pairs
