# SPDX-License-Identifier: GPL-2.0-only
"""The witness's rules broken on purpose, each shown by its story (scenarios_witness.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.coordinator import merge, orders
from bridge.coordinator.core import Coordinator
from bridge.coordinator.feed import Feeder
from bridge.coordinator.lease_clock import LeaseClock
from bridge.coordinator.witness import Witness
from bridge.coordinator.witness_words import WitnessGrant
from bridge.witness.arbiter import Arbiter, Holder
from bridge.witness.wire import Answer, Ask, Verdict
from membership.api import Processor
from tests.sim.canary import Canary, swap


def _granted_to_all() -> Any:
    """Whoever asks is granted."""
    def wanted(self: Arbiter, sender: Processor, ask: Ask, succeeds: bool, now_ns: int, wall_ms: int) -> Answer:
        self.term += 1
        self.holder = Holder(ask.ring, frozenset(ask.members), self.term, now_ns + self.length_ns)
        return self._answer(Verdict.GRANTED, sender, ask)

    return swap((Arbiter, "_wanted", wanted))


def _an_earlier_grant() -> Any:
    """Who was granted once counts as granted in the next configuration, too."""
    right = Coordinator.form

    def form(self: Coordinator, state: Any, cold: bool, acked: frozenset[int] = frozenset(), rebuilt: bool = False, term: int = 0) -> None:
        earlier = 0 if cold or not state.term else state.term + 1
        right(self, state, cold, acked, rebuilt, term or earlier)

    return swap((Coordinator, "form", form))


def _from_the_answer() -> Any:
    """The time counts from when the answer was told, not from before it was asked for."""
    def granted(self: Witness, sender: int, body: WitnessGrant, now_ns: int) -> None:
        self.grant, self.news_ns, self.until_ns = (sender, body.number), now_ns, now_ns + self.length_ns

    return swap((Witness, "granted", granted))


def _only_the_asker_counts() -> Any:
    """The others believe in a grant until they hear that it is over."""
    right = Witness.holds

    def holds(self: Witness, now_ns: int) -> bool:
        if self.grant is not None and self.grant[0] != self.local.nodeid:
            return True
        return right(self, now_ns)

    return swap((Witness, "holds", holds))


def _starts_at_once() -> Any:
    """Half of the nodes take their quorum for a majority's."""
    right = merge._count

    def count(state: Any, *rest: Any) -> None:
        held, state.by_witness = state.by_witness, False
        right(state, *rest)
        state.by_witness = held

    return swap((merge, "_count", count))


def _old_leases() -> Any:
    """What was counted of a victim's lease before the grant was lost goes on being counted."""
    return swap((LeaseClock, "forget", lambda self: None))


def _remembers_nothing() -> Any:
    """A witness grants as soon as it is started."""
    right = Arbiter.__init__

    def init(self: Arbiter, timeout_ms: int, incarnation: int, now_ns: int) -> None:
        right(self, timeout_ms, incarnation, now_ns)
        self.quiet_ns = 0

    return swap((Arbiter, "__init__", init))


def _taken_away() -> Any:
    """Any later configuration follows the holder."""
    return swap((Arbiter, "_succeeds", lambda self, ask: self.holder is not None and self.holder.ring != ask.ring))


def _never_over() -> Any:
    return swap((Witness, "holds", lambda self, now_ns: True))


def _frozen_half() -> Any:
    def unaware(right: Any, at: int) -> Any:
        """The function, with a state in that place which knows of no witness."""
        def call(*rest: Any) -> Any:
            held, rest[at].by_witness = rest[at].by_witness, False
            done = right(*rest)
            rest[at].by_witness = held
            return done

        return call

    return swap((orders, "maintenance_on", unaware(orders.maintenance_on, 0)), (Feeder, "_maintain", unaware(Feeder._maintain, 1)))


def _by_ring_alone() -> Any:
    """The newest ring is the newest history, whoever was granted last."""
    right = merge.carrier

    def carrier(present: Any) -> int | None:
        said = {n: merge.Present(p.who, replace(p.said, term=0, record=p.said.record and {**p.said.record, "term": 0}))
                for n, p in present.items()}
        return right(said)

    return swap((merge, "carrier", carrier))


SPLIT = {"two_quorate_sides"}


def _canary(rule: str, name: str, caught_by: set[str], broken: Any) -> Canary:
    return Canary(f"witness: {name}", frozenset(caught_by), broken, rule=f"witness: {rule}")


CANARIES: tuple[Canary, ...] = (
    _canary("restarted in a split", "granted to everybody", SPLIT, _granted_to_all),
    _canary("restarted in a split", "a restarted witness grants at once", SPLIT, _remembers_nothing),
    _canary("one of two goes on", "taken away from a living holder", SPLIT, _taken_away),
    _canary("again and again", "a grant of an earlier configuration counts", SPLIT, _an_earlier_grant),
    _canary("slow answers", "counted from the answer", SPLIT, _from_the_answer),
    _canary("an asker that sleeps", "only the asker counts the time", SPLIT, _only_the_asker_counts),
    _canary("handed over, without locks", "half starts before the other half is dead", {"start_before_fence", "split_start"},
            _starts_at_once),
    _canary("a lease after a lease", "a lease counted from before the grant", {"start_before_fence", "dead_writer", "double_lock"},
            _old_leases),
    _canary("no maintenance", "half freezes its resets", {"start_before_fence", "dead_writer", "double_lock"}, _frozen_half),
    _canary("the later history", "the higher ring is the later one", {"needless_fence", "stuck"}, _by_ring_alone),
    _canary("lost after a node", "a grant that never ends", {"goes_on_alone"}, _never_over),
)
