# SPDX-License-Identifier: GPL-2.0-only
"""The rules of SAFETY as scripted stories in the simulator: whole machines, an ideal engine, the checkers of drawn faults.

A story raises Violation, by itself or through a checker, when its rule is broken; tests/sim/canaries.py breaks each on purpose. The
stories are in scenarios_*.py beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.coordinator import api as co
from bridge.coordinator.messages import Body
from tests.sim.checkers.groups import GroupCheckers
from tests.sim.cluster import Cluster
from tests.sim.node import GROUPS
from tests.sim.oracle import Oracle
from tests.sim.world import MS, SECOND, Violation, World
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, QuorumConfig
from vcs.model import GroupFlags, Level

STEP_NS = 20 * MS
Groups = tuple[tuple[str, Level, GroupFlags], ...]
FENCED = GroupFlags.NEEDS_FENCE | GroupFlags.PERSISTENT


def config(
    count: int = 3, quorum: QuorumConfig | None = None, agent: str = "sim", lease_ms: int = 0
) -> ClusterConfig:
    return ClusterConfig(
        name="sim", nodes=tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)), quorum=quorum or QuorumConfig(),
        fencing=FencingConfig(agent=agent, retry_ms=200, retry_max_ms=2000),
        # Without an agent three nodes would fence themselves; the stories of the lease have a configuration of their own.
        lease=LeaseConfig(lease_ms=lease_ms, self_fencing="off"),
    )


class Scenario:
    """A cluster, and what a story does to it."""

    def __init__(self, cluster_config: ClusterConfig, seed: int = 1, groups: Groups = GROUPS) -> None:
        self.world = World(seed, 60_000)
        self.engine = Oracle(self.world)
        self.cluster = Cluster(self.world, cluster_config, self.engine, groups)
        self.checkers = GroupCheckers(self.cluster)
        self.machines = self.cluster.machines
        self.together()

    # --- what happens -----------------------------------------------------------------------------------------------------
    def up(self) -> None:
        """Everybody boots, and everything runs everywhere."""
        for machine in self.machines.values():
            machine.power_on()
        self.whole()

    def together(self) -> None:
        self.engine.connect([set(self.machines)])

    def split(self, *sides: set[int]) -> None:
        self.engine.connect(list(sides))

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * SECOND))

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 30, rule: str = "stuck", step_ns: int = STEP_NS) -> None:
        """Run until ``condition``, which is looked at every ``step_ns``; a Violation of ``rule`` if that does not come."""
        end = self.world.now + int(seconds * SECOND)
        while not condition():
            if self.world.now >= end:
                raise Violation(rule, f"not within {seconds} s: {what}; {self.cluster.unsettled()}")
            self.world.run(self.world.now + step_ns)

    def whole(self, seconds: float = 60) -> None:
        self.until(lambda: not self.cluster.unsettled(), "the cluster is whole", seconds)

    def order(self, nodeid: int, body: Body) -> None:
        """An administrator at ``nodeid``."""
        daemon = self.machines[nodeid].daemon
        assert daemon is not None
        daemon.feed(co.Command(1, body))

    # --- what is ----------------------------------------------------------------------------------------------------------
    def quorate(self, *nodeids: int) -> bool:
        return all((d := self.machines[n].daemon) is not None and d.coordinator.deciding for n in nodeids)

    def runs(self, group: str, *nodeids: int) -> bool:
        """The group has finished on exactly these nodes."""
        for n in nodeids:
            machine = self.machines[n]
            held = {g.name: g for g in machine.daemon.port.groups("c")}.get(group) if machine.daemon is not None else None
            if held is None or held.phase.name != "FINISH" or {m.nodeid for m in held.finished_members} != set(nodeids):
                return False
        return True

    def boots(self) -> dict[int, int]:
        return {n: m.boots for n, m in self.machines.items()}

    def expect(self, rule: str, holds: bool, what: str) -> None:
        if not holds:
            raise Violation(rule, what)

    def unharmed(self, before: dict[int, int], rule: str) -> None:
        """Nobody was reset."""
        self.expect(rule, self.boots() == before, f"boots {before}, now {self.boots()}")


@dataclass(frozen=True, slots=True)
class Rule:
    story: Callable[[Scenario], None]
    config: ClusterConfig
    groups: Groups = GROUPS

    def tell(self, seed: int = 1) -> None:
        """Raises Violation."""
        self.story(Scenario(self.config, seed, self.groups))
