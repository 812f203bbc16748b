# SPDX-License-Identifier: GPL-2.0-only
"""The engine under faults: seeds, determinism, canaries, and the scenarios that have names in research and bug reports."""

from __future__ import annotations

import pytest

from membership.api import Configuration, Kind, Message, Order
from membership.totem.states import State
from tests.sim.engine_node import EngineHost, Node
from tests.sim.engine_run import ENGINE_CANARIES, run_engine_seed
from tests.sim.network import Network
from tests.sim.tape import record, replay, scenario, shrink
from tests.sim.world import MS, SECOND, World

SEEDS = 30
CANARY_SEEDS = 500


@pytest.mark.parametrize("block", range(10))
def test_seeds(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        result = run_engine_seed(seed)
        assert result.ok, f"seed {seed}: {result.violation}\nmake sim N=1 LAYER=engine SEED={seed}"


def test_a_seed_is_a_run() -> None:
    for seed in (1, 2, 3):
        first, again = run_engine_seed(seed), run_engine_seed(seed)
        assert first.trace_hash == again.trace_hash
        assert first.events == again.events
    assert run_engine_seed(4).trace_hash != run_engine_seed(5).trace_hash


QUICK = (
    "deliver_across_a_hole", "safe_as_agreed", "acknowledge_what_is_missing", "aru_raised_by_anybody", "forget_before_all_have_it",
    "packed_in_reverse", "obligations_dropped", "no_exchange", "exchange_leaves_one_out", "no_transitional_configuration",
    "ring_seq_not_persisted", "forgets_who_takes_part", "never_announces_itself", "a_leave_is_not_heard",
    "accuses_at_once", "never_accuses", "holds_itself_for_failed",
)
"Those that the first seeds catch; `make sim-canaries` runs all."


@pytest.mark.parametrize("canary", QUICK)
def test_a_broken_rule_is_noticed(canary: str) -> None:
    for seed in range(CANARY_SEEDS):
        result = run_engine_seed(seed, canary)
        if not result.ok:
            assert result.violation.split(":")[0] in ENGINE_CANARIES[canary].caught_by, result.violation
            return
    pytest.fail(f"{canary} was not noticed in {CANARY_SEEDS} seeds")


def test_a_failing_seed_is_made_short() -> None:
    """The tape of a run breaks the same invariant as the run, and so does what shrinking leaves of it, which is much less."""
    for seed in range(CANARY_SEEDS):
        result, tape = record(seed, ENGINE_CANARIES["deliver_across_a_hole"]())
        if not result.ok and len(tape.actions) > 100:
            break
    name = result.violation.split(":")[0]
    again = replay(tape, ENGINE_CANARIES["deliver_across_a_hole"]())
    assert again.violation == result.violation, "the tape is the run"
    assert replay(tape).ok, "the rule, not the scenario, is broken"
    short = shrink(tape, name, "deliver_across_a_hole", seconds=60)
    assert replay(short, ENGINE_CANARIES["deliver_across_a_hole"]()).violation.split(":")[0] == name
    assert len(short.actions) * 10 <= len(tape.actions) and len(short.fates) * 5 <= max(len(tape.fates), 50)
    space: dict[str, object] = {}
    exec(scenario(short, "printed"), space)  # what is printed is Python: it passes where the rule holds
    assert replay(short).ok and space["tape"] == short


# --- scenarios --------------------------------------------------------------------------------------------------------------


class Cluster:
    """Nodes with a log each; time passes with ``run``."""

    def __init__(self, nodes: int = 3, seed: str = "scenario") -> None:
        self.world = World(seed, events_max=200_000)
        self.network = Network(self.world, range(1, nodes + 1))
        self.confs: dict[int, list[Configuration]] = {n: [] for n in self.network.nodes}
        self.told: dict[int, list[bytes]] = {n: [] for n in self.network.nodes}
        self.hosts: dict[int, EngineHost] = {}
        self.nodes = {n: Node(self.world, self.network, n, self._program) for n in self.network.nodes}
        for node in self.nodes.values():
            node.start()
        self.run(SECOND)
        assert self.members(1) == list(self.network.nodes)

    def _program(self, node: Node, processor: object) -> EngineHost:
        def sink(event: object) -> None:
            if isinstance(event, Configuration):
                self.confs[node.nodeid].append(event)
            elif isinstance(event, Message):
                self.told[node.nodeid].append(event.payload)

        assert node.processor is not None
        host = self.hosts[node.nodeid] = EngineHost(node, node.processor, sink)
        return host

    def run(self, ns: int) -> None:
        self.world.run(self.world.now + ns)

    def members(self, node: int) -> list[int]:
        last = self.confs[node][-1]
        assert last.kind is Kind.REGULAR
        return [p.nodeid for p in last.members]

    def until(self, condition: object, limit_ns: int) -> int:
        began = self.world.now
        assert self.world.run(began + limit_ns, condition), f"not within {limit_ns / MS} ms"  # type: ignore[arg-type]
        return self.world.now - began


def test_a_silent_node_costs_the_detection_time_and_one_rest_of_the_token() -> None:
    for victim in (1, 2, 3):
        c = Cluster()
        left = [n for n in (1, 2, 3) if n != victim]
        c.nodes[victim].crash()
        took = c.until(lambda c=c, left=left: all(len(c.confs[n][-1].members) == 2 for n in left), 3 * SECOND)
        assert took <= (270 + 50 + 20) * MS, f"{took / MS} ms"


def test_a_clean_leave_costs_milliseconds() -> None:
    c = Cluster()
    c.hosts[2].leave()
    c.nodes[2].crash()
    assert c.until(lambda: c.members(1) == [1, 3] and c.members(3) == [1, 3], SECOND) < 10 * MS


def test_t3_a_node_that_restarts_at_once_is_a_new_processor() -> None:
    """The representative is back before anybody has noticed its death: its old incarnation fails without a timeout."""
    c = Cluster()
    old = c.nodes[1].processor
    c.nodes[1].crash()
    c.nodes[1].storage.clear()  # and its ring sequence is lost
    c.nodes[1].start(reboot=False)
    took = c.until(lambda: all(c.members(n) == [1, 2, 3] and old not in c.confs[n][-1].members for n in (1, 2, 3)
                               if c.confs[n][-1].kind is Kind.REGULAR), SECOND)
    assert took < 450 * MS


@pytest.mark.parametrize("victim", (1, 2, 3))
def test_a_restarted_process_costs_no_bystander_its_place(victim: int) -> None:
    """Whatever the order in which the new process and the others first hear each other: nobody else leaves the ring for it."""
    for seed in range(40):
        c = Cluster(seed=f"restart-{victim}-{seed}")
        for link in c.network.links.values():
            link.delay_ns = c.world.rng("delay").choice((MS // 10, MS, 3 * MS))
        old = c.nodes[victim].processor
        since = {n: len(c.confs[n]) for n in c.confs}
        c.nodes[victim].crash()
        c.nodes[victim].start(reboot=False)
        c.run(3 * SECOND)
        for n in (1, 2, 3):
            assert c.members(n) == [1, 2, 3] and old not in c.confs[n][-1].members
        for n in {1, 2, 3} - {victim}:
            for conf in c.confs[n][since[n] :]:
                gone = {1, 2, 3} - {victim} - {p.nodeid for p in conf.members}
                assert not gone, f"seed {seed}: node {n} installed {conf} without {gone}"


def test_a_member_that_restarts_while_a_ring_is_formed_comes_back_in() -> None:
    """The commit token has its entry, and waits on a link that loses it; the member restarts, and its new incarnation is believed
    before the token goes on. It must not bring the former one back."""
    c = Cluster(4)
    c.nodes[4].crash()
    c.until(lambda: c.hosts[2].core.core.state is State.COMMIT, SECOND)
    c.network.links[3, 1].drop_above = 100  # probes pass, the commit token does not
    c.until(lambda: c.hosts[3].core.core.state is State.COMMIT, SECOND)
    c.nodes[2].crash()
    c.nodes[2].start(reboot=False)
    new = c.nodes[2].processor
    c.until(lambda: c.hosts[1].core.core.peers[2].current == new, SECOND)
    assert c.hosts[1].core.core.state is State.COMMIT
    c.network.links[3, 1].drop_above = 0
    c.until(lambda: all(c.members(n) == [1, 2, 3] and new in c.confs[n][-1].members for n in (1, 2, 3)
                        if c.confs[n][-1].kind is Kind.REGULAR), SECOND)


def test_t6_a_lost_last_message_on_an_idle_ring_is_repaired_at_once() -> None:
    c = Cluster()
    c.network.links[1, 3].drop_above = 150  # tokens pass, the message does not
    c.hosts[1].submit(b"m" * 200)
    c.run(5 * MS)
    c.network.links[1, 3].drop_above = 0
    c.until(lambda: b"m" * 200 in c.told[3], 45 * MS)


def test_t4_who_fails_to_receive_is_excluded_by_the_others() -> None:
    c = Cluster()
    for a in (1, 2):
        c.network.links[a, 3].drop_above = 300
    c.hosts[1].submit(b"large" * 100)
    c.until(lambda: all(c.confs[n][-1].kind is Kind.REGULAR and 3 not in c.members(n) for n in (1, 2)), 10 * SECOND)
    assert b"large" * 100 in c.told[2]


def test_t10_a_paused_node_drains_before_it_judges() -> None:
    """Paused for less than the detection time: no configuration changes, although its own timers have long run out."""
    c = Cluster()
    before = len(c.confs[1])
    c.nodes[2].pause()
    c.run(200 * MS)
    c.nodes[2].resume()
    c.run(2 * SECOND)
    assert len(c.confs[1]) == before


def test_one_way_link_of_a_stranger_does_not_disturb_a_ring() -> None:
    """Node 3 hears nobody, and everybody hears it: it is left outside, and the ring of 1 and 2 stands still."""
    c = Cluster()
    c.network.cut(1, 3)
    c.network.cut(2, 3)
    c.run(4 * SECOND)
    assert c.members(1) == [1, 2]
    before = len(c.confs[1]), len(c.confs[2])
    c.run(10 * SECOND)
    assert (len(c.confs[1]), len(c.confs[2])) == before


def test_idle_ring_is_quiet_and_still_gives_evidence() -> None:
    c = Cluster()
    c.run(SECOND)
    sent = c.network.sent
    c.run(10 * SECOND)
    assert (c.network.sent - sent) / 10 <= 2 * 3 * 20 + 5, "three hops per 50 ms, each acknowledged"
    assert c.hosts[2].core.core.rotation_ns > c.world.now - 150 * MS


def test_t11_large_messages_across_configuration_changes() -> None:
    c = Cluster()
    large = [bytes([65 + i]) * 100_000 for i in range(10)]
    for payload in large:
        c.hosts[1].submit(payload, Order.SAFE)
    c.run(3 * MS)
    c.nodes[3].crash()
    c.until(lambda: c.told[1] == large and c.told[2] == large, 10 * SECOND)
    assert all(payload in large for payload in c.told[3])
