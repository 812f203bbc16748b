# SPDX-License-Identifier: GPL-2.0-only
"""The faults of a seed: which kinds, how often and when is drawn from the seed. Everything is healed at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bridge.coordinator.api import Command, FenceAck, PlannedRestart
from bridge.coordinator.messages import Body, Expect, MaintenanceOff, MaintenanceOn, ShutDown
from bridge.coordinator.state import FAILED
from tests.sim.cluster import Cluster
from tests.sim.world import MS, SECOND

LONG_NS = 45 * SECOND


class Wires(Protocol):
    """The part of an engine's network that faults need."""

    def connect(self, sides: list[set[int]]) -> None: ...
    def one_way(self, source: int, to: int) -> None: ...
    def noise(self, level: float) -> None: ...


class Faults:
    def __init__(self, cluster: Cluster, wires: Wires, kinds: tuple[str, ...] = ()) -> None:
        """``kinds``: only these, instead of what the seed draws."""
        self.cluster, self.wires = cluster, wires
        self.rng = cluster.world.rng("faults")
        self.until = 0
        self.tickets = 0
        menu: dict[str, Callable[[], None]] = {
            "power": self._power, "kill": self._kill, "kill_all": self._kill_all, "partition": self._partition,
            "singles": self._singles, "pause": self._pause, "device": self._device, "leave": self._leave, "unmount": self._unmount,
            "power_all": self._power_all, "stuck": self._stuck, "cut_and_power": self._cut_and_power,
            "alone": self._alone,
            "one_way": self._one_way, "noise": self._noise, "acknowledge": self._acknowledge, "leave_all": self._leave_all,
            "restart": self._restart, "restart_all": self._restart_all,
            "maintenance": self._maintenance, "expect": self._expect, "shut_down": self._shut_down,
        }
        if cluster.witness is not None:
            menu["witness"] = self._witness
        chosen = list(kinds) or [name for name in menu if self.rng.random() < 0.45] or ["power"]
        self.menu = [menu[name] for name in chosen]
        self.mean_ns = self.rng.choice((1, 3, 6)) * SECOND

    def begin(self, until_ns: int) -> None:
        """Power on, in some order and not all at once; then faults until ``until_ns``."""
        self.until = until_ns
        self.everybody()
        for machine in self.cluster.machines.values():
            self.cluster.after(self.rng.randint(0, 800) * MS, machine.power_on)
        self.cluster.after(self.rng.randint(1, 5) * SECOND, self._next)

    def _next(self) -> None:
        if self.cluster.now >= self.until:
            return
        self.rng.choice(self.menu)()
        self.cluster.after(int(self.rng.expovariate(1 / self.mean_ns)) + MS, self._next)

    def heal(self) -> None:
        self.until = 0
        self.everybody()
        self.cluster.device.mode = "ok"
        if self.cluster.witness is not None:
            self.cluster.witness.heal()
        for machine in self.cluster.machines.values():
            machine.pause(False)
            machine.come_back()
            if machine.on:
                machine.glue.stuck = False
                machine.glue._hinted()
            else:
                machine.power_on()
        self._reset_by_hand()

    def _reset_by_hand(self) -> None:
        """Where no other node can fence (one node, or no agent), an administrator presses the button of whoever has failed."""
        config = self.cluster.config
        if len(self.cluster.machines) > 1 and config.fencing.agent:
            return
        for machine in self.cluster.machines.values():
            if machine.daemon is None or (config.self_fencing and machine.nodeid not in self.cluster.dry):
                continue
            node = machine.daemon.coordinator.state.nodes.get(machine.nodeid)
            if node is not None and node.status == FAILED and node.boot == machine.boot:
                machine.power_off()
                break
        self.cluster.after(SECOND, self._reset_by_hand)

    def everybody(self) -> None:
        self.wires.connect([set(self.cluster.machines)])
        self.wires.noise(0.0)

    # --- the menu ---------------------------------------------------------------------------------------------------------
    def _some(self) -> int:
        return self.rng.choice(sorted(self.cluster.machines))

    def _power(self) -> None:
        self.cluster.machines[self._some()].power_off()

    def _power_all(self) -> None:
        for machine in self.cluster.machines.values():
            machine.power_off()

    def _kill(self) -> None:
        self._kill_one(self._some())

    def _kill_one(self, nodeid: int) -> None:
        machine = self.cluster.machines[nodeid]
        if machine.on and not machine.paused:
            machine.daemon_died()

    def _kill_all(self) -> None:
        for machine in self.cluster.machines.values():
            if machine.on and not machine.paused:
                machine.daemon_died()

    def _restart(self) -> None:
        """`systemctl restart vcsd` over whatever is mounted."""
        machine = self.cluster.machines[self._some()]
        if machine.daemon is not None and not machine.paused:
            machine.daemon.feed(PlannedRestart(self.rng.choice((1000, 5000, 15000))))

    def _restart_all(self) -> None:
        """A rolling upgrade in a hurry."""
        for machine in self.cluster.machines.values():
            self.cluster.after(self.rng.randint(0, 1500) * MS, lambda m=machine: (  # type: ignore[misc]
                m.daemon.feed(PlannedRestart(5000)) if m.daemon is not None and not m.paused else None))

    def _split(self) -> list[set[int]]:
        nodes = sorted(self.cluster.machines)
        self.rng.shuffle(nodes)
        cut = self.rng.randint(0, len(nodes))
        return [set(nodes[:cut]), set(nodes[cut:])]

    def _heal_later(self) -> None:
        self.cluster.after(int(self.rng.expovariate(1 / (3 * SECOND))) + MS, self.everybody)

    def _partition(self) -> None:
        self.wires.connect(self._split())
        self._heal_later()

    def _one_way(self) -> None:
        source, to = self._some(), self._some()
        if source != to:
            self.wires.one_way(source, to)
            self._heal_later()

    def _noise(self) -> None:
        self.wires.noise(self.rng.choice((0.01, 0.05, 0.2)))
        self._heal_later()

    def _singles(self) -> None:
        self.wires.connect([{n} for n in self.cluster.machines])
        self._heal_later()

    def _cut_and_power(self) -> None:
        """SAFETY S6: somebody is cut off, and the others lose power before the fence ends."""
        alone = self._some()
        self.cluster.device.mode = "slow"
        self.wires.connect([{alone}, set(self.cluster.machines) - {alone}])
        for nodeid, machine in self.cluster.machines.items():
            if nodeid != alone:
                self.cluster.after(self.rng.randint(100, 1500) * MS, machine.power_off)
        self.cluster.after(self.rng.randint(4, 14) * SECOND, self.everybody)

    def _pause(self) -> None:
        machine = self.cluster.machines[self._some()]
        machine.pause(True)
        self.cluster.after(int(self.rng.expovariate(1 / (2 * SECOND))) + MS, lambda: machine.pause(False))

    def _alone(self) -> None:
        """One is cut off for longer than any lease, and its daemon dies again and again."""
        alone = self._some()
        self.wires.connect([{alone}, set(self.cluster.machines) - {alone}])
        for _ in range(self.rng.randint(0, 4)):
            self.cluster.after(self.rng.randint(100, 6000) * MS, lambda: self._kill_one(alone))
        self.cluster.after(self.rng.randint(6, 14) * SECOND, self.everybody)

    def _witness(self) -> None:
        """It is off, restarted, out of some nodes' reach, slow, or loses much; mostly for a while."""
        host = self.cluster.witness
        assert host is not None
        what = self.rng.choice(("off", "restart", "cut", "cut", "slow", "loss"))
        if what in ("off", "restart"):
            host.stop()
            if what == "restart":
                host.start()
        elif what == "cut":
            host.cut = {n for n in self.cluster.machines if self.rng.random() < 0.5}
        elif what == "slow":
            host.hop_ns = (MS, host.timeout_ms * MS // 2)
        else:
            host.loss = 0.4
        self.cluster.after(int(self.rng.expovariate(1 / (4 * SECOND))) + MS, host.heal)

    def _device(self) -> None:
        self.cluster.device.mode = self.rng.choice(("fail", "slow", "ok"))

    def _leave(self) -> None:
        machine = self.cluster.machines[self._some()]
        machine.wanted = False
        self.cluster.after(self.rng.randint(1, 8) * SECOND, lambda: setattr(machine, "wanted", True))

    def _leave_all(self) -> None:
        """The whole cluster is shut down in order, and comes back (SAFETY S21)."""
        for machine in self.cluster.machines.values():
            machine.wanted = False
            self.cluster.after(self.rng.randint(3000, 6000) * MS, lambda m=machine: setattr(m, "wanted", True))  # type: ignore[misc]

    def _acknowledge(self) -> None:
        """An administrator who sees a machine that is off says so, to any daemon."""
        off = [n for n, m in self.cluster.machines.items() if not m.on]
        daemons = [m.daemon for m in self.cluster.machines.values() if m.daemon is not None and not m.paused]
        if off and daemons:
            self.rng.choice(daemons).feed(FenceAck(self.rng.choice(off)))

    def _order(self, body: Body) -> None:
        """An administrator asks some daemon to have something ordered."""
        daemons = [m.daemon for m in self.cluster.machines.values() if m.daemon is not None and not m.paused]
        if daemons:
            self.tickets += 1
            self.rng.choice(daemons).feed(Command(self.tickets, body))

    def _maintenance(self) -> None:
        self._order(MaintenanceOn(self.rng.randint(200, 8000), "") if self.rng.random() < 0.8 else MaintenanceOff(0))

    def _expect(self) -> None:
        self._order(Expect(self.rng.randint(1, len(self.cluster.machines) + 1)))

    def _shut_down(self) -> None:
        """Unmounted everywhere, some times, and then shut down in order; whoever has left by it comes back later."""
        for machine in self.cluster.machines.values():
            if machine.on and self.rng.random() < 0.9:
                machine.mounting = False
            self.cluster.after(self.rng.randint(4000, 8000) * MS, machine.come_back)
        self.cluster.after(self.rng.randint(500, 2000) * MS, lambda: self._order(ShutDown()))

    def _unmount(self) -> None:
        machine = self.cluster.machines[self._some()]
        if machine.on and not machine.paused and machine.glue.mounts:
            machine.glue.unmount(self.rng.choice(sorted(machine.glue.mounts)))

    def _stuck(self) -> None:
        """A consumer that stops answering (SAFETY S22), some times for longer than the limit."""
        machine = self.cluster.machines[self._some()]
        if not machine.on:
            return
        glue = machine.glue
        glue.stuck = True

        def answer() -> None:
            glue.stuck = False
            if machine.on and machine.glue is glue:
                glue._hinted()

        self.cluster.after(self.rng.choice((SECOND, 5 * SECOND, LONG_NS)), answer)
