# SPDX-License-Identifier: GPL-2.0-only
"""The local side: compares the replicated state with what this node's switch shows, and orders or says what is missing.

Level-triggered in both directions. Nothing here is replicated; what is remembered is only what has been ordered or said already and
has not come back yet, so that it is not repeated at every message. Losing it (a restart) costs a repetition, never a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.coordinator import ballot, bundle, fencing, methods, orders, persist
from bridge.coordinator.api import (
    CancelFence,
    Effect,
    Fenced,
    FinishGroup,
    Freeze,
    InstallView,
    LaunchFence,
    LeaveDone,
    LeftGroup,
    Notice,
    Persist,
    StartGroup,
    StopGroup,
    Submit,
)
from bridge.coordinator.clocks import MS, Clocks
from bridge.coordinator.lease_clock import LeaseClock
from bridge.coordinator.messages import (
    Ack,
    Body,
    FenceResult,
    FenceRetry,
    GroupWord,
    Join,
    Leave,
    MaintenanceOff,
    MaintenanceOn,
    NodeLeave,
    Restarting,
    Thawed,
    VoteAgree,
    encode,
    split,
)
from bridge.coordinator.refusals import Refusals
from bridge.coordinator.state import FAILED, LAUNCHED, LEFT, MEMBER, NO_RING, RETRY, GroupRec, Obligation, State, canonical
from membership.api import Order, Processor
from vcs.config.model import ClusterConfig
from vcs.model import Group, GroupState, Member, Phase, RingId, event_id, event_text

LOCAL_COUNTER: Final = 1 << 18
"Counters of stops that a node orders for itself alone start here, apart from those of decided events of the same ring."
ESHUTDOWN: Final = 108
ETIMEDOUT: Final = 110


@dataclass(slots=True)
class Feeder:
    """One node's relation to its own switch, disk and fence executor."""

    config: ClusterConfig
    local: Processor
    message_max: int
    switch: dict[str, Group] | None = None
    "What the switch holds; None until it was read for the first time."
    out: list[Effect] = field(default_factory=list)
    ordered: dict[str, tuple[int, int]] = field(default_factory=dict)
    "Ordered of the switch since it was read last: name -> (event, phase); LeftGroup is phase -1."
    said: set[Body] = field(default_factory=set)
    "Submitted, not delivered yet."
    words: list[GroupWord] = field(default_factory=list)
    "Said about groups in this look at them; submitted at its end."
    vain: set[Body] = field(default_factory=set)
    "Delivered without any effect: not worth repeating before something has changed."
    view: InstallView | None = None
    durable: bytes = b""
    durable_of: State | None = None
    "The state that ``durable`` was last compared with: a change makes a new object."
    marked: set[tuple[int, int]] = field(default_factory=set)
    launched: set[tuple[int, int, int]] = field(default_factory=set)
    results: dict[tuple[int, int], FenceResult] = field(default_factory=dict)
    retry_at: dict[tuple[int, int, int], int] = field(default_factory=dict)
    clocks: Clocks = field(init=False)
    leases: LeaseClock = field(init=False)
    freezes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Serial of a maintenance whose order was delivered here -> (when it is over, until when the own lease may be frozen). The latter
    counts from the last evidence of quorum, so it is never beyond what any other node counts."""
    frozen: int = 0
    "Serial that the own kernel was told of last."
    newcomers: bool = False
    "Somebody has just learned the state from others, and with it no time."
    commands: dict[Body, list[int]] = field(default_factory=dict)
    "Wishes of administrators that are not ordered yet, with their tickets."
    expelled: set[str] = field(default_factory=set)
    refusals: Refusals = field(default_factory=Refusals)
    local_stops: int = 0
    leave_wanted: bool = False
    restart_ms: int = 0
    "This daemon is about to be restarted, and back within so long."
    gone: bool = False
    "LeaveDone or RestartReady was given."

    def __post_init__(self) -> None:
        self.clocks = Clocks(self.config, self.local.nodeid)
        self.leases = LeaseClock(self.config.lease.margin_ms)

    # --- what others call -------------------------------------------------------------------------------------------------
    def new_ring(self) -> None:
        """Whatever was said in the old ring and not delivered will not be."""
        self.said.clear()
        self.vain.clear()
        self.local_stops = 0

    def read(self, groups: tuple[Group, ...]) -> None:
        switch = {g.name: g for g in groups}
        if switch != self.switch:
            self.vain.clear()
        self.switch = switch
        self.ordered.clear()
        self.expelled &= self.switch.keys()
        self.refusals.read(switch)

    def say(self, body: Body) -> None:
        """Submit once; again only after it was delivered, or in a new ring, and not if it was in vain."""
        if body not in self.said and body not in self.vain:
            self.said.add(body)
            if isinstance(body, bundle.WORDS):
                self.words.append(body)
            else:
                self.submit(body)

    def heard(self, body: Body, changed: bool) -> None:
        """Our own message was delivered; ``changed``: the state is another one since."""
        self.said.discard(body)
        if not changed:
            self.vain.add(body)

    def submit(self, body: Body) -> None:
        self.out.extend(Submit(part, Order.SAFE) for part in split(encode(body), self.message_max))

    def note(self, event: str, /, **fields: object) -> None:
        self.out.append(Notice(event, fields))

    # --- a primary component ------------------------------------------------------------------------------------------------
    def primary(self, state: State, ring: RingId, boots: Mapping[int, int], now_ns: int) -> None:
        """Everything that this node does about ``state`` in the regular, merged, quorate configuration ``ring``."""
        if self.gone:
            return
        self._persist(state)
        if ballot.running(state) and self.local.nodeid not in state.ballot.agreed:
            self.say(VoteAgree(state.ballot.serial))  # behind the Persist of this configuration, on purpose
        sound = state.nodes[self.local.nodeid].status == MEMBER
        if sound:
            self.install(ring, True, {n: b for n, b in boots.items() if state.admitted(n)})
        elif state.nodes[self.local.nodeid].status != LEFT:
            self.install(ring, False, boots)
        for key in fencing.known_dead(state, self.local.nodeid, self.local.boot):
            if key not in self.marked:
                self.marked.add(key)
                self.out.append(Fenced(*key))
        self._fences(state, now_ns)
        self._maintain(state, now_ns)
        if sound:
            for name in sorted(self._switch().keys() | state.groups.keys()):
                self._group(state, state.groups.get(name), name, ring)
            for body in bundle.pack(self.words, state.feature):
                self.submit(body)
            self.words.clear()
            for body in self.clocks.due(state, self._switch(), now_ns):
                self.say(body)
            if self.restart_ms:
                self.say(Restarting(self.restart_ms))
        else:
            self.alone(ring, dict(boots), stop_all=True)
        self._leave(state)

    def _switch(self) -> dict[str, Group]:
        return self.switch if self.switch is not None else {}

    def _persist(self, state: State) -> None:
        if state is self.durable_of:
            return
        self.durable_of = state
        durable = canonical(persist.durable(state, self.local.nodeid))
        if durable != self.durable:
            self.durable = durable
            self.out.append(Persist(persist.encode(state, self.local.nodeid)))

    def install(self, ring: RingId, quorate: bool, boots: Mapping[int, int]) -> None:
        votes = {n.id: n.votes for n in self.config.nodes}
        view = InstallView(ring, quorate, tuple(Member(n, b, votes.get(n, 0)) for n, b in sorted(boots.items())))
        if view != self.view:
            self.view = view
            self.out.append(view)
            self.note("view_installed", ring=str(ring), quorate=quorate, members=sorted(boots))

    # --- fencing ------------------------------------------------------------------------------------------------------------
    def _fences(self, state: State, now_ns: int) -> None:
        for nodeid, boot in sorted({k[:2] for k in self.launched} - state.obligations.keys()):
            self.out.append(CancelFence(nodeid, boot))
        self.results = {k: r for k, r in self.results.items() if k in state.obligations}
        self.launched = {k for k in self.launched if k[:2] in state.obligations}
        # Self-fencing goes on beside whatever else is tried; the lowest member speaks for all.
        for over in self.leases.due(state, now_ns):
            if min((n for n in state.ring_members if state.admitted(n)), default=0) == self.local.nodeid:
                self.results[over.nodeid, over.boot] = over
        owed = {(o.nodeid, o.boot, o.attempt) for o in state.obligations.values()}
        self.retry_at = {k: t for k, t in self.retry_at.items() if k in owed}
        for obligation in sorted(state.obligations.values(), key=lambda o: o.key):
            result = self.results.get(obligation.key)
            if result is not None and (result.ok or result.attempt == obligation.attempt):
                self.say(result)
            else:
                self._fence(obligation, now_ns)

    def _fence(self, obligation: Obligation, now_ns: int) -> None:
        key = (obligation.nodeid, obligation.boot, obligation.attempt)
        mine = obligation.fencer == self.local.nodeid
        method, pause_ms = methods.of(self.config, obligation.nodeid, obligation.attempt, obligation.cut)
        if not obligation.attempt:
            pause_ms = self.config.fencing.return_ms if obligation.patient else self.config.quorum.fence_delay_ms  # SAFETY S7, S12
        if obligation.phase == LAUNCHED and mine and key not in self.launched:
            self.launched.add(key)
            self.out.append(LaunchFence(obligation.nodeid, obligation.boot, method, obligation.action))
        elif obligation.phase == RETRY:
            at = self.retry_at.setdefault(key, now_ns + pause_ms * MS)  # everybody's: for people who ask here
            if now_ns >= at and mine:
                self.say(FenceRetry(*key))

    # --- maintenance ------------------------------------------------------------------------------------------------------
    def maintained(self, serial: int, for_ms: int, now_ns: int, evidence_ns: int) -> None:
        """A maintenance was ordered, here and now."""
        self.freezes[serial] = (now_ns + for_ms * MS, evidence_ns + for_ms * MS)

    def _maintain(self, state: State, now_ns: int) -> None:
        """SAFETY S24: who did not hear the order itself (a newcomer) freezes nothing of its own until it is renewed."""
        held = state.maintenance
        node = state.nodes[self.local.nodeid]
        self.freezes = {serial: t for serial, t in self.freezes.items() if held is not None and serial == held.serial}
        if held is not None and held.serial in self.freezes:
            over, until = self.freezes[held.serial]
            left_ms = (over - now_ns) // MS
            if self.newcomers and left_ms > 0:
                self.say(MaintenanceOn(left_ms, held.reason, held.serial))
            if now_ns >= over:
                self.say(MaintenanceOff(held.serial))
            elif self.frozen != held.serial and node.frozen == held.serial and not state.by_witness:  # the other half may not know
                self.frozen = held.serial
                self.out.append(Freeze(until))
        elif held is None and node.frozen and node.status == MEMBER:
            self.frozen = 0
            self.out.append(Freeze(0))
            self.say(Thawed(node.frozen))
        self.newcomers = False

    def left_ms(self, serial: int, now_ns: int) -> int:
        """How long the maintenance goes on by this clock, in ms; 0 when it is not known here."""
        return max(0, self.freezes[serial][0] - now_ns) // MS if serial in self.freezes else 0

    # --- commands ---------------------------------------------------------------------------------------------------------
    def ask(self, ticket: int, body: Body) -> None:
        self.commands.setdefault(body, []).append(ticket)
        self.vain.discard(body)

    def answer(self, body: Body, ok: bool, why: str) -> None:
        for ticket in self.commands.pop(body, ()):
            self.note("command_done", ticket=ticket, ok=ok, why=why)

    # --- groups -------------------------------------------------------------------------------------------------------------
    def _group(self, state: State, group: GroupRec | None, name: str, ring: RingId) -> None:
        """One group: what the switch must be told, and what the others must be told."""
        me = self.local.nodeid
        held = self._switch().get(name)
        mine = group is not None and group.has(me)
        if held is None:
            if mine:
                self.say(Leave(name, gone=True))
            return
        if name in self.expelled:
            self.left(name, ETIMEDOUT)
        elif name in self.refusals.current and not mine:
            self.left(name, self.refusals.current[name])
        elif state.shutdown and not mine and held.state is GroupState.JOINING:
            self.left(name, ESHUTDOWN)
        elif group is None or not mine:
            if held.state == GroupState.LEAVING:
                self._let_go(held, ring)
            elif held.state in (GroupState.JOINING, GroupState.MEMBER):
                self.say(Join(name, int(held.level), int(held.flags), self.config.of_group(name)))
        else:
            if held.event < group.event and me in group.stop_acks:
                self.say(Leave(name, gone=True))  # another life of the group than the one that acknowledged: it begins anew
                return
            if held.state == GroupState.LEAVING and me not in group.leavers:
                self.say(Leave(name))
            self._event(state, group, held)

    def _event(self, state: State, group: GroupRec, held: Group) -> None:
        me = self.local.nodeid
        if held.state == GroupState.LOST or not group.event or me not in group.stoppers or group.changed:
            return
        shown = max((held.event, int(held.phase)), self.ordered.get(group.name, (0, 0)))
        if shown[0] < group.event:
            self.order(group, Phase.STOP)
        elif shown == (group.event, Phase.STOP) and group.phase >= Phase.START and me in group.members:
            if all(map(state.admitted, group.members)):  # one has gone since: its return, or its failure, makes a new event
                self.order(group, Phase.START)
        elif shown == (group.event, Phase.START) and group.phase == Phase.FINISH and me in group.members:
            self.order(group, Phase.FINISH)
        if held.event == group.event == held.acked_event:
            if group.phase == Phase.STOP and held.acked_phase == Phase.STOP and me not in group.stop_acks:
                self.say(Ack(group.name, group.event, Phase.STOP))
            elif group.phase == Phase.START and held.acked_phase >= Phase.START and me not in group.start_acks:
                self.say(Ack(group.name, group.event, Phase.START))

    def order(self, group: GroupRec, phase: Phase) -> None:
        self.ordered[group.name] = (group.event, phase)
        fields: dict[str, object] = {"group": group.name, "event": event_text(group.event), "id": group.event}
        if phase == Phase.STOP:
            self.out.append(StopGroup(group.name, group.event))
        elif phase == Phase.START:
            members = tuple(Member(n, b, 1, j) for n, (b, j) in sorted(group.members.items()))
            self.out.append(StartGroup(group.name, group.event, members))
            fields["members"] = sorted(group.members)
        else:
            self.out.append(FinishGroup(group.name, group.event))
        self.note(f"group_{phase.name.lower()}", **fields)

    def left(self, name: str, error: int = 0) -> None:
        if self.ordered.get(name) != (0, -1):
            self.ordered[name] = (0, -1)
            self.out.append(LeftGroup(name, error))
            self.note("group_left", group=name, error=error)

    # --- leaving, and components that may not decide ---------------------------------------------------------------------------
    def _leave(self, state: State) -> None:
        node = state.nodes[self.local.nodeid]
        if state.shutdown and (node.status != MEMBER or orders.turn(state) == self.local.nodeid):
            self.leave_wanted = True
        if node.status == LEFT and (node.boot, node.engine) == (self.local.boot, self.local.engine):
            self.leave_done()
        elif self.leave_wanted and node.status == FAILED and not self._switch():
            self.leave_done()  # nobody's word is needed: to the others this node has failed already (SAFETY S21)
        elif self.leave_wanted and not self._switch() and not ballot.missed(state, self.local.nodeid):
            self.say(NodeLeave())

    def leave_done(self) -> None:
        if not self.gone:
            self.gone = True
            self.out.append(LeaveDone())

    def alone(self, ring: RingId, boots: Mapping[int, int], stop_all: bool = False, fresh: bool = False) -> None:
        """No decision can be had (no quorum, or this node has failed): stop what lost a member, and let go whoever wants to leave
        as soon as it has stopped itself (SAFETY S21). A ``fresh`` daemon that has met nobody yet does not know who is missing, and
        stops nothing: it may be back in a moment (SAFETY S16)."""
        for _, held in sorted(self._switch().items()):
            running = held.members or held.finished_members
            if held.state == GroupState.LEAVING:
                self._let_go(held, ring)
            elif held.state != GroupState.LOST and not fresh and (
                stop_all or any(boots.get(m.nodeid) != m.incarnation for m in running)
            ):
                self._stop_alone(held, ring)

    def _let_go(self, held: Group, ring: RingId) -> None:
        """Its consumer wants to leave and nobody else needs to know: complete once it has stopped."""
        if held.stopped or not held.event:
            self.left(held.name)
        else:
            self._stop_alone(held, ring)

    def _stop_alone(self, held: Group, ring: RingId) -> None:
        shown = max((held.event, int(held.phase)), self.ordered.get(held.name, (0, 0)))
        if not shown[0] or shown[1] in (Phase.STOP, -1):
            return
        self.local_stops += 1
        event = event_id(ring.seq, LOCAL_COUNTER + self.local_stops)
        self.ordered[held.name] = (event, Phase.STOP)
        self.out.append(StopGroup(held.name, event))
        self.note("group_stop", group=held.name, event=event_text(event), id=event, alone=True)

    def inquorate(self, state: State, ring: RingId, boots: Mapping[int, int]) -> None:
        if self.gone:
            return
        self.leave_wanted = self.leave_wanted or bool(state.shutdown)  # whoever is left of a shutdown needs nobody (SAFETY S21)
        self.install(ring, False, boots)
        self.alone(ring, boots, fresh=state.primary == NO_RING)
        if self.leave_wanted and not self._switch():
            self.leave_done()

    def wake(self, now_ns: int) -> list[int]:
        """When this node must be looked at again without any event: back-offs and limits."""
        times = [t for k, t in self.retry_at.items() if FenceRetry(*k) not in self.said]
        times += [*(over for over, _ in self.freezes.values()), *self.clocks.wake(now_ns), *self.leases.at.values()]
        return [t for t in times if t > now_ns]
