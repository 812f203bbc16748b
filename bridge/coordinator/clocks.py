# SPDX-License-Identifier: GPL-2.0-only
"""What this node's clock has to say to the others: a limit that has passed. Not replicated; the verdict is in the order.

Every node measures by its own clock since it learned of the matter, and the lowest sound member speaks, so a dead clock is replaced.
Losing the measures (a restart) makes a limit longer, never shorter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bridge.coordinator.ballot import missing_voters
from bridge.coordinator.detached import AbsenceClock
from bridge.coordinator.messages import Body, Orphaned, Overdue, VoteDrop
from bridge.coordinator.state import FAILED, State
from vcs.config.model import ClusterConfig
from vcs.model import Group, GroupState, Phase

K = TypeVar("K")
MS = 1_000_000
Waiting = dict[tuple[str, int, int], set[int]]


def owed(state: State) -> Waiting:
    """(group, event, phase) -> the nodes whose answer is owed."""
    waiting: Waiting = {}
    for group in state.groups.values():
        if group.phase == Phase.STOP:
            waiting[group.name, group.event, group.phase] = set(group.stoppers) - group.stop_acks
        elif group.phase == Phase.START:
            waiting[group.name, group.event, group.phase] = set(group.members) - group.start_acks
    return {key: nodes for key, nodes in waiting.items() if nodes}


@dataclass(slots=True)
class Clocks:
    """Since when, in ns of the local clock."""

    config: ClusterConfig
    nodeid: int
    answers: dict[tuple[str, int, int], int] = field(default_factory=dict)
    missing: dict[tuple[int, int], int] = field(default_factory=dict)
    "(nodeid, boot) of voters that have failed and are not here."
    orphans: dict[str, int] = field(default_factory=dict)
    "Own persistent groups whose owner has gone."
    away: AbsenceClock = field(init=False)
    "Daemons that are away."

    def __post_init__(self) -> None:
        self.away = AbsenceClock(self.config)

    def due(self, state: State, switch: Mapping[str, Group], now_ns: int) -> list[Body]:
        """Look at the clock; returns what is to be said to everybody."""
        self._note(self.answers, owed(state), now_ns)
        self._note(self.missing, self._missing(state), now_ns)
        self._note(self.orphans, {g.name for g in switch.values() if g.orphan_since_ms and g.state is not GroupState.LOST}, now_ns)
        said: list[Body] = [Orphaned(n) for n, since in sorted(self.orphans.items())
                            if now_ns >= since + self._takeover_ns() and n in state.groups]
        away = self.away.due(state, now_ns)
        if min((n for n in state.ring_members if state.admitted(n)), default=0) != self.nodeid:
            return said
        waiting = owed(state)
        for key, since in sorted(self.answers.items()):
            if now_ns >= since + self._answer_ns(key[2]):
                said += [Overdue(*key, nodeid) for nodeid in sorted(waiting[key])]
        for victim, since in sorted(self.missing.items()):
            if now_ns >= since + self._window_ns():
                said.append(VoteDrop(*victim))
        return said + away

    def wake(self, now_ns: int) -> list[int]:
        """The times at which something becomes due."""
        times = [since + self._answer_ns(key[2]) for key, since in self.answers.items()]
        times += [since + self._window_ns() for since in self.missing.values()]
        times += [since + self._takeover_ns() for since in self.orphans.values()]
        return [t for t in times + self.away.times if t > now_ns]

    def _missing(self, state: State) -> set[tuple[int, int]]:
        if not self.config.quorum.last_man_standing:
            return set()
        gone = {n: state.nodes[n] for n in missing_voters(state)}
        return {(n, node.boot) for n, node in gone.items() if node.status == FAILED}

    def _answer_ns(self, phase: int) -> int:
        limits = self.config.groups
        return (limits.stop_limit_ms if phase == Phase.STOP else limits.start_limit_ms) * MS

    def _window_ns(self) -> int:
        return self.config.quorum.last_man_standing_window_ms * MS

    def _takeover_ns(self) -> int:
        return self.config.groups.takeover_limit_ms * MS

    @staticmethod
    def _note(table: dict[K, int], now: Collection[K], now_ns: int) -> None:
        for key in [k for k in table if k not in now]:
            del table[key]
        for key in now:
            table.setdefault(key, now_ns)
