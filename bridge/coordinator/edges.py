# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two states, for the event log: a group's way through its event, the same at every node. Pure.

Facts and decisions change a state in many places; the phases that people measure a failover by are named in this one.
"""

from __future__ import annotations

from bridge.coordinator import groups
from bridge.coordinator.api import Notice
from bridge.coordinator.state import GroupRec, State
from vcs.model import Phase, event_text

STAGES = ("group_stopping", "group_stopped", "group_started", "group_recovered")
"Of one event, in this order: begun, all stopped, start decided, all recovered."


def _stage(group: GroupRec) -> int:
    """How many of the stages the group's event has reached."""
    if not group.event:
        return 0
    if group.phase == Phase.STOP:
        return 2 if groups.stopped(group) else 1
    return 4 if group.phase == Phase.FINISH else 3


def between(old: State, new: State, sender: int = 0) -> list[Notice]:
    """``sender``: whose message made the change, that is, whom the others have waited for last."""
    found: list[Notice] = []
    for name, group in new.groups.items():
        before = old.groups.get(name)
        if before is group:
            continue
        reached = _stage(before) if before is not None and before.event == group.event else 0
        for stage in STAGES[reached : _stage(group)]:
            fields: dict[str, object] = {"group": name, "id": event_text(group.event)}
            if stage == STAGES[0]:
                fields |= {"level": int(group.level), "members": sorted(group.members)}
            elif stage != STAGES[2] and sender:
                fields["last"] = sender
            found.append(Notice(stage, fields))
    found += [Notice("group_gone", {"group": name}) for name in old.groups if name not in new.groups]
    return found
