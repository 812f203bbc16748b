# SPDX-License-Identifier: GPL-2.0-only
"""Stories of the witness: which half goes on, when it stops, and what no delay, restart or restlessness may bring about (SAFETY S12)."""

from __future__ import annotations

from bridge.coordinator.messages import MaintenanceOn
from tests.sim.node import GROUPS
from tests.sim.scenarios import Rule, Scenario, config
from tests.sim.witness import WitnessHost
from tests.sim.world import MS
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, QuorumConfig, WitnessConfig

TIMEOUT_MS = 2000
QUORUM = QuorumConfig(witness=WitnessConfig("10.0.0.99", timeout_ms=TIMEOUT_MS))


def host(s: Scenario) -> WitnessHost:
    assert s.cluster.witness is not None
    return s.cluster.witness


def believes(s: Scenario, n: int) -> bool:
    """Would node ``n`` act as a member of a quorum now?"""
    daemon = s.machines[n].daemon
    return daemon is not None and daemon.coordinator.deciding and daemon.coordinator.witness.holds(s.world.now)


def go_on(s: Scenario, *nodeids: int) -> bool:
    """Are exactly these nodes a configuration that decides?"""
    return all(believes(s, n) and (d := s.machines[n].daemon) is not None and {m.nodeid for m in d.coordinator.members} == {*nodeids}
               for n in nodeids)


def mode(s: Scenario, n: int) -> str:
    daemon = s.machines[n].daemon
    return daemon.coordinator.mode.value if daemon is not None else "off"


def one_of_two(s: Scenario) -> None:
    """A split of two: one side goes on, without the other; then both are back."""
    s.up()
    s.split({1}, {2})
    s.until(lambda: s.runs("gfs", 1), "node 1 goes on alone", 20)
    two = s.machines[2]
    s.expect("both_fenced", s.boots()[1] == 1 and (two.boots == 2 or not two.on), f"boots {s.boots()}: node 2 is fenced, and it alone")
    s.run(5)
    s.expect("quorum_lost", s.quorate(1) and s.runs("gfs", 1), "the grant is renewed for as long as it is needed")
    s.together()
    s.whole()


def the_other_of_two(s: Scenario) -> None:
    """Node 1 loses power for good: node 2 goes on, after the window in which node 1 could have asked."""
    s.cluster.device.cycles = False
    s.up()
    s.machines[1].power_off(None)
    s.until(lambda: s.runs("gfs", 2), "node 2 goes on alone", 20)
    s.machines[1].power_on()
    s.whole()


def lost_alone(s: Scenario) -> None:
    """The witness goes while both nodes are up: nothing happens."""
    s.up()
    stops = s.cluster.disk.writes
    events = {n: s.machines[n].glue.mounts["gfs"].event for n in (1, 2)}
    host(s).stop()
    s.run(20)
    s.expect("stopped_for_nothing", s.quorate(1, 2) and len(stops) > 0, "both are quorate without the witness")
    s.expect("stopped_for_nothing", events == {n: s.machines[n].glue.mounts["gfs"].event for n in (1, 2)}, "no group has a new event")
    host(s).start()
    s.run(2)
    s.whole()


def lost_together(s: Scenario) -> None:
    """Witness and node 2 go at once: the survivor stops, and goes on when one of the two is back."""
    s.cluster.device.cycles = False
    s.up()
    host(s).stop()
    s.machines[2].power_off(None)
    s.run(10)
    s.expect("inquorate_start", mode(s, 1) == "inquorate" and not s.quorate(1), "one of two without the witness is no quorum")
    host(s).start()
    s.until(lambda: s.runs("gfs", 1), "the witness is back, and node 1 goes on", 20)
    s.machines[2].power_on()
    s.whole()


def lost_after(s: Scenario) -> None:
    """Node 2 is gone and node 1 runs by the witness's word; then the witness goes: everything stops in time, and starts again with it."""
    s.cluster.device.cycles = False
    s.up()
    s.machines[2].power_off(None)
    s.until(lambda: s.runs("gfs", 1), "node 1 goes on alone", 20)
    host(s).stop()
    s.run(TIMEOUT_MS / 1000 + 0.2)
    s.expect("goes_on_alone", not believes(s, 1), "the grant is over")
    s.until(lambda: not s.runs("gfs", 1) and not s.runs("svc", 1), "everything stops", 1, "goes_on_alone")
    host(s).start()
    s.until(lambda: s.runs("gfs", 1) and s.runs("svc", 1), "it goes on by another grant, in the same ring", 20)
    s.machines[2].power_on()
    s.whole()


def restarted(s: Scenario) -> None:
    """The witness is restarted in the middle of a split, and only node 2 reaches it from then on: it waits for the end of what the old
    process may have granted."""
    s.cluster.device.mode = "fail"
    s.up()
    s.split({1}, {2})
    s.until(lambda: go_on(s, 1), "node 1 is quorate")
    host(s).cut = {1}
    host(s).stop()
    host(s).start()
    s.until(lambda: go_on(s, 2), "node 2 is quorate at last", 15)
    s.expect("two_quorate_sides", not believes(s, 1), "and node 1 is not")
    host(s).cut = set()
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()


def handed_over(s: Scenario) -> None:
    """Nobody can fence. The witness loses sight of the holder, the other half gets the grant, loses it again, and back; then all are
    back together, and nobody was harmed."""
    s.up()
    before = s.boots()
    s.split({1}, {2})
    for cut, winner in (({2}, 1), ({1}, 2), ({2}, 1)):
        host(s).cut = cut
        s.until(lambda w=winner: go_on(s, w), f"node {winner} is quorate", 15)  # type: ignore[misc]
        s.run(1)
        s.expect("start_before_fence", not s.runs("gfs", winner) and not s.runs("svc", winner), "nothing runs before the other is dead")
    s.together()
    s.whole()
    s.unharmed(before, "reset_by_a_switch")


def lease_after_lease(s: Scenario) -> None:
    """The nodes fence themselves, and the grant goes from one to the other and back: what node 1 has counted of node 2's lease before that
    proves nothing."""
    s.up()
    s.run(3)
    s.split({1}, {2})
    for cut, winner in (({2}, 1), ({1}, 2), ({2}, 1)):
        host(s).cut = cut
        s.until(lambda w=winner: go_on(s, w), f"node {winner} is quorate", 5)  # type: ignore[misc]
        s.run(0.2)
    s.run(12)
    host(s).cut = set()
    s.together()
    s.whole()


def why(s: Scenario, n: int) -> str:
    daemon = s.machines[n].daemon
    return "" if daemon is None else "; ".join(str(w["text"]) for w in daemon.coordinator.why(s.world.now))


def what_people_are_told(s: Scenario) -> None:
    """Each reason why half of the nodes do not go on has its own words."""
    s.cluster.device.mode = "fail"
    s.up()
    s.run(3)
    s.split({1}, {2})
    s.until(lambda: go_on(s, 1), "node 1 is quorate", 15)
    for words in ("exactly half of the votes are here", "has let the other half go on (ring "):
        s.until(lambda w=words: w in why(s, 2), f"node 2 says {words!r}", 3)  # type: ignore[misc]
    host(s).stop()
    for n in (1, 2):
        s.until(lambda n=n: "does not answer" in why(s, n), f"node {n} says that nobody answers", 5)  # type: ignore[misc]
    host(s).start()
    s.until(lambda: "it has just been started" in why(s, 2), "node 2 says why it waits", 1)
    host(s).arbiter.timeout_ms = 1
    s.until(lambda: f"refuses: timeout_ms is 1 there and {TIMEOUT_MS} here" in why(s, 2), "node 2 says what differs", 1)
    host(s).arbiter.timeout_ms = TIMEOUT_MS
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()
    s.expect("stuck", not why(s, 1), why(s, 1))


def no_maintenance(s: Scenario) -> None:
    """The nodes fence themselves. Node 1, alone, is asked to freeze resets; then node 2 has the grant, and counts on a reset."""
    s.up()
    s.run(3)
    s.split({1}, {2})
    host(s).cut = {2}
    s.until(lambda: go_on(s, 1), "node 1 is quorate", 5)
    s.order(1, MaintenanceOn(60_000, ""))
    s.run(0.3)
    host(s).cut = {1}
    s.until(lambda: s.runs("gfs", 2) or not s.machines[2].on, "node 2 goes on", 20)
    s.expect("start_before_fence", not s.machines[1].on or s.machines[1].boots > 1, "node 1 has reset itself")
    host(s).cut = set()
    s.together()
    s.whole()


def the_later_history(s: Scenario) -> None:
    """Node 1's ring has the higher number, and had its grant earlier. Node 2, later, has fenced node 1, which comes back with its record:
    what node 2 knows is the newer."""
    s.cluster.device.mode = "fail"
    s.up()
    host(s).cut = {2}
    s.engine.ring_seq[1] += 400
    s.split({1}, {2})
    s.until(lambda: go_on(s, 1), "node 1 is quorate, in a ring of a high number", 15)
    s.run(0.5)
    host(s).cut = {1}
    s.until(lambda: go_on(s, 2), "node 2 is quorate", 15)
    boot = s.machines[2].boot
    s.cluster.device.mode = "ok"
    s.until(lambda: s.runs("gfs", 2), "node 2 has fenced node 1", 15)
    host(s).cut = set()
    s.together()
    s.whole()
    s.expect("needless_fence", s.machines[2].boot == boot, "node 2, which went on, was fenced")


def slow_answers(s: Scenario) -> None:
    """Answers take up to most of the time-out, and overtake each other; then node 1 is out of reach for good, and node 2 asks."""
    s.cluster.device.mode = "fail"
    s.up()
    host(s).hop_ns = (400 * MS, 900 * MS)
    s.split({1}, {2})
    s.until(lambda: go_on(s, 1) or go_on(s, 2), "somebody is quorate", 20)
    for cut in ({1}, {2}, {1}):
        host(s).cut = cut
        s.run(6)
    host(s).cut = set()
    host(s).hop_ns = (100_000, 3 * MS)
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()


def two_and_two(s: Scenario) -> None:
    """2+2: the half with the lowest node goes on; three of four need no witness at all."""
    s.up()
    s.split({1, 4}, {2, 3})
    s.until(lambda: s.runs("gfs", 1, 4), "the half with node 1 goes on", 30)
    s.together()
    s.whole()
    host(s).stop()
    s.split({1}, {2, 3, 4})
    s.until(lambda: s.runs("gfs", 2, 3, 4), "three of four go on without the witness", 30)
    s.together()
    s.whole()


def an_asker_that_sleeps(s: Scenario) -> None:
    """2+2 and nobody can be fenced. The holder's asker hangs on its disk: the other member stops believing by itself, before the grant goes
    to the other half."""
    s.cluster.device.mode = "fail"
    s.up()
    s.split({1, 2}, {3, 4})
    daemon = s.machines[1].daemon
    assert daemon is not None
    s.until(lambda: go_on(s, 1, 2) and not daemon._saving, "1 and 2 are quorate")
    daemon._saving = True  # its disk takes for ever; the ring goes on
    host(s).cut = {2}
    s.until(lambda: go_on(s, 3, 4), "3 and 4 get the grant", 15)
    s.expect("two_quorate_sides", not believes(s, 2), "node 2 believes in a grant that is over")
    s.run(1)
    daemon._saving = False
    daemon._pump()
    host(s).cut = set()
    s.cluster.device.mode = "ok"
    s.together()
    s.whole()


def again_and_again(s: Scenario) -> None:
    """The network flaps, and with it who reaches the witness: a grant of an earlier configuration is worth nothing in a later one."""
    s.cluster.device.mode = "fail"
    s.up()
    for cut in ({2}, {1}, {2}, {1}):
        host(s).cut = cut
        s.split({1}, {2})
        s.until(lambda c=cut: go_on(s, *({1, 2} - c)), f"who reaches it goes on, without {cut}", 15)  # type: ignore[misc]
        s.together()
        s.until(lambda: go_on(s, 1, 2), "both are together", 15)
    host(s).cut = set()
    s.cluster.device.mode = "ok"
    s.whole()


def _config(count: int, agent: str = "sim", lease: LeaseConfig | None = None) -> ClusterConfig:
    made = config(count, QUORUM, agent)
    return ClusterConfig(made.name, made.nodes, quorum=QUORUM, fencing=FencingConfig(agent=agent, retry_ms=200, retry_max_ms=2000),
                         lease=lease or made.lease)


TWO, FOUR = _config(2), _config(4)
ALONE = _config(2, "", LeaseConfig(4000, "on", 500, 1000))
SERVICE = tuple(g for g in GROUPS if g[0] == "svc")
RULES: dict[str, Rule] = {
    "witness: one of two goes on": Rule(one_of_two, TWO),
    "witness: the other of two goes on": Rule(the_other_of_two, TWO),
    "witness: lost alone": Rule(lost_alone, TWO),
    "witness: lost together with a node": Rule(lost_together, TWO),
    "witness: lost after a node": Rule(lost_after, TWO),
    "witness: restarted in a split": Rule(restarted, TWO),
    "witness: handed over": Rule(handed_over, _config(2, "")),
    "witness: handed over, without locks": Rule(handed_over, _config(2, ""), SERVICE),
    "witness: a lease after a lease": Rule(lease_after_lease, ALONE),
    "witness: what people are told": Rule(what_people_are_told, TWO),
    "witness: no maintenance": Rule(no_maintenance, ALONE),
    "witness: the later history": Rule(the_later_history, TWO),
    "witness: slow answers": Rule(slow_answers, TWO),
    "witness: two and two": Rule(two_and_two, FOUR),
    "witness: an asker that sleeps": Rule(an_asker_that_sleeps, FOUR),
    "witness: again and again": Rule(again_and_again, TWO),
}
