# SPDX-License-Identifier: GPL-2.0-only
"""Fencing obligations: who is owed a fence, who does it, what ends it. Pure functions on the replicated state.

An obligation ends by an ordered successful result, by an administrator's word, or because the node is back with a *new* boot
incarnation, authenticated by the engine (SAFETY S1). It is launched in the same step that creates it: fencing does not wait for stops.
Only the slower one of two nodes waits first (``two_node``).
"""

from __future__ import annotations

from bridge.coordinator import groups
from bridge.coordinator.api import Notice
from bridge.coordinator.messages import FenceResult
from bridge.coordinator.state import (
    DISCHARGED_MAX,
    FAILED,
    LAUNCHED,
    MEMBER,
    PENDING,
    RETRY,
    Node,
    Obligation,
    State,
)

ATTEMPTS_MAX = 1 << 20
"Where the count of failed calls stops growing."
DETAIL_MAX = 200
"So much of what an agent said goes to all nodes (characters)."
METHOD_MAX, METHODS_MAX = 100, 16


def owe(state: State, obligation: Obligation, notes: list[Notice], why: str) -> None:
    """Add an obligation, or widen the one that exists."""
    held = state.obligations.get(obligation.key)
    if held is None:
        state.obligations[obligation.key] = obligation
    else:
        held.groups.update(obligation.groups)
        held.everything = held.everything or obligation.everything
        held.frozen, held.frozen_ms = max((held.frozen, held.frozen_ms), (obligation.frozen, obligation.frozen_ms))
    notes.append(Notice("obligation", {
        "nodeid": obligation.nodeid, "incarnation": obligation.boot, "why": why,
        "groups": sorted(state.obligations[obligation.key].groups), "everything": obligation.everything,
    }))


def fail_node(
    state: State, nodeid: int, notes: list[Notice], why: str, extra: dict[str, int] | None = None, everything: bool = False
) -> None:
    """The known incarnation of ``nodeid`` has failed. ``extra`` are groups that its kernel reports beside the ones we know of."""
    node = state.nodes[nodeid]
    obligation = Obligation(nodeid, node.boot, dict(extra or {}), everything, frozen=node.frozen, frozen_ms=node.frozen_ms)
    groups.fail(state, nodeid, node.boot, obligation)
    node.status = FAILED
    notes.append(Notice("node_failed", {"nodeid": nodeid, "incarnation": node.boot, "why": why}))
    if obligation.groups or everything:
        owe(state, obligation, notes, why)


def discharge(
    state: State, key: tuple[int, int], how: str, notes: list[Notice], mark: bool = True, by: int = 0, method: str = ""
) -> None:
    """The obligation is met. ``mark``: every switch is to mark the incarnation as fenced."""
    if state.obligations.pop(key, None) is None:
        return
    if mark:
        node = state.nodes.get(key[0])
        if node is not None and key[1] in (0, node.boot):
            node.dead = True
        state.discharged = [*state.discharged, (key[0], key[1], how)][-DISCHARGED_MAX:]
    notes.append(Notice("fence_result", {"nodeid": key[0], "incarnation": key[1], "ok": True, "how": how, "by": by, "method": method}))


def result(state: State, sender: int, said: FenceResult, notes: list[Notice]) -> bool:
    """An ordered result. A success is true whoever launched it and whenever: that incarnation is dead."""
    key = (said.nodeid, said.boot)
    held = state.obligations.get(key)
    if held is None:
        return False
    if said.ok:
        discharge(state, key, said.detail or f"fenced by node {sender}", notes, by=sender, method=said.method)
        return True
    if held.phase != LAUNCHED or held.fencer != sender or held.attempt != said.attempt:
        return False
    held.attempt = min(held.attempt + 1, ATTEMPTS_MAX)
    held.phase, held.fencer, held.fencer_engine, held.cut = PENDING, 0, 0, said.cut
    held.detail, held.method = said.detail[:DETAIL_MAX], said.method[:METHOD_MAX]
    if held.method in held.failed or len(held.failed) < METHODS_MAX:
        held.failed[held.method] = min(held.failed.get(held.method, 0) + 1, ATTEMPTS_MAX)
    notes.append(Notice("fence_result", {
        "nodeid": key[0], "incarnation": key[1], "ok": False, "by": sender, "attempt": held.attempt, "method": held.method,
        "detail": held.detail,
    }))
    return True


def order(state: State, sender: int, nodeid: int, action: str, notes: list[Notice]) -> bool:
    """An administrator wants ``nodeid`` fenced (`vcs fence NODE`). It fails now, if it has not yet; its groups wait for the fence."""
    node = state.nodes.get(nodeid)
    if node is None or action not in ("", "off", "reboot"):
        return _refused(notes, f"there is no node {nodeid}" if node is None else f"{action!r} fences nobody")
    if state.maintenance is not None:
        return _refused(notes, "maintenance: nobody is fenced before it ends; see `vcs maintenance`")
    if not candidates(state, nodeid):
        return _refused(notes, f"nobody here has a fence device for node {nodeid}")
    if any(k[0] == nodeid for k in state.obligations):
        return _refused(notes, f"node {nodeid} is being fenced already; see `vcs why`")
    why = f"ordered by an administrator at node {sender}"
    if node.status == MEMBER:
        fail_node(state, nodeid, notes, why)
    owe(state, Obligation(nodeid, node.boot, action=action, by=sender), notes, why)
    held = state.obligations[nodeid, node.boot]
    held.action, held.by = action, sender
    return True


def _refused(notes: list[Notice], why: str) -> bool:
    notes.append(Notice("command_refused", {"what": "fence", "why": why}))
    return False


def _launched(obligation: Obligation, notes: list[Notice]) -> None:
    obligation.phase = LAUNCHED
    obligation.launched = True
    notes.append(Notice("fence_launched", {
        "nodeid": obligation.nodeid, "incarnation": obligation.boot, "by": obligation.fencer, "attempt": obligation.attempt + 1,
    }))


def retry(state: State, sender: int, key: tuple[int, int], attempt: int, notes: list[Notice]) -> bool:
    """The next fencer's back-off is over: launch."""
    held = state.obligations.get(key)
    if held is None or held.phase != RETRY or held.fencer != sender or held.attempt != attempt or state.maintenance is not None:
        return False
    _launched(held, notes)
    return True


def off(state: State, nodeid: int, notes: list[Notice]) -> bool:
    """An administrator stated that the node is off: every obligation about it ends. Refused while its daemon is here to be heard."""
    if nodeid in state.ring_members:
        notes.append(Notice("fence_ack_refused", {"nodeid": nodeid, "why": "its daemon is a member of this very configuration"}))
        return False
    keys = [k for k in state.obligations if k[0] == nodeid]
    for key in keys:
        discharge(state, key, "acknowledged by an administrator", notes)
    node = state.nodes.get(nodeid)
    if not keys and node is not None and node.status == FAILED and not node.dead:
        node.dead = True  # nobody waits for it, but its vote may go now
        return True
    return bool(keys)


def candidates(state: State, target: int) -> list[int]:
    """Who can fence ``target``: sound members first of all; nodes that owe a fence themselves only when nobody else is there."""
    able = [n for n in state.ring_members if n != target and _has_device(state.nodes[n], target)]
    sound = [n for n in able if state.nodes[n].status == MEMBER]
    return sorted(sound or [n for n in able if state.nodes[n].status == FAILED])


def _has_device(node: Node, target: int) -> bool:
    return node.can_fence and (not node.fences or target in node.fences)


def known_dead(state: State, nodeid: int, boot: int) -> list[tuple[int, int]]:
    """Incarnations that the switch of (``nodeid``, ``boot``) must know as fenced."""
    me = (nodeid, boot)
    # Our own of long ago: it has come back since, with nothing in its hands.
    return [(n, b) for n, b, _ in state.discharged if b and not ((n, b) == me and state.nodes[n].status != FAILED)]


def decide(state: State, notes: list[Notice]) -> None:
    """Choose a fencer for every obligation that has none (any more). The first attempt starts at once, later ones back off."""
    for obligation in sorted(state.obligations.values(), key=lambda o: o.key):
        able = candidates(state, obligation.nodeid)
        if obligation.phase != PENDING and not _still(obligation, able, state.nodes):
            obligation.phase, obligation.fencer, obligation.fencer_engine = PENDING, 0, 0
        if obligation.phase != PENDING or not able or state.maintenance is not None:
            continue
        obligation.fencer = able[obligation.attempt % len(able)]
        obligation.fencer_engine = state.nodes[obligation.fencer].engine
        later = obligation.attempt or ((obligation.fencer == state.slow_fencer or obligation.patient) and not obligation.launched)
        obligation.phase = RETRY if later else LAUNCHED
        if obligation.phase == LAUNCHED:
            _launched(obligation, notes)


def _still(obligation: Obligation, able: list[int], nodes: dict[int, Node]) -> bool:
    """Is the chosen fencer still the same living process?"""
    return obligation.fencer in able and nodes[obligation.fencer].engine == obligation.fencer_engine
