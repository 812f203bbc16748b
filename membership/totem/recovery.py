# SPDX-License-Identifier: GPL-2.0-only
"""RECOVERY: members that come from one old ring make sure that all of them hold the same of its messages, then all install.

The promise. A member that has completed the exchange tells so (the token's aru), and another may install the ring on the strength
of that, delivering safe messages of everybody in the exchange. So the promise, *to deliver the messages of these members*, must
outlive this recovery if it fails: it is kept as ``core.attempt`` (which forming ring) and ``core.obligations`` (whose messages) and
travels in the next commit token. The 1995 paper keeps one bit and each member's own set; two members whose promises stem from
different attempts would then deliver different messages. Here the attempt is named, and a promise is void only if a member that
would have had to complete that attempt did not.
"""

from __future__ import annotations

from membership.api import Kind, Processor
from membership.totem import parked, watch
from membership.totem import token as token_rules
from membership.totem.core import Core, Forming
from membership.totem.flow import units
from membership.totem.frames import Regular, Token, make_encapsulated
from membership.totem.limits import RING_SEQ_STEP
from membership.totem.operational import pump_alone
from membership.totem.peers import ReplayWindow
from membership.totem.ring import Ring
from membership.totem.states import Event, State
from membership.totem.wire import NO_RING, Commit, Entry
from vcs.model import RingId


def mask_of(members: tuple[Processor, ...], some: tuple[Processor, ...]) -> int:
    return sum(1 << i for i, p in enumerate(members) if p in some)


def in_force(old: tuple[Processor, ...], entry: Entry, entries: list[Entry]) -> bool:
    """``entry`` holds a promise, and nobody in ``entries`` shows that its attempt cannot have been installed anywhere."""
    return entry.attempt != NO_RING and all(
        other.attempt == entry.attempt for other in entries if entry.obligations >> old.index(other.processor) & 1)


def promise(old: tuple[Processor, ...], entries: list[Entry]) -> tuple[int, bool]:
    """(obligations, whether an exchange is needed) of those in ``entries``, who all come from the ring of ``old``.

    All of them completed the same attempt: its obligations stay, and nothing is left to exchange. Otherwise everybody here is
    obliged to everybody here, and to whom a promise still in force names.
    """
    attempts = {e.attempt for e in entries}
    kept = 0
    for e in entries:
        if in_force(old, e, entries):
            kept |= e.obligations
    if len(attempts) == 1 and NO_RING not in attempts:
        return kept, False
    return kept | mask_of(old, tuple(e.processor for e in entries)), True


def enter(core: Core, _sender: object, _message: object, now: int) -> None:
    """The commit token has everybody's state: prepare the exchange. A ring of one installs at once."""
    forming = _forming(core)
    old = core.ring
    # A restarted node may report a ring id that we know from its former life: only members of our old ring share its history.
    ours = [e for e in forming.entries if e.old_ring == old.id and old.by_id.get(e.processor.nodeid) == e.processor]
    forming.trans = tuple(e.processor for e in ours)
    forming.obligations, forming.exchange = promise(old.members, ours)
    forming.high_delivered = max(e.delivered for e in ours)
    if forming.exchange:
        if not in_force(old.members, next(e for e in ours if e.processor == core.local), ours):
            core.attempt, core.obligations = NO_RING, 0
        low = min(e.aru for e in ours)
        if len(ours) > 1:
            forming.queue = _to_send(core, old, forming.trans, low)
    for p in forming.ring.members:
        # Members vouch for each other: a ring forms as soon as its representative has heard everybody.
        peer = core.peers.get(p.nodeid)
        if peer is not None and peer.current != p:
            if peer.candidate != p:
                peer.candidate, peer.candidate_window = p, ReplayWindow()
            peer.promote(now)
    core.set_state(State.RECOVERY, f"ring {forming.ring.id}")
    if not forming.ring.others:
        install(core, now)


def share(trans: tuple[Processor, ...], frame: Regular) -> int:
    """Who of ``trans`` sends ``frame`` first: its origin, or one of them if that is gone."""
    live = [p.nodeid for p in trans]
    return frame.origin if frame.origin in live else live[frame.seq % len(live)]


def _to_send(core: Core, old: Ring, trans: tuple[Processor, ...], low: int) -> dict[int, Regular]:
    """What somebody of ``trans`` may lack, our share first."""
    own: dict[int, Regular] = {}
    rest: dict[int, Regular] = {}
    for seq in sorted(old.store):
        if seq > low:
            frame = old.store[seq]
            (own if share(trans, frame) == core.local.nodeid else rest)[seq] = frame
    return own | rest


def next_frame(forming: Forming, ring: Ring, seq: int, others_done: bool) -> Regular | None:
    """Our share; then, when a whole rotation has brought nothing new, what is left: its sender may lack it. What others have sent
    by then is struck off, so hardly anything is sent twice."""
    if not forming.queue:
        return None
    old_seq, frame = next(iter(forming.queue.items()))
    if not others_done and share(forming.trans, frame) != ring.local.nodeid:
        return None
    return make_encapsulated(ring.id, seq, ring.local.nodeid, forming.queue.pop(old_seq))


def first_token(core: Core, sender: Processor, message: Commit, now: int) -> None:
    """The commit token is back after two rounds: the representative makes the first regular token, once."""
    forming = _forming(core)
    ring = forming.ring
    if sender.nodeid != ring.predecessor or message.ring != ring.id:
        core.count("foreign")
        return
    if ring.rep != core.local.nodeid or message.token_seq <= forming.commit_seq or forming.started:
        core.count("token_copies")
        watch.acknowledge(core, sender, message.ring, message.token_seq)
        return
    forming.started = True
    forming.commit_seq = message.token_seq
    on_token(core, core.local, Token(ring.id, token_seq=1), now)


def on_token(core: Core, sender: Processor, token: Token, now: int) -> None:
    forming = _forming(core)
    ring = forming.ring
    if token.token_seq <= ring.token.seen:
        core.count("token_copies")
        watch.acknowledge(core, sender, ring.id, token.token_seq)
        return
    state = ring.token
    state.seen = arrived = token.token_seq
    state.rest_at = token.rest_at
    watch.token_came(core, ring, state.sent_ns is not None, now)
    rest = token_rules.stall(ring, token)
    if rest:
        state.held = token
        core.cancel(Event.RETRANSMIT_TIMER)
        core.arm(Event.TOKEN_LOSS, now + core.timing.token)
        core.arm(Event.HOLD_TIMER, now + rest)
        watch.acknowledge(core, sender, ring.id, arrived)
        return
    _visit(core, forming, token, now)


def release(core: Core, _sender: object, _message: object, now: int) -> None:
    """The token has rested because something is missing that nobody could be asked for again at once."""
    forming = _forming(core)
    token, forming.ring.token.held = forming.ring.token.held, None
    if token is not None:
        _visit(core, forming, token, now)


def _visit(core: Core, forming: Forming, token: Token, now: int) -> None:
    ring = forming.ring
    others_done = ring.token.last_body is not None and token.seq == ring.token.prev_seq
    safe = token_rules.visit(
        core, ring, token, now,
        lambda: sum(units(len(f.body)) for f in forming.queue.values()),
        lambda r, seq: next_frame(forming, r, seq, others_done),
        lambda t: _count_flag(core, forming, t),
    )
    ring.token.sent_ns = None  # no evidence of time before the ring is a regular configuration
    ring.safe_upto = max(ring.safe_upto, safe)
    while (frame := ring.store.get(ring.delivered + 1)) is not None and frame.inner is not None:
        ring.delivered += 1
    ring.release(ring.safe_upto)
    if forming.false_visits >= 3 and safe >= forming.install_seq:
        install(core, now)


def _count_flag(core: Core, forming: Forming, token: Token) -> None:
    """Nobody has anything left to send, seen twice: then everything is sent. Who has it all makes the promise."""
    if forming.queue:
        if not token.retrans:
            token.retrans = forming.raised_flag = True
    elif token.retrans and forming.raised_flag:
        token.retrans = forming.raised_flag = False
    forming.false_visits = 0 if token.retrans else forming.false_visits + 1
    if forming.false_visits == 2:
        forming.install_seq = token.seq
    if forming.false_visits >= 2 and forming.exchange and not forming.promised and forming.ring.aru >= forming.install_seq:
        # Until here an older promise stayed in force; the new one contains it.
        forming.promised = True
        core.attempt, core.obligations = forming.ring.id, forming.obligations


def on_mcast(core: Core, _sender: Processor, message: Regular, _now: int) -> None:
    forming = _forming(core)
    if not forming.ring.add(message):
        core.count("frame_copies")
        return
    inner = message.inner
    if inner is not None and inner.ring == core.ring.id and forming.exchange and core.ring.by_id.get(message.origin) in forming.trans:
        forming.queue.pop(inner.seq, None)
        if inner.origin in core.ring.by_id:
            core.ring.add(inner)


def resend(core: Core, _sender: object, _message: object, now: int) -> None:
    forming = _forming(core)
    watch.resend(core, forming.ring, forming.ring.token.last_body or forming.commit_body, now)


def install(core: Core, now: int) -> None:
    """One local action, no communication: end the old ring, begin the new one."""
    forming = _forming(core)
    old, ring = core.ring, forming.ring
    core.deliver_contiguous(old, forming.high_delivered)
    trans_id = RingId(ring.id.seq - RING_SEQ_STEP // 2, forming.trans[0].nodeid)
    core.configure(Kind.TRANSITIONAL, trans_id, forming.trans)
    deliver_rest(core, old, forming.obligations)
    core.reassembly.clear()
    core.configure(Kind.REGULAR, ring.id, ring.members)

    core.ring = ring
    core.forming = None
    core.attempt, core.obligations = NO_RING, 0
    core.proc, core.fail = set(ring.members), set()
    core.joins.clear()
    parked.installed(core, now)
    watch.began(core, now)
    core.ring_heard_ns = core.rotation_ns = now
    core.set_state(State.OPERATIONAL, f"ring {ring.id} of {len(ring.members)}")
    core.count("rings")
    begin_operational(core, now)


def begin_operational(core: Core, now: int) -> None:
    ring = core.ring
    if ring.others:
        core.deliver_contiguous(ring, ring.safe_upto)
    else:
        core.cancel(Event.RETRANSMIT_TIMER, Event.TOKEN_LOSS)
        core.arm(Event.HOLD_TIMER, now + core.timing.hold)
        pump_alone(core, ring)
    if ring.rep == core.local.nodeid and any(n not in ring.by_id for n in core.everybody):
        core.arm(Event.MERGE_TIMER, now + core.timing.merge)


def deliver_rest(core: Core, old: Ring, obligations: int) -> None:
    """Inside the transitional configuration: what is contiguous, then, behind a hole, only messages of those we are obliged to.

    A message behind a hole may depend on the lost one, unless its sender's history is complete here.
    """
    core.deliver_contiguous(old, old.high)
    obliged = {p.nodeid for i, p in enumerate(old.members) if obligations >> i & 1}
    for seq in sorted(old.store):
        if seq > old.delivered:
            old.delivered = seq
            frame = old.store[seq]
            if frame.origin in obliged:
                core.emit(old, frame)


def _forming(core: Core) -> Forming:
    assert core.forming is not None, "a ring is being formed in COMMIT and RECOVERY"
    return core.forming
