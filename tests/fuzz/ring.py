# SPDX-License-Identifier: GPL-2.0-only
"""Wrong frames against a live ring in the simulator, and what must hold.

*Outsider* (no key; sees everything, sends anything, replays, sends to others what was meant for one): the ring is undisturbed. Run
beside an equal ring that nobody attacks, every configuration and every message comes at the very same nanosecond.

*Liar* (a member: has the keys of node 3 and its place in the order of frames): it may stop the ring or split it, it may send two
different frames for one place and so break the total order of its own ring; a protocol without Byzantine agreement cannot prevent it.
What holds at the honest nodes: no exception leaves the engine; every action ends where the state table says; what they hold stays
within the limits (J5) and does not grow; a ring sequence is on disk before its ring is installed; they never hold themselves for
failed; configurations alternate and rise; and once the liar is gone, they are in one ring that delivers, within REFORM_MS.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from membership.api import Configuration, Processor
from membership.totem.seal import FrameError, Sealer
from tests.fuzz.memory import reachable
from tests.fuzz.mutate import BLIND, Corpus, Outsider, Structure
from tests.scenarios.script import Script
from tests.sim.checkers.inside import J0Table, J3Persisted, J4Gathering, J5Memory
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import CheapAead, CheapSuite
from vcs.model import RingId

LIAR = 3
REFORM_MS = 20_000
STEP_MS = 2.0
PER_STEP = 25
"Wrong frames in one step, so many that they outnumber the right ones."
CHURN_STEPS = 90
"Steps between two disturbances of our own: a node dies, leaves or comes back, so that all kinds of messages are in the corpus."
MEMORY_LOOKS = 8
GROWTH_MAX = 1.2
GROWTH_SLACK = 1500
"The second half of the looks at memory may exceed the first half's highest by this factor and so many objects (a store half full)."


@dataclass(slots=True)
class Report:
    frames: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    types: Counter[int] = field(default_factory=Counter)
    "Message types in the corpus."
    configurations: int = 0
    cells: int = 0
    "Cells of the state table that were visited at honest nodes."
    memory: list[int] = field(default_factory=list)
    "Objects held by the honest cores, at even intervals."

    def flat(self) -> bool:
        half = len(self.memory) // 2
        return half == 0 or max(self.memory[half:]) <= GROWTH_MAX * max(self.memory[:half]) + GROWTH_SLACK


class OtherKeys(CheapSuite):
    """Another cluster key."""

    def __call__(self, processor: Processor, /) -> CheapAead:
        return super().__call__(Processor(processor.nodeid, processor.boot ^ 0x5A5A, processor.engine))


class Attacked:
    """A ring of three under load, whose frames are listened to."""

    def __init__(self, seed: int | str, report: Report, cuts: bool = True) -> None:
        self.seed = seed
        self.cuts = cuts
        self.report = report
        self.rng = Random(f"fuzz/{seed}")
        self.script = s = Script(3, seed=seed, checked=False, watch=())
        self.corpus = Corpus(self.rng)
        self._opener = Sealer("sim", Processor(99, 1, 1), CheapSuite())
        self._receivers = dict(s.wires.receivers)
        for n in s.ids:
            s.wires.receivers[n] = partial(self._listen, n)
        s.load(7, size=300)
        s.load(31, 1, size=5000)
        s.load(11, 2, size=100, safe=True)
        s.run(300)
        self._disturb = iter(self._disturbances())

    def _listen(self, node: int, data: bytes, link: int) -> None:
        """A genuine datagram arrives: the attacker has it from now on. One that was lost it must not deliver: that would be a repair."""
        if self.script.nodes[node].up:
            with contextlib.suppress(FrameError):
                self.corpus.add(node, data, bytes(self._opener.open(data)[2]))
        self._receivers[node](data, link)

    def _disturbances(self) -> Iterator[None]:
        """Our own, the same in every run of a seed. Nothing by chance: an answer to the attacker must not decide what else is lost."""
        s = self.script
        while True:
            if self.cuts:
                s.cut(1, 3)
                yield
                yield
                yield
                s.heal()
                yield
            s.restart(2)
            yield
            s.links(to=2, drop_above=3000)
            yield
            s.links(drop_above=0)
            if s.nodes[LIAR].up:
                s.leave(LIAR)
            yield
            self._up(LIAR)
            yield
            s.kill(1)
            yield
            yield
            self._up(1)
            yield

    def _up(self, node: int) -> None:
        if not self.script.nodes[node].up:
            self.script.start(node)

    def step(self, number: int) -> None:
        if number % CHURN_STEPS == CHURN_STEPS - 1:
            next(self._disturb)
        self.script.run(STEP_MS)

    def hear(self, node: int, frame: bytes) -> None:
        """A datagram of the attacker arrives, now."""
        self._receivers[node](frame, 0)
        self.report.frames += 1

    def look(self, *nodes: int) -> None:
        cores = [self.script.hosts[n].core for n in nodes if self.script.hosts[n].alive]
        self.report.memory.append(reachable(*cores) // len(cores))


def outsider(frames: int, seed: int | str, carries: bool = False) -> Report:
    """Run both rings; AssertionError when the attack was noticed by anybody.

    ``carries``: genuine frames, to others than those they were meant for. No link is cut then: over a cut link this would be a way.
    """
    report = Report()
    alone, attacked = Attacked(seed, Report(), not carries), Attacked(seed, report, not carries)
    rng = Random(f"outsider/{seed}")
    strangers = [Sealer("other", Processor(3, 3, 3), CheapSuite()), *(
        Sealer("sim", h.processor, OtherKeys()) for h in attacked.script.hosts.values())]
    voice = Outsider(rng, attacked.corpus, strangers, carries)
    look_at = {frames * (i + 1) // MEMORY_LOOKS for i in range(MEMORY_LOOKS)}
    step = 0
    while report.frames < frames:
        lives = {n: h.processor for n, h in attacked.script.hosts.items()}
        for ring in (alone, attacked):
            ring.step(step)
        if lives != {n: h.processor for n, h in attacked.script.hosts.items()}:
            # What was recorded in a former life of its receiver may make the new one greet its sender earlier: no harm, but another
            # time. tests/scenarios (T23) sends those; here every nanosecond counts.
            attacked.corpus.frames.clear()
            for ring in (alone, attacked):
                ring.script.run(300)
        for _ in range(PER_STEP if attacked.corpus.frames else 0):
            kind, target, frame = voice.frame()
            report.kinds[kind] += 1
            attacked.hear(target if kind == "replay" else rng.choice(attacked.script.ids), frame)
            if report.frames in look_at:
                attacked.look(1, 2, 3)
        step += 1
        if step % CHURN_STEPS == CHURN_STEPS - 2:
            report.configurations += _same(alone.script, attacked.script)
    _same(alone.script, attacked.script)
    report.types.update({t: len(b) for t, b in attacked.corpus.bodies.items()})
    return report


def _same(alone: Script, attacked: Script) -> int:
    """Every node of both was told the same at the same time; then both forget it. The number of configurations."""
    count = 0
    for n in alone.ids:
        a, b = alone.seen[n], attacked.seen[n]
        assert [(t, str(c.ring)) for t, c in a.configurations] == [(t, str(c.ring)) for t, c in b.configurations], (
            f"node {n}: other configurations than without the attack, before {attacked.now} ms")
        assert a.messages == b.messages, f"node {n}: other messages, or at another time, than without the attack, before {attacked.now} ms"
        count += len(a.configurations) - 1
        for seen in (a, b):
            seen.forget()
    return count


class LocalRules(Checker):
    """I2 and I3 as far as one node can see them: kinds alternate, numbers rise, and it is a member of what it installs."""

    name = "local"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.last: dict[Processor, Configuration] = {}

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        last = self.last.get(p)
        if p not in conf.members or (last is not None and (last.kind is conf.kind or conf.ring <= last.ring)):
            self.fail(f"{p} installs {conf} after {last}")
        self.last[p] = conf


def liar(frames: int, seed: int | str) -> Report:
    """Node 3 lies with every frame; at the end it dies, and 1 and 2 must go on."""
    report = Report()
    ring = Attacked(seed, report)
    s, rng = ring.script, Random(f"liar/{seed}")
    table = J0Table(s.record)
    s.judge([table, J3Persisted(s.record, s.nodes), J5Memory(s.record), J4Gathering(s.record), LocalRules(s.record)])
    structure = Structure(rng, lambda: _rings(s), lambda: _processors(s, rng))
    look_at = {frames * (i + 1) // MEMORY_LOOKS for i in range(MEMORY_LOOKS)}
    step = 0
    while report.frames < frames:
        ring.step(step)
        if not s.nodes[LIAR].up:
            s.start(LIAR)
        elif step % (4 * CHURN_STEPS) == CHURN_STEPS // 2:
            s.restart(LIAR)  # what it said has had its effect; a new incarnation is believed again
        for _ in range(PER_STEP):
            body = structure.mutate(ring.corpus.body()) if rng.random() < 0.6 else None
            report.kinds["blind" if body is None else "structure"] += 1
            if body is None:
                body = rng.choice(BLIND)(rng, ring.corpus.body())
            ring.hear(rng.choice((1, 2)), s.hosts[LIAR].core.core.sealer.seal(body))
            if report.frames in look_at:
                ring.look(1, 2)
        step += 1
        if step % CHURN_STEPS == 0:
            for seen in s.seen.values():
                report.configurations += len(seen.configurations) - 1
                seen.forget()
    _aftermath(s)
    report.types.update({t: len(b) for t, b in ring.corpus.bodies.items()})
    report.cells = len(table.reached)
    return report


def _aftermath(s: Script) -> None:
    """The liar is gone: the honest ones are soon in one ring, and it delivers."""
    s.quiet()
    s.kill(LIAR)
    s.links(drop_above=0)
    s.heal()
    for n in (1, 2):
        if not s.nodes[n].up:
            s.start(n)
    s.ring(1, 2, within=REFORM_MS)
    s.told([s.submit(n, safe=safe) for n in (1, 2) for safe in (False, True)], 1, 2, within=5000)


def _rings(s: Script) -> list[RingId]:
    out = [h.core.core.ring.id for h in s.hosts.values()]
    return out + [h.core.core.forming.ring.id for h in s.hosts.values() if h.core.core.forming is not None]


def _processors(s: Script, rng: Random) -> list[Processor]:
    strangers = [Processor(rng.choice((1, 2, 3, 4, 99)), 1 + rng.randrange(9), 1 + rng.randrange(9)) for _ in range(4)]
    return [*(h.processor for h in s.hosts.values()), *strangers]
