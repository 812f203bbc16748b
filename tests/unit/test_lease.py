# SPDX-License-Identifier: GPL-2.0-only
"""Self-fencing as the coordinators see it (SAFETY S6, S7, S10, S12): what is announced, from when it counts, for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.coordinator import api as co
from bridge.coordinator.lease import UNARMED, SelfFence, announce, announced, ready_ns
from membership.api import Rotation
from tests.unit.coordinator_story import Story
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, WatchdogConfig

ARMED = SelfFence(5000, 1000, 0)
MS = 1_000_000
WAIT_MS = 8000


def cluster(count: int, **more: object) -> ClusterConfig:
    nodes = tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1))
    return replace(ClusterConfig("c", nodes), **more)  # type: ignore[arg-type]


def armed(*nodeids: int) -> Story:
    """Three nodes without a fence agent, of which these announce that they reset themselves; the group runs on all."""
    story = Story(agent="")
    story.self_fence = dict.fromkeys(nodeids, ARMED)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    return story


def pass_time(story: Story, ms: int, *nodeids: int) -> None:
    story.now += ms * MS
    for n in nodeids:
        story.tell(n, co.Tick())
    story.settle()


# --- what is announced -------------------------------------------------------------------------------------------------

def test_three_nodes_without_an_agent_fence_themselves() -> None:
    assert announce(cluster(3), True) == ARMED
    assert announce(cluster(2), True) == UNARMED
    assert announce(cluster(3, fencing=FencingConfig(agent="fence_x")), True) == UNARMED
    assert announce(cluster(3, fencing=FencingConfig(agent="fence_x"), lease=LeaseConfig(self_fencing="on")), True) == ARMED
    assert announce(cluster(3, lease=LeaseConfig(self_fencing="off")), True) == UNARMED


def test_a_dry_run_announces_nothing() -> None:
    assert announce(cluster(3), False) == UNARMED


def test_a_watchdog_makes_the_wait_longer() -> None:
    said = announce(cluster(3, watchdog=WatchdogConfig("/dev/watchdog0", 10_000)), True)
    assert said == SelfFence(5000, 1000, 10_000)
    assert (ARMED.wait_ms(2000), said.wait_ms(2000)) == (WAIT_MS, 17_000)
    assert ready_ns(said, 2000, 7) == 7 + 17_000 * MS
    assert ready_ns(UNARMED, 2000, 7) is None


@pytest.mark.parametrize("row", [(), (1, 2), (5000, 1000, -1), (5000, 1000, 1 << 40), (5000, 0, 0), (0, 1000, 0)])
def test_nonsense_is_nothing_announced(row: tuple[int, ...]) -> None:
    assert not announced(row).usable


# --- from when, for how long -------------------------------------------------------------------------------------------

def test_the_others_go_on_when_the_lease_of_the_dead_is_surely_over() -> None:
    story = armed(1, 2, 3)
    story.power_off(3)
    story.form(1, 2)
    (reason, *_) = story.nodes[1].coordinator.why()
    assert "resets itself when its lease runs out, which is certain 8 s" in str(reason["text"])
    wake = story.nodes[1].last(co.WakeAt)
    assert wake == co.WakeAt(WAIT_MS * MS)
    pass_time(story, WAIT_MS - 1, 1, 2)
    assert story.running("gfs") == {}
    pass_time(story, 1, 1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}
    (result,) = story.nodes[2].notices("fence_result")
    assert (result["nodeid"], result["ok"]) == (3, True)


def test_it_is_the_victims_word_that_counts() -> None:
    """An unarmed victim, or one in a dry run, resets nothing: the method does not exist for it (S10)."""
    story = armed(1, 2)
    story.power_off(3)
    story.form(1, 2)
    pass_time(story, 100 * WAIT_MS, 1, 2)
    assert story.running("gfs") == {}
    (reason, *_) = story.nodes[1].coordinator.why()
    assert "nobody here can" in str(reason["text"])


def test_a_slower_watchdog_of_the_victim_is_waited_for() -> None:
    story = Story(agent="")
    story.self_fence = {1: ARMED, 2: ARMED, 3: SelfFence(5000, 1000, 30_000)}
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    story.power_off(3)
    story.form(1, 2)
    pass_time(story, 5000 + 30_000 + 2000 - 1, 1, 2)
    assert story.running("gfs") == {}
    pass_time(story, 1, 1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_the_count_goes_on_in_the_next_quorate_configuration() -> None:
    story = Story(5, agent="")
    story.self_fence = dict.fromkeys(range(1, 6), ARMED)
    story.boot(1, 2, 3, 4, 5)
    story.form(1, 2, 3, 4, 5)
    story.join("gfs", 1, 2, 3, 4, 5)
    story.power_off(5)
    story.form(1, 2, 3, 4)
    pass_time(story, 5000, 1, 2, 3, 4)
    story.power_off(1)
    story.form(2, 3, 4)
    pass_time(story, 3000, 2, 3, 4)
    assert sorted(story.nodes[2].coordinator.state.obligations) == [(1, 101)]
    pass_time(story, 4999, 2, 3, 4)
    assert story.running("gfs") == {}
    pass_time(story, 1, 2, 3, 4)
    assert story.running("gfs") == dict.fromkeys((2, 3, 4), (2, 3, 4))


def test_a_newcomer_does_not_begin_the_count_anew() -> None:
    """It adopts the state, the others only hear what they know: a node that comes and goes must not put the fence off for ever."""
    story = Story(4, agent="")
    story.self_fence = dict.fromkeys(range(1, 5), ARMED)
    story.boot(1, 2, 3, 4)
    story.form(1, 2, 3, 4)
    story.join("gfs", 1, 2, 3)
    story.power_off(3)
    story.form(1, 2, 4)
    pass_time(story, 5000, 1, 2, 4)
    story.restart_daemon(4)
    story.form(1, 2, 4)
    pass_time(story, 3000, 1, 2, 4)
    assert story.running("gfs") == dict.fromkeys((1, 2), (1, 2))


def test_who_missed_a_primary_starts_its_count_anew() -> None:
    """3 knew the obligation, was away while 5 was readmitted and lost once more, and comes back: its old count proves nothing."""
    story = Story(5, agent="")
    story.self_fence = dict.fromkeys(range(1, 6), ARMED)
    story.boot(1, 2, 3, 4, 5)
    story.form(1, 2, 3, 4, 5)
    story.join("gfs", 1, 2, 3, 4, 5)
    story.form(5)
    story.form(1, 2, 3, 4)
    pass_time(story, 4000, 1, 2, 3, 4)
    story.form(1, 2)
    story.form(3)
    story.form(1, 2, 4, 5)
    assert [o.nodeid for o in story.nodes[1].coordinator.state.obligations.values()] == [3]
    story.form(5)
    story.form(1, 2, 4)
    story.power_off(1)
    story.form(2, 3, 4)
    pass_time(story, 4500, 2, 3, 4)
    assert (5, 501) in story.nodes[2].coordinator.state.obligations
    assert story.nodes[3].coordinator.feed.leases.since[5, 501] == 4000 * MS


def test_who_comes_back_in_time_is_readmitted() -> None:
    """S7: nothing has started without it."""
    story = armed(1, 2, 3)
    story.form(3)
    story.form(1, 2)
    pass_time(story, WAIT_MS - 1, 1, 2, 3)
    story.form(1, 2, 3)
    assert story.running("gfs") == dict.fromkeys((1, 2, 3), (1, 2, 3))
    pass_time(story, WAIT_MS, 1, 2, 3)
    assert not story.nodes[1].coordinator.state.obligations


def test_who_comes_back_too_late_is_reset() -> None:
    """Its kernel is told that this very boot counts as fenced; nobody else's is reset by that."""
    story = armed(1, 2, 3)
    for n, teller in story.nodes.items():
        teller.switch._clusters["h"].lease.grace_ns = 1
        assert teller.switch.resets == 0, n
    story.form(3)
    story.form(1, 2)
    pass_time(story, WAIT_MS, 1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}
    story.form(1, 2, 3)
    assert {n: t.switch.resets for n, t in story.nodes.items()} == {1: 0, 2: 0, 3: 1}
    assert story.nodes[1].coordinator.state.nodes[3].status == "failed"


def test_a_node_that_was_refused_renews_nothing() -> None:
    story = armed(1, 2, 3)
    story.form(3)
    story.form(1, 2)
    pass_time(story, WAIT_MS, 1, 2)
    ring = story.form(1, 2, 3)
    for n in (1, 2, 3):
        story.nodes[n].seen.clear()
        story.tell(n, Rotation(ring, 10_000 * MS))
    assert [story.nodes[n].last(co.RenewLease) for n in (1, 2, 3)] == [co.RenewLease(10_000 * MS)] * 2 + [None]


def test_amnesia_counts_from_formation() -> None:
    """S6: 1 and 2 lose power while 3 is away; by their records it was armed, and they count from their own forming."""
    story = Story(agent="", wait_for_all=False)
    story.self_fence = dict.fromkeys((1, 2, 3), ARMED)
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    story.form(3)
    story.power_off(1, 2)
    story.now = 3000 * MS
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    pass_time(story, WAIT_MS - 1, 1, 2)
    assert story.running("gfs") == {}
    pass_time(story, 1, 1, 2)
    assert story.running("gfs") == {1: (1, 2), 2: (1, 2)}


def test_a_node_that_nobody_knows_announced_nothing() -> None:
    story = Story(agent="", wait_for_all=False)
    story.self_fence = dict.fromkeys((1, 2, 3), ARMED)
    story.boot(1, 2)
    story.form(1, 2)
    story.join("gfs", 1, 2)
    pass_time(story, 100 * WAIT_MS, 1, 2)
    assert story.running("gfs") == {}
