# SPDX-License-Identifier: GPL-2.0-only
"""OPERATIONAL: the token goes round, orders messages, acknowledges, and proves every rotation."""

from __future__ import annotations

from membership.api import Processor, Rotation
from membership.totem import token as token_rules
from membership.totem import watch
from membership.totem.core import Core, Deliver, DeliverMessages
from membership.totem.frames import Regular, Token, make_regular
from membership.totem.limits import AHEAD, IDLE_ROTATIONS, ROTATION_INTERVAL_NS
from membership.totem.ring import Ring
from membership.totem.states import Event
from membership.totem.wire import Hurry


def next_frame(core: Core, ring: Ring, seq: int) -> Regular | None:
    packed = core.queue.next_frame(core.frame_size.payload_max)
    if packed is None:
        return None
    content, safe = packed
    return make_regular(ring.id, seq, core.local.nodeid, safe, content)


def on_token(core: Core, sender: Processor, token: Token, now: int) -> None:
    ring = core.ring
    state = ring.token
    if token.token_seq <= state.seen:
        core.count("token_copies")
        watch.acknowledge(core, sender, ring.id, token.token_seq)
        return
    state.seen = token.token_seq
    core.ring_heard_ns = now
    arrived = token.token_seq
    watch.token_came(core, ring, not state.idle, now)
    core.cancel(Event.RETRANSMIT_TIMER, Event.HOLD_TIMER)
    core.arm(Event.TOKEN_LOSS, now + core.timing.token)
    if state.sent_ns is not None:
        evidence(core, ring, state.sent_ns)
    rest = _rest(core, ring, token)
    if rest:
        state.held = token
        core.arm(Event.HOLD_TIMER, now + rest)
        watch.acknowledge(core, sender, ring.id, arrived)
        return
    _visit(core, ring, token, now)
    if (state.idle and len(ring.others) > 1) or core.arrived_on != core.links.best.get(sender.nodeid, 0):
        # On a busy ring, and with two members, its return says so soon enough, but not which link it came by.
        watch.acknowledge(core, sender, ring.id, arrived)


def _rest(core: Core, ring: Ring, token: Token) -> int:
    """For how long the token rests here (ns), 0: not at all. It rests with the member that spoke last, which so needs no hop to speak
    again, when nothing is missing, unacknowledged or waiting anywhere; and for a while when it goes round in vain."""
    state = ring.token
    state.rest_at = token.rest_at
    if core.queue:
        return 0
    if ring.resting_place != core.local.nodeid or token.seq != state.prev_seq or token.aru != token.seq or token.rtr or token.backlog:
        return min(token_rules.stall(ring, token), core.timing.hold)
    return core.timing.hold if state.idle >= IDLE_ROTATIONS and not state.hurried and ring.safe_upto >= token.seq else 0


def _visit(core: Core, ring: Ring, token: Token, now: int) -> None:
    queue = core.queue
    safe = token_rules.visit(
        core, ring, token, now, lambda: queue.backlog, lambda r, seq: next_frame(core, r, seq), ahead=AHEAD)
    ring.safe_upto = max(ring.safe_upto, safe)
    core.deliver_contiguous(ring, ring.safe_upto)
    ring.release(ring.safe_upto)


def evidence(core: Core, ring: Ring, began_ns: int) -> None:
    """A rotation is complete that began when we passed the token on (SAFETY S9). Thinned: it may be older, never newer."""
    if began_ns - core.rotation_ns >= ROTATION_INTERVAL_NS:
        core.rotation_ns = began_ns
        core.out.append(Deliver(Rotation(ring.id, began_ns)))


def on_mcast(core: Core, _sender: object, message: Regular, _now: int) -> None:
    ring = core.ring
    if ring.add(message):
        core.deliver_contiguous(ring, ring.safe_upto)
    else:
        core.count("frame_copies")


def on_submit(core: Core, _sender: object, _message: object, now: int) -> None:
    ring = core.ring
    if not ring.others:
        pump_alone(core, ring)
    elif ring.token.held is not None:
        before = len(core.out)
        release(core, None, None, now)
        _told_first(core, before)
    elif ring.token.calm and not ring.token.hurried:
        place = ring.resting_place
        if place != core.local.nodeid:
            ring.token.hurried = True
            core.send_message((place,), Hurry(ring.id))


def _told_first(core: Core, before: int) -> None:
    """Nobody waits for what is sent from rest, and the sender's own clients wait for what it says: that goes up first."""
    out = core.out
    if out and isinstance(out[-1], DeliverMessages):
        out.insert(before, out.pop())


def pump_alone(core: Core, ring: Ring) -> None:
    """A ring of one needs no token: its own order is the order."""
    while (frame := next_frame(core, ring, ring.high + 1)) is not None:
        ring.add(frame)
        ring.safe_upto = ring.aru
        core.deliver_contiguous(ring, ring.safe_upto)
        ring.release(ring.safe_upto)


def release(core: Core, _sender: object, message: Hurry | None, now: int) -> None:
    """End the token's rest: its time is over, or somebody has news. In a ring of one the timer gives the evidence of time."""
    ring = core.ring
    if message is not None and message.ring != ring.id:
        core.count("foreign")
        return
    if not ring.others:
        evidence(core, ring, now)
        core.arm(Event.HOLD_TIMER, now + core.timing.hold)
        return
    token = ring.token.held
    if token is None:
        # The news overtook the token: do not let it rest when it comes.
        ring.token.idle = 0
        return
    ring.token.held = None
    core.cancel(Event.HOLD_TIMER)
    _visit(core, ring, token, now)


def resend_token(core: Core, _sender: object, _message: object, now: int) -> None:
    ring = core.ring
    if ring.token.last_body is not None and ring.token.held is None:
        ring.token.retransmits += 1
        watch.resend(core, ring, ring.token.last_body, now)
