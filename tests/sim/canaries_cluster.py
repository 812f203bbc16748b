# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's rules broken on purpose, each shown by its story (scenarios_cluster.py)."""

from __future__ import annotations

from typing import Any

from bridge.coordinator import ballot, clocks, fencing, groups, merge, methods, orders, quorum
from bridge.coordinator.state import FAILED, LEFT, GroupRec, Node, State
from tests.sim.canary import Canary, swap
from vcs.model import Phase, event_id

FIRST_BOOT = 1


def _named_by_nodeid() -> Any:
    """A joiner is taken for the incarnation that its nodeid had first."""
    right = groups.join

    def join(state: State, nodeid: int, boot: int, name: str, *rest: Any) -> bool:
        return right(state, nodeid, nodeid * 1000 + FIRST_BOOT, name, *rest)

    return swap((groups, "join", join))


def _event_ids_again() -> Any:
    """The counter alone makes an event id."""
    def next_event(self: State) -> int:
        self.counter += 1
        return event_id(4, self.counter)

    return swap((State, "next_event", next_event))


def _blocks_nothing() -> Any:
    return swap((State, "blocking", lambda self, name: []))


def _everybody_resets() -> Any:
    """Who was without quorum is not a continuing member."""
    def reconcile(state: State, nodeid: int, said: Any) -> None:
        fencing.fail_node(state, nodeid, [], "it was without quorum")

    return swap((merge, "_reconcile", reconcile))


def _no_patience() -> Any:
    """Whoever is missing when a quorum is back is fenced at once."""
    right = fencing.decide

    def decide(state: State, notes: Any) -> None:
        for obligation in state.obligations.values():
            obligation.patient = False
        right(state, notes)

    return swap((fencing, "decide", decide))


def _no_readmission() -> Any:
    def readmit(state: State, nodeid: int, who: Any, said: Any, obligation: Any, notes: Any) -> None:
        merge._refuse(state, nodeid, state.nodes[nodeid], who, merge.dangerous(said), notes)

    return swap((merge, "_readmit", readmit))


def _blocks_everything() -> Any:
    return swap((State, "blocking", lambda self, name: list(self.obligations.values())))


def _two_nodes_start() -> Any:
    """One of two takes its quorum for exclusive."""
    return swap((quorum, "exclusive", lambda config: True))


def _both_fence() -> Any:
    """Nobody waits for the other."""
    right = merge._count

    def count(state: State, *rest: Any) -> None:
        right(state, *rest)
        state.slow_fencer = 0

    return swap((merge, "_count", count))


def _no_pause() -> Any:
    return swap((methods, "of", lambda config, nodeid, attempt, cut=False: (0, 0)))


def _both_halves() -> Any:
    """Half of the votes are enough with anybody among them."""
    return swap((quorum.Votes, "needed", property(lambda self: self.expected // 2)))


def _votes_of_the_living() -> Any:
    """Missing for the window is enough."""
    def withdraw(state: State, nodeid: int, boot: int, notes: Any) -> bool:
        node = state.nodes[nodeid]
        if node.status != FAILED or not node.voter or nodeid in state.ballot.drop:
            return False
        ballot.propose(state, drop=[nodeid])
        return True

    return swap((ballot, "withdraw", withdraw))


def _nobody_keeps_a_vote() -> Any:
    """The last to leave gives its vote up, too; when nobody has one, none is needed."""
    def leave(state: State, nodeid: int) -> None:
        state.nodes[nodeid].status, state.nodes[nodeid].voter = LEFT, False

    needed = property(lambda self: self.expected // 2 + 1 if self.expected else 0)
    return swap((ballot, "leave", leave), (quorum.Votes, "needed", needed))


def _votes_never_go() -> Any:
    return swap((ballot, "withdraw", lambda state, nodeid, boot, notes: False))


def _half_applied() -> Any:
    """A message is applied to the state itself."""
    return swap((State, "copy", lambda self: self))


def _unknown_is_free() -> Any:
    return swap((groups, "unknown_elsewhere", lambda state, group: False))


def _leavers_stay_expected() -> Any:
    right = quorum.count

    def count(config: Any, nodes: dict[int, Node], *rest: Any) -> quorum.Votes:
        here = {n: Node() if k.status == LEFT else k for n, k in nodes.items()}
        return right(config, here, *rest)

    return swap((quorum, "count", count))


def _shut_down_in_use() -> Any:
    def shut_down(state: State, sender: int, notes: Any) -> bool:
        state.shutdown = sender
        return True

    return swap((orders, "shut_down", shut_down))


def _no_limits() -> Any:
    return swap((clocks.Clocks, "due", lambda self, state, switch, now_ns: []))


def _one_queue_for_all() -> Any:
    """A group waits for all others."""
    def unfinished(state: State, group: GroupRec) -> list[GroupRec]:
        return [g for g in state.groups.values() if g is not group and g.phase != Phase.FINISH and g.stop_acks != set(g.stoppers)]

    return swap((groups, "lower_unfinished", unfinished))


def _fenced_in_maintenance() -> Any:
    right = fencing.decide

    def decide(state: State, notes: Any) -> None:
        held, state.maintenance = state.maintenance, None
        right(state, notes)
        state.maintenance = held

    return swap((fencing, "decide", decide))


def _never_again() -> Any:
    return swap((fencing, "retry", lambda *_: False))


def _canary(rule: str, name: str, caught_by: set[str], broken: Any) -> Canary:
    return Canary(f"{rule.split(' ', maxsplit=1)[0]}: {name}", frozenset(caught_by), broken, rule=rule)


CANARIES: tuple[Canary, ...] = (
    _canary("S2 a start lists whom it means", "members named by nodeid", {"another_incarnation", "start_before_stop", "order", "stuck"},
            _named_by_nodeid),
    _canary("S3 event ids", "an id used again", {"event_reused", "order", "stuck"}, _event_ids_again),
    _canary("S4 a stop is no fence", "stopped is taken for dead", {"start_before_fence"}, _blocks_nothing),
    _canary("S7 minutes without any network", "everybody resets", {"reset_by_a_switch", "stuck"}, _everybody_resets),
    _canary("S7 one after the other", "no patience", {"reset_by_a_switch"}, _no_patience),
    _canary("S7 readmission", "no readmission", {"stuck", "reset_by_a_switch"}, _no_readmission),
    _canary("S8 gate what is concerned", "an obligation blocks everything", {"unconcerned"}, _blocks_everything),
    _canary("S12 two nodes", "one of two starts before the fence", {"split_start", "start_before_fence", "event_reused"}, _two_nodes_start),
    _canary("S12 two nodes", "both fence at once", {"both_fenced", "stuck"}, _both_fence),
    _canary("S12 a tie has one winner", "both halves", {"two_quorate_sides"}, _both_halves),
    _canary("S12 votes of the living stay", "missing is taken for dead", {"vote_withdrawn", "two_quorate_sides"}, _votes_of_the_living),
    _canary("S12 parted before the votes are back", "nobody keeps a vote", {"two_quorate_sides"}, _nobody_keeps_a_vote),
    _canary("S12 the last man stands", "votes never go", {"stuck"}, _votes_never_go),
    _canary("S19 no common-mode crash", "half of a message applied", {"half_applied", "diverged"}, _half_applied),
    _canary("S19 what one held alone", "nobody knows of it, so nobody holds it", {"obligation_lost", "start_before_fence", "double_lock"},
            _unknown_is_free),
    _canary("S21 leaving needs nobody", "leavers stay expected", {"stuck"}, _leavers_stay_expected),
    _canary("S21 the cluster is shut down", "a shutdown in use", {"shut_down_in_use"}, _shut_down_in_use),
    _canary("S22 a consumer that never answers", "no limits", {"stuck"}, _no_limits),
    _canary("S23 order per group", "one queue for all", {"held_by_another_group"}, _one_queue_for_all),
    _canary("S24 maintenance", "fenced in a maintenance", {"fenced_in_maintenance"}, _fenced_in_maintenance),
    _canary("S24 a device that fails and works", "no pause between calls", {"no_pause"}, _no_pause),
    _canary("S24 a device that fails and works", "a failed call is never repeated", {"stuck"}, _never_again),
)
