# SPDX-License-Identifier: GPL-2.0-only
"""COMMIT: the commit token goes round the new ring twice; the first time it collects what each member holds of its old ring.

The new ring's sequence is persisted before anything that carries it is sent.
"""

from __future__ import annotations

from dataclasses import replace

from membership.api import Processor
from membership.totem import watch
from membership.totem.core import Core, Forming
from membership.totem.gather import agreed, enter, resend_join, send_join
from membership.totem.limits import RING_SEQ_JUMP_MAX, RING_SEQ_STEP
from membership.totem.ring import Ring
from membership.totem.states import Event, State
from membership.totem.wire import Commit, Entry, encode
from vcs.model import RingId


def own_entry(core: Core) -> Entry:
    ring = core.ring
    return Entry(core.local, True, ring.id, ring.aru, ring.delivered, core.attempt, core.obligations)


def _retired(core: Core, members: tuple[Processor, ...]) -> list[Processor]:
    """Those whose seat another incarnation has taken."""
    return [p for p in members if p.nodeid in core.peers and p in core.peers[p.nodeid].retired]


def create(core: Core, _sender: object, _message: object, now: int) -> None:
    """The representative of the agreed members begins."""
    if not agreed(core):
        return  # more became known in the action that raised this
    if core.join_due:
        resend_join(core, None, None, now)  # who is not of this ring still wants to know
    members = core.choice
    ring_id = RingId(max(core.known_seq, core.ring_seq) + RING_SEQ_STEP, core.local.nodeid)
    _begin(core, ring_id, members, now)
    entries = tuple(own_entry(core) if p == core.local else Entry(p) for p in members)
    if len(members) == 1:
        _forming(core).entries = entries
        core.raise_(Event.FORMED)
    else:
        _pass_on(core, Commit(ring_id, 1, entries), now)


def accept(core: Core, sender: Processor, token: Commit, now: int) -> None:
    """First visit. Only the ring of exactly the processors that we hold for live, and only a new one."""
    members = tuple(e.processor for e in token.entries)
    fresh = core.ring_seq < token.ring.seq <= core.ring_seq + RING_SEQ_JUMP_MAX + RING_SEQ_STEP
    if core.local not in members or sender != members[members.index(core.local) - 1]:
        core.count("foreign")  # recorded on its way to another member
        return
    if members != core.choice or not fresh or _retired(core, members):
        core.count("commit_refused")
        if core.peers[sender.nodeid].may_greet(now):
            send_join(core, tuple({sender.nodeid, token.ring.rep}), now)  # what we chose instead
        return
    if core.join_due:
        resend_join(core, None, None, now)
    watch.answered(core, sender.nodeid, now)
    _begin(core, token.ring, members, now)
    _forming(core).commit_seq = token.token_seq
    entries = tuple(own_entry(core) if e.processor == core.local else e for e in token.entries)
    _pass_on(core, replace(token, token_seq=token.token_seq + 1, entries=entries), now)


def second_visit(core: Core, sender: Processor, token: Commit, now: int) -> None:
    forming = _forming(core)
    if sender.nodeid != forming.ring.predecessor or forming.ring.by_id[sender.nodeid] != sender:
        core.count("foreign")
        return
    if token.ring != forming.ring.id or token.token_seq <= forming.commit_seq:
        core.count("token_copies")
        if token.ring == forming.ring.id:
            watch.acknowledge(core, sender, token.ring, token.token_seq)
        return
    gone = _retired(core, forming.ring.members)
    if gone:
        # It has put its entry in, and since then another incarnation has proved to be there: believed, the token would bring the former
        # one back, and retire who lives for good.
        enter(core, now, f"node {gone[0].nodeid} restarted while the ring was formed", fail=gone)
        return
    mine = any(e.processor == core.local and e.old_ring == core.ring.id for e in token.entries)
    if not mine or not all(e.filled for e in token.entries) or tuple(e.processor for e in token.entries) != forming.ring.members:
        core.count("commit_refused")
        return
    forming.commit_seq = token.token_seq
    watch.token_came(core, forming.ring, False, now)
    forming.entries = token.entries
    core.raise_(Event.FORMED)
    _pass_on(core, replace(token, token_seq=token.token_seq + 1), now)


def resend(core: Core, _sender: object, _message: object, now: int) -> None:
    forming = _forming(core)
    watch.resend(core, forming.ring, forming.commit_body, now)


def _forming(core: Core) -> Forming:
    assert core.forming is not None, "a ring is being formed in COMMIT and RECOVERY"
    return core.forming


def _begin(core: Core, ring_id: RingId, members: tuple[Processor, ...], now: int) -> None:
    core.persist(ring_id.seq)
    core.forming = Forming(Ring(ring_id, members, core.local))
    core.set_state(State.COMMIT, f"ring {ring_id}")
    core.cancel(Event.JOIN_TIMER, Event.CONSENSUS_TIMER, Event.COMMIT_WAIT)
    watch.began(core, now)


def _pass_on(core: Core, token: Commit, now: int) -> None:
    forming = _forming(core)
    forming.commit_body = encode(token)
    core.send((forming.ring.successor,), forming.commit_body)
    watch.token_sent(core, forming.ring, token.token_seq, now)
    core.arm(Event.TOKEN_LOSS, now + core.timing.token)
