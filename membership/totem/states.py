# SPDX-License-Identifier: GPL-2.0-only
"""The state machine of the ring, as data. The diagram in docs/totem.md is made from this table, the engine runs by it.

Four states. In OPERATIONAL the token goes round and orders messages. When it is lost, or somebody new is heard, members agree on
who takes part (GATHER), a commit token collects what each holds of its old ring (COMMIT), and the new ring exchanges what some
lack (RECOVERY) until all can go on from the same point. A failure at any time leads back to GATHER, where the old ring's messages
and the duties towards its members are kept.

Rules: every pair (state, event) is in the table; what is ignored says so, and why. A cell names one action (``module.function``,
bound by engine.py) and every state that this action may end in; the simulator checks that it ends in no other. Actions raise
the internal events (upper part of the list) instead of calling each other across phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    OPERATIONAL = 0
    GATHER = 1
    COMMIT = 2
    RECOVERY = 3


class Event(IntEnum):
    # internal: raised by an action, handled when it has ended
    CONSENSUS = 0
    "All live processors agree and this one is the representative."
    FORMED = 1
    "The commit token has everybody's state (or there is nobody else)."
    FAIL_TO_RECEIVE = 2
    "One member's acknowledgement has stood still for too long."
    SUSPECT = 3
    "Somebody has not answered for too long: a new claim of ours (verdict.py)."
    # from a peer
    TOKEN = 4
    MCAST = 5
    "A frame of the ring that this state works on."
    FOREIGN = 6
    "A frame or token of any other ring."
    JOIN = 7
    COMMIT_TOKEN = 8
    BEACON = 9
    LEAVE = 10
    HURRY = 11
    # from above
    SUBMIT = 12
    # timers, in the order in which they fire when several are due
    RETRANSMIT_TIMER = 13
    HOLD_TIMER = 14
    WATCH_TIMER = 15
    JOIN_TIMER = 16
    TOKEN_LOSS = 17
    CONSENSUS_TIMER = 18
    COMMIT_WAIT = 19
    MERGE_TIMER = 20


TIMERS = tuple(e for e in Event if e >= Event.RETRANSMIT_TIMER)


@dataclass(frozen=True, slots=True)
class Cell:
    action: str
    "``module.function``; empty: the event is ignored."
    to: tuple[State, ...]
    "States that the action may end in."
    why: str


O, G, C, R = State.OPERATIONAL, State.GATHER, State.COMMIT, State.RECOVERY  # noqa: E741
E = Event


def _ignore(state: State, why: str) -> Cell:
    return Cell("", (state,), why)


TABLE: dict[tuple[State, Event], Cell] = {
    # --- the token goes round -------------------------------------------------------------------------------------------
    (O, E.CONSENSUS): _ignore(O, "raised in GATHER only"),
    (O, E.FORMED): _ignore(O, "raised in GATHER and COMMIT only"),
    (O, E.FAIL_TO_RECEIVE): Cell("gather.exclude", (G, O), "the others go on without a member that receives nothing"),
    (O, E.SUSPECT): Cell("gather.suspected", (G, O), "who does not answer is left behind"),
    (O, E.TOKEN): Cell("operational.on_token", (O,), "send, acknowledge, ask for holes, pass on"),
    (O, E.MCAST): Cell("operational.on_mcast", (O,), "store, deliver what is contiguous"),
    (O, E.FOREIGN): _ignore(O, "a late frame of a former ring; other rings are found by beacons"),
    (O, E.JOIN): Cell("gather.join_operational", (O, G), "somebody gathers, unless the Join is older than the ring"),
    (O, E.COMMIT_TOKEN): _ignore(O, "late: the ring is formed"),
    (O, E.BEACON): Cell("gather.beacon_operational", (O, G), "another ring is near"),
    (O, E.LEAVE): Cell("gather.on_leave", (O, G), "a member says goodbye: no timeout needed"),
    (O, E.HURRY): Cell("operational.release", (O,), "somebody has news: end the token's rest"),
    (O, E.SUBMIT): Cell("operational.on_submit", (O,), "end the token's rest, or ask for it"),
    (O, E.RETRANSMIT_TIMER): Cell("operational.resend_token", (O,), "the token may be lost on the way to the successor"),
    (O, E.HOLD_TIMER): Cell("operational.release", (O,), "the token has rested"),
    (O, E.WATCH_TIMER): Cell("verdict.on_timer", (O,), "who owes an answer"),
    (O, E.JOIN_TIMER): _ignore(O, "armed in GATHER only"),
    (O, E.TOKEN_LOSS): Cell("gather.token_lost", (G,), "somebody failed"),
    (O, E.CONSENSUS_TIMER): _ignore(O, "armed in GATHER only"),
    (O, E.COMMIT_WAIT): _ignore(O, "armed in GATHER only"),
    (O, E.MERGE_TIMER): Cell("gather.announce", (O,), "tell configured nodes outside the ring that it exists"),
    # --- who takes part -------------------------------------------------------------------------------------------------
    (G, E.CONSENSUS): Cell("commit.create", (C, G), "the representative sends the commit token"),
    (G, E.FORMED): _ignore(G, "raised in COMMIT only"),
    (G, E.FAIL_TO_RECEIVE): _ignore(G, "no token in this state"),
    (G, E.SUSPECT): Cell("gather.suspected", (G,), "one claim more"),
    (G, E.TOKEN): _ignore(G, "the old ring has ended: a token that comes now must not order anything more"),
    (G, E.MCAST): Cell("gather.on_mcast", (G,), "store: it helps recovery"),
    (G, E.FOREIGN): _ignore(G, "not of our old ring"),
    (G, E.JOIN): Cell("gather.on_join", (G,), "the Join rule"),
    (G, E.COMMIT_TOKEN): Cell("commit.accept", (G, C), "first visit, if it names the live processors that we named"),
    (G, E.BEACON): Cell("gather.beacon_gather", (G,), "one more takes part"),
    (G, E.LEAVE): Cell("gather.on_leave", (G,), "one fewer takes part"),
    (G, E.HURRY): _ignore(G, "no token in this state"),
    (G, E.SUBMIT): _ignore(G, "queued until a ring is installed"),
    (G, E.RETRANSMIT_TIMER): _ignore(G, "cancelled on entry"),
    (G, E.HOLD_TIMER): _ignore(G, "cancelled on entry"),
    (G, E.WATCH_TIMER): Cell("verdict.on_timer", (G,), "who owes an answer"),
    (G, E.JOIN_TIMER): Cell("gather.resend_join", (G,), "Joins are not acknowledged"),
    (G, E.TOKEN_LOSS): _ignore(G, "cancelled on entry"),
    (G, E.CONSENSUS_TIMER): Cell("gather.consensus_timeout", (G,), "who has not agreed by now has failed"),
    (G, E.COMMIT_WAIT): Cell("gather.commit_wait_over", (G,), "agreed, but no commit token came: ask again"),
    (G, E.MERGE_TIMER): _ignore(G, "cancelled on entry: Joins go to everybody"),
    # --- what each of them holds ----------------------------------------------------------------------------------------
    (C, E.CONSENSUS): _ignore(C, "raised in GATHER only"),
    (C, E.FORMED): Cell("recovery.enter", (R, O), "a ring of one has nothing to exchange and is installed at once"),
    (C, E.FAIL_TO_RECEIVE): _ignore(C, "no token in this state"),
    (C, E.SUSPECT): Cell("gather.suspected", (C, G), "a member of the new ring does not answer"),
    (C, E.TOKEN): _ignore(C, "the old ring has ended"),
    (C, E.MCAST): Cell("gather.on_mcast", (C,), "store: it helps recovery"),
    (C, E.FOREIGN): _ignore(C, "not of our old ring"),
    (C, E.JOIN): Cell("gather.join_forming", (C, G), "a member of the new ring has given up; older Joins are ignored"),
    (C, E.COMMIT_TOKEN): Cell("commit.second_visit", (C, R, G), "everybody's state is in it; back, if one of them has restarted since"),
    (C, E.BEACON): _ignore(C, "heard again after the installation"),
    (C, E.LEAVE): Cell("gather.on_leave", (C, G), "a member of the new ring leaves"),
    (C, E.HURRY): _ignore(C, "no token in this state"),
    (C, E.SUBMIT): _ignore(C, "queued until a ring is installed"),
    (C, E.RETRANSMIT_TIMER): Cell("commit.resend", (C,), "the commit token may be lost"),
    (C, E.HOLD_TIMER): _ignore(C, "cancelled on entry"),
    (C, E.WATCH_TIMER): Cell("verdict.on_timer", (C,), "who owes an answer"),
    (C, E.JOIN_TIMER): _ignore(C, "cancelled on entry: the commit token replaces Joins"),
    (C, E.TOKEN_LOSS): Cell("gather.token_lost", (G,), "a member of the new ring failed"),
    (C, E.CONSENSUS_TIMER): _ignore(C, "cancelled on entry"),
    (C, E.COMMIT_WAIT): _ignore(C, "cancelled on entry"),
    (C, E.MERGE_TIMER): _ignore(C, "cancelled on entry"),
    # --- what some lack -------------------------------------------------------------------------------------------------
    (R, E.CONSENSUS): _ignore(R, "raised in GATHER only"),
    (R, E.FORMED): _ignore(R, "raised in COMMIT only"),
    (R, E.FAIL_TO_RECEIVE): Cell("gather.exclude", (G, R), "the others go on without a member that receives nothing"),
    (R, E.SUSPECT): Cell("gather.suspected", (R, G), "a member of the new ring does not answer"),
    (R, E.TOKEN): Cell("recovery.on_token", (R, O), "exchange; install when all have everything"),
    (R, E.MCAST): Cell("recovery.on_mcast", (R,), "of the new ring: store, unwrap what belongs to the old one"),
    (R, E.FOREIGN): _ignore(R, "also of the old ring: the exchange alone decides what all of us hold"),
    (R, E.JOIN): Cell("gather.join_forming", (R, G), "a member of the new ring has given up; older Joins are ignored"),
    (R, E.COMMIT_TOKEN): Cell("recovery.first_token", (R,), "third visit at the representative: the first regular token"),
    (R, E.BEACON): _ignore(R, "heard again after the installation"),
    (R, E.LEAVE): Cell("gather.on_leave", (R, G), "a member of the new ring leaves"),
    (R, E.HURRY): _ignore(R, "the token never rests in this state"),
    (R, E.SUBMIT): _ignore(R, "queued until the ring is installed"),
    (R, E.RETRANSMIT_TIMER): Cell("recovery.resend", (R,), "the token, or the commit token before it, may be lost"),
    (R, E.HOLD_TIMER): Cell("recovery.release", (R, O), "the token has rested: it went round in vain"),
    (R, E.WATCH_TIMER): Cell("verdict.on_timer", (R,), "who owes an answer"),
    (R, E.JOIN_TIMER): _ignore(R, "cancelled before"),
    (R, E.TOKEN_LOSS): Cell("gather.token_lost", (G,), "a member of the new ring failed: back, the old ring's state is kept"),
    (R, E.CONSENSUS_TIMER): _ignore(R, "cancelled before"),
    (R, E.COMMIT_WAIT): _ignore(R, "cancelled before"),
    (R, E.MERGE_TIMER): _ignore(R, "armed at the installation"),
}


def mermaid() -> str:
    """The diagram: one arrow per pair of states, labelled with the events that take it."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), cell in TABLE.items():
        for target in cell.to:
            if cell.action and target is not state:
                arrows.setdefault((state, target), []).append(event.name.lower())
    lines = ["stateDiagram-v2", "    [*] --> OPERATIONAL: start (a ring of one)"]
    lines += [f"    {a.name} --> {b.name}: {', '.join(events)}" for (a, b), events in sorted(arrows.items())]
    return "\n".join(lines)


def table_text() -> str:
    """The whole table as a Markdown table, for docs/totem.md."""
    lines = ["| state | event | action | may end in | why |", "|---|---|---|---|---|"]
    for (state, event), cell in TABLE.items():
        to = ", ".join(t.name for t in cell.to if t is not state)
        lines.append(f"| {state.name} | {event.name.lower()} | {cell.action or '(ignored)'} | {to or '-'} | {cell.why} |")
    return "\n".join(lines)
