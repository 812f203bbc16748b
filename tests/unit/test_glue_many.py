# SPDX-License-Identifier: GPL-2.0-only
"""Many lockspaces on one node: what an event of all of them costs dlm_glue, counted in reads of the switch and in decisions.

Each of these looks at every lockspace, and dlm_glue runs before everybody else: one of them per lockspace would be a square, in the time
that the kernel's recovery needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dlm_glue import plan
from dlm_glue.state import State
from tests.fakes.glue import World
from vcs.model import Group, Phase

MANY = 60
NAMES = [f"many{i}" for i in range(MANY)]
ALL, LEFT = {1: 1, 2: 1, 3: 1}, {1: 1, 2: 1}


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


class Counted:
    """Counts decisions and reads of the switch."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decisions = self.reads = 0
        decide, groups = plan.decide, world.port.groups

        def counted_decide(state: State) -> object:
            self.decisions += 1
            return decide(state)

        def counted_groups(handle: str) -> list[Group]:
            self.reads += 1
            return list(groups(handle))

        monkeypatch.setattr(plan, "decide", counted_decide)
        monkeypatch.setattr(world.port, "groups", counted_groups)


def rest(world: World) -> None:
    """Everybody's steps end before the loop looks, until nothing is under way."""
    world.hint()
    while world.lanes.ready():
        world.loop.busy = True
        for lane in world.lanes.ready():
            world.step(lane)
        world.loop.busy = False
        world.loop.turn()


def change(world: World, members: dict[int, int]) -> None:
    """One event of all lockspaces, as a death of a node makes it."""
    for name in NAMES:
        world.stop(name)
    rest(world)
    assert all(world.acked(name, Phase.STOP) for name in NAMES)
    for name in NAMES:
        world.start(name, members)
    rest(world)
    for name in NAMES:
        world.dlm.recover(name, 0xFF)
    world.poll()
    rest(world)
    assert all(world.acked(name, Phase.START) for name in NAMES)
    for name in NAMES:
        world.finish(name)
    rest(world)


def test_an_event_of_all_lockspaces_costs_a_few_looks_not_some_for_each(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        world.open(name)
    rest(world)
    counted = Counted(world, monkeypatch)
    change(world, ALL)
    assert all(world.dlm.lockspaces[name].waiting == "" for name in NAMES)
    world.dies(3)
    change(world, LEFT)
    assert counted.decisions < MANY and counted.reads < MANY / 2, f"{counted.decisions} decisions, {counted.reads} reads for two events"

