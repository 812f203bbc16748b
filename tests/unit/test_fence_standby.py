# SPDX-License-Identifier: GPL-2.0-only
"""Agents that wait: they are told without an exec, they do nothing when nobody tells them, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.fence_agent import FenceOrder, Fences, Outcome
from bridge.fencing import STANDBY, Fencing
from bridge.standby import EACH_MAX, Standby, wanted
from tests.fakes.fence_agent import calls, make
from vcs.agent_process import Agent, call
from vcs.child import start_time
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, FencingConfig, NodeConfig
from vcs.events import EventLog

NODES = (NodeConfig(1, "one", ("127.0.0.1",)), NodeConfig(2, "two", ("127.0.0.2",), fence={"plug": "2"}))


def config(agent: Path, standby: bool = True) -> ClusterConfig:
    rules = FencingConfig(str(agent), {"ip": "192.0.2.1"}, timeout_ms=5000, check_interval_s=0, standby=standby)
    return ClusterConfig("c", NODES, fencing=rules)


def until(condition: Callable[[], object], what: str, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(pid: int) -> bool:
    """It sleeps until it is told something."""
    return Path(f"/proc/{pid}/wchan").read_text().startswith(("pipe_read", "anon_pipe_read"))


def test_a_fence_needs_no_start_of_a_program(tmp_path: Path) -> None:
    """The agent's file is gone by then, as behind a disk that hangs: those that wait cut the node off and confirm it all the same."""
    agent = make(tmp_path)

    async def story() -> Outcome:
        standby = Standby(str(tmp_path / "note"))
        fences = Fences(config(agent), standby)
        await fences.check()
        assert standby.prepare({str(agent): 2}) == 2
        for each in standby._waiting[str(agent)]:
            until(lambda each=each: listens(each.child.pid), "it to be ready")  # type: ignore[misc]
        agent.unlink()
        outcome = await fences.launch(FenceOrder(2, 7))
        assert standby.count() == 0
        standby.close()
        return outcome

    outcome = asyncio.run(story())
    assert outcome.ok and outcome.detail == "fence_fake: off, status is off"
    assert calls(tmp_path) == [("off", "2"), ("status", "2")]


@pytest.mark.parametrize("told", [b"", b"action=off\nplug=2\n"])
def test_who_waits_does_nothing_when_its_vcsd_is_killed_and_the_next_one_ends_it(tmp_path: Path, told: bytes) -> None:
    """Its input must not end: an agent that has heard nothing does its default, and one that has heard a part must not act on it."""
    agent, note = make(tmp_path), str(tmp_path / "note")
    program = (
        f"import os, sys, time; from bridge.standby import Standby; s = Standby({note!r}); s.prepare({{{str(agent)!r}: 1}}); "
        f"a = s._waiting[{str(agent)!r}][0]; a.stdin.write({told!r}); print(a.child.pid, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as vcsd:
        assert vcsd.stdout is not None
        pid = int(vcsd.stdout.readline())
        vcsd.kill()
    until(lambda: listens(pid), "it to wait for what it is told")
    assert calls(tmp_path) == [] and start_time(pid)
    successor = Standby(note)
    assert successor.prepare({str(agent): 1}) == 1
    until(lambda: not alive(pid), "the one that was left behind to end")
    assert calls(tmp_path) == []
    successor.close()
    assert not Path(note).exists()


def test_a_successor_leaves_alone_who_works_and_whom_the_note_does_not_mean(tmp_path: Path) -> None:
    agent, note = make(tmp_path), tmp_path / "note"
    one = Standby(str(note))
    one.prepare({str(agent): 1})
    working = one.take(str(agent))
    assert working is not None
    working.hurry()
    two = Standby(str(note))
    two.prepare({str(agent): 1})
    assert working.waits
    note.write_text(note.read_text().replace(str(start_time(two._waiting[str(agent)][0].child.pid)), "1"))
    three = Standby(str(note))
    three.prepare({str(agent): 1})
    assert two.count() == 1, "its id was used again, by the note"
    for each in (two, three):
        each.close()
    working.close()
    assert not alive(working.child.pid)


def test_one_that_has_died_is_not_told(tmp_path: Path) -> None:
    agent = make(tmp_path)
    standby = Standby(str(tmp_path / "note"))
    standby.prepare({str(agent): 2})
    first = standby._waiting[str(agent)][-1]
    os.kill(first.child.pid, signal.SIGKILL)
    until(lambda: not first.waits, "it to die")
    second = standby.take(str(agent))
    assert second is not None and second is not first and standby.take(str(agent)) is None
    os.kill(second.child.pid, signal.SIGKILL)  # between take and tell: another one is started
    until(lambda: not second.waits, "it to die")
    assert call(str(agent), {"action": "off", "plug": "2"}, 10.0, None, second).code == 0
    assert calls(tmp_path) == [("off", "2")]


def test_new_ones_take_the_places_and_stay_when_no_newer_one_can_start(tmp_path: Path) -> None:
    agent = make(tmp_path)
    standby = Standby(str(tmp_path / "note"))
    standby.prepare({str(agent): 2})
    old = {a.child.pid for a in standby._waiting[str(agent)]}
    standby.prepare({str(agent): 2})
    new = {a.child.pid for a in standby._waiting[str(agent)]}
    assert len(new) == 2 and not old & new and not any(map(alive, old))
    agent.unlink()
    assert standby.prepare({str(agent): 2}) == 2 and {a.child.pid for a in standby._waiting[str(agent)]} == new
    standby.close()
    assert not any(map(alive, new)) and calls(tmp_path) == []


def test_nobody_waits_for_one_that_was_forgotten(tmp_path: Path) -> None:
    agent = Agent(str(make(tmp_path)))
    pid = agent.child.pid
    del agent
    assert not alive(pid) and calls(tmp_path) == []


def test_how_many_wait(tmp_path: Path) -> None:
    devices = tuple(FenceDevice(n, f"/x/{n[0]}") for n in ("a1", "a2", "a3", "b"))
    nodes = (
        NodeConfig(1, "one", ("127.0.0.1",), methods=(FenceMethod(("b",)),)),
        NodeConfig(2, "two", ("127.0.0.2",), methods=(FenceMethod(("a1", "a2")), FenceMethod(("b",)))),
        NodeConfig(3, "three", ("127.0.0.3",), methods=(FenceMethod(("a1", "a2", "a3")),)),
    )
    paths = {d.name: d.agent for d in devices}
    made = ClusterConfig("c", nodes, fence_devices=devices)
    assert wanted(made, paths, 1) == {"/x/a": EACH_MAX}, "two for each device of a method, up to a limit; of first methods only"
    assert wanted(made, paths, 3) == {"/x/a": 4, "/x/b": 2}
    assert wanted(ClusterConfig("c", nodes[:1]), {}, 1) == {}


@pytest.mark.parametrize("on", [True, False])
def test_a_node_that_runs_has_them_and_one_that_ends_has_none(tmp_path: Path, on: bool) -> None:
    agent = make(tmp_path)

    async def story() -> None:
        made = config(agent, on)
        fencing = Fencing(made, 1, str(tmp_path), EventLog(str(tmp_path / "events")))
        await fencing.check()
        await fencing.join(7)
        fencing.begin()
        assert fencing.fencer is not None
        if on:
            standby = fencing.fencer._standby  # type: ignore[attr-defined]
            while standby.count() < 2:
                await asyncio.sleep(0.01)
            pids = [a.child.pid for a in standby._waiting[str(agent)]]
        outcome = await fencing.fencer.launch(FenceOrder(2, 7))
        assert outcome.ok
        fencing.close()
        if on:
            assert not any(map(alive, pids))
        assert not (tmp_path / STANDBY).exists()

    asyncio.run(story())
    assert calls(tmp_path) == [("off", "2"), ("status", "2")]
