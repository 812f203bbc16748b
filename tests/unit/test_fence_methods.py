# SPDX-License-Identifier: GPL-2.0-only
"""Several methods: in which order they are tried, in the pure coordinator, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.coordinator import api as co
from bridge.coordinator import methods
from bridge.coordinator.messages import FenceNode
from tests.unit.coordinator_story import Story
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, FencingConfig

MS = 1_000_000
DEVICES = (FenceDevice("board", "fence_ipmilan"), FenceDevice("strip", "fence_apc"))
BOTH = (FenceMethod(("board",)), FenceMethod(("strip",)))


class Told(Story):
    """Three nodes whose methods are a management board, then a power strip."""

    def __init__(self, tries: int = 1) -> None:
        super().__init__()
        nodes = tuple(replace(n, methods=BOTH) for n in self.config.nodes)
        self.config = replace(self.config, nodes=nodes, fence_devices=DEVICES, fencing=FencingConfig(tries=tries))
        self.boot(1, 2, 3)
        self.form(1, 2, 3)
        self.join("dlm:x", 1, 2, 3)

    def launches(self, n: int) -> list[tuple[int, int]]:
        return [(e.nodeid, e.method) for e in self.nodes[n].seen if isinstance(e, co.LaunchFence)]

    def failed(self, by: int, method: str, said: str) -> None:
        self.tell(by, co.FenceDone(3, 301, False, said, method))
        self.settle()


def config(tries: int, count: int = 2) -> ClusterConfig:
    return replace(Story().config, nodes=tuple(replace(n, methods=BOTH[:count]) for n in Story().config.nodes), fence_devices=DEVICES,
                   fencing=FencingConfig(tries=tries))


def test_the_order_of_methods_and_their_pauses() -> None:
    """The table in bridge/coordinator/methods.py."""
    found = [methods.of(config(tries=2), 3, attempt) for attempt in range(8)]
    assert [m for m, _ in found] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [p for _, p in found] == [0, 1000, 0, 2000, 4000, 8000, 0, 16000]


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_one_method_backs_off_by_doubling(tries: int) -> None:
    pauses = [methods.of(config(tries, 1), 3, attempt)[1] for attempt in range(8)]
    assert pauses == [0, 1000, 2000, 4000, 8000, 16000, 30000, 30000]


def always_on(tries: int = 2) -> Told:
    """Node 3's board cuts it off and gives it power again before anybody can have seen that it was off."""
    story = Told(tries)
    story.power_off(3)
    story.form(1, 2)
    story.tell(1, co.FenceDone(3, 301, False, "board: off ended with exit code 0, but its status is still on", "board", cut=True))
    story.settle()
    return story


def test_who_has_power_again_is_not_cut_off_for_ever() -> None:
    """It boots meanwhile: its new boot is what ends the fence, so it must get the time for that."""
    story = always_on()
    story.later(299.0)
    assert story.launches(1) == [(3, 0)] and story.launches(2) == [], "cut off again in the middle of its boot"
    assert not story.running("dlm:x"), "nothing starts on the word of a device that contradicts itself"
    story.boot(3)
    story.form(1, 2, 3)
    assert story.running("dlm:x") == {1: (1, 2), 2: (1, 2)}
    assert story.launches(1) == [(3, 0)] and story.launches(2) == []


def test_who_has_power_and_does_not_come_back_is_fenced_again() -> None:
    story = always_on()
    story.later(301.0)
    assert story.launches(2) == [(3, 0)]
    story.tell(2, co.FenceDone(3, 301, False, "board: no session", "board"))
    story.settle()
    assert story.launches(1) == [(3, 0), (3, 1)], "another method has not failed yet, so nothing is gained by waiting"


def test_who_may_be_on_its_way_back_is_waited_for() -> None:
    """SAFETY S7: nobody was quorate; two meet a moment before the third. It is back in time, and nobody was fenced."""
    story = Told()
    for n in (1, 2, 3):
        story.form(n)
    story.form(1, 2)
    assert (3, 301) in story.nodes[1].coordinator.state.obligations and not story.running("dlm:x")
    said = str(story.nodes[1].coordinator.why()[0]["text"])
    assert "it may come back now that there is a quorum again, first try by board in 5 s" in said
    story.later(4.0)
    story.form(1, 2, 3)
    assert story.running("dlm:x") == dict.fromkeys((1, 2, 3), (1, 2, 3))
    story.later(10.0)
    assert story.launches(1) == story.launches(2) == story.launches(3) == []


def test_who_does_not_come_back_with_the_quorum_is_fenced() -> None:
    story = Told()
    for n in (1, 2, 3):
        story.form(n)
    story.form(1, 2)
    story.later(5.1)
    assert story.launches(1) == [(3, 0)]


def test_a_side_that_was_quorate_all_the_time_fences_at_once() -> None:
    """Also when it meets somebody who was without a quorum, and when it comes back to its own after a moment."""
    story = Told()
    story.form(2)
    story.form(1, 3)
    assert story.launches(1) == [(2, 0)]
    other = Told()
    other.form(2)
    other.form(1, 2, 3)
    other.form(1, 2)
    assert other.launches(1) == [(3, 0)]


def test_the_next_method_begins_at_once_by_the_next_node() -> None:
    story = Told()
    story.power_off(3)
    story.form(1, 2)
    assert story.launches(1) == [(3, 0)] and story.launches(2) == []
    story.failed(1, "board", "board: no session")
    assert story.launches(2) == [(3, 1)], "no pause between two methods"
    story.tell(2, co.FenceDone(3, 301, True, "strip: off, status is off", "strip"))
    story.settle()
    assert story.running("dlm:x") == {1: (1, 2), 2: (1, 2)}
    (done,) = [f for f in story.nodes[1].notices("fence_result") if f["ok"]]
    assert (done["by"], done["method"], done["how"]) == (2, "strip", "strip: off, status is off")


def test_why_is_complete_while_a_fence_fails() -> None:
    story = Told(tries=2)
    story.power_off(3)
    story.form(1, 2)
    (first, group) = story.nodes[1].coordinator.why()
    assert first["text"] == "n3 (node 3) must be fenced: n1 (node 1) is doing it by board" and not first["remedy"]
    story.failed(1, "board", "board: no session")
    story.later(1.0)
    story.failed(2, "board", "board: no route to host")
    story.failed(1, "strip", "strip: login failed")
    for n in (1, 2):  # also where somebody else tries
        group = next(w for w in story.nodes[n].coordinator.why() if w["group"] == "dlm:x")
        assert group["text"] == (
            "lockspace x waits for n3 (node 3) to be fenced; method board failed twice, method strip failed once: strip: login failed, "
            "next try in 2 s, at n2 (node 2)")
        assert (group["remedy"], group["condition"]) == ("vcs fence ack 3", "if you know that it is off")
    story.tell(1, co.FenceAck(3))
    story.settle()
    assert story.nodes[1].coordinator.why() == []


def test_a_fence_that_nobody_owes_any_more_is_called_off() -> None:
    """SAFETY S1: the agent still works on it when an administrator says that the node is off, or it comes back as another incarnation."""
    story = Told()
    story.power_off(3)
    story.form(1, 2)
    assert story.nodes[1].coordinator.still_owed(3, 301)
    story.tell(2, co.FenceAck(3))
    story.settle()
    assert story.nodes[1].last(co.CancelFence) == co.CancelFence(3, 301)
    assert not story.nodes[1].coordinator.still_owed(3, 301)


def test_the_incarnation_is_looked_at_before_each_call() -> None:
    """Its new boot is in the configuration, though nothing is merged yet."""
    story = Told()
    story.power_off(3)
    story.form(1, 2)
    story.boot(3)
    story.form(1, 2, 3, settle=False)
    assert (3, 301) in story.nodes[1].coordinator.state.obligations
    assert not story.nodes[1].coordinator.still_owed(3, 301)


def test_a_node_is_fenced_by_order_and_everybody_knows() -> None:
    story = Told()
    story.tell(2, co.Command(7, FenceNode(3, "reboot")))
    story.settle()
    assert story.launches(1) == [(3, 0)]
    launched = story.nodes[1].last(co.LaunchFence)
    assert isinstance(launched, co.LaunchFence) and launched.action == "reboot" and launched.incarnation == 301
    assert {f["why"] for t in story.nodes.values() for f in t.notices("node_failed")} == {"ordered by an administrator at node 2"}
    assert story.nodes[2].notices("command_done")[-1]["ok"]
    story.tell(2, co.Command(8, FenceNode(3, "")))
    story.settle()
    refused = story.nodes[2].notices("command_done")[-1]
    assert not refused["ok"] and "is being fenced already" in str(refused["why"])


def test_nobody_is_fenced_by_order_without_a_device() -> None:
    story = Story(agent="")
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.tell(1, co.Command(1, FenceNode(3, "")))
    story.settle()
    refused = story.nodes[1].notices("command_done")[-1]
    assert not refused["ok"] and refused["why"] == "nobody here has a fence device for node 3"
    assert story.nodes[3].coordinator.state.nodes[3].status == "member"


def test_a_fencer_without_a_device_for_that_node_is_not_asked() -> None:
    """Node 1 has devices for others, but none for 3."""
    story = Story()
    nodes = tuple(replace(n, methods=() if n.id == 3 else BOTH) for n in story.config.nodes)
    story.config = replace(story.config, nodes=nodes, fence_devices=DEVICES, fencing=FencingConfig())
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("gfs", 1, 2, 3)
    story.power_off(3)
    story.form(1, 2)
    assert story.nodes[1].last(co.LaunchFence) is None
    (reason, *_) = story.nodes[1].coordinator.why()
    assert "nobody here can" in str(reason["text"]) and reason["remedy"] == "vcs fence ack 3"
