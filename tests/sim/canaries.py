# SPDX-License-Identifier: GPL-2.0-only
"""Rules broken on purpose: each must be caught by the checker that is named, or the checkers are worth nothing.

The breakage lives here, not in the product: functions of the coordinator are replaced for one run. What is broken below the
coordinator is the engine's canary (canaries_engine.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import traceback
from contextlib import nullcontext
from typing import Any

from bridge.coordinator import detached, feed, groups, merge, methods, persist, quorum
from bridge.coordinator.core import Coordinator
from bridge.coordinator.messages import AbsenceOver, Ack
from bridge.coordinator.state import DETACHED, FAILED, UNSEEN, GroupRec, Obligation, State
from membership.api import Configuration
from tests.sim.canaries_engine import ENGINE_CANARIES
from tests.sim.canaries_lease import LEASE_CANARIES
from tests.sim.canary import Canary, swap
from tests.sim.engine_run import run_engine_seed
from tests.sim.rules import all_canaries, all_rules
from tests.sim.run import Outcome, run
from tests.sim.world import Violation
from vcs.model import Phase

SEEDS_MAX = 500
"A broken rule that so many seeds do not catch is not caught."
STORY_SEEDS = range(1, 6)
PROCESSES = 2


def _start_before_fenced() -> Any:
    """An obligation blocks nothing."""
    return swap((State, "blocking", lambda self, name: []))


def _quorum_off_by_one() -> Any:
    """Half the votes count as a majority."""
    return swap((quorum.Votes, "needed", property(lambda self: self.expected // 2)))


def _skipped_barrier() -> Any:
    """A start does not wait for the last member's stop."""
    return swap((groups, "stopped", lambda group: len(set(group.stoppers) - group.stop_acks) <= 1))


def _stale_acknowledgement() -> Any:
    """An acknowledgement counts whatever event it belongs to, and the local side sends what it has."""
    right = groups.acknowledge

    def acknowledge(state: State, nodeid: int, boot: int, name: str, event: int, phase: int) -> bool:
        group = state.groups.get(name)
        return right(state, nodeid, boot, name, group.event if group is not None else event, phase)

    def say_early(self: feed.Feeder, state: State, group: GroupRec, held: Any) -> None:
        me = self.local.nodeid
        if group.phase == Phase.STOP and held.acked_phase == Phase.STOP and me in group.stoppers and me not in group.stop_acks:
            self.say(Ack(group.name, held.acked_event, Phase.STOP))
        right_event(self, state, group, held)

    right_event = feed.Feeder._event
    return swap((groups, "acknowledge", acknowledge), (feed.Feeder, "_event", say_early))


def _decided_in_transition() -> Any:
    """The transitional configuration is taken for a regular one."""
    right = Coordinator._configuration

    def configuration(self: Coordinator, event: Configuration) -> None:
        right(self, event)
        self.regular = True

    return swap((Coordinator, "_configuration", configuration))


def _restarted_admitted() -> Any:
    """What the kernel reports of groups that outlived their membership is ignored."""
    return swap((merge, "dangerous", lambda said: {}), (merge, "lost", lambda said: False))


def _detached_forgotten() -> Any:
    """At the limit a detached node counts as one that has left."""

    def over(state: State, body: AbsenceOver, notes: Any) -> bool:
        node = state.nodes[body.nodeid]
        if node.status != DETACHED:
            return False
        for group in state.groups.values():
            groups.drop(group, body.nodeid)
        node.status = FAILED
        return True

    return swap((detached, "over", over))


def _at_rest_unseen() -> Any:
    """A daemon that is back has its groups where the others have them, whatever its kernel says."""
    return swap((detached, "at_rest", lambda group, nodeid, found: True))


def _rebuilt_by_anybody() -> Any:
    """All daemons died, and any of them may go on alone."""
    right = detached.survives

    def survives(config: Any, state: State, present: Any, absent: bool) -> Any:
        return right(config, state, present, False)

    return swap((detached, "survives", survives))


def _missing_forgotten() -> Any:
    """All daemons died, and who is not back with the others counts as one that has left."""

    def detach(state: State, nodeid: int, notes: Any, everything: bool = False) -> None:
        if not everything:
            right(state, nodeid, notes)
            return
        for group in state.groups.values():
            groups.drop(group, nodeid)
        state.nodes[nodeid].status = UNSEEN

    right = detached.detach
    return swap((detached, "detach", detach))


def _obligations_forgotten() -> Any:
    """The record keeps the members, and forgets who is owed a fence."""
    right = persist.durable

    def durable(state: State, local: int) -> dict[str, Any]:
        return {**right(state, local), "obligations": list[Obligation]()}

    return swap((persist, "durable", durable))


def _reordered() -> Any:
    """The switch is told the phases again from the beginning whenever it was read."""

    def event(self: feed.Feeder, state: State, group: GroupRec, held: Any) -> None:
        if group.event and self.local.nodeid in group.stoppers and group.name not in self.ordered:
            self.order(group, Phase.STOP)
        right(self, state, group, held)

    right = feed.Feeder._event
    return swap((feed.Feeder, "_event", event))


def _one_method_for_ever() -> Any:
    """A method that fails is tried again and again, though there is another one."""
    return swap((methods, "turn", lambda attempt, methods, tries: 0))


UNFENCED = frozenset({"start_before_fence", "obligation_lost", "dead_writer", "double_lock"})
SEEDED: tuple[Canary, ...] = (
    Canary("start before fenced", frozenset({"start_before_fence", "obligation_lost"}), _start_before_fenced),
    Canary("quorum off by one", frozenset({"two_quorate_sides"}), _quorum_off_by_one),
    Canary("a skipped barrier", frozenset({"start_before_stop"}), _skipped_barrier),
    Canary("a stale acknowledgement accepted", frozenset({"stale_acknowledgement"}), _stale_acknowledgement),
    Canary("a start decided in a transitional configuration", frozenset({"decided_in_transition"}), _decided_in_transition),
    Canary("a restarted daemon taken for a clean newcomer", frozenset({"restarted_admitted", *UNFENCED}), _restarted_admitted,
           ("kill", "restart")),
    Canary("a detached node forgotten at its limit", UNFENCED, _detached_forgotten, ("kill", "restart")),
    Canary("a returned daemon's groups taken to be at rest", frozenset({"stuck", "order"}), _at_rest_unseen,
           ("kill", "restart", "singles", "partition", "unmount")),
    Canary("rebuilt without a quorum", frozenset({"two_quorate_sides", *UNFENCED}), _rebuilt_by_anybody,
           ("kill_all", "partition", "singles")),
    Canary("who is missing after all died holds nothing", UNFENCED, _missing_forgotten, ("kill_all", "partition")),
    Canary("obligations forgotten over a restart", frozenset({"obligation_lost"}), _obligations_forgotten, ("cut_and_power",)),
    Canary("orders repeated out of place", frozenset({"order"}), _reordered),
    Canary("a method that fails is tried for ever", frozenset({"stuck"}), _one_method_for_ever, ("partition",)),
)
ALONE: tuple[Canary, ...] = tuple(Canary(*broken, lease=True) for broken in LEASE_CANARIES)
CANARIES: tuple[Canary, ...] = SEEDED + ALONE + all_canaries()
ENGINE: tuple[Canary, ...] = tuple(
    Canary(f"engine: {name.replace('_', ' ')}", broken.caught_by, nullcontext, engine=name) for name, broken in ENGINE_CANARIES.items())


def hunt(canary: Canary, seeds: range = range(1, SEEDS_MAX + 1)) -> Outcome | None:
    """The first seed that fails with the broken rule; None when none does."""
    if canary.engine:
        for seed in seeds:
            result = run_engine_seed(seed, canary.engine)
            if not result.ok:
                name, _, detail = result.violation.partition(": ")
                return Outcome(seed, "engine", False, name, detail)
        return None
    if canary.rule:
        return _told(canary)
    with canary.broken():
        for seed in seeds:
            outcome = run(seed, layer="oracle", faults=canary.faults, lease=canary.lease)
            if not outcome.ok:
                return outcome
    return None


def _told(canary: Canary) -> Outcome | None:
    """The story with the broken rule; None when it ends well."""
    with canary.broken():
        for seed in STORY_SEEDS:
            try:
                all_rules()[canary.rule].tell(seed)
            except Violation as violation:
                return Outcome(seed, canary.rule, False, violation.name, violation.detail)
            except Exception:
                return Outcome(seed, canary.rule, False, "crash", traceback.format_exc())
    return None


def judge(canary: Canary) -> tuple[bool, str]:
    """Caught by the right checker, and one line that says so."""
    outcome = hunt(canary)
    if outcome is None:
        return False, f"NOT CAUGHT  {canary.name}: {SEEDS_MAX if not canary.rule else len(STORY_SEEDS)} seeds passed"
    if outcome.name not in canary.caught_by:
        return False, f"WRONGLY     {canary.name}: seed {outcome.seed}: {outcome.name}: {outcome.detail}"
    return True, f"caught      {canary.name}: by {outcome.name} at seed {outcome.seed}: {outcome.detail[:160]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="only canaries whose name contains this")
    args = parser.parse_args(arguments)
    chosen = [i for i, c in enumerate(CANARIES + ENGINE) if args.name in c.name]
    with multiprocessing.Pool(PROCESSES) as pool:
        results = []
        for result in pool.imap(_judge_nth, chosen):
            results.append(result)
            print(result[1], flush=True)
    caught = sum(ok for ok, _ in results)
    print(f"{caught} caught, {len(results) - caught} not caught")
    print(f"{caught} passed, {len(results) - caught} failed")
    return 0 if caught == len(results) else 1


def _judge_nth(index: int) -> tuple[bool, str]:
    return judge((CANARIES + ENGINE)[index])


if __name__ == "__main__":
    sys.exit(main())
