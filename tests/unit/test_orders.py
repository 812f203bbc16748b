# SPDX-License-Identifier: GPL-2.0-only
"""Standing orders (maintenance, shutdown) and limits, told as stories."""

from __future__ import annotations

import pytest

from bridge.coordinator import api as co
from bridge.coordinator import orders
from bridge.coordinator.messages import MaintenanceOff, MaintenanceOn, ShutDown
from membership.api import Rotation
from tests.unit.coordinator_story import FENCED, H, Story
from vcs.model import GroupFlags, GroupState, Level, Phase

MINUTES = 60_000


@pytest.fixture
def three() -> Story:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    for n in (1, 2, 3):
        story.tell(n, Rotation(story.rings[n][0], 1_000_000_000))
    return story


# --- maintenance (SAFETY S24) ------------------------------------------------------------------------------------------------

def test_nobody_is_fenced_in_a_maintenance_and_then_everybody_who_must_be(three: Story) -> None:
    assert three.command(2, MaintenanceOn(10 * MINUTES, "new switch"))["ok"]
    assert [t.frozen_ns for t in three.nodes.values()] == [601_000_000_000] * 3  # from the last evidence, not from now
    three.power_off(3)
    three.form(1, 2)
    three.later(599)
    assert three.nodes[1].fences == []
    assert three.running("gfs") == {}
    assert three.nodes[1].coordinator.state.obligations[3, 301].frozen_ms == 10 * MINUTES
    three.later(2)
    assert three.nodes[1].notices("maintenance_off") == [{"serial": 1, "how": "its time is over"}]
    assert three.nodes[1].fences == [(3, 301)]
    assert [t.frozen_ns for t in three.nodes.values()] == [0, 0]


def test_half_of_the_nodes_freezes_nothing(three: Story) -> None:
    """The other half, which is granted a quorum next, would count on the reset. Ordered before the split it is known to both; delivered in
    the transitional configuration of one, to that one alone."""
    c = three.nodes[1].coordinator
    notes: list[co.Notice] = []
    state = c.state.copy()
    state.by_witness = True
    assert not orders.maintenance_on(state, 1, MaintenanceOn(MINUTES, ""), notes)
    assert "the other half would not know" in str(notes[0].fields["why"])
    state.by_witness = False
    assert orders.maintenance_on(state, 1, MaintenanceOn(MINUTES, ""), notes)
    c.feed.maintained(state.serial, MINUTES, three.now, three.now)
    for half, frozen in ((True, False), (False, True)):
        state.by_witness, c.feed.out = half, []
        c.feed._maintain(state, three.now)
        assert any(isinstance(e, co.Freeze) for e in c.feed.out) is frozen


def test_maintenance_is_ended_by_hand(three: Story) -> None:
    assert not three.command(1, MaintenanceOff(0))["ok"]
    three.command(1, MaintenanceOn(10 * MINUTES, ""))
    three.power_off(3)
    three.form(1, 2)
    assert three.command(2, MaintenanceOff(0))["ok"]
    assert three.nodes[1].fences == [(3, 301)]
    assert three.nodes[1].coordinator.state.nodes[1].frozen == 0
    assert three.nodes[1].coordinator.state.nodes[3].frozen == 1  # nobody knows what its kernel was told


def test_a_call_that_failed_is_not_repeated_in_a_maintenance(three: Story) -> None:
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301, ok=False)
    three.command(1, MaintenanceOn(5 * MINUTES, ""))
    three.later(100)
    assert (three.nodes[1].fences, three.nodes[2].fences) == ([(3, 301)], [])
    three.later(201)
    three.later(2)
    assert three.nodes[2].fences == [(3, 301)]


def test_a_newcomer_freezes_nothing_before_it_is_renewed(three: Story) -> None:
    """It learns of the maintenance with the state, and so no time: those who know it say how much is left."""
    three.power_off(3)
    three.form(1, 2)
    three.fence_done(1, 3, 301)
    three.command(1, MaintenanceOn(10 * MINUTES, "disks"))
    three.later(240)
    three.boot(3)
    three.form(1, 2, 3, settle=False)
    assert three.nodes[3].frozen_ns == 0
    three.settle()
    held = three.nodes[3].coordinator.state.maintenance
    assert held is not None
    assert (held.serial, held.for_ms, held.by, held.reason) == (2, 6 * MINUTES, 1, "disks")
    assert three.nodes[3].frozen_ns > 0


def test_a_maintenance_longer_than_a_day_is_refused(three: Story) -> None:
    assert "24 hours" in str(three.command(1, MaintenanceOn(24 * 60 * MINUTES + 1, ""))["why"])


# --- the ordered shutdown (SAFETY S21) ----------------------------------------------------------------------------------------

def test_the_shutdown_names_who_holds_it_up(three: Story) -> None:
    done = three.command(1, ShutDown())
    assert not done["ok"]
    assert done["why"] == "node 1 is in gfs; node 2 is in gfs; node 3 is in gfs"
    assert three.nodes[1].coordinator.state.shutdown == 0


def leave_one_by_one(story: Story) -> list[int]:
    order = []
    while story.nodes:
        gone = [n for n, t in story.nodes.items() if t.left]
        assert len(gone) == 1, "nobody, or two at once"
        order += gone
        story.power_off(*gone)
        if story.nodes:
            story.form(*story.nodes)
    return order


def test_everybody_leaves_in_order_and_comes_back() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    assert story.command(2, ShutDown())["ok"]
    assert leave_one_by_one(story) == [3, 2, 1]
    story.boot(2, 3)
    story.form(2, 3)
    assert not story.nodes[2].switch.view(H).quorate  # 1 was the last one: it alone knows
    story.boot(1)
    story.form(1, 2, 3)
    assert story.nodes[3].switch.view(H).quorate
    assert story.nodes[1].coordinator.state.shutdown == 0


def test_whoever_is_cut_off_in_a_shutdown_leaves_all_the_same() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.nodes[3].outbox.clear()
    story.tell(1, co.Command(1, ShutDown()))
    while story.nodes[1].outbox:
        story.deliver_one()
    story.form(3)
    story.form(2)
    assert story.nodes[3].left and story.nodes[2].left
    story.form(1)
    assert story.nodes[1].left


def test_nobody_joins_while_the_cluster_shuts_down() -> None:
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.command(1, ShutDown())
    story.join("late", 1)
    assert story.nodes[1].group("late") is None


# --- limits (SAFETY S22) ------------------------------------------------------------------------------------------------------

def test_a_group_without_an_owner_costs_its_node_in_the_end(three: Story) -> None:
    orphan(three, 3)
    three.later(119)
    assert three.nodes[1].fences == []
    three.later(2)
    assert three.nodes[1].fences == [(3, 301)]
    assert "nobody has acted for group gfs" in str(three.nodes[1].notices("node_failed")[-1]["why"])


def test_an_orphan_that_asks_for_no_fence_is_put_out(three: Story) -> None:
    three.join("svc", 1, 2, 3, level=Level.USER, flags=GroupFlags.PERSISTENT)
    orphan(three, 3, "svc")
    three.later(121)
    assert three.nodes[1].fences == []
    assert three.running("svc") == {1: (1, 2), 2: (1, 2)}


def test_a_group_that_is_taken_over_in_time_costs_nothing(three: Story) -> None:
    orphan(three, 3)
    three.later(100)
    t = three.nodes[3]
    t.consumers["gfs"] = t.switch.join(t.switch.consumer(), H, "gfs", Level.LOCK_MANAGER, FENCED, "gfs").session
    three.tell(3, co.LocalGroups(tuple(t.switch.groups(H))))
    three.later(100)
    assert three.nodes[1].fences == []
    assert three.running("gfs") == dict.fromkeys((1, 2, 3), (1, 2, 3))


def orphan(story: Story, n: int, name: str = "gfs") -> None:
    """Its owner's socket is gone."""
    switch = story.nodes[n].switch
    group = switch._clusters[H].groups[name]
    assert group.owner_port is not None
    group.owner_port.close()
    story.tell(n, co.LocalGroups(tuple(switch.groups(H))))
    held = story.nodes[n].group(name)
    assert held is not None and held.orphan_since_ms and held.state is not GroupState.LOST and held.phase is Phase.FINISH
