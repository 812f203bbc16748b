# SPDX-License-Identifier: GPL-2.0-only
"""The first state of a dlm_glue: what a predecessor left in the kernel, in the record and in the journal, put together. Pure.

A wrong guess here costs data, so nothing is guessed: making nodes/N anew without need purges the locks of a living member, and not
making it anew in need keeps those of a dead one. The record says for whom each directory was made; a directory without a record was being
removed or replaced when the predecessor died, so it is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dlm_glue.lockspace import Found, Left
from dlm_glue.state import GROUP_PREFIX, OWNER, Applied, Pending, Record, Run, Space, State
from vcs.model import Group, Phase


@dataclass(frozen=True, slots=True)
class Inherited:
    state: State
    stale: tuple[Pending, ...]
    "Journalled uevents whose lockspace the kernel does not have any more: there is nobody to answer."
    unheard: tuple[str, ...]
    "Lockspaces whose join waits although nobody heard its uevent (no id was ever set): to be journalled and fed as online."


def inherit(
    nodeid: int,
    configured: Iterable[int],
    *,
    found: Found,
    record: Record,
    groups: Iterable[Group],
    pending: tuple[Pending, ...],
    configs: Mapping[str, str] | None = None,
) -> Inherited:
    """``found`` was read after the uevent socket was bound, ``pending`` is the journal of the predecessor."""
    comms, applied = record
    ours = {g.name.removeprefix(GROUP_PREFIX): g for g in groups if g.owner == OWNER}
    texts = configs or {}
    spaces = {n: _space(left, applied.get(n, Applied()), ours.get(n), texts.get(n, "")) for n, left in found.spaces.items()}
    alive = tuple(p for p in pending if p.lockspace in spaces and spaces[p.lockspace].present)
    asked = {p.lockspace for p in alive}
    state = State(
        nodeid=nodeid,
        configured=frozenset(configured),
        configs=texts,
        comms={n: comms.get(n, 0) if n in found.complete else 0 for n in found.comms},
        spaces=spaces,
        pending=alive,
    )
    unheard = tuple(sorted(n for n in found.spaces if n not in ours and n not in asked and never_answered(found.spaces[n])))
    return Inherited(state, tuple(p for p in pending if p not in alive), unheard)


def never_answered(left: Left) -> bool:
    """Its join waits for event_done: whatever was ever started or torn down by us has an id."""
    return left.present and not left.made and left.id == 0


def _space(left: Left, applied: Applied, group: Group | None, config: str) -> Space:
    nodes = {n: applied.nodes[n] for n in left.nodes if n in applied.nodes}
    # What members have agreed on stays while it is joined, whatever the file says by now; before the first start nothing was applied.
    config = applied.config if applied.nodes else config
    space = Space(left.name, present=left.present, made=left.made, nodes=nodes, config=config)
    if not left.present:
        return space
    if group is None:
        return replace(space, run=Run.STOPPED if never_answered(left) else Run.UNKNOWN)
    if group.event == 0:
        return space if not left.status else replace(space, run=Run.UNKNOWN)
    if group.acked_event != group.event or group.acked_phase < Phase.STOP:
        # A stop that was not acknowledged may not have been carried out; an event before it may still be running.
        return replace(space, run=Run.UNKNOWN)
    if left.status and group.phase >= Phase.START:
        # Not 0: control=1 was written after the last stop.
        over = group.phase is Phase.FINISH or group.acked_phase >= Phase.START
        return replace(space, run=Run.RUNNING if over else Run.RECOVERING, event=group.event)
    if group.phase is Phase.START and applied.event == group.event and group.acked_phase is Phase.STOP:
        return replace(space, run=Run.RECOVERING, event=group.event, doubt=True)
    return replace(space, run=Run.UNKNOWN if left.status else Run.STOPPED)
