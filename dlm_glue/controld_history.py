# SPDX-License-Identifier: GPL-2.0-only
"""What dlm_tool shows of the past: changes of lockspaces numbered from 1, when nodes came, went and were fenced. Pure.

The switch holds state and no history, so this is made by watching. It begins with the process: a dlm_glue that was restarted counts from 1
again, as a restarted dlm_controld would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dlm_glue.controld_wire import Reason
from dlm_glue.state import Run, State
from vcs.model import Group, View


@dataclass(frozen=True, slots=True)
class Now:
    monotonic: int
    "Seconds on CLOCK_MONOTONIC."
    wall: int
    "Seconds since 1970."


@dataclass(frozen=True, slots=True)
class Seq:
    """A change by its numbers; several that were made into one carry the first as ``combined``."""

    event: int
    seq: int
    combined: int
    members: Mapping[int, int] = field(default_factory=dict)
    "nodeid -> incarnation, of a completed change."
    joined: int = 0
    removed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class LsNode:
    """One node in the life of a lockspace."""

    added_seq: int = 0
    removed_seq: int = 0
    reason: Reason = Reason.NONE
    fail_wall: int = 0
    fail_mono: int = 0


@dataclass(slots=True)
class LsHistory:
    last_event: int = 0
    last_seq: int = 0
    previous: Seq | None = None
    following: Seq | None = None
    nodes: dict[int, LsNode] = field(default_factory=dict)


@dataclass(slots=True)
class NodeTimes:
    """A node in the cluster, seconds; 0: it has not happened."""

    incarnation: int = 0
    member: bool = False
    add: int = 0
    remove: int = 0
    fail_mono: int = 0
    fail_wall: int = 0
    fence_mono: int = 0
    fence_wall: int = 0
    fenced_by: int = 0
    owed: bool = False
    "It was seen to wait for a fence."


class History:
    def __init__(self) -> None:
        self.lockspaces: dict[str, LsHistory] = {}
        self.nodes: dict[int, NodeTimes] = {}
        self.joined = 0
        "Nodes that came with the last change of the view."
        self.removed = 0
        self._generation = 0
        self._failed_events: dict[str, int] = {}

    # --- what happens -----------------------------------------------------------------------------------------------------------------

    def watch(self, state: State, now: Now) -> None:
        """Called after every step of the plan."""
        if state.view is not None and state.view.generation != self._generation:
            self._generation = state.view.generation
            self._view(state.view, now)
        for name in self.lockspaces.keys() - state.spaces.keys():
            del self.lockspaces[name]
        for name, space in state.spaces.items():
            group = state.groups.get(name)
            history = self.lockspaces.setdefault(name, LsHistory())
            if group is None or state.view is None or not group.event:
                continue
            if group.event != history.last_event:
                history.last_event = group.event
                history.last_seq += 1
                combined = history.following.combined if history.following else history.last_seq
                history.following = Seq(group.event, history.last_seq, combined)
            self._losses(history, state.view, now)
            if history.following and space.event == group.event and space.run in (Run.RECOVERING, Run.RUNNING) and group.members:
                self._completed(history, group, now)

    def owed(self, nodeids: Mapping[int, int], now: Now) -> None:
        """``nodeids``: who waits to be fenced now -> who does it (0: nobody yet)."""
        for nodeid, fencer in nodeids.items():
            times = self.nodes.setdefault(nodeid, NodeTimes())
            times.owed = True
            times.fenced_by = fencer or times.fenced_by
            if not times.fail_mono:
                times.fail_mono, times.fail_wall = now.monotonic, now.wall
        for nodeid, times in self.nodes.items():
            if times.owed and nodeid not in nodeids:
                self._fenced(times, now)

    # --- inside -----------------------------------------------------------------------------------------------------------------------

    def _view(self, view: View, now: Now) -> None:
        there = {m.nodeid: m.incarnation for m in view.members}
        before = {n: t.incarnation for n, t in self.nodes.items() if t.member}
        came = {n for n, i in there.items() if before.get(n) != i}
        went = {n for n, i in before.items() if there.get(n) != i}
        if came or went:
            self.joined, self.removed = len(came), len(went)
        for nodeid in went:
            times = self.nodes[nodeid]
            times.member, times.remove = False, now.monotonic
            times.fail_mono, times.fail_wall = now.monotonic, now.wall
        for nodeid in came:
            times = self.nodes.setdefault(nodeid, NodeTimes())
            times.member, times.add, times.incarnation = True, now.monotonic, there[nodeid]

    @staticmethod
    def _fenced(times: NodeTimes, now: Now) -> None:
        times.owed = False
        times.fence_mono, times.fence_wall = now.monotonic, now.wall

    @staticmethod
    def _losses(history: LsHistory, view: View, now: Now) -> None:
        """Members of the completed change that are not in the view any more have failed: that is known before the next members are."""
        if history.previous is None or history.following is None:
            return
        for nodeid, incarnation in history.previous.members.items():
            node = history.nodes.get(nodeid, LsNode())
            if view.incarnation_of(nodeid) != incarnation and node.removed_seq <= history.previous.seq:
                history.nodes[nodeid] = replace(
                    node, removed_seq=history.last_seq, reason=Reason.NODEDOWN, fail_wall=now.wall, fail_mono=now.monotonic
                )

    @staticmethod
    def _completed(history: LsHistory, group: Group, now: Now) -> None:
        assert history.following is not None
        old = history.previous.members if history.previous else {}
        since = history.previous.seq if history.previous else 0
        members = {m.nodeid: m.incarnation for m in group.members}
        joined = [n for n in members if old.get(n) != members[n]]
        removed = [n for n in old if members.get(n) != old[n]]
        for nodeid in removed:
            node = history.nodes.get(nodeid, LsNode())
            if node.removed_seq <= since:
                history.nodes[nodeid] = replace(node, removed_seq=history.last_seq, reason=Reason.LEAVE)
        failed = sum(1 for n in removed if history.nodes[n].reason is Reason.NODEDOWN)
        for nodeid in joined:
            history.nodes[nodeid] = replace(history.nodes.get(nodeid, LsNode()), added_seq=history.last_seq)
        f = history.following
        history.previous = Seq(f.event, f.seq, f.combined, members, len(joined), len(removed), failed)
        history.following = None
