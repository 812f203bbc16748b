# SPDX-License-Identifier: GPL-2.0-only
"""Stories of the rules that the coordinator keeps: identities, stops, obligations, quorum, leaving, limits."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from bridge.coordinator import ballot, groups
from bridge.coordinator.messages import MaintenanceOn, ShutDown
from bridge.coordinator.state import State
from tests.sim.scenarios import FENCED, Rule, Scenario, config
from tests.sim.world import MS
from vcs.config.model import QuorumConfig
from vcs.model import Level

LOCKS = Level.LOCK_MANAGER
TWO_LOCKSPACES = (("gfs", LOCKS, FENCED), ("other", LOCKS, FENCED))


def s1_two_incarnations(s: Scenario) -> None:
    """Node 3 is cut off, its daemon is restarted meanwhile, and it comes back while the fence is slow: no clean newcomer."""
    s.up()
    s.cluster.device.mode = "slow"
    s.split({1, 2}, {3})
    s.until(lambda: s.quorate(1, 2) and (3, s.machines[3].boot) in _owed(s, 1), "node 3 is owed a fence")
    boot = s.machines[3].boot
    s.machines[3].daemon_died()
    s.run(2.2)
    s.together()
    s.until(lambda: s.machines[3].boot != boot, "the fence goes on", 20, "restarted_admitted")
    s.whole()


def s2_a_start_lists_whom_it_means(s: Scenario) -> None:
    """Node 3 dies and is back at once: every start from then on means its new boot."""
    s.up()
    s.machines[3].power_off((1, 2))
    s.whole()
    boot = s.machines[3].incarnation
    for n in (1, 2, 3):
        members = s.machines[n].glue.mounts["gfs"].members
        s.expect("another_incarnation", boot in members, f"node {n} recovered for {sorted(members)}, not for {boot}")


def s3_event_ids_are_never_used_again(s: Scenario) -> None:
    """All machines lose power at once, twice; what is ordered then is newer than all that was."""
    s.up()
    for _ in range(2):
        newest = max(e for e, _ in s.checkers.newest.values())
        for machine in s.machines.values():
            machine.power_off()
        s.whole()
        s.expect("event_reused", min(e for e, _ in s.checkers.newest.values()) > newest, "an event id from before the power cut")


def s4_a_stop_is_no_fence(s: Scenario) -> None:
    """Node 3 is cut off and has stopped; the others do not go on before it is dead."""
    s.up()
    s.cluster.device.mode = "fail"
    s.split({1, 2}, {3})
    s.run(8)
    s.expect("start_before_fence", not s.runs("gfs", 1, 2), "gfs runs without node 3, which is alive")
    s.cluster.device.mode = "ok"
    s.until(lambda: s.runs("gfs", 1, 2), "gfs runs on without node 3")


def s6_no_amnesia(s: Scenario) -> None:
    """3 is cut off; 1 and 2 lose power before the fence ends, boot, and are two of three."""
    s.up()
    s.cluster.device.mode = "slow"
    s.split({1, 2}, {3})
    s.until(lambda: (3, s.machines[3].boot) in _owed(s, 1), "node 3 is owed a fence")
    s.run(0.2)
    for n in (1, 2):
        s.machines[n].power_off()
    s.cluster.device.mode = "fail"
    s.run(15)
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()


def s7_minutes_without_any_network(s: Scenario) -> None:
    """1+1+1 for three minutes, though the lease is 5 s: nobody resets, everybody is back without a hand."""
    s.up()
    before = s.boots()
    s.split({1}, {2}, {3})
    s.run(180)
    s.together()
    s.whole()
    s.unharmed(before, "reset_by_a_switch")


def s7_one_after_the_other(s: Scenario) -> None:
    """The network comes back for two nodes a second before it does for the third: that one is given time, and not fenced. When it does
    not come, it is fenced in the end."""
    s.up()
    before = s.boots()
    s.split({1}, {2}, {3})
    s.run(20)
    s.split({1, 2}, {3})
    s.until(lambda: (3, s.machines[3].boot) in _owed(s, 1), "node 3 is owed a fence")
    s.run(1)
    s.together()
    s.whole()
    s.unharmed(before, "reset_by_a_switch")
    s.split({1}, {2}, {3})
    s.run(20)
    s.split({1, 2}, {3})
    s.until(lambda: s.machines[3].boot != before[3], "node 3 is fenced")
    s.together()
    s.whole()


def s7_readmission(s: Scenario) -> None:
    """Nobody can fence. Node 3 was missed, nothing was started without it: stop, then start with all."""
    s.up()
    before = s.boots()
    s.split({1, 2}, {3})
    s.until(lambda: (3, s.machines[3].boot) in _owed(s, 1), "node 3 is owed a fence")
    s.run(60)
    s.together()
    s.whole()
    s.unharmed(before, "reset_by_a_switch")


def s8_gate_what_is_concerned(s: Scenario) -> None:
    """Node 3 cannot be fenced; a lockspace that it never joined goes on, and gets a new member."""
    for n in (1, 3):
        s.machines[n].groups = {"gfs"} if n == 3 else {"gfs", "other"}
    s.machines[2].groups = {"gfs"}
    s.up()
    s.cluster.device.mode = "fail"
    s.split({1, 2}, {3})
    s.run(3)
    s.machines[2].groups = {"gfs", "other"}
    s.until(lambda: s.runs("other", 1, 2), "node 2 joins a group that node 3 was never in", 20, "unconcerned")
    s.expect("start_before_fence", not s.runs("gfs", 1, 2), "gfs runs without node 3, which is alive")


def s12_two_nodes(s: Scenario) -> None:
    """A split of two: both are quorate, one is dead before anything starts, of any kind of group."""
    s.up()
    s.machines[1].groups = s.machines[2].groups = {"svc"}
    for n in (1, 2):
        s.machines[n].glue.unmount("gfs")
    s.whole()
    s.cluster.device.mode = "slow"
    s.split({1}, {2})
    s.until(lambda: s.quorate(1) and s.quorate(2), "both are quorate")
    s.until(lambda: s.runs("svc", 1), "node 1 goes on alone")
    s.together()
    s.whole()
    s.expect("both_fenced", s.boots() == {1: 1, 2: 2}, f"boots {s.boots()}: the slower one should have lost, and it alone")


def s12_a_tie_has_one_winner(s: Scenario) -> None:
    """2+2 with a tie-breaker: the half with node 1 goes on."""
    s.up()
    s.split({1, 4}, {2, 3})
    s.until(lambda: s.runs("gfs", 1, 4), "the half with the tie-breaker goes on")
    s.expect("two_quorate_sides", not s.quorate(2) or s.machines[2].boots > 1, "node 2 is quorate, too")
    s.together()
    s.whole()


def s12_votes_of_the_living_stay(s: Scenario) -> None:
    """Last man standing, and 4 and 5 are cut off and cannot be fenced: their votes stay expected, however long it takes."""
    s.up()
    s.cluster.device.mode = "fail"
    s.split({1, 2, 3}, {4, 5})
    s.run(6)
    s.split({1, 2}, {3, 4, 5})
    s.run(6)
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()


def s12_the_last_man_stands(s: Scenario) -> None:
    """Four of five die, one after the other, and the fifth goes on; then all are back."""
    s.up()
    s.cluster.device.cycles = False
    for n in (5, 4, 3, 2):
        s.machines[n].power_off(None)
        rest = tuple(range(1, n))
        s.until(lambda rest=rest: s.runs("gfs", *rest), f"{rest} go on", 20)  # type: ignore[misc]
        s.run(1.5)
    s.expect("stuck", s.quorate(1), "node 1 has lost quorum")
    for n in (2, 3, 4, 5):
        s.machines[n].power_on()
    s.whole()


def s19_no_common_mode_crash(s: Scenario) -> None:
    """A message that no coordinator survives applying: rejected by all alike, nothing of it stays, and the cluster goes on."""
    s.checkers.poison = True
    right = groups.join

    def poisonous(state: State, nodeid: int, boot: int, name: str, *rest: Any) -> bool:
        changed = right(state, nodeid, boot, name, *rest)
        if name == "poison":
            raise ArithmeticError("poison")
        return changed

    s.up()
    with patch.object(groups, "join", poisonous):
        s.machines[2].glue.mount("poison", LOCKS, FENCED)
        s.run(3)
    for n, machine in s.machines.items():
        assert machine.daemon is not None
        c = machine.daemon.coordinator
        s.expect("half_applied", "poison" not in c.state.groups, f"node {n} has applied half of a rejected message")
        s.expect("crash", c.counters["rejected"] > 0, f"node {n} has rejected nothing")
    s.machines[2].glue.unmount("poison")
    s.machines[3].power_off((1, 2))
    s.whole()


def s19_what_one_held_alone(s: Scenario) -> None:
    """All daemons die over kernels that live on, and the one whose kernel has gfs for itself stays away: the others know nothing of that
    mount, and want it now. It starts nowhere before the node is fenced."""
    s.up()
    for n in (1, 2):
        s.machines[n].groups = {"svc"}
        s.machines[n].glue.unmount("gfs")
    s.until(lambda: s.runs("gfs", 3), "node 3 has gfs for itself")
    for machine in s.machines.values():
        machine.daemon_died()
    s.machines[3].starts_ns = 1 << 62
    for n in (1, 2):
        s.machines[n].groups = None
    s.until(lambda: s.machines[3].boots == 2, "node 3, whose daemon does not come back, is fenced", 60)
    s.machines[3].starts_ns = 0
    s.whole()


def s21_leaving_needs_nobody(s: Scenario) -> None:
    """3 -> 2 -> 1 -> 0 -> 3, and whoever is left is quorate all the time."""
    s.up()
    before = s.boots()
    for n in (3, 2, 1):
        s.machines[n].wanted = False
        s.until(lambda n=n: s.machines[n].daemon is None, f"node {n} has left", 20)  # type: ignore[misc]
        s.run(0.5)  # the ring without it
        rest = tuple(range(1, n))
        s.until(lambda rest=rest: s.quorate(*rest) and s.runs("gfs", *rest), f"{rest} go on", 20)  # type: ignore[misc]
    for machine in s.machines.values():
        machine.come_back()
    s.whole()
    s.unharmed(before, "fenced_for_leaving")


def s21_the_cluster_is_shut_down(s: Scenario) -> None:
    """Refused while groups are there; then everybody leaves in order, nobody is fenced, nobody is stuck; all come back."""
    s.up()
    before = s.boots()
    s.order(2, ShutDown())
    s.run(3)
    begun = [n for n, m in s.machines.items() if m.daemon is None or m.daemon.coordinator.state.shutdown]
    s.expect("shut_down_in_use", not begun and not s.cluster.unsettled(), "a shutdown under a mounted file system")
    for machine in s.machines.values():
        machine.mounting = False
    s.until(lambda: not any(m.glue.mounts for m in s.machines.values()), "everything is unmounted")
    s.order(2, ShutDown())
    s.until(lambda: all(m.daemon is None for m in s.machines.values()), "everybody has left")
    for machine in s.machines.values():
        machine.come_back()
    s.whole()
    s.unharmed(before, "fenced_for_leaving")
    s.expect("fenced_for_leaving", s.cluster.device.calls == 0, "the fence device was called")


def s12_parted_before_the_votes_are_back(s: Scenario) -> None:
    """The cluster was shut down, so all but the last leaver have given up their votes. All meet again, and part at every moment until
    each has its vote back: one side at most goes on."""
    s.up()
    for machine in s.machines.values():
        machine.mounting = False
    s.until(lambda: not any(m.glue.mounts for m in s.machines.values()), "everything is unmounted")
    for after in range(12):
        s.order(2, ShutDown())
        s.until(lambda: all(m.daemon is None for m in s.machines.values()), "everybody has left")
        for machine in s.machines.values():
            machine.come_back()
            machine.mounting = False
        s.until(lambda: any(s.quorate(n) for n in s.machines), "somebody has met all the others", step_ns=MS // 5)
        s.world.run(s.world.now + after * MS // 3)
        s.split({1, 2}, {3})
        s.run(3)
        s.together()
        s.until(lambda: s.quorate(1, 2, 3) and not any(voting(s, n) for n in s.machines), "all have their votes")
    for machine in s.machines.values():
        machine.mounting = True
        machine.come_back()
    s.whole()


def voting(s: Scenario, nodeid: int) -> bool:
    daemon = s.machines[nodeid].daemon
    return daemon is not None and ballot.running(daemon.coordinator.state)


def s22_a_consumer_that_never_answers(s: Scenario) -> None:
    """Node 3's consumer is stuck for ever when node 2 leaves the group: it does not hold the others."""
    s.up()
    s.machines[3].glue.stuck = True
    s.machines[2].glue.unmount("gfs")
    s.until(lambda: s.machines[3].boots == 2, "node 3 is fenced for its silence", 50)
    s.whole()


def s23_order_per_group(s: Scenario) -> None:
    """One consumer of node 3 is stuck; the other lockspace goes through its event all the same."""
    s.up()
    s.machines[3].glue.stuck_groups.add("gfs")
    s.machines[2].power_off((1, 2))
    s.until(lambda: s.runs("other", 1, 2, 3), "the other lockspace has node 2 back", 20, "held_by_another_group")
    s.machines[3].glue.stuck_groups.clear()
    s.machines[3].glue._hinted()
    s.whole()


def s24_maintenance(s: Scenario) -> None:
    """Nobody is fenced for the announced time, though a node is missing; then it is, without a hand."""
    s.up()
    s.order(1, MaintenanceOn(12_000, "new switch"))
    s.run(0.5)
    s.split({1, 2}, {3})
    s.run(9)
    s.expect("fenced_in_maintenance", s.cluster.device.calls == 0, "the fence device was called")
    s.expect("start_before_fence", not s.runs("gfs", 1, 2), "gfs runs without node 3, which is alive")
    s.until(lambda: s.runs("gfs", 1, 2), "node 3 is fenced when the time is over")
    s.together()
    s.whole()


def s24_a_device_that_fails_and_works(s: Scenario) -> None:
    """Calls fail for a while: they are repeated, with pauses, until one works."""
    s.up()
    s.cluster.device.mode = "fail"
    s.machines[3].power_off(None)
    s.run(12)
    s.expect("no_pause", s.cluster.device.calls < 25, f"{s.cluster.device.calls} calls in 12 s")
    s.cluster.device.mode = "ok"
    s.until(lambda: s.runs("gfs", 1, 2), "gfs goes on once the device works")
    s.whole()


def _owed(s: Scenario, nodeid: int) -> set[tuple[int, int]]:
    daemon = s.machines[nodeid].daemon
    return set(daemon.coordinator.state.obligations) if daemon is not None else set()


_LAST = QuorumConfig(last_man_standing=True, last_man_standing_window_ms=500)
_LAST_TIE = QuorumConfig(last_man_standing=True, last_man_standing_window_ms=500, auto_tie_breaker=True)
RULES: dict[str, Rule] = {
    "S1 two incarnations": Rule(s1_two_incarnations, config()),
    "S2 a start lists whom it means": Rule(s2_a_start_lists_whom_it_means, config()),
    "S3 event ids": Rule(s3_event_ids_are_never_used_again, config()),
    "S4 a stop is no fence": Rule(s4_a_stop_is_no_fence, config()),
    "S6 no amnesia": Rule(s6_no_amnesia, config(quorum=QuorumConfig(wait_for_all=False))),
    "S7 minutes without any network": Rule(s7_minutes_without_any_network, config(lease_ms=5000)),
    "S7 one after the other": Rule(s7_one_after_the_other, config()),
    "S7 readmission": Rule(s7_readmission, config(agent="")),
    "S8 gate what is concerned": Rule(s8_gate_what_is_concerned, config(), TWO_LOCKSPACES),
    "S12 two nodes": Rule(s12_two_nodes, config(2, QuorumConfig(two_node=True, fence_delay_ms=12_000))),
    "S12 a tie has one winner": Rule(s12_a_tie_has_one_winner, config(4, QuorumConfig(auto_tie_breaker=True))),
    "S12 votes of the living stay": Rule(s12_votes_of_the_living_stay, config(5, _LAST)),
    "S12 the last man stands": Rule(s12_the_last_man_stands, config(5, _LAST_TIE)),
    "S12 parted before the votes are back": Rule(s12_parted_before_the_votes_are_back, config()),
    "S19 no common-mode crash": Rule(s19_no_common_mode_crash, config()),
    "S19 what one held alone": Rule(s19_what_one_held_alone, config()),
    "S21 leaving needs nobody": Rule(s21_leaving_needs_nobody, config()),
    "S21 the cluster is shut down": Rule(s21_the_cluster_is_shut_down, config()),
    "S22 a consumer that never answers": Rule(s22_a_consumer_that_never_answers, config()),
    "S23 order per group": Rule(s23_order_per_group, config(), TWO_LOCKSPACES),
    "S24 maintenance": Rule(s24_maintenance, config()),
    "S24 a device that fails and works": Rule(s24_a_device_that_fails_and_works, config()),
}
