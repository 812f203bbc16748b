# SPDX-License-Identifier: GPL-2.0-only
"""A visit of the regular token, in the order that correctness asks for (the 1995 paper, figure 3; docs/totem.md lists what differs).

Everything that was sent before the token has been read before it: the driver drains its socket in order. The token goes on before
anything is delivered upwards, so the application's time is not the ring's.
"""

from __future__ import annotations

from collections.abc import Callable

from membership.totem import flow
from membership.totem.core import Core
from membership.totem.limits import FAIL_TO_RECEIVE_VISITS, STORE_MAX
from membership.totem.ring import Ring, merge_ranges, subtract
from membership.totem.states import Event
from membership.totem.wire import Regular, Token, encode_token

NextFrame = Callable[[Ring, int], Regular | None]
"(ring, seq) -> the next frame to send at that place, or None."


def visit(core: Core, ring: Ring, token: Token, now: int, backlog: Callable[[], int], next_frame: NextFrame,
          before_passing: Callable[[Token], None] | None = None) -> int:
    """Process ``token`` and pass it on. Returns the aru up to which all members hold everything (two visits' minimum)."""
    state = ring.token
    arrived_aru, arrived_seq = token.aru, token.seq
    ring.high = max(ring.high, token.seq)
    room = flow.allowance(token.fcc, token.backlog, backlog(), state.own_backlog)

    served = _serve(core, ring, token, room)
    sent = served
    while sent < room and token.seq - ring.released < STORE_MAX:
        frame = next_frame(ring, token.seq + 1)
        if frame is None:
            break
        token.seq += 1
        ring.add(frame)
        core.send(ring.others, frame.body)
        sent += 1

    # Only what was sent before the token's previous visit is asked for: frames of the rotation that ends here may still be on
    # their way from others than the token's sender.
    if ring.aru < token.seq:
        token.rtr = merge_ranges(token.rtr, ring.missing(min(state.prev_seq, token.seq)))
    _acknowledge(ring, token)
    _watch_aru(core, ring, token, arrived_aru)

    fcc, waiting = token.fcc, token.backlog
    left = backlog()
    token.fcc = flow.update(fcc, sent, state.own_sent)
    token.backlog = flow.update(waiting, left, state.own_backlog)
    state.own_sent, state.own_backlog = sent, left
    quiet = token.seq == arrived_seq == state.prev_seq and token.aru == token.seq and not token.rtr and not token.backlog
    state.idle = state.idle + 1 if quiet else 0

    if before_passing is not None:
        before_passing(token)
    safe = min(token.aru, state.prev_aru)
    state.prev_aru, state.prev_seq = token.aru, token.seq
    token.token_seq += 1
    pass_on(core, ring, token, now)
    return safe


def pass_on(core: Core, ring: Ring, token: Token, now: int) -> None:
    """Send the token to the successor and keep a copy until somebody shows that it went on."""
    state = ring.token
    state.last_body = encode_token(token)
    state.sent_ns = now
    state.hurried = False
    state.retransmits = 0
    core.send((ring.successor,), state.last_body)
    core.arm(Event.RETRANSMIT_TIMER, now + core.timing.retransmit)
    core.arm(Event.TOKEN_LOSS, now + core.timing.token)


def _serve(core: Core, ring: Ring, token: Token, room: int) -> int:
    """Send again what others miss and we hold; how many."""
    if not token.rtr:
        return 0
    served: set[int] = set()
    for first, last in token.rtr:
        for seq in range(first, last + 1):
            if len(served) >= room:
                break
            frame = ring.store.get(seq)
            if frame is not None:
                core.send(ring.others, frame.body)
                served.add(seq)
    core.counters["repaired"] += len(served)
    token.rtr = subtract(token.rtr, served)
    return len(served)


def _acknowledge(ring: Ring, token: Token) -> None:
    """The aru rule: who lacks something lowers it, and only who lowered it raises it."""
    me = ring.local.nodeid
    if ring.aru < token.aru or token.aru_id in (me, 0):
        token.aru = min(ring.aru, token.seq)
        token.aru_id = 0 if token.aru == token.seq else me


def _watch_aru(core: Core, ring: Ring, token: Token, arrived_aru: int) -> None:
    """Fail to receive, by the paper's text: the *others* notice whose acknowledgement stands still (its figure 3 differs)."""
    state = ring.token
    if token.aru_id not in (0, ring.local.nodeid) and arrived_aru == state.prev_aru and token.aru_id in ring.by_id:
        state.fail_visits += 1
        if state.fail_visits >= FAIL_TO_RECEIVE_VISITS:
            core.suspect = ring.by_id[token.aru_id]
            core.raise_(Event.FAIL_TO_RECEIVE)
    else:
        state.fail_visits = 0
