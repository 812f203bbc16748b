# SPDX-License-Identifier: GPL-2.0-only
"""Standing orders of an administrator: maintenance (SAFETY S24) and the shutdown of the whole cluster (S21). Pure functions.

**Maintenance** freezes fencing (no call is begun) and, in the kernels, the reset at the end of a lease. Nobody's clock is
everybody's, so each node counts from when the order was delivered to it, and the first whose time is over ends it for all. A kernel
that cannot be told any more ends its own freeze by itself, at the same time; until its node has said that it was told (``Thawed``),
or is back with a new boot incarnation, a lost lease of that node proves nothing for the whole length of the maintenance. A node that
learns of it with the state of others knows no time, and freezes nothing before those who do renew it.

**Shutdown** is refused while anybody is in a group or owed a fence, because leaving would then mean failing. After it no group is
joined any more, and the nodes leave one after the other, the highest id first: the last one keeps its vote, and the others wait for it.
"""

from __future__ import annotations

from bridge.coordinator.api import Notice
from bridge.coordinator.messages import MaintenanceOn
from bridge.coordinator.state import LEFT, Maintenance, State

FOR_MS_MAX = 24 * 3_600_000
REASON_MAX = 200


def maintenance_on(state: State, sender: int, order: MaintenanceOn, notes: list[Notice]) -> bool:
    """Also over one that is on: the new time counts."""
    held, for_ms, by, reason = state.maintenance, order.for_ms, sender, order.reason[:REASON_MAX]
    if order.renews:
        if held is None or held.serial != order.renews:
            return False
        by = held.by
    elif state.by_witness:
        # The other half may be granted a quorum while our kernels reset nothing, and would count their leases as over.
        notes.append(Notice("command_refused", {"what": "maintenance", "why": "half of the nodes go on by a witness's word, and the other "
                                                "half would not know; a majority is needed"}))
        return False
    if not 0 < for_ms <= FOR_MS_MAX:
        notes.append(Notice("command_refused", {"what": "maintenance", "why": f"{for_ms} ms is not between 1 ms and 24 hours"}))
        return False
    state.serial += 1
    state.maintenance = Maintenance(state.serial, for_ms, reason, by)
    for nodeid in state.ring_members:
        node = state.nodes[nodeid]
        node.frozen, node.frozen_ms = state.serial, max(for_ms, node.frozen_ms)
    notes.append(Notice("maintenance_on", {
        "serial": state.serial, "for_ms": for_ms, "reason": reason, "by": by, "renewed": bool(order.renews),
    }))
    return True


def maintenance_off(state: State, sender: int, serial: int, notes: list[Notice]) -> bool:
    held = state.maintenance
    if held is None or serial not in (0, held.serial):
        if not serial:
            notes.append(Notice("command_refused", {"what": "maintenance", "why": "there is none"}))
        return False
    state.maintenance = None
    notes.append(Notice("maintenance_off", {"serial": held.serial, "how": "its time is over" if serial else f"ended at node {sender}"}))
    return True


def thawed(state: State, sender: int, serial: int) -> bool:
    node = state.nodes[sender]
    if not node.frozen or node.frozen > serial:
        return False
    node.frozen = node.frozen_ms = 0
    return True


def shut_down(state: State, sender: int, notes: list[Notice]) -> bool:
    if state.shutdown:
        return False
    held: dict[int, list[str]] = {}
    for name, group in sorted(state.groups.items()):
        for nodeid in {*group.members, *group.leavers, *group.joins}:
            held.setdefault(nodeid, []).append(name)
    reasons = [f"node {n} is in {', '.join(names)}" for n, names in sorted(held.items())]
    reasons += [f"node {n} must be fenced first" for n in sorted({key[0] for key in state.obligations})]
    if reasons:
        notes.append(Notice("command_refused", {"what": "shutdown", "why": "; ".join(reasons)}))
        return False
    state.shutdown = sender
    notes.append(Notice("shutdown", {"by": sender}))
    return True


def turn(state: State) -> int:
    """Nodeid of who leaves next; 0 while somebody who has left is still here to be heard, and when nobody is left."""
    if any(state.nodes[n].status == LEFT for n in state.ring_members):
        return 0
    return max((n for n in state.ring_members if state.admitted(n)), default=0)
