# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's pictures for people: what is, and what is waited for. Reads, never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.coordinator import groups, quorum
from bridge.coordinator.state import FAILED, LAUNCHED, LEFT, RETRY, GroupRec, Obligation
from vcs.model import Phase, event_text

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator


def _names(c: Coordinator, nodeids: list[int]) -> str:
    texts = []
    for nodeid in nodeids:
        node = c.config.node(nodeid)
        texts.append(f"{node.name} (node {nodeid})" if node else f"node {nodeid}")
    return ", ".join(texts)


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
                "phase": o.phase, "failed_attempts": o.attempt, "fencer": o.fencer, "detail": o.detail,
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
        votes = quorum.count(c.config, state.nodes, [m.nodeid for m in c.members], state.ballot, state.ring_members)
    flags = [name for name in ("two_node", "wait_for_all", "last_man_standing", "auto_tie_breaker") if getattr(rules, name)]
    voters = [n.id for n in c.config.nodes if n.votes and ((k := state.nodes.get(n.id)) is None or (k.voter and k.status != LEFT))]
    return {
        "quorate": c.deciding, "votes": votes.present, "expected": votes.expected, "needed": votes.needed,
        "wait_for_all": rules.wait_for_all, "flags": flags, "exclusive": quorum.exclusive(c.config), "voters": voters,
        "missing": [n for n in voters if all(m.nodeid != n for m in c.members)],
        "tie_breaker": quorum.tie_breaker(c.config, voters), "ballot": {"add": list(state.ballot.add), "drop": list(state.ballot.drop)},
    }


def _maintenance(c: Coordinator) -> dict[str, object] | None:
    held = c.state.maintenance
    if held is None:
        return None
    left = c.feed.left_ms(held.serial, c.now_ns)
    return {"reason": held.reason, "by": held.by, "for_ms": held.for_ms, "left_ms": left}


def _item(what: str, text: str, waits_for: str, on: list[Any], group: str = "", event: int = 0) -> dict[str, object]:
    return {"what": what, "group": group, "event": event, "waits_for": waits_for, "on": on, "text": text}


def awaited(c: Coordinator, nodeid: int) -> bool:
    """Something here waits until that node is off: an obligation, its vote, or a cold start. While no picture is settled: yes."""
    if c.mode.value != "primary":
        return all(m.nodeid != nodeid for m in c.members)
    node = c.state.nodes.get(nodeid)
    return any(o.nodeid == nodeid for o in c.state.obligations.values()) or (
        node is not None and node.status == FAILED and not node.dead)


def why(c: Coordinator) -> list[dict[str, object]]:
    """Everything that is waited for, most general first. Empty: nothing is."""
    items = _component(c)
    if c.mode.value == "primary":
        items += [_obligation(c, o) for _, o in sorted(c.state.obligations.items())]
        for _, group in sorted(c.state.groups.items()):
            items += _group(c, group)
        me = c.state.nodes.get(c.local.nodeid)
        if me is not None and me.status == FAILED:
            text = "this node has failed: what it ran outlived its membership, and it gets no start; it must be reset or fenced"
            items.insert(0, _item("failed", text, "fence", [c.local.nodeid]))
    return items


def _component(c: Coordinator) -> list[dict[str, object]]:
    mode = c.mode.value
    if mode == "start":
        return [_item("engine", "the membership engine has not delivered a configuration yet", "configuration", [])]
    if not c.regular:
        return [_item("engine", "the membership is changing: a new configuration is being formed", "configuration", [])]
    if mode == "collect":
        if c.feed.switch is None:
            return [_item("switch", "the local switch has not been read yet", "switch", [c.local.nodeid])]
        absent = sorted({m.nodeid for m in c.members} - set(c.present))
        odd = "".join(f"; {_names(c, [n])} cannot be understood: {c.foreign[n]}" for n in absent if n in c.foreign)
        return [_item("merge", f"waiting for {_names(c, absent)} to say what they bring into ring {c.ring}{odd}", "exchange", [*absent])]
    if mode == "snapshot":
        return [_item("merge", "the cluster's state is on its way to those who lack it", "snapshot", [])]
    if mode == "waiting":
        absent = sorted({n.id for n in c.config.nodes} - {m.nodeid for m in c.members} - c.acked - c.off)
        text = (
            f"cold start: waiting until {_names(c, absent)} has been seen; if it is certainly off, "
            f"say so with: vcs fence ack {absent[0] if absent else 'NODE'}"
        )
        return [_item("waiting_for_all", text, "nodes", [*absent])]
    if mode == "inquorate":
        absent = sorted({n.id for n in c.config.nodes} - {m.nodeid for m in c.members})
        text = (
            f"no quorum: {c.votes.present} of {c.votes.expected} votes are here and {c.votes.needed} are needed; "
            f"not here: {_names(c, absent) or 'nobody'}"
        )
        return [_item("quorum", text, "votes", [*absent])]
    return []


def _obligation(c: Coordinator, o: Obligation) -> dict[str, object]:
    victim = _names(c, [o.nodeid])
    if o.phase == LAUNCHED:
        text = f"{victim} must be fenced; {_names(c, [o.fencer])} is doing it"
    elif o.phase == RETRY:
        text = (
            f"{victim} must be fenced; attempt {o.attempt} failed ({o.detail}); {_names(c, [o.fencer])} tries again after a pause; "
            f"when it is certainly off: vcs fence ack {o.nodeid}"
        )
    elif o.key in c.feed.leases.at:
        wait_s = c.state.nodes[o.nodeid].self_fence.wait_ms(c.config.lease.margin_ms) / 1000
        text = (
            f"{victim} must be fenced: it resets itself when its lease runs out, which is certain {wait_s:g} s after it was missed; "
            f"when it is certainly off: vcs fence ack {o.nodeid}"
        )
    else:
        text = f"{victim} must be fenced and nobody here can; when it is certainly off: vcs fence ack {o.nodeid}"
    return _item("fence", text, "fence", [o.nodeid])


def _group(c: Coordinator, g: GroupRec) -> list[dict[str, object]]:
    event = event_text(g.event)
    if g.changed:
        return [_item("group", f"{g.name}: its membership changed; the next quorate configuration makes a new event", "configuration",
                      [], g.name, g.event)]
    if g.phase == Phase.STOP:
        return _stop(c, g, event)
    if g.phase == Phase.START:
        late = sorted(set(g.members) - g.start_acks)
        text = f"{g.name}: event {event} waits for {_names(c, late)} to recover"
        return [_item("group", text, "start_ack", [*late], g.name, g.event)]
    return []


def _stop(c: Coordinator, g: GroupRec, event: str) -> list[dict[str, object]]:
    items = []
    late = sorted(set(g.stoppers) - g.stop_acks)
    if late:
        items.append(_item("group", f"{g.name}: event {event} waits for {_names(c, late)} to stop", "stop_ack", [*late], g.name, g.event))
    for o in c.state.blocking(g.name):
        text = f"{g.name}: event {event} waits until {_names(c, [o.nodeid])} is fenced"
        items.append(_item("group", text, "fence", [o.nodeid], g.name, g.event))
    lower = [h.name for h in groups.lower_unfinished(c.state, g)]
    if lower:
        text = f"{g.name}: event {event} waits for the lower level to finish: {', '.join(sorted(lower))}"
        items.append(_item("group", text, "lower_level", sorted(lower), g.name, g.event))
    return items
