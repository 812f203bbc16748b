# SPDX-License-Identifier: GPL-2.0-only
"""Folding an input into the state: what was seen, what a uevent asks for, how a step ended. Pure; the decisions are in plan.py."""

from __future__ import annotations

from dataclasses import replace

from dlm_glue.state import (
    GROUP_PREFIX,
    OFFLINE,
    ONLINE,
    OWNER,
    Ack,
    AddComms,
    Answer,
    AskRefusal,
    Clear,
    Done,
    DropComms,
    Input,
    Join,
    Leave,
    Note,
    Pending,
    Run,
    Seen,
    Space,
    Start,
    State,
    Status,
    Stop,
    Teardown,
    Tick,
    Uevent,
)
from vcs.model import GroupState, Phase

DLM_RS_DONE = 0x40
DLM_RS_DONE_ALL = 0x80
EIO = 5


def feed(state: State, event: Input) -> tuple[State, tuple[Note, ...]]:
    match event:
        case Seen():
            return _feed_seen(state, event)
        case Uevent(pending):
            return _feed_uevent(state, pending)
        case Status(lockspace, value):
            return _feed_status(state, lockspace, value)
        case Tick():
            return _feed_tick(state), ()
        case Done():
            return _feed_done(state, event)


def _with(state: State, space: Space) -> State:
    return replace(state, spaces={**state.spaces, space.name: space})


def _feed_seen(state: State, seen: Seen) -> tuple[State, tuple[Note, ...]]:
    groups = {g.name.removeprefix(GROUP_PREFIX): g for g in seen.groups if g.owner == OWNER and g.name.startswith(GROUP_PREFIX)}
    spaces = dict(state.spaces)
    for name in groups:
        # A group without a lockspace: a predecessor died between the two. It is taken over to be left.
        spaces.setdefault(name, Space(name, present=False))
    known = state.configured | {state.nodeid}
    strangers = frozenset(m.nodeid for m in seen.view.members) - known
    notes = tuple(Note("comms_unknown_node", {"nodeid": n}) for n in sorted(strangers - state.strangers))
    return replace(state, groups=groups, view=seen.view, spaces=spaces, reads=state.reads + 1, strangers=strangers), notes


def _feed_uevent(state: State, pending: Pending) -> tuple[State, tuple[Note, ...]]:
    state = replace(state, pending=(*state.pending, pending))
    space = state.spaces.get(pending.lockspace, Space(pending.lockspace))
    note = Note("ls_online" if pending.action == ONLINE else "ls_offline", {"lockspace": pending.lockspace})
    return _with(state, replace(space, present=True)), (note,)


def _feed_status(state: State, lockspace: str, value: int) -> tuple[State, tuple[Note, ...]]:
    """Recovery is over for a member when it has set DONE; the lowest nodeid collects these and sets DONE_ALL. As the group's event
    finishes when every member has acknowledged, the lowest one's answer is the whole lockspace's."""
    space = state.spaces.get(lockspace)
    if space is None or space.run is not Run.RECOVERING or space.busy:
        return state, ()
    if value and space.doubt:
        space = replace(space, doubt=False)
        state = _with(state, space)
    lowest = min(space.nodes, default=0) == state.nodeid
    if not value & (DLM_RS_DONE_ALL if lowest else DLM_RS_DONE):
        return state, ()
    note = Note("ls_recovered", {"lockspace": lockspace, "group_event": space.event, "recover_status": value})
    return _with(state, replace(space, run=Run.RUNNING)), (note,)


def _feed_tick(state: State) -> State:
    spaces = {}
    for name, s in state.spaces.items():
        group = state.groups.get(name)
        shown = group is not None and (group.acked_event, group.acked_phase) == s.acked
        still = group is not None and group.state is not GroupState.LEAVING
        spaces[name] = replace(
            s,
            hold=False,
            failed=0,
            acked=s.acked if shown else (0, Phase.NONE),
            leaving=s.leaving and not still,
        )
        if s.doubt:
            # Seconds went by without a sign of a recovery: control=1 was never written.
            spaces[name] = replace(spaces[name], run=Run.UNKNOWN)
    return replace(state, spaces=spaces, comms_failed=False)


def _feed_done(state: State, done: Done) -> tuple[State, tuple[Note, ...]]:
    effect, error = done.effect, done.error
    failure = {"error": error, "text": done.text}
    match effect:
        case DropComms(nodes):
            state = replace(state, comms_busy=False, comms_failed=bool(error))
            if error:
                return state, (Note("comms_failed", {"nodes": nodes, **failure}),)
            comms = {n: i for n, i in state.comms.items() if n not in nodes}
            return replace(state, comms=comms), (Note("comms_dropped", {"nodes": nodes}),)
        case AddComms(nodes):
            state = replace(state, comms_busy=False, comms_failed=bool(error))
            if not error:
                return state, (Note("comms_added", {"nodes": nodes}),)
            comms = {n: 0 if n in nodes else i for n, i in state.comms.items()}
            return replace(state, comms=comms), (Note("comms_failed", {"nodes": nodes, **failure}),)
        case Note():
            return state, ()
        case _:
            space = state.spaces.get(effect.lockspace)
            if space is None:
                return state, ()
            return _feed_space_done(state, space, effect, error, failure)


def _feed_space_done(
    state: State,
    space: Space,
    effect: Join | Leave | Ack | Stop | Clear | Start | Teardown | Answer | AskRefusal,
    error: int,
    failure: dict[str, object],
) -> tuple[State, tuple[Note, ...]]:
    name = space.name
    bad = Note("step_failed", {"lockspace": name, "step": type(effect).__name__.lower(), **failure})
    match effect:
        case Join():
            if error:
                pending = oldest(state, name)
                # A group that exists is taken over; it may still be held by a predecessor that is just dying: tried again.
                final = pending is not None and pending.action == ONLINE and name not in state.groups
                return _with(state, replace(space, joined=0, refused=error if final else 0, hold=True)), (bad,)
            return _with(state, replace(space, joined=max(1, state.reads))), ()
        case Leave() | Ack():
            # What was asked for stays marked until the next Tick: no hot loop on a refusal; the state is read again anyway.
            return state, (bad,) if error else ()
        case Stop():
            if error:
                return _with(state, replace(space, busy=False, hold=True)), (bad,)
            group = state.groups.get(name)
            fields = {"lockspace": name, "group_event": group.event if group else 0}
            # A start in doubt is one no more, and may be made again.
            event = 0 if space.doubt else space.event
            stopped = replace(space, busy=False, run=Run.STOPPED, event=event, doubt=False)
            return _with(state, stopped), (Note("ls_stopped", fields),)
        case Clear():
            failed = _group_event(state, name) if error else space.failed
            return _with(state, replace(space, busy=False, failed=failed)), (bad,) if error else ()
        case AskRefusal():
            why = Note("join_refused", {"lockspace": name, **failure})
            return _with(state, replace(space, busy=False, refused=error or EIO)), (why,)
        case Start(_, event, members, keep):
            if error:
                nodes = {n: who for n, who in space.nodes.items() if n in keep}
                return _with(state, replace(space, busy=False, nodes=nodes, event=0, failed=event)), (bad,)
            fields = {"lockspace": name, "group_event": event, "members": members}
            return _with(state, replace(space, busy=False, run=Run.RECOVERING, made=True)), (Note("ls_started", fields),)
        case Teardown():
            if error:
                return _with(state, replace(space, busy=False, hold=True)), (bad,)
            return _with(state, replace(space, busy=False, run=Run.STOPPED, made=False, nodes={})), ()
        case Answer(_, pending, result):
            # Written or not, it is never written again: a latched event_done would answer the next request (SAFETY S17).
            notes = (bad,) if error else (Note(_answer_note(pending, result), {"lockspace": name, "result": result}),)
            if pending.action == ONLINE and result == 0:
                return _with(state, replace(space, busy=False)), notes
            spaces = {n: s for n, s in state.spaces.items() if n != name}
            if oldest(state, name) is not None:
                spaces[name] = Space(name)
            return replace(state, spaces=spaces), notes


def _answer_note(pending: Pending, result: int) -> str:
    if pending.action == OFFLINE:
        return "ls_left"
    return "ls_refused" if result else "ls_joined"


def oldest(state: State, lockspace: str) -> Pending | None:
    """The oldest unanswered uevent of a lockspace."""
    return next((p for p in state.pending if p.lockspace == lockspace), None)


def _group_event(state: State, lockspace: str) -> int:
    group = state.groups.get(lockspace)
    return group.event if group is not None else 0
