# SPDX-License-Identifier: GPL-2.0-only
"""Three whole nodes in one process: real Totem on 127.0.0.x, real disks and fence agents, the userland switch.

Each test is a story; what it expects is read from the switches, from the fence agent's own notes and from the event logs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.component import LeaveRefused
from bridge.storage import StorageError
from tests.process.story import Node, Nodes, PowerSwitch, make_config
from vcs.agents import FenceAgentError
from vcs.errors import VcsError
from vcs.model import GroupFlags, GroupState

Story = Callable[[Nodes, PowerSwitch], Awaitable[None]]


def tell(folder: Path, story: Story) -> None:
    """Run a story with three nodes and a power switch."""

    async def run() -> None:
        power = PowerSwitch(folder / "power")
        async with Nodes(make_config(power), folder) as nodes:
            await story(nodes, power)

    asyncio.run(run())


def test_a_node_is_cut_off_and_no_start_comes_before_its_fence(tmp_path: Path) -> None:
    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        await nodes.form()
        users = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        seen_before = {n: len(u.seen) for n, u in users.items()}
        await nodes[2].power_cut()
        await nodes.until(lambda: all(users[n].running_on() == [1, 3] for n in (1, 3)))
        calls = power.calls()
        assert [plug for plug, _ in calls] == ["2"], "fenced exactly once, by one node"
        assert power.is_off(2)
        for n in (1, 3):
            later = users[n].seen[seen_before[n] :]
            assert [phase for phase, *_ in later] == ["stop", "start", "finish"]
            start = next(t for phase, _, _, t in later if phase == "start")
            assert start > calls[0][1], "a start before the fence"
        marks = nodes[1].switch.fence_marks("story1")
        assert [nodeid for nodeid, _ in marks] == [2] and nodes[3].switch.fence_marks("story3") == marks

    tell(tmp_path, story)


def test_a_node_that_was_fenced_comes_back_and_joins_again(tmp_path: Path) -> None:
    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        await nodes.form()
        users = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        old = nodes[2].switch.incarnation
        await nodes[2].power_cut()
        await nodes.until(lambda: users[1].running_on() == users[3].running_on() == [1, 3])
        power.on(2)
        await nodes[2].start()
        users[2] = nodes[2].join()
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        group = users[1].group()
        assert group is not None
        assert {m.nodeid: m.incarnation for m in group.finished_members}[2] == nodes[2].switch.incarnation != old

    tell(tmp_path, story)


def test_an_agent_that_fails_holds_the_start_until_it_works(tmp_path: Path) -> None:
    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        (power.folder / "broken").touch()
        await nodes.form()
        users = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        await nodes[3].power_cut()
        await nodes.until(lambda: len(power.calls()) >= 3)
        assert not any(u.running_on() for n, u in users.items() if n != 3), "started although the fence failed"
        failed = [r for n in (1, 2) for r in nodes[n].noted("fence_done")]
        assert failed and all(not r["ok"] and "the outlet does not answer" in r["detail"] for r in failed)
        (power.folder / "broken").unlink()
        await nodes.until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)), 30)
        assert power.is_off(3)

    tell(tmp_path, story)


def test_without_an_agent_an_administrator_vouches(tmp_path: Path) -> None:
    async def story() -> None:
        async with Nodes(make_config(None), tmp_path) as nodes:
            await nodes.form()
            users = {n.id: n.join() for n in nodes.all}
            await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
            await nodes[3].power_cut()
            await nodes.until(lambda: nodes[1].view() == nodes[2].view() == [1, 2])
            await nodes.until(lambda: all(u.seen[-1][0] == "stop" for u in (users[1], users[2])))
            await asyncio.sleep(1)  # nothing may happen: there is no event to wait for
            assert not users[1].running_on() and not users[2].running_on()
            component = nodes[1].component
            assert component is not None
            with pytest.raises(VcsError, match="node 9"):
                component.fence_ack(9)
            component.fence_ack(3)
            await nodes.until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)))

    asyncio.run(story())


def test_groups_that_ask_for_no_fence_go_on_without_one(tmp_path: Path) -> None:
    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        await nodes.form()
        users = {n.id: n.join("plain", GroupFlags.NONE) for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        await nodes[1].power_cut()
        await nodes.until(lambda: users[2].running_on() == users[3].running_on() == [2, 3])
        assert not power.calls()

    tell(tmp_path, story)


def test_everybody_leaves_in_order_and_comes_back(tmp_path: Path) -> None:
    """3 -> 2 -> 1 -> 0 -> 3: leaving needs nobody (SAFETY S21)."""

    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        await nodes.form()
        users = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        component = nodes[3].component
        assert component is not None
        with pytest.raises(LeaveRefused, match="in groups: x"):
            await component.leave()
        for leaver, rest in ((3, [1, 2]), (2, [1]), (1, [])):
            users[leaver].leave()
            await nodes.until(lambda leaver=leaver: users[leaver].left)  # type: ignore[misc]
            await nodes.until(lambda rest=rest: all(users[n].running_on() == rest for n in rest))  # type: ignore[misc]
            component = nodes[leaver].component
            assert component is not None
            await component.leave()
            assert not nodes[leaver].switch.clusters(), "the seat is free and the cluster gone"
            await component.stop()
            await nodes.until(lambda rest=rest: all(nodes[n].view() == rest for n in rest))  # type: ignore[misc]
        assert not power.calls(), "nobody who left is fenced"
        for node in nodes.all:
            node.consumers.clear()
        await nodes.form()
        again = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in again.values()))

    tell(tmp_path, story)


def test_a_cold_start_waits_for_all(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        await nodes[1].start()
        await nodes[2].start()
        user = nodes[1].join()
        await nodes.until(lambda: nodes[1].switch.view("story1").members[1:] and nodes[2].switch.view("story2").members[1:])
        await asyncio.sleep(1)  # nothing may happen: there is no event to wait for
        assert not nodes[1].view() and not nodes[2].view() and not user.running_on()
        await nodes[3].start()
        await nodes.until(lambda: all(n.view() == [1, 2, 3] for n in nodes.all))
        await nodes.until(lambda: user.running_on() == [1])

    tell(tmp_path, story)


def test_a_bridge_whose_provider_was_lost_is_no_newcomer(tmp_path: Path) -> None:
    """The bridge dies and is back at once, but the switch had lost the groups: the node is fenced all the same (SAFETY S1, S15)."""

    async def story(nodes: Nodes, power: PowerSwitch) -> None:
        await nodes.form()
        users = {n.id: n.join() for n in nodes.all}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        component = nodes[2].component
        assert component is not None
        switch = nodes[2].switch
        switch._lose(switch._clusters[nodes[2].handle])
        component.abort()
        lost = users[2].group()
        assert lost is not None and lost.state is GroupState.LOST
        await nodes[2].start()
        await nodes.until(lambda: all(users[n].running_on() == [1, 3] for n in (1, 3)))
        fenced = [t for plug, t in power.calls() if plug == "2"]
        assert len(fenced) == 1
        starts = [t for n in (1, 3) for phase, _, members, t in users[n].seen if phase == "start" and members == (1, 3)]
        assert starts and min(starts) > fenced[0]
        assert not users[2].running_on()

    tell(tmp_path, story)


def test_an_idle_cluster_does_next_to_nothing(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        await nodes.form()
        components = [n.component for n in nodes.all if n.component is not None]
        before = [c.counters() for c in components]
        logged = [sum(1 for _ in n.log.ring) for n in nodes.all]
        await asyncio.sleep(4)
        for component, old, node, lines in zip(components, before, nodes.all, logged, strict=True):
            new = component.counters()
            assert new["renewals"] - old["renewals"] <= 4 * 20 / 10 + 2, "more often than twenty times per lease"
            assert new["renewals"] > old["renewals"], "an idle ring renews the lease too"
            assert new["refused"] == 0
            assert len(node.log.ring) - lines < 5, node.tail()

    tell(tmp_path, story)


def test_what_is_wrong_with_the_agent_is_said_at_the_start(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        config = nodes.config
        missing = dataclasses.replace(config, fencing=dataclasses.replace(config.fencing, agent="fence_of_nobody"))
        with pytest.raises(FenceAgentError, match=r"fence_of_nobody.*not installed"):
            await nodes[1].start(missing)
        assert not nodes[1].switch.clusters(), "nothing may be left behind"

    tell(tmp_path, story)


def test_a_damaged_record_stops_the_start(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        state = nodes[1].folder / "state"
        state.mkdir()
        (state / "coordinator.record").write_bytes(b"vcs-record 1 5 00\nabcde")
        with pytest.raises(StorageError, match="damaged"):
            await nodes[1].start()

    tell(tmp_path, story)


def test_another_cluster_under_our_handle_is_refused(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        node: Node = nodes[1]
        node.switch.provider().cluster_add(node.handle, "other", 7)
        with pytest.raises(VcsError, match="node 7 of cluster 'other'"):
            await node.start()

    tell(tmp_path, story)


def test_a_seat_that_is_taken_is_refused(tmp_path: Path) -> None:
    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        node: Node = nodes[1]
        await node.start()
        first = node.component
        assert first is not None
        with pytest.raises(VcsError, match="has a provider already"):
            await node.start()
        await first.stop()

    tell(tmp_path, story)


def test_who_joins_while_the_node_departs_is_told_so(tmp_path: Path) -> None:
    """It asked when this node had left already, and nothing was ever told to it: no reason to keep the seat."""

    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        await nodes.form()
        component, late = nodes[3].component, []
        assert component is not None

        async def user_begins() -> None:
            late.append(nodes[3].join("late"))

        component.before_departure = user_begins
        await component.leave()
        assert late and component.left.is_set() and not nodes[3].switch.clusters()
        await nodes.until(lambda: nodes[1].view() == nodes[2].view() == [1, 2])

    tell(tmp_path, story)


def test_a_leave_is_finished_even_if_nobody_waits_for_it(tmp_path: Path) -> None:
    """Two ask at once, one with no patience: there is one departure, and it waits for whoever uses the cluster."""

    async def story(nodes: Nodes, _power: PowerSwitch) -> None:
        await nodes.form()
        component = nodes[3].component
        assert component is not None
        user_may_go, calls = asyncio.Event(), []

        async def user_ends() -> None:
            calls.append([c.handle for c in nodes[3].switch.clusters()])
            await user_may_go.wait()

        component.before_departure = user_ends
        with pytest.raises(VcsError, match="not done within"):
            await component.leave(0.3)
        patient = asyncio.create_task(component.leave())
        await nodes.until(lambda: nodes[1].view() == nodes[2].view() == [1, 2])
        assert not component.left.is_set() and calls == [["story3"]], "the cluster is still there for its user"
        user_may_go.set()
        await patient
        assert component.left.is_set() and not nodes[3].switch.clusters() and len(calls) == 1

    tell(tmp_path, story)
