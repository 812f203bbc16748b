# SPDX-License-Identifier: GPL-2.0-only
"""Random histories of a cluster as node 1 sees it: joins, leaves, deaths, returns, readmissions, steps that finish in any order, and
dlm_glue killed anywhere. What must hold after each of them is known here, not asked from dlm_glue:

- whoever died as a member is taken for failed by the kernel at the control=1 that drops it, in every lockspace (its journal is replayed);
- whoever left cleanly and is still in the view is not; whoever stayed is not touched, and neither is its connection;
- control=1 only for the current event, after this node's stop was acknowledged, with exactly the members that the event names;
- event_done exactly once for each request, never without a waiter;
- and when everybody comes to rest, nobody waits and all that should run runs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from dlm_glue import plan
from dlm_glue.plan import _Plan
from dlm_glue.state import Who, global_id
from tests.fakes.glue import ME, World
from vcs.model import Group, GroupState, Phase

STEPS = 120
OTHERS = (2, 3, 4)
NAMES = ("x", "y")


@dataclass
class Model:
    """The bridge's side of one lockspace: who is a member, and what the running event covers."""

    members: dict[int, tuple[int, int]] = field(default_factory=dict)
    "nodeid -> (incarnation, join id), the local node included once its join was taken up."
    dirty: bool = False
    "There is a change that no event covers yet."
    joined_here: bool = False


class History:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World((ME, *OTHERS))
        self.models = {name: Model() for name in NAMES}
        self.joins = 0
        self.dead: set[tuple[int, int]] = set()
        "Incarnations that died, unless they were readmitted."
        self.died: set[tuple[str, int, tuple[int, int]]] = set()
        "(lockspace, nodeid, who) of those that died as members; to leave first and to die then is a clean leave."
        self.cut: dict[int, tuple[int, dict[str, tuple[int, int]]]] = {}
        "Nodes that may still be readmitted: incarnation, and what they were a member of."
        self.kernel: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in NAMES}
        "Truth: whom each lockspace was last started with."
        self.seqs: dict[str, dict[int, int]] = {name: {} for name in NAMES}
        self.ordered: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in NAMES}
        "The members of the last START of each lockspace."
        self.wrong: list[str] = []
        self.world.dlm.on_start = self.on_start

    # checks

    def on_start(self, name: str, removed: set[int]) -> None:
        w = self.world
        # A start that was under way when the next stop was ordered is as good as one that ended just before: what counts is that
        # this node has not acknowledged the next stop.
        target, before, group = self.ordered[name], self.kernel[name], w.group(name)
        if group.phase is not Phase.START and w.acked(name, Phase.STOP):
            self.wrong.append(f"control=1 of {name} out of turn: {group}")
        if set(w.dlm.lockspaces[name].members) != set(target):
            self.wrong.append(f"{name} started with {set(w.dlm.lockspaces[name].members)}, ordered were {set(target)}")
        if w.dlm.lockspaces[name].id != global_id(name):
            self.wrong.append(f"{name} has another id")
        entries = {e[2]: e[0] for e in w.dlm.log[-1 - len(removed) : -1] if e[0] in ("left", "failed")}
        for n, who in before.items():
            if target.get(n) == who:
                if n in removed:
                    self.wrong.append(f"{name}: {n} stayed and was removed: its locks are gone")
                if n != ME and w.dlm.comms[str(n)].seq != self.seqs[name][n]:
                    self.wrong.append(f"{name}: {n} stayed and lost its connection")
            elif n not in removed:
                self.wrong.append(f"{name}: {n} is not who it was and was not removed: locks of the old one stay")
            elif (name, n, who) in self.died and entries.get(n) != "failed":
                self.wrong.append(f"{name}: {n} died and is taken for a clean leaver: its journal is skipped")
            elif w.incarnations.get(n) == who[0] and (n, who[0]) not in self.dead and entries.get(n) != "left":
                self.wrong.append(f"{name}: {n} left cleanly and is taken for failed")
        self.kernel[name] = target
        self.seqs[name] = {n: w.dlm.comms[str(n)].seq for n in target if n != ME}

    # the cluster

    def one(self) -> None:
        actions = [
            *(self.open, self.release, self.join, self.leave, self.die, self.boot, self.readmit, self.kill, self.tick),
            *[self.order] * 4,
            *[self.lane] * 8,
            *[self.recover] * 3,
            *[self.hint] * 3,
        ]
        self.rng.choice(actions)()
        assert not self.world.dlm.violations, self.world.dlm.violations
        assert not self.wrong, self.wrong

    def open(self) -> None:
        name = self.rng.choice(NAMES)
        if name not in self.world.dlm.lockspaces:
            self.kernel[name], self.seqs[name] = {}, {}
            self.models[name].joined_here = False
            self.world.open(name)

    def release(self) -> None:
        name = self.rng.choice(NAMES)
        ls = self.world.dlm.lockspaces.get(name)
        if ls is not None and not ls.waiting:
            self.world.release(name)

    def join(self) -> None:
        name, n = self.rng.choice(NAMES), self.rng.choice(OTHERS)
        model = self.models[name]
        if n in self.world.incarnations and n not in model.members and n not in self.cut:
            model.members[n] = (self.world.incarnations[n], self._join_id())
            model.dirty = True

    def leave(self) -> None:
        name, n = self.rng.choice(NAMES), self.rng.choice(OTHERS)
        model = self.models[name]
        if n in model.members and n in self.world.incarnations:
            del model.members[n]
            model.dirty = True

    def die(self) -> None:
        n = self.rng.choice(OTHERS)
        if n not in self.world.incarnations:
            return
        incarnation = self.world.incarnations[n]
        self.dead.add((n, incarnation))
        was: dict[str, tuple[int, int]] = {}
        for name, model in self.models.items():
            if n in model.members:
                was[name] = model.members.pop(n)
                self.died.add((name, n, was[name]))
                model.dirty = True
        self.cut[n] = (incarnation, was)
        if self.rng.random() < 0.3:
            # Back before anybody saw it gone: one view, another incarnation.
            del self.cut[n]
            del self.world.incarnations[n]
            self.world.boots(n)
            return
        self.world.dies(n)

    def boot(self) -> None:
        n = self.rng.choice(OTHERS)
        if n not in self.world.incarnations:
            self.cut.pop(n, None)
            self.world.boots(n)

    def readmit(self) -> None:
        """S7: only while no start was ordered without it."""
        for n, (incarnation, was) in list(self.cut.items()):
            del self.cut[n]
            self.dead.discard((n, incarnation))
            self.world.incarnations[n] = incarnation
            self.world.view()
            for name, who in was.items():
                self.models[name].members[n] = who
                self.died.discard((name, n, who))
                self.models[name].dirty = True

    def _join_id(self) -> int:
        self.joins += 1
        return self.joins

    def order(self) -> None:
        """The bridge goes on with one group."""
        name = self.rng.choice(NAMES)
        if not self.world.has_group(name):
            return
        group, model = self.world.group(name), self.models[name]
        if group.state is GroupState.LEAVING and ME in model.members:
            del model.members[ME]
            model.dirty = True
        if group.state is not GroupState.LEAVING and not model.joined_here:
            model.members[ME] = (self.world.incarnations[ME], self._join_id())
            model.joined_here = model.dirty = True
        if model.dirty:
            model.dirty = False
            self.world.stop(name)
        elif group.phase is Phase.STOP and self.world.acked(name, Phase.STOP):
            if group.state is GroupState.LEAVING:
                model.joined_here = False
                self.world.left(name)
            elif all(self.world.incarnations.get(n) == who[0] for n, who in model.members.items()):
                for n in [n for n, (_, was) in self.cut.items() if name in was]:
                    del self.cut[n]
                self.ordered[name] = dict(model.members)
                self.world.start(name, {n: who[1] for n, who in model.members.items()})
        elif group.state is GroupState.LEAVING and group.phase is not Phase.STOP:
            self.world.stop(name)
        elif group.phase is Phase.START and self.world.acked(name, Phase.START):
            self.world.finish(name)

    # the node

    def lane(self) -> None:
        ready = self.world.lanes.ready()
        if ready:
            # Busy: the loop hears of the step's end together with whatever comes next.
            self.world.loop.busy = self.rng.random() < 0.5
            self.world.step(self.rng.choice(ready))
            self.world.loop.busy = False

    def hint(self) -> None:
        self.world.hint()

    def tick(self) -> None:
        self.world.glue.on_tick()

    def recover(self) -> None:
        for name in NAMES:
            self.world.dlm.recover(name, self.rng.choice((0x1, 0x55, 0xFF)))
        self.world.poll()

    def kill(self) -> None:
        ready = self.world.lanes.ready()
        # A step that is half-way through its writes is one of the ways to die.
        if ready and self.rng.random() < 0.7:
            budget = self.rng.randrange(1, 8)

            def fail(op: str, path: str) -> int:
                nonlocal budget
                budget -= 1
                # Between the journal's "?" and the write of event_done nobody can die without hanging the caller: see journal.py.
                if budget < 0 and not path.endswith("event_done"):
                    raise KeyboardInterrupt
                return 0

            self.world.dlm.fail = fail
            try:
                self.world.kill(after=self.rng.choice(ready))
            except KeyboardInterrupt:
                self.world.kill()
            self.world.dlm.fail = lambda op, path: 0
        else:
            self.world.kill()
        if self.rng.random() < 0.5:
            self.open()
        self.world.boot()

    def rest(self) -> None:
        """Everybody goes on until nothing changes any more."""
        for _ in range(60):
            self.world.settle()
            for _ in range(20):
                self.order()
            self.world.settle()
            for name in NAMES:
                self.world.dlm.recover(name, 0xFF)
            self.world.poll()
            self.tick()
        assert not self.wrong, self.wrong
        for name, ls in self.world.dlm.lockspaces.items():
            assert not ls.waiting, f"{name} waits for {ls.waiting}"
            assert not ls.stopped, f"{name} does not run: {self.world.group(name)} {self.world.glue.state}"
            assert self.kernel[name] == self.models[name].members
        assert set(self.world.dlm.spaces) == set(self.world.dlm.lockspaces)


@pytest.mark.parametrize("batch", range(10))
def test_histories(batch: int) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        history = History(seed)
        try:
            for _ in range(STEPS):
                history.one()
            history.rest()
            assert not history.world.dlm.violations, history.world.dlm.violations
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        finally:
            history.world.close()


def _caught(wanted: str, seeds: int = 100) -> bool:
    """One of the histories goes wrong in this way."""
    for seed in range(seeds):
        history = History(seed)
        try:
            for _ in range(STEPS):
                history.one()
            history.rest()
        except AssertionError as error:
            if wanted in str(error):
                return True
        finally:
            history.world.close()
    return False


def test_canary_comms_of_the_dead_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Plan, "_left_out", lambda self: set())
    monkeypatch.setattr(_Plan, "_stale", lambda self, n: False)
    assert _caught("journal is skipped")


def test_canary_a_return_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = plan._target

    def forgetful(group: Group) -> dict[int, Who]:
        return {n: Who(0, 0) for n in real(group)}

    monkeypatch.setattr(plan, "_target", forgetful)
    assert _caught("locks of the old one stay")


def test_canary_everybody_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlm_glue.component.decode_record", lambda data: ({}, {}))
    assert _caught("stayed and")


def test_canary_a_comm_goes_under_a_running_lockspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Plan, "_holders", lambda self, n: [])
    assert _caught("dropped while")
