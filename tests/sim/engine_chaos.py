# SPDX-License-Identifier: GPL-2.0-only
"""Who draws the faults of an engine run: kinds by the plan's weights, each a few actions of the stage, some of them later."""

from __future__ import annotations

from random import Random

from membership.api import Processor
from tests.sim.engine_stage import Stage
from tests.sim.world import MS

QUEUED_MAX = 12
"Messages that wait at one node before the load pauses there: what is left over must fit into the liveness phase."
PROBE_BYTES = 66
"More than a probe takes on the wire, less than a token."
TOPOLOGY = frozenset({"partition", "isolate", "one_way", "pair", "deaf", "dumb", "chain", "flap", "way", "swizzle", "heal", "mute"})


class Chaos:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.plan = stage.plan
        self.world = stage.world
        self.on = True
        self.rng = self.world.rng("faults")
        self.load_rng = self.world.rng("load")
        self.stable_until = 0
        self.ids = stage.network.nodes

    def begin(self) -> None:
        self.world.after(20 * MS, self._load)
        self.world.after(self.rng.randrange(400 * MS), self._fault)

    def _load(self) -> None:
        if not self.on:
            return
        rng = self.load_rng
        up = [n for n in self.stage.nodes.values() if n.up and not n.paused]
        if up:
            for _ in range(rng.choice((1, 1, 4))):
                node = rng.choice(up)
                if node.up and len(self.stage.hosts[node.nodeid].core.core.queue) < QUEUED_MAX:
                    self.stage.act("submit", node.nodeid, rng.choice(self.plan.sizes), rng.random() < self.plan.safe)
        self.world.after(rng.randrange(1, 2 * self.plan.submit_ns), self._load)

    def _fault(self) -> None:
        if not self.on:
            return
        rng = self.rng
        kinds = list(self.plan.weights)
        kind = rng.choices(kinds, [self.plan.weights[k] for k in kinds])[0]
        victim = rng.choice(self.ids)
        if kind not in TOPOLOGY or self.world.now >= self.stable_until:
            if kind in TOPOLOGY:
                self.stable_until = self.world.now + self.plan.stability_ns
            getattr(self, f"_{kind}")(rng, victim)
        self.world.after(rng.randrange(1, 2 * self.plan.step_ns), self._fault)

    def snipe(self, p: Processor) -> None:
        """A ring was installed at ``p``."""
        plan, record = self.plan, self.stage.record
        if not self.on or not plan.sniper or (plan.together and len(record.periods[p][-2:][0].conf.members) < 2):
            return
        rng = self.world.rng("sniper")
        if rng.random() >= plan.sniper:
            return
        victims = rng.sample(self.ids, len(self.ids))
        if plan.sleeper:
            self._wake(p)
            return
        at = 0 if plan.together else rng.choice((0, MS // 2, 2 * MS))
        if rng.random() < 0.25:
            self._later(at, rng.choice(("crash", "crash", "die")), victims[0])
        else:
            first, second = sorted((rng.randint(1, len(victims)), rng.randint(1, len(victims))))
            self._later(at, "partition", *(tuple(g) for g in (victims[:first], victims[first:second], victims[second:]) if g))

    def _wake(self, p: Processor) -> None:
        """Who slept is in the old ring for a while yet: let it meet those who hold a promise that does not name it. ``p`` has installed
        the ring, and its token is lost for so long that they give the ring up; meanwhile who slept is only heard to answer."""
        members = self.stage.record.periods[p][-1].conf.members
        asleep = [n for n, node in self.stage.nodes.items() if node.paused]
        if not asleep or len(members) < 3:
            return
        token_ns = self.plan.config.token_ms * MS
        after = members[(members.index(p) + 1) % len(members)]
        self.stage.act("link", p.nodeid, after.nodeid, -1, "cut", True)  # the token is on its way already
        self._later(MS, "link", p.nodeid, after.nodeid, -1, "cut", False)
        self._only_answers(p.nodeid, after.nodeid, token_ns * 11 // 10)
        for n in asleep:
            self._only_answers(n, 0, token_ns * 9 // 10)
            self._later(token_ns * 9 // 10, "link", 0, n, -1, "drop_above", 0)
            self._later(0, "resume", n)

    def _only_answers(self, a: int, b: int, ns: int) -> None:
        """Probes and their answers pass, tokens and Joins do not."""
        self.stage.act("link", a, b, -1, "drop_above", PROBE_BYTES)
        self._later(ns, "link", a, b, -1, "drop_above", 0)

    def _later(self, delay: int, name: str, *values: object) -> None:
        """An action of the safety phase that comes when it comes, if that phase still lasts."""
        self.world.after(delay, self._now, name, values)

    def _now(self, name: str, values: tuple[object, ...]) -> None:
        if self.on:
            self.stage.act(name, *values)

    # --- who hears whom -----------------------------------------------------------------------------------------------------

    def _partition(self, rng: Random, _n: int) -> None:
        groups: list[list[int]] = [[], [], []]
        sides = rng.choice((2, 3))
        for n in self.ids:
            groups[rng.randrange(sides)].append(n)
        self.stage.act("partition", *(tuple(g) for g in groups if g))

    def _isolate(self, _rng: Random, n: int) -> None:
        self.stage.act("partition", (n,), tuple(x for x in self.ids if x != n))

    def _one_way(self, rng: Random, n: int) -> None:
        self.stage.act("link", n, self._other(rng, n), -1, "cut", True)

    def _pair(self, rng: Random, n: int) -> None:
        other = self._other(rng, n)
        self.stage.act("link", n, other, -1, "cut", True)
        self.stage.act("link", other, n, -1, "cut", True)

    def _deaf(self, _rng: Random, n: int) -> None:
        self.stage.act("link", 0, n, -1, "cut", True)

    def _dumb(self, _rng: Random, n: int) -> None:
        self.stage.act("link", n, 0, -1, "cut", True)

    def _chain(self, rng: Random, _n: int) -> None:
        """Each hears its neighbours in a row only."""
        row = rng.sample(self.ids, len(self.ids))
        for i, a in enumerate(row):
            for b in row[i + 2:]:
                self.stage.act("link", a, b, -1, "cut", True)
                self.stage.act("link", b, a, -1, "cut", True)

    def _flap(self, rng: Random, n: int) -> None:
        """One link of one node goes up and down."""
        way, period = rng.randrange(self.plan.ways), rng.choice((5 * MS, 30 * MS, 200 * MS))
        for i in range(6):
            for a, b in ((n, 0), (0, n)):
                self._later(i * period, "link", a, b, way, "cut", i % 2 == 0)

    def _way(self, rng: Random, n: int) -> None:
        """One link of the cluster fails, for one node or for all."""
        way, who = rng.randrange(self.plan.ways), rng.choice((0, n))
        for a, b in ((who, 0), (0, who)):
            self.stage.act("link", a, b, way, "cut", True)

    def _swizzle(self, rng: Random, _n: int) -> None:
        """Nodes are cut off one by one, and come back one by one in another order."""
        some = rng.sample(self.ids, rng.randint(1, len(self.ids)))
        gap = rng.choice((2 * MS, 20 * MS))
        for cut, order in ((True, some), (False, rng.sample(some, len(some)))):
            for i, n in enumerate(order):
                for a, b in ((n, 0), (0, n)):
                    self._later((i + (0 if cut else len(some))) * gap, "link", a, b, -1, "cut", cut)

    def _heal(self, _rng: Random, _n: int) -> None:
        self.stage.act("heal")

    def _mute(self, rng: Random, n: int) -> None:
        """Its messages are lost and its tokens are not, until it is cut off: the others have a hole that nobody can fill."""
        end = rng.randrange(5 * MS, 30 * MS)
        self.stage.act("link", n, 0, -1, "drop_above", 300)
        self._later(end, "link", n, 0, -1, "drop_above", 0)
        self._later(end, "partition", (n,), tuple(x for x in self.ids if x != n))

    # --- what a link does ---------------------------------------------------------------------------------------------------

    def _some_links(self, rng: Random, n: int, name: str, *values: float) -> None:
        """All links, one node's, or one direction of one pair."""
        a, b = rng.choice(((0, 0), (n, 0), (0, n), (n, self._other(rng, n))))
        self.stage.act("link", a, b, rng.choice((-1, rng.randrange(self.plan.ways))), name, rng.choice(values))

    def _loss(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "loss", 0.0, 0.02, 0.1, 0.3)

    def _burst(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "burst_enter", 0.0, 0.01, 0.05)

    def _segment_loss(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "segment_loss", 0.0, 0.01, 0.05)

    def _reorder(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "reorder", 0.0, 0.1, 0.5)

    def _duplicate(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "duplicate", 0.0, 0.1, 0.5)

    def _corrupt(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "corrupt", 0.0, 0.05, 0.2)

    def _drop_large(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "drop_above", 0, 0, 700, 1500)

    def _small_only(self, rng: Random, n: int) -> None:
        self.stage.act("link", 0, n, -1, "drop_above", rng.choice((300, 300, 300, 0)))

    def _rate(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "rate", 0, 0, 1_000_000, 20_000_000)

    def _clog(self, rng: Random, n: int) -> None:
        a, b = rng.choice(((n, 0), (0, n), (n, self._other(rng, n))))
        self.stage.act("clog", a, b, rng.choice((5 * MS, 50 * MS, 500 * MS)))

    def _slow_link(self, rng: Random, n: int) -> None:
        self._some_links(rng, n, "delay_ns", self.plan.delay_ns, 5 * MS, 30 * MS)

    # --- what happens to a node ---------------------------------------------------------------------------------------------

    def _crash(self, _rng: Random, n: int) -> None:
        self.stage.act("crash", n)

    def _die(self, _rng: Random, n: int) -> None:
        self.stage.act("die", n)

    def _leave(self, _rng: Random, n: int) -> None:
        self.stage.act("leave", n)

    def _restart(self, rng: Random, n: int) -> None:
        if rng.random() < 0.3:
            self.stage.act("crash", n)
        down = [x for x in self.ids if not self.stage.nodes[x].up]
        if down:
            # Now and then with another configuration.
            self.stage.act("start", rng.choice(down), rng.random() < 0.5, rng.choice(("", "", "", "default", "fast")))

    def _pause(self, _rng: Random, n: int) -> None:
        self.stage.act("pause", n)

    def _nap(self, rng: Random, n: int) -> None:
        """One sleeps where nothing else is wrong, and will not hear what the others said meanwhile."""
        if all(node.up and not node.paused for node in self.stage.nodes.values()):
            self._pause(rng, n)
            self.stage.act("link", 0, n, -1, "drop_above", PROBE_BYTES)

    def _resume(self, _rng: Random, _n: int) -> None:
        for n in self.ids:
            if self.stage.nodes[n].paused:
                self.stage.act("resume", n)

    def _cpu(self, rng: Random, n: int) -> None:
        self.stage.act("cpu", n, rng.choice((0, 50_000, 1 * MS, 5 * MS)))

    def _at_persist(self, rng: Random, n: int) -> None:
        self.stage.act("at_persist", n, rng.choice(("before", "after", "failing")))

    def _disk(self, rng: Random, n: int) -> None:
        self.stage.act("disk", n, rng.choice((0, MS, 30 * MS, 300 * MS)))

    def _lose_disk(self, rng: Random, n: int) -> None:
        self.stage.act("crash", n)
        self.stage.act("lose_disk", n, rng.random() < 0.5)

    def _calm(self, _rng: Random, _n: int) -> None: ...

    def _other(self, rng: Random, n: int) -> int:
        return rng.choice([x for x in self.ids if x != n])
