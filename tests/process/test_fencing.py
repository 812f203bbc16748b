# SPDX-License-Identifier: GPL-2.0-only
"""Fencing by several methods with real agents as processes: a device that fails, storage that is closed, an alarm before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.backend import ComponentBackend
from bridge.coordinator.messages import FenceNode
from bridge.unfence import NeedsReboot
from tests.fakes.fence_agent import calls, make
from tests.process.story import Nodes, make_config
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod
from vcs.errors import VcsError


def config(folder: Path, *, fabric: bool = False) -> ClusterConfig:
    """A management board, then a power strip (or the storage), for each of three nodes."""
    base = make_config(None)
    second = FenceDevice("strip", str(make(folder / "strip", "fence_strip", fabric=fabric)), {"ip": "b"}, 10000)
    board = FenceDevice("board", str(make(folder / "board", "fence_board")), {"ip": "a", "password": "hush-hush"}, 10000)
    methods = (FenceMethod(("board",)), FenceMethod(("strip",)))
    nodes = tuple(replace(n, methods=methods) for n in base.nodes)
    return replace(base, nodes=nodes, fence_devices=(board, second), fencing=replace(base.fencing, tries=1, check_interval_s=0))


def tell(made: ClusterConfig, folder: Path, story: Callable[[Nodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Nodes(made, folder) as nodes:
            await story(nodes)

    asyncio.run(run())


def asked(nodes: Nodes, n: int) -> ComponentBackend:
    component = nodes[n].component
    assert component is not None
    return ComponentBackend(component, lambda: None)


def test_the_next_method_works_where_the_first_one_fails_and_all_tell_so(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "fail").touch()
    (tmp_path / "board" / "loud").touch()

    async def story(nodes: Nodes) -> None:
        await nodes.form()
        users = {n: nodes[n].join("dlm:x") for n in (1, 2, 3)}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        await nodes[3].power_cut()
        await nodes.until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)))
        assert calls(tmp_path / "board") == [("off", "3")] and calls(tmp_path / "strip") == [("off", "3"), ("status", "3")]
        await nodes.until(lambda: all([f["complete"] for f in asked(nodes, n).failovers()] == [True] for n in (1, 2)))
        one, two = (asked(nodes, n).failovers()[-1] for n in (1, 2))
        assert one["rings"] == two["rings"] and one["members"] == two["members"] == [1, 2]
        for found in (one, two):
            (victim,), (group,) = found["victims"], found["groups"]
            assert [(t["method"], t["ok"]) for t in victim["tries"]] == [("board", False), ("strip", True)]
            assert "does not answer" in victim["tries"][0]["how"]
            assert 0.0 == victim["detected_ms"] < group["stopping_ms"] <= group["stopped_ms"] <= group["started_ms"]
            assert victim["fenced_ms"] <= group["started_ms"] <= group["recovered_ms"] <= group["finished_ms"] == found["done_ms"]
        (fence,) = asked(nodes, 1).fence_history()
        assert (fence["result"], fence["method"], [a["method"] for a in fence["attempts"]]) == ("fenced", "strip", ["board", "strip"])
        for n in (1, 2):
            assert "hush" not in (nodes[n].folder / "events.jsonl").read_text()

    tell(config(tmp_path), tmp_path, story)


def test_why_says_what_was_tried_and_a_word_ends_it(tmp_path: Path) -> None:
    for name in ("board", "strip"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fail").touch()

    async def story(nodes: Nodes) -> None:
        await nodes.form()
        users = {n: nodes[n].join("dlm:x") for n in (1, 2, 3)}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        await nodes[3].power_cut()

        def waits() -> str:
            return "\n".join(w["what"] for w in asked(nodes, 2).why() if w["subject"] == "lockspace x")

        await nodes.until(lambda: "method strip failed" in waits() and "next try" in waits())
        text = waits()
        assert text.startswith("lockspace x waits for node3 (node 3) to be fenced; method board failed"), text
        assert "does not answer" in text and {w["remedy"] for w in asked(nodes, 2).why()} == {"vcs fence ack 3"}
        component = nodes[2].component
        assert component is not None
        component.fence_ack(3)
        await nodes.until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)))
        assert asked(nodes, 1).fence_history()[-1]["result"] == "ended"

    tell(config(tmp_path), tmp_path, story)


def test_a_running_node_is_fenced_by_order(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        await nodes.form()
        users = {n: nodes[n].join("dlm:x") for n in (1, 2, 3)}
        await nodes.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        first = nodes[1].component
        assert first is not None
        await first.command(FenceNode(3, "reboot"))
        await nodes.until(lambda: [a for a, _ in calls(tmp_path / "board")] == ["reboot"])
        await nodes[3].power_cut()
        await nodes.until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)))
        assert asked(nodes, 2).fence_history()[-1]["why"] == "ordered by an administrator at node 1"
        with pytest.raises(VcsError, match="there is no node 9"):
            await first.command(FenceNode(9, ""))

    tell(config(tmp_path), tmp_path, story)


def test_a_device_that_does_not_answer_is_known_before_it_is_needed(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        await nodes[1].start()
        backend = asked(nodes, 1)
        devices = await backend.fence_check()
        assert [(d["device"], d["ok"], d["action"]) for d in devices] == [("board", True, "monitor"), ("strip", True, "monitor")]
        (tmp_path / "board" / "fail").touch()
        await backend.fence_check()
        assert [n["device"] for n in nodes[1].noted("fence_device_failed")] == ["board"]
        (note,) = [n for n in backend.status()["notes"] if "fence device" in n]
        assert note.startswith("fence device board (for node2) does not answer: the outlet")
        assert 'vcs_fence_device_up{device="board",peer="node2"} 0.0' in await backend.metrics()
        (tmp_path / "board" / "fail").unlink()
        await backend.fence_check()
        assert nodes[1].noted("fence_device_ok") and not [n for n in backend.status()["notes"] if "fence device" in n]

    tell(config(tmp_path), tmp_path, story)


def test_the_way_to_the_storage_is_opened_once_in_a_life_and_a_reboot_is_demanded(tmp_path: Path) -> None:
    """SAFETY S24: a node that was cut off must forget what it wanted to write."""

    async def story(nodes: Nodes) -> None:
        storage = tmp_path / "strip"
        (storage / "on-1").unlink(missing_ok=True)
        await nodes[1].start()
        assert calls(storage) == [("on", "1")] and (storage / "on-1").exists()
        await nodes[1].stop()
        await nodes[1].start()  # the daemon alone was restarted: nothing is opened, only looked at
        assert calls(storage)[1:] == [("status", "1")]
        await nodes[1].stop()
        (storage / "on-1").unlink()  # the others have fenced it
        with pytest.raises(NeedsReboot, match="strip has closed its way"):
            await nodes[1].start()
        assert not (storage / "on-1").exists()
        await nodes[1].power_cut()
        await nodes[1].start()
        assert (storage / "on-1").exists()

    tell(config(tmp_path, fabric=True), tmp_path, story)
