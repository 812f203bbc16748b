# SPDX-License-Identifier: GPL-2.0-only
"""A visit of the regular token, in the order that correctness asks for (the 1995 paper, figure 3; docs/totem.md lists what differs).

Everything that was sent before the token has been read before it: the driver drains its socket in order. The token goes on before
anything is delivered upwards, so the application's time is not the ring's; and before the larger part of what this visit sends
(the accelerated ring of Babay and Amir): the token already counts those frames, and the successor works while they are sent.
"""

from __future__ import annotations

from collections.abc import Callable

from membership.totem import flow, watch
from membership.totem.core import Core
from membership.totem.frames import Range, Regular, Token, cut, encode_token
from membership.totem.limits import (
    FAIL_TO_RECEIVE_NS,
    FAIL_TO_RECEIVE_VISITS,
    PIECE_MAX,
    RTR_RANGES_MAX,
    STALL_MAX_NS,
    STALL_MIN_NS,
    STORE_BYTES_MAX,
    STORE_MAX,
)
from membership.totem.repair import wanted, without
from membership.totem.ring import Ring
from membership.totem.states import Event

NextFrame = Callable[[Ring, int], Regular | None]
"(ring, seq) -> the next frame to send at that place, or None."


def visit(core: Core, ring: Ring, token: Token, now: int, backlog: Callable[[], int], next_frame: NextFrame,
          before_passing: Callable[[Token], None] | None = None, ahead: int = 0) -> int:
    """Process ``token`` and pass it on. Returns the aru up to which all members hold everything (two visits' minimum).

    ``ahead``: units of new frames that may be sent after the token.
    """
    state = ring.token
    arrived_aru, arrived_seq = token.aru, token.seq
    ring.high = max(ring.high, token.seq)
    token.window = min(token.window, core.window)
    room = flow.allowance(token.fcc, state.own_sent, token.backlog, backlog(), state.own_backlog, token.window)

    sent = _serve(core, ring, token, room)
    if core.links.doubtful:
        watch.doubt_links(core, now)
    frames: list[Regular] = []
    while sent < room and token.seq - ring.released < STORE_MAX and ring.stored_bytes < STORE_BYTES_MAX:
        frame = next_frame(ring, token.seq + 1)
        if frame is None:
            break
        token.seq += 1
        ring.add(frame)
        frames.append(frame)
        sent += flow.units(len(frame.body))
    if frames:
        token.rest_at = ring.local.nodeid
    later = _ahead(frames, ahead)
    for frame in frames[:later]:
        core.send(ring.others, frame.body, spread=True)

    _ask(ring, token, now)
    _acknowledge(ring, token)
    _watch_aru(core, ring, token, arrived_aru, now)

    fcc, waiting = token.fcc, token.backlog
    left = backlog()
    token.fcc = flow.update(fcc, sent, state.own_sent)
    token.backlog = flow.update(waiting, left, state.own_backlog)
    state.own_sent, state.own_backlog = sent, left
    state.calm = token.seq == arrived_seq == state.prev_seq
    quiet = state.calm and token.seq == token.aru == arrived_aru == state.prev_aru and not token.rtr and not token.backlog
    state.idle = state.idle + 1 if quiet else 0
    state.rest_at = token.rest_at

    if before_passing is not None:
        before_passing(token)
    safe = min(token.aru, state.prev_aru)
    state.prev_aru, state.prev_seq = token.aru, token.seq
    if core.frame_size.judge(token.seq - state.sample_seq, (token.repaired - state.sample_repaired) & flow.COUNT_MAX):
        state.sample_seq, state.sample_repaired = token.seq, token.repaired
    token.token_seq += 1
    pass_on(core, ring, token, now)
    for frame in frames[later:]:
        core.send(ring.others, frame.body, spread=True)
    return safe


def pass_on(core: Core, ring: Ring, token: Token, now: int) -> None:
    """Send the token to the successor and keep a copy until somebody shows that it went on."""
    state = ring.token
    state.last_body = encode_token(token)
    state.sent_ns = now
    state.hurried = False
    state.retransmits = 0
    core.send((ring.successor,), state.last_body)
    watch.token_sent(core, ring, token.token_seq, now)
    core.arm(Event.TOKEN_LOSS, now + core.timing.token)


def stall(ring: Ring, token: Token) -> int:
    """For how long (ns) a token rests here that goes round in vain: something is missing, and nothing moved in this rotation."""
    state = ring.token
    if (ring.resting_place != ring.local.nodeid or token.seq != state.prev_seq or token.aru != state.prev_aru or token.backlog
            or token.aru == token.seq
            or any(seq in ring.store for seq in wanted(token.rtr, ring.released + 1, ring.high, ring.distance))):
        state.stalled = 0
        return 0
    state.stalled += 1
    return min(STALL_MIN_NS << min(state.stalled, 16), STALL_MAX_NS) if state.stalled > 1 else 0


def _ahead(frames: list[Regular], ahead: int) -> int:
    """How many of ``frames`` go out before the token: all but the last ones that ``ahead`` units hold, and always the first.

    A lone frame goes first, so that the token finds it at everybody and may rest after one rotation less.
    """
    at = len(frames)
    while at > 1:
        ahead -= flow.units(len(frames[at - 1].body))
        if ahead < 0:
            break
        at -= 1
    return at


def _serve(core: Core, ring: Ring, token: Token, room: int) -> int:
    """Send again what others miss and we hold, to them alone; how many units."""
    if not token.rtr:
        return 0
    served: set[tuple[int, int]] = set()
    frames = sent = 0
    for seq, (who, pieces) in wanted(token.rtr, ring.released + 1, ring.high, ring.distance).items():
        if sent >= room:
            break
        frame = ring.store.get(seq)
        if frame is None:
            continue
        if pieces and len(frame.body) > PIECE_MAX:
            for piece in cut(frame):
                core.send(tuple(who), piece, every_link=True)
        else:
            core.send(tuple(who), frame.body, every_link=True)
        for nodeid in who:
            core.links.lost(nodeid, len(frame.body))
            served.add((nodeid, seq))
        frames += 1
        sent += flow.units(len(frame.body))
    if served:
        core.counters["repaired"] += frames
        token.repaired = (token.repaired + frames) & flow.COUNT_MAX
        token.rtr = without(token.rtr, served, ring.local.nodeid)
    return sent


def _ask(ring: Ring, token: Token, now: int) -> None:
    """Replace our part of the token's list by what we miss now and did not ask for just before.

    Only what was sent before the token's previous visit: frames of the rotation that ends here may still be on their way, from
    others than the token's sender, or sent after the token.
    """
    me = ring.local.nodeid
    missing: list[tuple[int, int]] = []
    if ring.aru < token.seq:
        missing = ring.missing(min(ring.token.prev_seq, token.seq))
    if not missing and not token.rtr and not ring.asks:
        return
    own = ring.asks.due(me, missing, now, max(1, RTR_RANGES_MAX // len(ring.members)))
    others: list[Range] = without(token.rtr, set(), me)
    token.rtr = sorted(others + own)[:RTR_RANGES_MAX]
    ring.pieces.forget(ring.aru)


def _acknowledge(ring: Ring, token: Token) -> None:
    """The aru rule: who lacks something lowers it, and only who lowered it raises it."""
    me = ring.local.nodeid
    if ring.aru < token.aru or token.aru_id in (me, 0):
        token.aru = min(ring.aru, token.seq)
        token.aru_id = 0 if token.aru == token.seq else me


def _watch_aru(core: Core, ring: Ring, token: Token, arrived_aru: int, now: int) -> None:
    """Fail to receive, by the paper's text: the *others* notice whose acknowledgement stands still (its figure 3 differs)."""
    state = ring.token
    if token.aru_id not in (0, ring.local.nodeid) and arrived_aru == state.prev_aru and token.aru_id in ring.by_id:
        if not state.still_visits:
            state.still_since = now
        state.still_visits += 1
        if state.still_visits >= FAIL_TO_RECEIVE_VISITS and now - state.still_since >= FAIL_TO_RECEIVE_NS:
            core.suspect = ring.by_id[token.aru_id]
            core.raise_(Event.FAIL_TO_RECEIVE)
    else:
        state.still_visits = 0
