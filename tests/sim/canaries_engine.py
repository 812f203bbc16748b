# SPDX-License-Identifier: GPL-2.0-only
"""The engine with one rule broken on purpose: the checkers must notice. Production code knows nothing of this.

Each canary replaces one function, or one thing in it, and says which faults a seed draws for it (a swarm directed at the rule) and
which invariants may name the breakage.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from random import Random
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from membership.api import Kind
from membership.totem import clique, commit, gather, operational, parked, recovery, token, verdict, watch
from membership.totem.core import Core
from membership.totem.packing import SendQueue
from membership.totem.ring import Ring
from membership.totem.states import State
from membership.totem.wire import NO_RING
from tests.sim.engine_plan import KINDS, Plan
from tests.sim.world import MS
from vcs.model import RingId

if TYPE_CHECKING:
    from tests.sim.engine_node import EngineHost

Swap = tuple[type | ModuleType, str, Any]
LOSSY = ("loss", "burst", "segment_loss", "reorder")
APART = ("partition", "isolate", "swizzle", "crash")
MOVING = (*APART, "die", "leave", "mute")


class Canary(AbstractContextManager["Canary"]):
    """Breaks a rule while it is entered: ``replace`` names (owner, attribute, what stands there instead)."""

    replace: tuple[Swap, ...] = ()
    kinds: tuple[str, ...] = KINDS
    "Faults to draw from."
    caught_by: frozenset[str] = frozenset()
    set_plan: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    "What the plan has in every seed."

    def __init__(self) -> None:
        self._whole: list[Swap] = []

    def __enter__(self) -> Canary:
        for owner, name, broken in self.replace:
            self._whole.append((owner, name, getattr(owner, name)))
            setattr(owner, name, broken)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        while self._whole:
            setattr(*self._whole.pop())

    def plan(self, rng: Random) -> Plan:
        """The seed's plan for this canary."""
        plan = Plan.draw_recovery(rng) if self.kinds == ("mute",) else Plan.draw(rng, self.kinds)
        if not self.set_plan.get("nodes") and plan.nodes > 5:
            plan.nodes = 2 + plan.nodes % 4
        return replace(plan, **self.set_plan)

    def host(self, host: EngineHost) -> None:
        """Break something in one host."""


ENGINE_CANARIES: dict[str, type[Canary]] = {}


def canary(name: str, caught_by: str, kinds: tuple[str, ...], *swaps: Swap, **plan: Any) -> None:
    """One more, by a few words."""
    ENGINE_CANARIES[name] = type(name, (Canary,), {
        "replace": swaps, "kinds": kinds, "caught_by": frozenset(caught_by.split()), "set_plan": plan})


def _wrap(function: Callable[..., Any], before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None) -> Any:
    """``function`` with something done before it, or to what it returns."""

    def wrapped(*args: Any, **named: Any) -> Any:
        if before is not None:
            before(*args)
        result = function(*args, **named)
        return result if after is None else after(result, *args)

    return wrapped


# --- order and delivery -------------------------------------------------------------------------------------------------------


def _across_a_hole(self: Core, ring: Ring, safe_upto: int) -> None:
    """Delivers whatever is here, in order, and does not wait for what is missing."""
    for seq in sorted(ring.store):
        if seq > ring.delivered:
            frame = ring.store[seq]
            if frame.safe and seq > safe_upto:
                break
            ring.delivered = seq
            self.emit(ring, frame)


_contiguous = Core.deliver_contiguous


def _safe_as_agreed(self: Core, ring: Ring, _safe_upto: int) -> None:
    _contiguous(self, ring, 1 << 62)


canary("deliver_across_a_hole", "I6 I8 I12 I14 I15", LOSSY, (Core, "deliver_contiguous", _across_a_hole))
canary("safe_as_agreed", "I14 I15", LOSSY, (Core, "deliver_contiguous", _safe_as_agreed), safe=0.7)


canary("safe_after_one_visit", "I14 I15 J2", (*LOSSY, "mute"),
       (token, "visit", _wrap(token.visit, after=lambda safe, core, ring, t, *_rest: t.aru)), safe=0.7, submit_ns=2 * MS)


def _aru_without_looking(ring: Ring, t: Any) -> None:
    t.aru, t.aru_id = t.seq, 0


canary("acknowledge_what_is_missing", "I12 I14 I15 J1 J2 L2", LOSSY, (token, "_acknowledge", _aru_without_looking))


def _raise_others(ring: Ring, t: Any) -> None:
    """Everybody raises the acknowledgement, not only who lowered it."""
    t.aru = min(ring.aru, t.seq)
    t.aru_id = 0 if t.aru == t.seq else ring.local.nodeid


canary("aru_raised_by_anybody", "I14 I15 J2 J1", LOSSY, (token, "_acknowledge", _raise_others))


def _forget_early(self: Ring, upto: int) -> None:
    _release(self, self.delivered)


_release = Ring.release
canary("forget_before_all_have_it", "J2", LOSSY, (Ring, "release", _forget_early))


def _accept_old_token(core: Core, _sender: Any, t: Any, _now: int) -> None:
    ring = core.forming.ring if core.forming is not None and core.state is State.RECOVERY else core.ring
    ring.token.seen = min(ring.token.seen, t.token_seq - 1)


canary("copies_of_the_token_accepted", "J1 I11 I4 I6 S9", ("loss", "slow_link", "clog", "reorder", "duplicate"),
       (operational, "on_token", _wrap(operational.on_token, before=_accept_old_token)))


def _same_place(core: Core, ring: Ring, t: Any, *_rest: Any) -> None:
    if t.seq and core.queue and t.seq not in ring.store and t.seq > ring.released:
        t.seq -= 1


canary("a_place_given_twice", "I11 J1 I12 L2 I10 I6", LOSSY, (token, "visit", _wrap(token.visit, before=_same_place)), submit_ns=2 * MS)


def _reversed(result: Any, *_args: Any) -> Any:
    if result is not None and isinstance(result[0], list):
        result[0].reverse()
    return result


canary("packed_in_reverse", "I8", ("cpu", "pause", "slow_link"),
       (SendQueue, "next_frame", _wrap(SendQueue.next_frame, after=_reversed)), submit_ns=2 * MS)
canary("safe_flag_lost", "I14 I15", LOSSY,
       (SendQueue, "next_frame", _wrap(SendQueue.next_frame, after=lambda r, *_a: r and (r[0], False))), safe=0.7)
canary("half_sent_message_not_sent_again", "L2 I13 I12 I5", MOVING, (SendQueue, "restart", lambda self: None),
       sizes=(400_000,), submit_ns=10 * MS, nodes=3)

# --- recovery -------------------------------------------------------------------------------------------------------------------


def _no_obligations(old: Any, entries: Any) -> tuple[int, bool]:
    """As if no earlier attempt had promised anything."""
    return recovery.mask_of(old, tuple(e.processor for e in entries)), True


_promise = recovery.promise
canary("obligations_dropped", "I12 I14", ("mute",), (recovery, "promise", _no_obligations))
canary("no_exchange", "I12 I13 I14 I17", (*LOSSY, *MOVING),
       (recovery, "promise", lambda old, entries: (_promise(old, entries)[0], False)), submit_ns=2 * MS)


def _short_exchange(core: Core, old: Ring, trans: Any, low: int) -> dict[int, Any]:
    kept = _to_send(core, old, trans, low)
    return dict(list(kept.items())[1:])


_to_send = recovery._to_send
canary("exchange_leaves_one_out", "I12 I13 I14 I17 I6 I11", (*LOSSY, *MOVING), (recovery, "_to_send", _short_exchange), submit_ns=2 * MS)


def _rest_of_all(core: Core, old: Ring, _obligations: int) -> None:
    _deliver_rest(core, old, (1 << 64) - 1)


_deliver_rest = recovery.deliver_rest
canary("everything_behind_a_hole", "I8 I12 I14", ("mute",), (recovery, "deliver_rest", _rest_of_all), sizes=(40, 400))
canary("nothing_behind_a_hole", "I13 I14 I17 L2", ("mute",),
       (recovery, "deliver_rest", lambda core, old, obligations: core.deliver_contiguous(old, old.high)))


def _early_install(core: Core, forming: Any, t: Any) -> None:
    _count_flag(core, forming, t)
    forming.install_seq = 0


_count_flag = recovery._count_flag
canary("installed_before_all_is_sent", "I12 I14 I13 J2 I15 L2", (*LOSSY, *MOVING),
       (recovery, "_count_flag", _early_install), submit_ns=2 * MS)


def _all_come_from_ours(core: Core, *_rest: Any) -> None:
    """Everybody in the new ring is taken for a member of the old one that has nothing."""
    forming = core.forming
    assert forming is not None
    forming.entries = tuple(replace(e, old_ring=core.ring.id, attempt=NO_RING) if core.ring.by_id.get(e.processor.nodeid) == e.processor
                            else e for e in forming.entries)


canary("comes_from_another_ring_and_counts", "I3 I12 I9 I5 I13 I2", APART,
       (recovery, "enter", _wrap(recovery.enter, before=_all_come_from_ours)))


def _no_transition(self: Core, kind: Kind, ring: RingId, members: Any) -> None:
    if kind is not Kind.TRANSITIONAL:
        _configure(self, kind, ring, members)


_configure = Core.configure
canary("no_transitional_configuration", "I3 I5", APART, (Core, "configure", _no_transition))

# --- ring sequences, the disk ---------------------------------------------------------------------------------------------------


class RingSeqNotPersisted(Canary):
    """The write of the ring sequence is left out."""

    kinds = ("crash", "die", "partition")
    caught_by = frozenset({"J3", "I9", "I2"})

    def host(self, host: EngineHost) -> None:
        host.persist = lambda ring_seq: None  # type: ignore[method-assign]


ENGINE_CANARIES["ring_seq_not_persisted"] = RingSeqNotPersisted


def _own_seq_low(core: Core, *_rest: Any) -> None:
    core.known_seq = core.ring_seq = core.ring.id.seq - 4


canary("ring_seq_used_again", "I2 I9 J3 L1 F1", APART, (commit, "create", _wrap(commit.create, before=_own_seq_low)))

# --- who takes part -------------------------------------------------------------------------------------------------------------


def _fail_myself(_result: Any, core: Core, *_rest: Any) -> None:
    core.fail.add(core.local)


canary("holds_itself_for_failed", "J4", ("leave", "die"), (gather, "on_leave", _wrap(gather.on_leave, after=_fail_myself)))


def _forgets(core: Core, *_rest: Any) -> None:
    if core.state is State.GATHER and len(core.proc) > 2:
        core.proc.discard(max(p for p in core.proc if p != core.local))
        core.fail &= core.proc


canary("forgets_who_takes_part", "J4", APART, (gather, "decide", _wrap(gather.decide, before=_forgets)))
canary("never_announces_itself", "L1", ("partition", "isolate"), (gather, "announce", lambda *_a: None))
canary("a_leave_is_not_heard", "F2", ("leave",), (gather, "on_leave", lambda *_a: None), probe="leave", core=1.0)
canary("commits_without_agreement", "I3 I9 L1 L2 I2 L3", (*APART, *LOSSY),
       (gather, "agreed", lambda core: True), (commit, "agreed", lambda core: True))

# --- failure detection ----------------------------------------------------------------------------------------------------------


def _impatient(_core: Core, _nodeid: int) -> int:
    return 1


canary("accuses_at_once", "F1 L1", LOSSY, (verdict, "patience", _impatient), (verdict, "ASKS_MIN", 1))
canary("never_accuses", "F2", ("crash",), (verdict, "judge", lambda core, scope, now: None), probe="silent", core=1.0)
canary("never_answers_a_probe", "F1 L1 F2", ("crash", "isolate"), (watch, "receive", lambda core, sender, message, now: None))


def _claims_ignored(processors: Any, _claims: Any, who: Any) -> Any:
    return _share(processors, (), who)


_share = clique.share
canary("claims_ignored", "L1 L2 L3 F2", ("pair", "one_way", "crash"), (clique, "share", _claims_ignored), partial="pair", nodes=3)
canary("nobody_is_parked", "L3", ("pair", "one_way"), (parked, "worthwhile", lambda *_a: True), partial="pair", nodes=3)

# --- the interface --------------------------------------------------------------------------------------------------------------


def _rotation_now(core: Core, ring: Ring, _began_ns: int) -> None:
    last = max(core.rotation_ns, core.ring_heard_ns)
    _evidence(core, ring, last)


_evidence = operational.evidence
canary("a_rotation_dated_at_its_end", "S9", ("slow_link", "calm"), (operational, "evidence", _rotation_now))


def _without_me(self: Core, kind: Kind, ring: RingId, members: Any) -> None:
    _configure(self, kind, ring, tuple(p for p in members if p != members[-1]) or members)


canary("a_member_is_not_told", "I2 I3 I9 I5", ("crash",), (Core, "configure", _without_me))


def _sequence_of_frame_lost(self: Core, ring: Ring, frame: Any) -> None:
    frame.seq, seq = max(1, frame.seq - 1), frame.seq
    try:
        _emit(self, ring, frame)
    finally:
        frame.seq = seq


_emit = Core.emit
canary("a_place_told_wrongly_by_one", "I11 I6", ("calm",), (Core, "emit", lambda self, ring, frame: (
    _sequence_of_frame_lost if self.local.nodeid == 1 else _emit)(self, ring, frame)))


def _twice(self: Core, ring: Ring, frame: Any) -> None:
    _emit(self, ring, frame)
    if frame.seq % 7 == 3:
        _emit(self, ring, frame)


canary("told_twice", "I4 I8", ("calm",), (Core, "emit", _twice))


def _on_leave_but_gasp(core: Core, sender: Any, leave: Any, now: int) -> None:
    if not leave.gasp:
        _on_leave(core, sender, leave, now)


_on_leave = gather.on_leave
canary("a_last_gasp_is_not_heard", "F2", ("die",), (gather, "on_leave", _on_leave_but_gasp), probe="die", core=1.0)


def _same_name(self: Core, kind: Kind, ring: RingId, members: Any) -> None:
    _configure(self, kind, RingId(ring.seq + 2, ring.rep) if kind is Kind.TRANSITIONAL else ring, members)


canary("a_name_given_twice", "I2 I9", APART, (Core, "configure", _same_name))


def _answers_for_others(core: Core, sender: Any, message: Any, now: int) -> None:
    """Hearing somebody is taken for a round trip with everybody."""
    for nodeid in core.watch.clocks:
        watch.answered(core, nodeid, now)
    _watch_receive(core, sender, message, now)


_watch_receive = watch.receive
canary("one_answer_stands_for_all", "F2", ("crash",), (watch, "receive", _answers_for_others), probe="silent", core=1.0, nodes=4)
