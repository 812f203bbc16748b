# SPDX-License-Identifier: GPL-2.0-only
"""Whole machines as a script: kernel switch, daemon with the real coordinator and the real engine, a consumer, a fence device.

The same words as script.py where they mean the same; here ``kill`` is the daemon's death and ``power_off`` the machine's. The
checkers of tests/sim/checkers/groups.py watch every step.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.coordinator import api as co
from tests.sim.checkers.groups import GroupCheckers
from tests.sim.cluster import Cluster
from tests.sim.node import GROUPS, Daemon, Machine
from tests.sim.totem_port import TotemPort
from tests.sim.world import SECOND, World
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, QuorumConfig
from vcs.model import GroupFlags, Level, Phase, event_text

EVENTS_MAX = 400_000
QUIET_NOTICES = {"lease_renewed"}
Groups = tuple[tuple[str, Level, GroupFlags], ...]


class Machines(Cluster):
    """``groups``: what every machine mounts. Nothing is powered on yet, and the faults are the script's alone."""

    def __init__(self, count: int = 3, seed: int | str = 0, groups: Groups = GROUPS) -> None:
        world = World(f"machines/{seed}", EVENTS_MAX)
        config = ClusterConfig(
            name="sim", nodes=tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)),
            quorum=QuorumConfig(wait_for_all=False), fencing=FencingConfig(agent="sim", retry_ms=200, retry_max_ms=2000),
            lease=LeaseConfig(lease_ms=0))
        self.port = TotemPort(world, config)
        super().__init__(world, config, self.port, groups)
        GroupCheckers(self)
        self.lines: list[str] = []
        self._zero = world.now
        self.port.network.set_all(jitter_ns=0)

    # --- the log ----------------------------------------------------------------------------------------------------------------

    def say(self, event: str, node: int = 0) -> None:
        self.lines.append(f"{(self.now - self._zero) / 1e6:12.3f}  {node or '':>3}  {event}")

    def effect(self, daemon: Daemon, effect: co.Effect) -> None:
        if isinstance(effect, co.StopGroup | co.StartGroup | co.FinishGroup):
            what = type(effect).__name__.removesuffix("Group").lower()
            members = " ".join(str(m.nodeid) for m in effect.members) if isinstance(effect, co.StartGroup) else ""
            self.say(f"{what} {effect.name} {event_text(effect.event)}{f': {members}' * bool(members)}", daemon.machine.nodeid)
        elif isinstance(effect, co.InstallView):
            who = " ".join(str(m.nodeid) for m in effect.members)
            self.say(f"view {effect.ring} {'quorate' if effect.quorate else 'not quorate'}: {who}", daemon.machine.nodeid)
        super().effect(daemon, effect)

    # --- words ------------------------------------------------------------------------------------------------------------------

    def power_on(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"power on {n}")
            self.machines[n].power_on()

    def power_off(self, *nodes: int) -> None:
        """Off, and it stays off until somebody (the fence device too) turns it on."""
        for n in nodes:
            self.say(f"power off {n}")
            self.machines[n].power_off(None)

    def kill(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"kill the daemon of {n}")
            self.machines[n].daemon_died()

    def pause(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"pause {n}")
            self.machines[n].pause(True)

    def resume(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"resume {n}")
            self.machines[n].pause(False)

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * SECOND))

    def until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        if not condition() and not self.world.run(self.world.now + int(seconds * SECOND), condition):
            tail = "\n".join(self.lines[-40:])
            raise AssertionError(f"not within {seconds} s: {what}; {self.unsettled()}\n{tail}")
        self.say(what)

    def whole(self, seconds: float = 60) -> None:
        """Every machine is in, and every group has finished with all of them."""
        for _ in range(int(seconds * 10)):
            if not self.unsettled():
                self.say("whole")
                return
            self.run(0.1)
        tail = "\n".join(self.lines[-40:])
        raise AssertionError(f"not whole within {seconds} s: {self.unsettled()}\n{tail}")

    def event_of(self, node: int, group: str) -> tuple[Phase, int, int, tuple[int, ...]]:
        """(phase, stop acknowledgements, start acknowledgements, members) of the group's event as ``node``'s coordinator has it."""
        daemon = self.machines[node].daemon
        record = daemon.coordinator.state.groups.get(group) if daemon is not None else None
        if record is None:
            return Phase.NONE, 0, 0, ()
        return Phase(record.phase), len(record.stop_acks), len(record.start_acks), tuple(sorted(record.members))

    def recovers_without(self, machine: Machine, group: str, gone: tuple[int, int]) -> bool:
        """The machine's consumer has recovered for an event that does not name the incarnation ``gone``, and goes on."""
        mount = machine.glue.mounts.get(group)
        return mount is not None and mount.running and gone not in mount.members
