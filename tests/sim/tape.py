# SPDX-License-Identifier: GPL-2.0-only
"""A run written down: every action and every fate of a datagram that chance decided; and made short.

A failing seed is run once more with a recorder, which gives a tape. A tape is acted again without any chance: what it does not name
is the default (datagrams arrive, after the link's plain delay). ``shrink`` leaves out whatever the failure does not need (delta
debugging over fates, actions, nodes), and ``scenario`` prints what is left as Python, to be pasted into the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from tests.sim.canaries_engine import ENGINE_CANARIES, Canary
from tests.sim.engine_plan import Plan
from tests.sim.engine_run import EVENTS_MAX, LIVE_NS, EngineRun, Live, Result, run_plan
from tests.sim.engine_stage import Action, Frozen, Stage
from tests.sim.network import Fate
from tests.sim.world import MS, SECOND, Violation, World

STAGED = ("sync", "skew_ppm", "inbox_bytes", "jitter_ns", "delay_ns", "ways", "timing")
"What the stage itself takes from a plan."
T = TypeVar("T", bound=Hashable)
Fates = dict[tuple[int, int, int, int], Fate]


@dataclass(frozen=True, slots=True)
class Tape:
    plan: Plan
    "Only what the stage needs of it counts: links, timing, sizes of buffers, clocks, whether configurations begin with a message each."
    nodes: tuple[int, ...]
    actions: tuple[Action, ...]
    fates: Fates = field(default_factory=dict)
    end_ns: int = 0
    frozen: Frozen | None = None
    "The liveness phase; None: the checkers are asked at ``end_ns``."
    live_ns: int = LIVE_NS
    "Within so long the core must be together."


def record(seed: int | str, canary: Canary | None = None, plan: Plan | None = None) -> tuple[Result, Tape]:
    """Run a seed and write down what it did."""
    result, run = run_plan(seed, canary, plan, record=True)
    return result, tape_of(run)


def tape_of(run: EngineRun) -> Tape:
    kept = run.recording
    return Tape(run.plan, run.stage.network.nodes, tuple(kept.actions), dict(kept.fates), kept.end_ns or run.world.now, kept.frozen)


def replay(tape: Tape, canary: Canary | None = None) -> Result:
    """Act a tape. Never raises a violation: see Result."""
    world = World("tape", EVENTS_MAX)
    stage = Stage(world, tape.plan, any(name == "lose_disk" for _t, name, _v in tape.actions), canary, tape.nodes)
    stage.network.fates = tape.fates
    live = Live(stage, tape.live_ns)
    violation = ""
    if canary is not None:
        canary.__enter__()
    try:
        for node in stage.nodes.values():
            node.start()
        for at, name, values in tape.actions:
            world.script(at, stage.act, name, *values)
        world.run(tape.end_ns)
        if tape.frozen is not None:
            live.run(tape.frozen)
        stage.at_end()
    except Violation as v:
        violation = str(v)
    finally:
        if canary is not None:
            canary.__exit__(None, None, None)
    return Result(not violation, violation, world.trace_hash, world.events, tuple(world.log), str(tape.plan),
                  frozenset(stage.cells()), tuple(live.measures))


# --- making it short --------------------------------------------------------------------------------------------------------


def ddmin(items: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of ``items`` that still fails and from which no single chunk of the last size can go (Zeller, Hildebrandt 2002).
    ``fails`` may answer no for whatever it has no time for."""
    have = list(items)
    if not have or fails([]):
        return []
    parts = 2
    while len(have) > 1:
        size = -(-len(have) // parts)
        for i in range(0, len(have), size):
            rest = have[:i] + have[i + size:]
            if rest and fails(rest):
                have, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(have):
                break
            parts = min(parts * 2, len(have))
    return have


class Shrinker:
    """Leaves out, as long as the same invariant breaks and time is left."""

    def __init__(self, tape: Tape, name: str, canary: str | None, seconds: float) -> None:
        self.tape = tape
        self.name = name
        self.canary = canary
        self.tried = 0
        self._until = time.monotonic() + seconds

    def fails(self, tape: Tape) -> bool:
        if time.monotonic() > self._until:
            return False
        self.tried += 1
        canary = ENGINE_CANARIES[self.canary]() if self.canary is not None else None
        try:
            return replay(tape, canary).violation.split(":")[0] == self.name
        except (AssertionError, KeyError, IndexError):
            return False  # a scenario that cannot be acted at all is none

    def take(self, **changes: Any) -> bool:
        shorter = replace(self.tape, **changes)
        if not self.fails(shorter):
            return False
        self.tape = shorter
        return True

    def run(self) -> Tape:
        self.take(frozen=None)
        if self.tape.frozen is not None:
            self.take(live_ns=3 * SECOND)
        self._end()
        for name in dict.fromkeys(name for _t, name, _v in self.tape.actions):
            self.take(actions=tuple(a for a in self.tape.actions if a[1] != name))
        size = 0
        while size != (size := self._size()) and time.monotonic() < self._until:
            self._fates()
            acts = ddmin(self.tape.actions, lambda some: self.fails(replace(self.tape, actions=tuple(some))))
            self.take(actions=tuple(acts))
            self._nodes()
            self._messages()
            if self.tape.frozen is not None and self.tape.frozen.probe:
                self.take(frozen=replace(self.tape.frozen, probe=""))
            self._end()
        self._plan()
        return self.tape

    def _fates(self) -> None:
        hard = {k: f for k, f in self.tape.fates.items() if len(f) != 1 or f[0][1] >= 0 or f[0][0] > self.tape.plan.jitter_ns}
        if len(hard) < len(self.tape.fates):
            self.take(fates=hard)  # what only came a little later
        fates = self.tape.fates
        kept = ddmin(list(fates), lambda keys: self.fails(replace(self.tape, fates={k: fates[k] for k in keys})))
        self.take(fates={k: fates[k] for k in kept})

    def _size(self) -> int:
        return len(self.tape.actions) + len(self.tape.fates) + len(self.tape.nodes)

    def _end(self) -> None:
        """What comes after the violation is not needed: the earliest end, to a twentieth, that still shows it."""
        begin, end = World("").now, self.tape.end_ns
        low, high = begin, end
        while high - low > max((end - begin) // 20, MS):
            middle = (low + high) // 2
            if self.take(end_ns=middle, actions=tuple(a for a in self.tape.actions if a[0] <= middle)):
                high = middle
            else:
                low = middle

    def _nodes(self) -> None:
        for n in self.tape.nodes:
            left = tuple(x for x in self.tape.nodes if x != n)
            if len(left) < 1:
                return
            frozen = self.tape.frozen
            if frozen is not None:
                frozen = replace(frozen, core=tuple(x for x in frozen.core if x != n),
                                 outside={x: how for x, how in frozen.outside.items() if x != n})
                if not frozen.core:
                    continue
            self.take(nodes=left, frozen=frozen, actions=tuple(a for a in (_without(a, n) for a in self.tape.actions) if a),
                      fates={k: f for k, f in self.tape.fates.items() if n not in k[:2]})

    def _messages(self) -> None:
        """Small messages read better."""
        self.take(actions=tuple((t, name, (v[0], 40, v[2])) if name == "submit" else (t, name, v) for t, name, v in self.tape.actions))

    def _plan(self) -> None:
        """The stage's options that are not needed; what only chance looked at is not."""
        told = {name: getattr(self.tape.plan, name) for name in STAGED}
        self.take(plan=Plan(len(self.tape.nodes), **told))
        for name in STAGED:
            self.take(plan=replace(self.tape.plan, **{name: getattr(Plan(1), name)}))


def _without(action: Action, n: int) -> Action | None:
    """``action`` in a world without node ``n``; None if it is then no action."""
    at, name, values = action
    if name == "partition":
        groups = tuple(g for g in (tuple(x for x in group if x != n) for group in values) if g)
        return at, name, groups
    if name in ("link", "clog"):
        return None if n in values[:2] else action
    return None if values and values[0] == n else action


def shrink(tape: Tape, name: str, canary: str | None = None, seconds: float = 60) -> Tape:
    """The shortest tape found in ``seconds`` on which the invariant ``name`` still breaks. The same tape if it does not break on it."""
    shrinker = Shrinker(tape, name, canary, seconds)
    return shrinker.run() if shrinker.fails(tape) else tape


def scenario(tape: Tape, title: str) -> str:
    """The tape as Python."""
    lines = [
        f"# {title}", "from tests.sim.engine_plan import Plan", "from tests.sim.engine_stage import Frozen",
        "from tests.sim.tape import Tape, replay", "", "tape = Tape(", f"    {_plan_text(tape.plan)},", f"    nodes={tape.nodes!r},",
        "    actions=("]
    lines += [f"        ({at:_}, {name!r}, {values!r})," for at, name, values in tape.actions]
    lines += ["    ),", "    fates={  # (from, to, link, how many-th datagram): copies that arrive, each (ns late, bit turned or -1)"]
    lines += [f"        {key!r}: {fate!r}," for key, fate in sorted(tape.fates.items())]
    lines += ["    },", f"    end_ns={tape.end_ns:_},", f"    frozen={tape.frozen!r},", f"    live_ns={tape.live_ns:_},", ")",
              "result = replay(tape)", "assert result.ok, result.violation"]
    return "\n".join(lines)


def _plan_text(plan: Plan) -> str:
    plain = Plan(1)
    told = [f"{f.name}={value!r}" for f in fields(plan) if (value := getattr(plan, f.name)) != getattr(plain, f.name) or f.name == "nodes"]
    return f"Plan({', '.join(told)})"


def explain(seed: int | str, canary: str | None = None, plan: Plan | None = None, seconds: float = 60) -> str:
    """A failing seed, shrunk and printed; says so when the tape alone does not fail (then the seed itself is the way to see it)."""
    make = ENGINE_CANARIES[canary] if canary is not None else None
    result, tape = record(seed, make() if make else None, plan)
    if result.ok:
        return f"seed {seed} passes"
    name = result.violation.split(":")[0]
    short = shrink(tape, name, canary, seconds)
    how = f"{len(tape.actions)} actions and {len(tape.fates)} fates shrunk to {len(short.actions)} and {len(short.fates)}"
    if short is tape:
        how = "not shrunk (the tape alone does not fail, or time was over)"
    return scenario(short, f"seed {seed}: {name}: {how}")
