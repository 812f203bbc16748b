# SPDX-License-Identifier: GPL-2.0-only
"""Who has a vote: changes of the voters beside a clean leave. Pure functions on the replicated state.

A change is a *proposal* of a primary configuration: nodes whose vote is withdrawn (they are absent and known to be dead: SAFETY S12)
and nodes that are back and get theirs again. Every member agrees by an ordered message, which its coordinator sends after its Persist
of that configuration; the last agreement carries the change out, in the regular configuration only. So when voters have changed
anywhere, every member's disk names a primary configuration that is newer than anything a node outside of it can know, and a node that
forgets everything else is no tool for a second majority of the old voters. A new ring begins a new proposal, with a new serial.
Half of the voters, by a witness's grant, carry out nothing: the other half, which knows the old voters, may have the grant next.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.coordinator.api import Notice
from bridge.coordinator.fencing import owe
from bridge.coordinator.state import FAILED, LEFT, Obligation, State

FEATURE_BALLOT = 2
"First feature level whose members agree to ballots."


def propose(state: State, add: Iterable[int] = (), drop: Iterable[int] = ()) -> None:
    """Put a change on the ballot, beside what is on it already. Agreement begins anew."""
    ballot = state.ballot
    ballot.serial += 1
    ballot.add = tuple(sorted({*ballot.add, *add}))
    ballot.drop = tuple(sorted({*ballot.drop, *drop} - set(ballot.add)))
    ballot.agreed = set()


def open_ring(state: State) -> None:
    """A new primary configuration: what was proposed in the last one is void; who is here without a vote is to get it back."""
    ballot = state.ballot
    ballot.add = ballot.drop = ()
    back = [n for n in state.ring_members if not state.nodes[n].voter and state.nodes[n].status != LEFT]
    if state.feature < FEATURE_BALLOT:
        for nodeid in back:  # somebody here knows no ballot, and knows none of what withdraws votes by one
            state.nodes[nodeid].voter = True
        back = []
    if back:
        propose(state, add=back)


def leave(state: State, nodeid: int) -> None:
    """It has left, in order, and its vote with it, unless nobody else has one: with no voters at all every part would be a majority."""
    node = state.nodes[nodeid]
    node.status = LEFT
    node.voter = _only_voter(state, nodeid)


def missed(state: State, nodeid: int) -> bool:
    """It is in a group; or the others are about to get their votes back, and until then would have no quorum without it."""
    if any(g.has(nodeid) for g in state.groups.values()):
        return True
    return bool(state.ballot.add) and not state.by_witness and _only_voter(state, nodeid)


def _only_voter(state: State, nodeid: int) -> bool:
    return state.nodes[nodeid].voter and not any(o.voter and o.votes for n, o in state.nodes.items() if n != nodeid)


def running(state: State) -> bool:
    return bool(state.ballot.add or state.ballot.drop)


def agree(state: State, sender: int, serial: int) -> bool:
    ballot = state.ballot
    if not running(state) or serial != ballot.serial or sender in ballot.agreed or sender not in state.ring_members:
        return False
    ballot.agreed.add(sender)
    return True


def decide(state: State, notes: list[Notice]) -> None:
    """Carry the change out once everybody has agreed. Called in regular configurations only (SAFETY S5)."""
    ballot = state.ballot
    if not running(state) or state.by_witness or not ballot.agreed.issuperset(state.ring_members):
        return
    for nodeid in ballot.add:
        node = state.nodes[nodeid]
        node.voter = node.status != LEFT
    for nodeid in ballot.drop:
        state.nodes[nodeid].voter = False
    notes.append(Notice("votes_changed", {"given": list(ballot.add), "withdrawn": list(ballot.drop)}))
    ballot.add = ballot.drop = ()
    ballot.agreed = set()


def missing_voters(state: State) -> list[int]:
    """Voters that are not here."""
    voters = (n for n, node in state.nodes.items() if node.voter and node.votes)
    return sorted(n for n in voters if n not in state.ring_members)


def withdraw(state: State, nodeid: int, boot: int, notes: list[Notice]) -> bool:
    """last_man_standing: the node has been missing for the window. First it is made sure that it is dead, then its vote goes."""
    node = state.nodes.get(nodeid)
    if node is None or node.boot != boot or node.status != FAILED or not node.voter or nodeid in state.ring_members:
        return False
    if node.dead:
        if nodeid in state.ballot.drop:
            return False
        propose(state, drop=[nodeid])
        return True
    if (nodeid, boot) in state.obligations:
        return False
    obligation = Obligation(nodeid, boot, frozen=node.frozen, frozen_ms=node.frozen_ms)
    owe(state, obligation, notes, "its vote is to be withdrawn (last_man_standing)")
    return True


def expect(state: State, wanted: int, notes: list[Notice]) -> bool:
    """`vcs quorum expected N`: so many votes are expected from now on. Votes of dead nodes go for it, nobody else's can."""
    voters = {n: node.votes for n, node in state.nodes.items() if node.voter}
    total = sum(voters.values())
    drop: list[int] = []
    for nodeid in reversed(missing_voters(state)):
        if total > wanted and total - voters[nodeid] >= wanted and state.nodes[nodeid].dead:
            total -= voters[nodeid]
            drop.append(nodeid)
    present = sum(v for n, v in voters.items() if n in state.ring_members)
    why = ""
    if total > wanted:
        alive = [n for n in missing_voters(state) if not state.nodes[n].dead]
        doubtful = ", ".join(f"node {n}" for n in alive)
        why = f"{doubtful} may be alive and stays expected; fence it, or `vcs fence ack` it when it is off"
        if not alive:
            why = f"the nodes that are here have {present} votes"
    elif drop and state.by_witness:
        why = "half of the votes go on by the witness's grant, and only a majority of nodes may withdraw votes"
    elif wanted // 2 + 1 > present:
        why = f"{wanted // 2 + 1} votes would be needed, and {present} are here"
    if why:
        notes.append(Notice("command_refused", {"what": f"expected votes {wanted}", "why": why}))
        return False
    if state.ballot.extra == wanted - total and not drop:
        return False
    state.ballot.extra = wanted - total
    if drop:
        propose(state, drop=drop)
    notes.append(Notice("expected_votes", {"expected": wanted, "withdrawn": sorted(drop)}))
    return True
