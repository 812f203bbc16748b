# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's pictures for people: what is, and what is waited for. Reads, never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.coordinator import groups, methods, quorum, waits, witness
from bridge.coordinator.state import FAILED

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator


def describe(c: Coordinator) -> dict[str, object]:
    state = c.state
    return {
        "version": 1, "mode": c.mode.value, "regular": c.regular, "nodeid": c.local.nodeid, "incarnation": c.local.boot,
        "ring": str(c.ring), "members": [m.nodeid for m in c.members],
        "quorum": _quorum(c),
        "state": {
            "primary": str(state.primary), "version": state.version, "digest": state.digest(), "feature": state.feature,
        },
        "nodes": [
            {
                "nodeid": n.id, "name": n.name, "votes": n.votes,
                "status": state.nodes[n.id].status if n.id in state.nodes else "unseen",
                "incarnation": state.nodes[n.id].boot if n.id in state.nodes else 0,
                "present": any(m.nodeid == n.id for m in c.members),
            }
            for n in c.config.nodes
        ],
        "groups": [groups.describe(g) for _, g in sorted(state.groups.items())],
        "obligations": [
            {
                "nodeid": o.nodeid, "incarnation": o.boot, "groups": sorted(o.groups), "everything": o.everything,
                "phase": o.phase, "failed_attempts": o.attempt, "failed": dict(o.failed), "fencer": o.fencer, "detail": o.detail,
                "method": methods.name(c.config, o.nodeid, methods.of(c.config, o.nodeid, o.attempt)[0]), "action": o.action,
                "self_fence_at_ns": c.feed.leases.at.get(o.key, 0),
            }
            for _, o in sorted(state.obligations.items())
        ],
        "refused": {name: list(refusal) for name, refusal in c.feed.refusals.told.items()},
        "counters": dict(c.counters), "leaving": c.feed.leave_wanted, "shutdown": state.shutdown, "maintenance": _maintenance(c),
    }


def _quorum(c: Coordinator) -> dict[str, object]:
    """As it is now: within a primary configuration votes come and go by the ballot."""
    votes, rules, state = c.votes, c.config.quorum, c.state
    if c.mode.value == "primary":
        here = [m.nodeid for m in c.members]
        votes = quorum.count(c.config, state.nodes, here, state.ballot, state.ring_members, state.by_witness)
    flags = [name for name in ("two_node", "wait_for_all", "last_man_standing", "auto_tie_breaker") if getattr(rules, name)]
    voting = quorum.voters(c.config, state.nodes)
    voters = [n.id for n in c.config.nodes if n.votes and n.id in voting]
    return {
        "quorate": c.deciding, "votes": votes.present, "expected": votes.expected, "needed": votes.needed,
        "wait_for_all": rules.wait_for_all, "flags": flags, "exclusive": quorum.exclusive(c.config), "voters": voters,
        "missing": [n for n in voters if all(m.nodeid != n for m in c.members)],
        "tie_breaker": quorum.tie_breaker(c.config, voters), "witness": witness.picture(c),
        "ballot": {"add": list(state.ballot.add), "drop": list(state.ballot.drop)},
    }


def _maintenance(c: Coordinator) -> dict[str, object] | None:
    held = c.state.maintenance
    if held is None:
        return None
    left = c.feed.left_ms(held.serial, c.now_ns)
    return {"reason": held.reason, "by": held.by, "for_ms": held.for_ms, "left_ms": left}


def awaited(c: Coordinator, nodeid: int) -> bool:
    """Something here waits until that node is off: an obligation, its vote, or a cold start. While no picture is settled: yes."""
    if c.mode.value != "primary":
        return all(m.nodeid != nodeid for m in c.members)
    node = c.state.nodes.get(nodeid)
    return any(o.nodeid == nodeid for o in c.state.obligations.values()) or (
        node is not None and node.status == FAILED and not node.dead)


def why(c: Coordinator, now_ns: int = 0) -> list[dict[str, object]]:
    """Everything that is waited for, most general first, as rows. ``now_ns``: 0 means the time of the last input."""
    at = max(now_ns, c.now_ns)
    return [wait.row(at) for wait in waits.of(c, at)]
