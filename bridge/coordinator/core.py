# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator: one deterministic state machine over one totally ordered stream. Pure: time and bytes are arguments.

Life of a regular configuration (``Mode``)::

    COLLECT --all Exchanges delivered--> [SNAPSHOT --delivered-->] PRIMARY     quorate: messages change the state, decisions are taken
                                                                  | INQUORATE  state untouched, local stops and leaves only
                                                                  | WAITING    cold start: not everybody was seen yet

A transitional configuration ends it: messages still update the state, nothing is decided or ordered until the next regular one is
merged and quorate (SAFETY S5). Where a file of this package says "the state", it means the replicated one of state.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from bridge.coordinator import bundle, detached, edges, explain, merge, messages, persist, quorum, refusals, wishes, witness
from bridge.coordinator.api import (
    Command,
    Effect,
    FenceAck,
    FenceDone,
    Input,
    LeaveCluster,
    LocalGroups,
    Notice,
    PlannedRestart,
    RenewLease,
    RestartReady,
    Tick,
    WakeAt,
    WitnessAnswer,
)
from bridge.coordinator.apply import apply, decide
from bridge.coordinator.feed import Feeder
from bridge.coordinator.lease import UNARMED, SelfFence
from bridge.coordinator.merge import Present
from bridge.coordinator.messages import (
    Body,
    Exchange,
    FenceResult,
    MaintenanceOn,
    NodeOff,
    Orphaned,
    Overdue,
    Snapshot,
)
from bridge.coordinator.state import NO_RING, State, from_json, to_json
from bridge.coordinator.witness_words import WitnessWord
from membership.api import Configuration, Health, Kind, Message, Processor, Rotation
from vcs.config.model import ClusterConfig
from vcs.errors import RemoteError

MESSAGE_MAX: Final = 32768
"Default for the largest payload submitted in one piece; the driver passes its engine's."
RENEWALS_PER_LEASE: Final = 10
"A lease is renewed at most so often in its own length."


class Mode(Enum):
    START = "start"
    COLLECT = "collect"
    SNAPSHOT = "snapshot"
    PRIMARY = "primary"
    INQUORATE = "inquorate"
    WAITING = "waiting"


class Coordinator:
    """``handle`` is the whole interface beside the two pictures ``describe`` and ``why``."""

    def __init__(
        self, config: ClusterConfig, local: Processor, record: bytes | None, message_max: int = MESSAGE_MAX,
        self_fence: SelfFence = UNARMED,
    ) -> None:
        """``record``: the newest Persist of this node, or None. A record that cannot be read counts as none, and is counted.
        ``self_fence``: what to announce of this node's lease."""
        self.self_fence = self_fence
        self.config = config
        self.local = local
        self.state = State()
        self.mode = Mode.START
        self.regular = False
        self.ring = NO_RING
        self.members: tuple[Processor, ...] = ()
        self.present: dict[int, Present] = {}
        self.votes = quorum.Votes(0, config.expected_votes)
        "Of the last configuration that was judged."
        self.counters = {"garbage": 0, "stale": 0, "rejected": 0, "unmerged": 0, "bad_record": 0}
        self.foreign: dict[int, str] = {}
        "nodeid -> why its last message was not understood."
        self.acked: set[int] = set()
        "Nodes declared off while this node waited for all; kept over configurations, told in the Exchange."
        self.off: set[int] = set()
        "The same, as ordered in this ring."
        self.off_wanted: set[int] = set()
        "Said to this node by an administrator, not ordered yet."
        self.gasps: dict[int, int] = {}
        "nodeid -> engine incarnation of the last process of it whose last gasp was heard here."
        self.late = False
        self.inquorate = False
        "Since the state was last carried on into a quorate configuration."
        self.feed = Feeder(config, local, message_max)
        self.witness = witness.Witness(config, local)
        self._assembler = messages.Assembler()
        self._sent_exchange = False
        self._wake: int | None = None
        self._renewed_ns = 0
        self._evidence_ns = 0
        "When the last rotation began that was evidence of quorum."
        self.now_ns = 0
        "Of the last input."
        self._record: bytes | None = None
        if record is not None:
            try:
                persist.decode(record)
                self._record = record
            except RemoteError:
                self.counters["bad_record"] += 1

    # --- inputs -------------------------------------------------------------------------------------------------------------
    def handle(self, event: Input, now_ns: int) -> list[Effect]:
        """Take one input; return what to do, in this order. Never raises for anything that a peer or the switch says."""
        self.feed.out = []
        self.now_ns = now_ns
        if self.witness.lapsed(now_ns):
            self.feed.leases.forget()
        if isinstance(event, Configuration):
            self._configuration(event)
        elif isinstance(event, Message):
            self._message(event)
        elif isinstance(event, LocalGroups):
            self.feed.read(event.groups)
        elif isinstance(event, Rotation):
            self._rotation(event)
            return self.feed.out  # evidence for the lease and nothing else: it comes often
        elif isinstance(event, FenceDone):
            self._fence_done(event)
        elif isinstance(event, LeaveCluster):
            wishes.leave(self)
        elif isinstance(event, Health):
            if event.what == "process_dead" and event.engine:
                self.gasps[event.nodeid] = event.engine
        elif isinstance(event, PlannedRestart):
            wishes.restart(self, event)
        elif isinstance(event, FenceAck):
            self.off_wanted.add(event.nodeid)
        elif isinstance(event, Command):
            self.feed.ask(event.ticket, event.body)
        elif isinstance(event, WitnessAnswer):
            if (grant := self.witness.answered(event, now_ns)) is not None:
                self.feed.say(grant)
        else:
            assert isinstance(event, Tick)
        self._advance(now_ns)
        return self.feed.out

    def _configuration(self, event: Configuration) -> None:
        self.regular = event.kind is Kind.REGULAR
        self.feed.note("configuration", kind=event.kind.name.lower(), ring=str(event.ring), members=[m.nodeid for m in event.members])
        if not self.regular:
            return
        self.mode = Mode.COLLECT
        self.ring, self.members = event.ring, event.members
        self.present = {}
        self.late = False
        self.off = set()
        self._sent_exchange = False
        self._renewed_ns = 0
        self._assembler.clear()
        self.feed.new_ring()
        self.witness.new_ring()

    def _message(self, event: Message) -> None:
        if event.ring != self.ring or event.sender not in self.members:
            self.counters["stale"] += 1
            return
        try:
            whole = self._assembler.feed(event.sender, event.payload)
            body = messages.decode(whole) if whole is not None else None
        except RemoteError as error:
            self.counters["garbage"] += 1
            self.foreign[event.sender.nodeid] = str(error)
            return
        if body is not None:
            self.foreign.pop(event.sender.nodeid, None)
            self._body(event.sender, body)

    def _body(self, sender: Processor, body: Body) -> None:
        if isinstance(body, Exchange):
            if self.mode is Mode.COLLECT and body.ring == self.ring:
                self.present[sender.nodeid] = Present(sender, body)
                if len(self.present) == len(self.members):
                    self._collected()
        elif isinstance(body, Snapshot):
            if self.mode is Mode.SNAPSHOT and body.ring == self.ring and sender.nodeid == merge.carrier(self.present):
                self._adopt(body)
        elif isinstance(body, WitnessWord):
            self._own(sender, body, True)
            witness.ordered(self, sender, body)
        elif self.mode is Mode.PRIMARY:
            self._apply(sender, body)
        elif self.mode is Mode.WAITING and isinstance(body, NodeOff):
            self._own(sender, body, True)
            self.acked.add(body.nodeid)
            self.off.add(body.nodeid)
            self._cold()
        else:
            self.counters["unmerged"] += 1
            for one in bundle.unpack(body):
                self._own(sender, one, True)

    def _own(self, sender: Processor, body: Body, changed: bool) -> bool:
        """Our own message has come back in its place."""
        if sender != self.local or isinstance(body, Exchange | Snapshot):
            return False
        self.feed.heard(body, changed)
        if isinstance(body, NodeOff):
            self.off_wanted.discard(body.nodeid)
        if isinstance(body, messages.Restarting) and changed and self.regular and not self.feed.gone:
            self.feed.gone = True
            self.feed.out.append(RestartReady())
        return True

    def _rotation(self, event: Rotation) -> None:
        """SAFETY S9: evidence of this regular, merged, quorate configuration, and of a node that is a sound member of it."""
        if not self.deciding or event.ring != self.ring or not self.state.admitted(self.local.nodeid):
            return
        self._evidence_ns = event.began_ns
        if event.began_ns >= self._renewed_ns + self.config.lease.lease_ms * 1_000_000 // RENEWALS_PER_LEASE:
            self._renewed_ns = event.began_ns
            self.feed.out.append(RenewLease(event.began_ns))

    def _fence_done(self, event: FenceDone) -> None:
        key = (event.nodeid, event.incarnation)
        attempt = max((a for n, b, a in self.feed.launched if (n, b) == key), default=0)
        self.feed.results[key] = FenceResult(*key, attempt, event.ok, event.detail, event.method, event.cut)

    # --- merging --------------------------------------------------------------------------------------------------------------
    def _collected(self) -> None:
        carrier = merge.carrier(self.present)
        if carrier is None:
            self._cold()
        elif merge.differing(self.present):
            self.mode = Mode.SNAPSHOT
            if carrier == self.local.nodeid:
                self.feed.submit(Snapshot(self.ring, to_json(self.state)))
        else:
            self.form(self.state, cold=False)

    def _adopt(self, body: Snapshot) -> None:
        try:
            state = from_json(body.state)
        except RemoteError as error:
            self.reject("snapshot", error)
            return
        if state.digest() != self.state.digest():
            self.feed.leases.forget()  # others were primary without this node: nobody it heard of is surely out since then
        self.form(state, cold=False)

    def _cold(self) -> None:
        """No living state that counts. Wait for everybody, unless the configuration says otherwise (SAFETY S6)."""
        state = merge.cold_state(self.config, self.present)
        acked = merge.declared_off(self.present) | self.off
        absent = merge.missing(self.config, self.present, acked)
        votes = detached.survives(self.config, state, self.present, bool(absent))
        if votes is not None:
            self.votes = votes
            self.form(state, cold=True, acked=acked, rebuilt=True)
            return
        self.votes = merge.cold_votes(self.config, state, self.present)
        if not absent or (self.votes.quorate and not self.config.quorum.wait_for_all):
            self.feed.leases.forget()
            self.form(state, cold=True, acked=acked)
            return
        if self.mode is not Mode.WAITING:
            self.feed.note("waiting_for_all", missing=absent)
        self.mode = Mode.WAITING
        self.late = True

    def form(self, state: State, cold: bool, acked: frozenset[int] = frozenset(), rebuilt: bool = False, term: int = 0) -> None:
        """All members hold the same ``state``: go on with it if it makes us quorate, else only keep it. ``term``: by that grant."""
        if not cold:
            self.votes = witness.votes(self, state, term > 0)
            if not self.votes.quorate:
                self.forgo(state, self.votes)
                if witness.votes(self, state, True).quorate:
                    self.witness.open(self.present, self.now_ns)
                return
        notes: list[Notice] = []
        trial = state.copy()
        how = merge.Circumstances(cold, self.late or term > 0, acked, rebuilt, term)
        try:
            merge.transition(trial, self.ring, self.present, self.config, how, notes)
            if self.regular:
                decide(trial, notes)
        except Exception as error:
            self.reject("merge", error)
            return
        notes += edges.between(state, trial)
        self.state, self.mode, self.inquorate = trial, Mode.PRIMARY, False
        self.acked.clear()
        self.gasps.clear()
        self._record = None
        self.feed.newcomers = merge.differing(self.present)
        self.feed.note("merged", ring=str(self.ring), members=sorted(self.present), cold=cold, version=trial.version)
        self.feed.out.extend(notes)

    def forgo(self, state: State, votes: quorum.Votes) -> None:
        """No quorum (any more)."""
        self.state, self.votes, self.mode, self.inquorate = state, votes, Mode.INQUORATE, True

    def regain(self, state: State, votes: quorum.Votes) -> None:
        """Quorum again, in the ring that the state is of."""
        self.state, self.votes, self.mode, self.inquorate = state, votes, Mode.PRIMARY, False

    # --- applying -------------------------------------------------------------------------------------------------------------
    def _apply(self, sender: Processor, body: Body) -> None:
        trial = self.state.copy()
        notes: list[Notice] = []
        try:
            changes = [(one, apply(trial, sender, one, self.regular, notes)) for one in bundle.unpack(body)]
            changed = any(done for _, done in changes)
            if changed and self.regular:
                decide(trial, notes)
        except Exception as error:  # SAFETY S19: any fault of ours is one ordered rejection, the same at every member
            self.reject(type(body).__name__, error)
            self.state.rejected += 1
            self.state.version += 1
            return
        for one, done in changes:
            if self._own(sender, one, done):
                self.feed.answer(one, done, "" if done else refusals.of_command(notes))
        if sender == self.local:
            self.feed.refusals.heard(notes)
        if not changed:
            self.counters["stale"] += 1
            self.feed.out.extend(notes)
            return
        self.feed.vain.clear()
        notes += edges.between(self.state, trial, sender.nodeid)
        trial.version += 1
        self.state = trial
        self.feed.out.extend(notes)
        if isinstance(body, Overdue | Orphaned) and self.local.nodeid == (body.nodeid if isinstance(body, Overdue) else sender.nodeid):
            self.feed.expelled.add(body.name)
        elif isinstance(body, MaintenanceOn):
            self.feed.maintained(trial.serial, body.for_ms, self.now_ns, self._evidence_ns)

    def reject(self, what: str, error: Exception) -> None:
        self.counters["rejected"] += 1
        self.feed.note("rejected", what=what, error=repr(error))

    # --- acting ---------------------------------------------------------------------------------------------------------------
    @property
    def deciding(self) -> bool:
        """In a regular, merged, quorate configuration."""
        return self.regular and self.mode is Mode.PRIMARY and self.witness.holds(self.now_ns)

    def _advance(self, now_ns: int) -> None:
        """Level-triggered: compare what is with what should be."""
        if not self.regular:
            return
        if not self._sent_exchange and self.mode is Mode.COLLECT and self.feed.switch is not None:
            self._sent_exchange = True
            self.witness.exchanged(now_ns)
            self.feed.submit(merge.exchange(self, self._record))
        boots = {m.nodeid: m.boot for m in self.members}
        if self.mode in (Mode.PRIMARY, Mode.WAITING):
            for nodeid in sorted(self.off_wanted):
                self.feed.say(NodeOff(nodeid))
        wishes.say(self)
        witness.act(self, now_ns)
        if self.deciding:
            self.feed.primary(self.state, self.ring, boots, now_ns)
        elif self.mode in (Mode.PRIMARY, Mode.INQUORATE) and self.state.primary == self.ring:
            witness.hold_back(self.feed, self.state, self.ring, boots)
        elif self.mode in (Mode.INQUORATE, Mode.WAITING):
            self.feed.inquorate(self.state, self.ring, boots)
        wake = min([*witness.wake(self, now_ns), *self.feed.wake(now_ns)], default=None)
        if wake is not None and wake != self._wake:
            self.feed.out.append(WakeAt(wake))
        self._wake = wake

    def still_owed(self, nodeid: int, boot: int) -> bool:
        """Asked just before each call of an agent (SAFETY S1): it may be back as another incarnation, others have fenced it, or are
        granted the quorum that we had."""
        back = any(m.nodeid == nodeid and m.boot != boot for m in self.members)
        return (nodeid, boot) in self.state.obligations and not back and self.witness.holds(self.now_ns)

    # --- pictures -------------------------------------------------------------------------------------------------------------
    def describe(self) -> dict[str, object]:
        """JSON-able picture for `vcs status`, `vcs nodes`, `vcs groups`."""
        return explain.describe(self)

    def why(self, now_ns: int = 0) -> list[dict[str, object]]:
        """What is waited for, on whom, in words."""
        return explain.why(self, now_ns)
