# SPDX-License-Identifier: GPL-2.0-only
"""The plan: from what the switch and the kernel say to the next steps, for all lockspaces of the node at once. Pure.

``decide(state)`` comes after fold.py has taken in what was heard. It looks at levels, never at edges: the same state read twice gives the
same answer, and a hint that was lost costs nothing. A step that was begun makes its lockspace (or comms/) busy until its Done arrives,
so each lockspace has at most one step under way, and one lockspace whose control=0 sleeps holds up no other (SAFETY S23).

When comms/N goes (SAFETY S2, and what the kernel makes of it):

- N has another incarnation in the view: it is made anew before this node acknowledges a STOP. The START of every member waits for all
  these acknowledgements, so nobody's recovery can reach a node that still has the old connection.
- N is not in the view: it goes before the control=1 of the first START that drops N from a lockspace, not earlier. Until such a start is
  ordered the same incarnation may be readmitted (SAFETY S7), and then its connection must have lost nothing: the DLM repeats requests
  to nodes that were removed, never to members that stayed. If it were still there at control=1, the kernel would take N for a clean
  leaver and GFS2 would skip its journal.
- Either way every lockspace that has N as a member is stopped first.
- A node that only left a lockspace keeps its comms/N. When it has also left the view the kernel is told that it failed: GFS2 then
  looks into a journal that is clean, which costs a moment and is safe; the opposite mistake loses data.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from dlm_glue.fold import oldest
from dlm_glue.state import (
    OFFLINE,
    ONLINE,
    RECORD_ENTRIES_MAX,
    Ack,
    AddComms,
    Answer,
    AskRefusal,
    Clear,
    DropComms,
    Effect,
    Join,
    Leave,
    Note,
    Pending,
    Run,
    Space,
    Start,
    State,
    Stop,
    Teardown,
    Who,
)
from vcs.model import Group, GroupState, Phase, View


def decide(state: State) -> tuple[State, tuple[Effect, ...]]:
    """The next steps, and the state in which they are under way. Nothing before the switch was read once."""
    if state.view is None:
        return state, ()
    plan = _Plan(state, state.view)
    plan.decide_comms()
    for name in sorted(state.spaces):
        plan.decide_space(plan.spaces[name])
    return replace(state, spaces=plan.spaces, comms=plan.comms, comms_busy=plan.comms_busy, pending=plan.pending), tuple(plan.effects)


def _acked(group: Group, space: Space, phase: Phase) -> bool:
    event, done = space.acked
    return (group.acked_event == group.event and group.acked_phase >= phase) or (event == group.event and done >= phase)


def _target(group: Group) -> dict[int, Who]:
    return {m.nodeid: Who(m.incarnation, m.join_id) for m in group.members}


class _Plan:
    """One decision under way: working copies of what decide() may change."""

    def __init__(self, state: State, view: View) -> None:
        self.state = state
        self.view = view
        self.spaces = dict(state.spaces)
        self.comms = dict(state.comms)
        self.comms_busy = state.comms_busy
        self.pending = state.pending
        self.effects: list[Effect] = []
        self.must_stop: frozenset[str] = frozenset()

    # comms/

    def _stale(self, nodeid: int) -> bool:
        """comms/N is there, but not for the N of the current view."""
        return nodeid in self.comms and self.comms[nodeid] != self.view.incarnation_of(nodeid)

    def _holders(self, nodeid: int) -> list[Space]:
        return [s for s in self.spaces.values() if nodeid in s.nodes]

    def _left_out(self) -> set[int]:
        """Members of a lockspace that a START, ordered and not begun, drops or replaces: they can be readmitted no more."""
        found: set[int] = set()
        for space in self.spaces.values():
            group = self.state.groups.get(space.name)
            if group is None or group.state is GroupState.LOST or group.phase is not Phase.START:
                continue
            if space.run is Run.STOPPED and not space.busy and group.event != space.event and not _acked(group, space, Phase.START):
                target = _target(group)
                found |= {n for n, who in space.nodes.items() if target.get(n) != who}
        return found

    def _stopping(self) -> bool:
        """A STOP is ordered whose acknowledgement waits for comms/."""
        return any(
            g.phase is Phase.STOP and g.state is not GroupState.LOST and not _acked(g, self.spaces[name], Phase.STOP)
            for name, g in self.state.groups.items()
        )

    def _to_drop(self) -> set[int]:
        stale = {n for n in self.comms if self._stale(n)}
        drop = {n for n in stale if not self._holders(n)}
        drop |= stale & self._left_out()
        if self._stopping():
            drop |= {n for n in stale if self.view.incarnation_of(n) is not None}
        return drop

    def decide_comms(self) -> None:
        drop = self._to_drop()
        holders = {s.name: s for n in drop for s in self._holders(n)}
        self.must_stop = frozenset(name for name, s in holders.items() if s.run is not Run.STOPPED)
        if self.comms_busy or self.state.comms_failed:
            return
        ready = tuple(sorted(n for n in drop if all(s.run is Run.STOPPED and not s.busy for s in self._holders(n))))
        if ready:
            self.comms_busy = True
            self.effects.append(DropComms(ready))
            return
        missing = tuple(sorted(n for n in self._wanted() if n not in self.comms))
        if missing:
            self.comms_busy = True
            for n in missing:
                self.comms[n] = self.view.incarnation_of(n) or 0
            self.effects.append(AddComms(missing))

    def _wanted(self) -> set[int]:
        return {m.nodeid for m in self.view.members if m.nodeid in self.state.configured} - {self.state.nodeid}

    def _comms_ready(self) -> bool:
        """comms/ is what the view says, except for nodes that left the view and may yet be readmitted."""
        if self.comms_busy:
            return False
        wanted = self._wanted()
        return wanted <= self.comms.keys() and not any(self._stale(n) for n in wanted)

    # lockspaces

    def _begin(self, space: Space, effect: Effect, **changes: object) -> None:
        self.spaces[space.name] = replace(space, busy=True, **changes)  # type: ignore[arg-type]
        self.effects.append(effect)

    def _now(self, space: Space, effect: Effect, **changes: object) -> None:
        """An effect of the switch's port, which returns at once."""
        self.spaces[space.name] = replace(space, **changes)  # type: ignore[arg-type]
        self.effects.append(effect)

    def _answer(self, space: Space, pending: Pending, result: int) -> None:
        self.pending = tuple(p for p in self.pending if p.seq != pending.seq)
        self._begin(space, Answer(space.name, pending, result))

    def decide_space(self, space: Space) -> None:
        group = self.state.groups.get(space.name)
        pending = oldest(self.state, space.name)
        if group is None:
            self._without_group(space, pending)
            return
        if not space.joined:
            if not space.hold:
                self._now(space, Join(space.name), joined=self.state.reads)
            return
        unwanted = not space.present or (pending is not None and pending.action == OFFLINE)
        if unwanted and not space.leaving and group.state is not GroupState.LEAVING:
            self._now(space, Leave(space.name), leaving=True)
            return
        if space.busy or space.hold:
            return
        lost = group.state is GroupState.LOST
        if lost or space.name in self.must_stop:
            if space.run is not Run.STOPPED:
                self._begin(space, Stop(space.name))
            elif lost and pending is not None and pending.action == ONLINE and not space.leaving:
                # Nobody will ever start it: leave, so that whoever waits for the join gets an error instead of a hang.
                self._now(space, Leave(space.name), leaving=True)
            elif lost and not space.lost:
                self._now(space, Note("ls_lost", {"lockspace": space.name}), lost=True)
            return
        if pending is not None and pending.action == ONLINE and space.run in (Run.RECOVERING, Run.RUNNING):
            # The caller sleeps on: in the kernel it now waits for the recovery that control=1 has begun.
            self._answer(space, pending, 0)
        elif group.phase is Phase.STOP:
            self._stop(space, group)
        elif group.phase is Phase.START:
            self._start(space, group)

    def _stop(self, space: Space, group: Group) -> None:
        if space.run is not Run.STOPPED:
            self._begin(space, Stop(space.name))
            return
        if _acked(group, space, Phase.STOP):
            return
        # A leave waits for nobody (SAFETY S21), and who leaves connects to nobody.
        leaving = space.leaving or group.state is GroupState.LEAVING
        if leaving or (self.view.generation >= group.view_generation and self._comms_ready()):
            ack = Ack(space.name, group.event, Phase.STOP)
            self._now(space, ack, acked=(group.event, Phase.STOP))

    def _start(self, space: Space, group: Group) -> None:
        if _acked(group, space, Phase.START):
            return
        if space.event == group.event and space.run in (Run.RECOVERING, Run.RUNNING):
            if space.run is Run.RUNNING:
                ack = Ack(space.name, group.event, Phase.START)
                self._now(space, ack, acked=(group.event, Phase.START))
            return
        if space.run is not Run.STOPPED:
            self._begin(space, Stop(space.name))
            return
        # An event is started once. Stopped again since: somebody failed meanwhile, and a new event is on its way.
        if group.event in (space.event, space.failed) or not self._startable(space, group):
            return
        target = _target(group)
        clear = tuple(sorted(n for n, who in space.nodes.items() if target.get(n) != who))
        if clear:
            nodes = {n: who for n, who in space.nodes.items() if n not in clear}
            self._begin(space, Clear(space.name, clear), nodes=nodes)
            return
        start = Start(space.name, group.event, tuple(sorted(target)), tuple(sorted(space.nodes)), space.config)
        self._begin(space, start, nodes=target, run=Run.UNKNOWN, event=group.event)

    def _startable(self, space: Space, group: Group) -> bool:
        """Every member is the one that the view and comms/ mean, and whoever is dropped as failed has no comms/N any more. A member
        that the view no longer has failed after the start was ordered: the next STOP is on its way."""
        if not space.present or self.comms_busy or any(self._stale(n) for n in space.nodes):
            return False
        if all(m.nodeid != self.state.nodeid for m in group.members):
            return False
        return all(
            self.view.incarnation_of(m.nodeid) == m.incarnation
            and (m.nodeid == self.state.nodeid or self.comms.get(m.nodeid) == m.incarnation)
            for m in group.members
        )

    def _without_group(self, space: Space, pending: Pending | None) -> None:
        """Not asked for yet, refused, left, or lost to us: the switch does not have its group."""
        gone = bool(space.joined) and self.state.reads > space.joined
        if space.busy:
            return
        if pending is None:
            self._ungoverned(space, gone)
        elif pending.action == ONLINE:
            self._join(space, pending, gone)
        elif space.joined and not gone:
            return
        elif space.made or space.nodes or space.run is not Run.STOPPED:
            if not space.hold:
                self._begin(space, Teardown(space.name))
        else:
            self._answer(space, pending, 0)

    def _join(self, space: Space, pending: Pending, gone: bool) -> None:
        entries = (len(self.spaces)) * max(1, len(self.view.members))
        if gone or space.refused:
            if not space.refused:
                self._begin(space, AskRefusal(space.name))
            elif not (space.made or space.nodes):
                self._answer(space, pending, -space.refused)
            elif not space.hold:
                self._begin(space, Teardown(space.name))
        elif not space.joined:
            if entries > RECORD_ENTRIES_MAX:
                self._answer(space, pending, -errno.ENOSPC)
            else:
                config = self.state.configs.get(space.name, "")
                self._now(space, Join(space.name), joined=self.state.reads, config=config)

    def _ungoverned(self, space: Space, gone: bool) -> None:
        """A lockspace that no group governs stays stopped: nobody would tell it about a death. One that is no lockspace any more
        loses its leftovers."""
        if space.hold:
            return
        if not space.present:
            if space.made or space.nodes:
                self._begin(space, Teardown(space.name))
            elif gone or not space.joined:
                del self.spaces[space.name]
        elif space.run is not Run.STOPPED:
            self._begin(space, Stop(space.name))
        elif not space.lost:
            self._now(space, Note("ls_lost", {"lockspace": space.name, "reason": "no group"}), lost=True)
