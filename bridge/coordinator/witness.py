# SPDX-License-Identifier: GPL-2.0-only
"""The witness, as the members of a configuration see it: who asks, what an answer is worth, and for how long. Pure.

Exactly half of the votes are enough while a machine outside of the cluster grants it to this configuration (bridge/witness/arbiter.py).
A grant belongs to one ring and counts in no other; it is told by an ordered message, so all members go on, and stop, at one place of the
order. It is a lease, and nobody believes in it for longer than the witness does, whoever of them is slow::

    member    pulse n ----------------- timeout ------------------> stops by itself
    asker        delivered, asks -- answer -- ordered grant (n) ...
    witness                granted ------------- timeout and a bit --------------> free for another configuration

Every member counts on its own clock, from when it said the newest of its *pulses* that the asker had before it asked: that was before the
witness answered, whatever has been delayed since, in the network, in a queue or behind a disk. A member whose time is over orders and
renews nothing from that moment on, and says so; in the order that ends the quorum for all. Then all groups are stopped by an event of
their own, and a new grant in the same ring goes on from there.

The lowest member asks; if the others hear of no grant they ask too, one after the other. Members of the two halves never meet, so what
one half knows the other may not: a primary configuration that stands on a grant starts nothing before all others are known to be
dead (``merge._count``), changes no votes (ballot.py), and counts nobody's lost lease from before the grant. A cold start is granted
nothing: half that remembers nothing cannot know what the other half has done (SAFETY S6).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.coordinator import edges, groups, quorum
from bridge.coordinator.api import AskWitness, Notice, WitnessAnswer
from bridge.coordinator.state import NO_RING, State
from bridge.coordinator.witness_words import WitnessGrant, WitnessLost, WitnessPulse, WitnessWord
from membership.api import Processor
from vcs.config.model import ClusterConfig
from vcs.model import GroupState, Phase, RingId

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator
    from bridge.coordinator.feed import Feeder

MS: Final = 1_000_000
GRANTED: Final = "granted"
WORDS: Final = (GRANTED, "held", "wait", "starting", "noted")
"What a witness answers that will talk to us."
PULSES_PER_TIMEOUT: Final = 5
"So often within a grant's length each member shows that it is there, and the grant is renewed."
ASKS_PER_TIMEOUT: Final = 20
ASK_NS: Final = 150 * MS
"It is asked for so often while there is no answer, or more often if the time-out is short."
TURN: Final = 0.3
"The next member asks too when there was no grant for so much of its length."
REMEMBERED: Final = 64
"Pulses and questions, the newest."
SILENT_AFTER: Final = 3
"So many questions without an answer in a time-out each, and the witness counts as silent, for people."


@dataclass(slots=True)
class Witness:
    """One member's side of it. Everything above ``number`` belongs to the present ring."""

    config: ClusterConfig
    local: Processor
    half: bool = False
    "The members have exactly half of the votes: a grant decides."
    grant: tuple[int, int] | None = None
    "(nodeid of the asker, its question) of the newest grant in the order, until it is ordered lost."
    until_ns: int = 0
    "By the own clock; at this time the grant is over for this member."
    said: dict[int, int] = field(default_factory=dict)
    "Own pulse -> when. The Exchange is number 0."
    heard: dict[int, int] = field(default_factory=dict)
    "Nodeid -> its newest pulse in the order."
    asked: dict[int, tuple[int, ...]] = field(default_factory=dict)
    "Question of this ring -> what was heard before."
    pulse_ns: int = 0
    news_ns: int = 0
    "When the last grant was delivered, or the wish for one began."
    over: bool = False
    "The own time was over since the grant before."
    number: int = 0
    "Of the newest question."
    ask_ns: int = 0
    "When the next question is due."
    answer: WitnessAnswer | None = None
    answered_ns: int = 0
    silent_since_ns: int = 0
    "When the first question was asked that nothing was heard after; 0: none."
    told: bool = True
    "The witness was last known to answer."

    @property
    def length_ns(self) -> int:
        held = self.config.quorum.witness
        return held.timeout_ms * MS if held is not None else 0

    # --- the ring ---------------------------------------------------------------------------------------------------------
    def new_ring(self) -> None:
        """Nothing of the last one counts."""
        self.half = self.over = False
        self.grant = None
        self.until_ns = 0
        self.said.clear()
        self.heard.clear()
        self.asked.clear()

    def exchanged(self, now_ns: int) -> None:
        """The own Exchange is about to be sent."""
        self.said[0] = now_ns

    def open(self, members: Collection[int], now_ns: int) -> None:
        """All Exchanges are here, and half of the votes with them."""
        self.half = True
        self.heard = dict.fromkeys(members, 0)
        self.pulse_ns = now_ns + self.length_ns // PULSES_PER_TIMEOUT
        self.news_ns = self.ask_ns = now_ns

    def holds(self, now_ns: int) -> bool:
        """May this member act on the quorum of a primary configuration?"""
        return not self.half or (self.grant is not None and now_ns < self.until_ns)

    def lapsed(self, now_ns: int) -> bool:
        """The own time has just run out: true once for each grant."""
        if not self.half or self.grant is None or now_ns < self.until_ns or self.over:
            return False
        self.over = True
        return True

    # --- what is ordered ----------------------------------------------------------------------------------------------------
    def granted(self, sender: int, body: WitnessGrant, now_ns: int) -> None:
        self.grant = (sender, body.number)
        self.news_ns = now_ns
        marks = dict(zip(body.marks[::2], body.marks[1::2], strict=False))
        pulse = self.said.get(marks.get(self.local.nodeid, -1))
        if pulse is not None:
            self.until_ns = max(self.until_ns, pulse + self.length_ns)
            self.over = self.over and now_ns >= self.until_ns

    def lost(self, body: WitnessLost, now_ns: int) -> bool:
        """Is it the newest grant that has run out somewhere?"""
        if self.grant != (body.nodeid, body.number):
            return False
        self.grant, self.until_ns, self.news_ns = None, 0, now_ns
        return True

    # --- questions ----------------------------------------------------------------------------------------------------------
    def answered(self, event: WitnessAnswer, now_ns: int) -> WitnessGrant | None:
        """What is to be said to everybody."""
        self.answer, self.answered_ns, self.silent_since_ns = event, now_ns, 0
        marks = self.asked.pop(event.number, None)
        if event.verdict != GRANTED or marks is None or not self.half:
            return None
        self.ask_ns = now_ns + self.length_ns // PULSES_PER_TIMEOUT
        return WitnessGrant(event.number, event.term, marks)

    def ask(self, wanted: bool, ring: RingId, members: tuple[int, ...], term: int, now_ns: int) -> AskWitness:
        self.number += 1
        self.silent_since_ns = self.silent_since_ns or now_ns
        others = tuple(n.id for n in self.config.nodes if n.id not in members) if members else ()
        if wanted:
            self.asked[self.number] = tuple(v for pair in sorted(self.heard.items()) for v in pair)
            _newest(self.asked)
        return AskWitness(self.number, wanted, ring, members, others, term)

    def pulse(self, now_ns: int) -> WitnessPulse:
        number = max(self.said, default=0) + 1
        self.said[number] = now_ns
        _newest(self.said)
        self.pulse_ns = now_ns + self.length_ns // PULSES_PER_TIMEOUT
        return WitnessPulse(number)

    def turn_ns(self, members: Collection[int]) -> int:
        """When this member asks, unless there is a grant before."""
        return self.news_ns + int(sorted(members).index(self.local.nodeid) * TURN * self.length_ns)

    def silent(self, now_ns: int) -> bool:
        """The witness has not answered for long."""
        return self.silent_since_ns > 0 and now_ns >= self.silent_since_ns + SILENT_AFTER * self.length_ns


def _newest(table: dict[int, object] | dict[int, int] | dict[int, tuple[int, ...]]) -> None:
    while len(table) > REMEMBERED:
        del table[next(iter(table))]


# --- the coordinator's part: what a grant and its end do to the state ---------------------------------------------------------------


def votes(c: Coordinator, state: State, granted: bool) -> quorum.Votes:
    """Of this ring's members, with the witness's word or without."""
    return quorum.count(c.config, state.nodes, c.present, state.ballot, state.ring_members, granted)


def ordered(c: Coordinator, sender: Processor, body: WitnessWord) -> None:
    """A message about the witness in its place; in a transitional configuration it says nothing (SAFETY S5)."""
    w = c.witness
    if not c.regular or not w.half:
        return
    if isinstance(body, WitnessPulse):
        w.heard[sender.nodeid] = body.number
    elif isinstance(body, WitnessGrant):
        w.granted(sender.nodeid, body, c.now_ns)
        _go_on(c, body.term)
    elif w.lost(body, c.now_ns) and c.mode.value == "primary":
        _end(c)


def _go_on(c: Coordinator, term: int) -> None:
    """Half of the votes are a quorum now."""
    if c.state.primary != c.ring:
        c.feed.leases.forget()  # the other half may have been primary meanwhile, and proved a quorum to whoever is out here
        c.feed.note("witness_granted", ring=str(c.ring), members=[m.nodeid for m in c.members], term=term)
        c.form(c.state, cold=False, term=term)
        return
    if c.mode.value == "primary" and term <= c.state.term:
        return  # renewed
    c.feed.leases.forget()
    c.feed.note("witness_granted", ring=str(c.ring), members=[m.nodeid for m in c.members], term=term)
    state = c.state.copy()
    state.term = max(term, state.term + 1)
    state.version += 1
    c.regain(state, votes(c, state, True))


def _end(c: Coordinator) -> None:
    """No quorum any more. Every group gets an event that stops it, so that what is started after the next grant is newer than this."""
    notes = [Notice("witness_lost", {"ring": str(c.ring), "members": [m.nodeid for m in c.members]})]
    trial = c.state.copy()
    try:
        for group in trial.groups.values():
            group.changed = True
        groups.decide(trial, notes)
    except Exception as error:  # SAFETY S19: the same at every member
        c.reject("witness_lost", error)
        trial = c.state.copy()
    trial.version += 1
    notes += edges.between(c.state, trial)
    c.forgo(trial, votes(c, trial, False))
    c.feed.out.extend(notes)


def act(c: Coordinator, now_ns: int) -> None:
    """Say, ask, and stop believing, by this member's clock. In regular configurations only."""
    w = c.witness
    held = c.config.quorum.witness
    if held is None:
        return
    ids = tuple(m.nodeid for m in c.members)
    primary = c.mode.value == "primary"
    if w.half and (primary or c.mode.value == "inquorate"):
        if primary and not w.holds(now_ns) and w.grant is not None:
            c.feed.say(WitnessLost(*w.grant))
        if now_ns >= w.pulse_ns:
            c.feed.say(w.pulse(now_ns))
        if now_ns >= max(w.ask_ns, w.turn_ns(ids)):
            w.ask_ns = now_ns + min(ASK_NS, w.length_ns // ASKS_PER_TIMEOUT)
            c.feed.out.append(w.ask(True, c.ring, ids, c.state.term, now_ns))
    elif now_ns >= w.ask_ns:
        # Not needed; but people want to know that it is there before it is, and what was granted before may go.
        w.ask_ns = now_ns + w.length_ns
        c.feed.out.append(w.ask(False, c.ring if primary else NO_RING, ids if primary else (), c.state.term, now_ns))
    if w.told == w.silent(now_ns):
        w.told = not w.told
        c.feed.note("witness_answers" if w.told else "witness_silent", address=held.address, port=held.port)


def wake(c: Coordinator, now_ns: int) -> list[int]:
    """When ``act`` has something to do."""
    w = c.witness
    if c.config.quorum.witness is None:
        return []
    if not w.half:
        return [w.ask_ns] if w.ask_ns > now_ns else []
    times = [w.pulse_ns, max(w.ask_ns, w.turn_ns([m.nodeid for m in c.members])), w.until_ns]
    return [t for t in times if t > now_ns]


def hold_back(feed: Feeder, state: State, ring: RingId, boots: dict[int, int]) -> None:
    """A ring that was primary by a grant, and is not, or not for this member: nothing but stops. What the state has ordered to stop is
    stopped by that event; who wants to leave may (SAFETY S21)."""
    if feed.gone:
        return
    feed.leave_wanted = feed.leave_wanted or bool(state.shutdown)
    feed.install(ring, False, boots)
    me = feed.local.nodeid
    for name, held in sorted((feed.switch or {}).items()):
        group = state.groups.get(name)
        if held.state == GroupState.LEAVING and (held.stopped or not held.event):
            feed.left(name)
        elif held.state != GroupState.LOST and group is not None and me in group.stoppers and not group.changed:
            shown = max((held.event, int(held.phase)), feed.ordered.get(name, (0, 0)))
            if shown[0] < group.event:
                feed.order(group, Phase.STOP)
    if feed.leave_wanted and not feed.switch:
        feed.leave_done()


def picture(c: Coordinator) -> dict[str, object] | None:
    """For `vcs quorum`; None: there is no witness."""
    held, w = c.config.quorum.witness, c.witness
    if held is None:
        return None
    answer = w.answer
    return {
        "address": held.address, "port": held.port, "timeout_ms": held.timeout_ms, "answers": answer is not None and not w.silent(c.now_ns),
        "verdict": answer.verdict if answer is not None else "", "needed": w.half,
        "refuses": answer is not None and answer.verdict not in WORDS,
        "granted": w.half and c.mode.value == "primary" and w.holds(c.now_ns),
        "left_ms": max(0, w.until_ns - c.now_ns) // MS if w.half else 0, "holder": answer.holder if answer is not None else "",
    }
