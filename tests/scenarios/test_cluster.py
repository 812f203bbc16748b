# SPDX-License-Identifier: GPL-2.0-only
"""Corosync's sync barriers and CPG views, in our terms: the phases of a group's event, and what a paused machine is told."""

from __future__ import annotations

import pytest

from tests.scenarios.machines import Machines
from tests.sim.node import GROUPS
from vcs.model import Phase

GROUP = "gfs"
MOMENTS = [(phase, acks) for phase, counts in ((Phase.STOP, (0, 1, 2, 3)), (Phase.START, (0, 1, 2, 3)), (Phase.FINISH, (3,)))
           for acks in counts]
"Every point of an event of three members: how many have acknowledged which phase."


def _reached(c: Machines, phase: Phase, acks: int) -> bool:
    """Some coordinator is at least so far in an event that has node 3 in it."""
    for node in (1, 2):
        now, stops, starts, members = c.event_of(node, GROUP)
        if 3 not in members or now < phase:
            continue
        if now > phase or (stops if phase is Phase.STOP else starts) >= acks:
            return True
    return False


@pytest.mark.parametrize("victim", (3, 1, 2))
@pytest.mark.parametrize("how", ("power", "daemon"))
def test_t13_death_at_every_phase_of_an_event(victim: int, how: str) -> None:
    """Node 3 joins a group; the newcomer or a bystander dies at every point of that event: nobody waits for a ghost."""
    for moment, (phase, acks) in enumerate(MOMENTS):
        c = Machines(seed=f"t13/{victim}/{how}/{moment}")
        c.power_on(1, 2)
        c.until("1 and 2 are in", lambda c=c: all(c.event_of(n, GROUP)[::3] == (Phase.FINISH, (1, 2)) for n in (1, 2)), 60)  # type: ignore[misc]
        c.power_on(3)
        c.until(f"{phase.name}, {acks} acknowledged", lambda c=c, p=phase, a=acks: _reached(c, p, a), 60)  # type: ignore[misc]
        dead = c.machines[victim].incarnation
        if how == "power":
            c.power_off(victim)
        else:
            c.kill(victim)
        rest = [c.machines[n] for n in (1, 2, 3) if n != victim]
        if how == "power":
            c.until("the others have recovered without it",
                    lambda c=c, r=rest, d=dead: all(c.recovers_without(m, GROUP, d) for m in r), 30)  # type: ignore[misc]
            if not c.machines[victim].on:
                c.power_on(victim)
        c.whole(90)


@pytest.mark.parametrize("both", (False, True))
def test_t13_deaths_in_a_row(both: bool) -> None:
    """Members die in the middle of the event that the death before them caused."""
    c = Machines(count=5, seed=f"t13 row/{both}")
    c.power_on(*c.machines)
    c.whole()
    c.power_off(5)
    c.until("the others stop for it", lambda: any(c.event_of(n, GROUP)[0] is Phase.STOP for n in (1, 2, 3, 4)), 30)
    c.power_off(1)
    if both:
        c.until("stopped again", lambda: any(c.event_of(n, GROUP)[0] is Phase.START for n in (2, 3, 4)), 60)
        c.kill(2)
    for n in (1, 5):
        c.power_on(n)
    c.whole(120)


@pytest.mark.parametrize("seconds", (0.15, 2, 20))
@pytest.mark.parametrize("node", (1, 3))
def test_t14_a_paused_machine_is_told_that_the_others_went_on(node: int, seconds: float) -> None:
    """A group without fencing; one machine stands still: its consumer sees an event in which the others left or came back."""
    c = Machines(seed=f"t14/{node}/{seconds}", groups=(GROUPS[1],))
    c.power_on(1, 2, 3)
    c.whole()
    name = GROUPS[1][0]
    machine = c.machines[node]
    boot = machine.boot
    before = machine.glue.mounts[name].event
    c.pause(node)
    c.run(seconds)
    others = [m for m in c.machines.values() if m is not machine]
    if seconds > 1:
        c.until("the others go on", lambda: all(c.recovers_without(m, name, (node, boot)) for m in others), 60)
    c.resume(node)
    c.whole(90)
    mounts = [m.glue.mounts[name] for m in c.machines.values()]
    assert len({m.event for m in mounts}) == 1, "one event for all"
    if seconds < 0.2:
        assert mounts[0].event == before, "shorter than the detection time: nothing happens"
    else:
        assert mounts[0].event > before, "the paused machine, too, has seen the group change"
        starts = [line for line in c.lines if f"  {node}  start {name}" in line]
        assert len(starts) >= 2, "told through the stop and the start of a new event, not by silence"
