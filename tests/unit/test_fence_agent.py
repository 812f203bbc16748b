# SPDX-License-Identifier: GPL-2.0-only
"""Fencing carried out: real agents as programs, that behave well, badly, and not at all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from bridge.fence_agent import FenceOrder, Fences, Outcome
from tests.fakes.fence_agent import calls, make
from vcs.agents import FenceAgentError
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, FencingConfig, NodeConfig

T = TypeVar("T")


def run(config: ClusterConfig, story: Callable[[Fences], Awaitable[T]]) -> T:
    async def whole() -> T:
        fences = Fences(config)
        await fences.check()
        return await story(fences)

    return asyncio.run(whole())


def fence(config: ClusterConfig, **order: object) -> Outcome:
    async def story(f: Fences) -> Outcome:
        return await f.launch(FenceOrder(2, 7, **order))  # type: ignore[arg-type]

    return run(config, story)


def simple(folder: Path, timeout_ms: int = 5000, node: dict[str, str] | None = None, **options: str) -> ClusterConfig:
    """The short form: one agent for all."""
    agent = make(folder, plugs=("7", "two"))
    mine = NodeConfig(2, "two", ("127.0.0.2",), fence={"plug": "7"} if node is None else node)
    return ClusterConfig("c", (NodeConfig(1, "one", ("127.0.0.1",)), mine),
                         fencing=FencingConfig(str(agent), {"ip": "192.0.2.1", **options}, timeout_ms=timeout_ms))


def supplies(folder: Path, action: str = "off", parallel: bool = True, retries: int = 0) -> ClusterConfig:
    """Two power strips, each with a supply of node 2."""
    devices = tuple(
        FenceDevice(name, str(make(folder / name, plugs=("3", "5"))), {"ip": name}, 5000, retries, action=action) for name in ("a", "b")
    )
    method = FenceMethod(("a", "b"), parallel, {"a": {"plug": "3"}, "b": {"plug": "5"}})
    return ClusterConfig("c", (NodeConfig(1, "one", ("127.0.0.1",)), NodeConfig(2, "two", ("127.0.0.2",), methods=(method,))),
                         fence_devices=devices)


def test_off_is_confirmed_by_status(tmp_path: Path) -> None:
    outcome = fence(simple(tmp_path))
    assert outcome.ok and outcome.detail == "fence_fake: off, status is off" and outcome.method == "fence_fake"
    assert calls(tmp_path) == [("off", "7"), ("status", "7")]
    assert [(s.action, s.ok) for s in outcome.steps] == [("off", True), ("status", True)]


@pytest.mark.parametrize(
    ("behaviour", "word"),
    [("fail", "fence_fake: the outlet 7 does not answer"), ("lie", "its status is still on")],
)
def test_anything_but_off_is_a_failure(tmp_path: Path, behaviour: str, word: str) -> None:
    config = simple(tmp_path, timeout_ms=1500)
    (tmp_path / behaviour).touch()
    outcome = fence(config)
    assert not outcome.ok and word in outcome.detail
    assert outcome.cut == (behaviour == "lie"), "who was cut off by its device's word, and has power, may be booting"


def test_a_device_that_said_on_and_then_nothing_may_have_booted_the_node(tmp_path: Path) -> None:
    """Its word stands: the node had power after it was cut off. Taken for a plain failure, a booting node would be cut off
    again at once."""
    config = simple(tmp_path, timeout_ms=2000)
    for behaviour in ("lie", "mute-7"):
        (tmp_path / behaviour).touch()
    outcome = fence(config)
    assert not outcome.ok and outcome.cut
    assert "its status was on, and then action=status did not end in time" in outcome.detail
    assert [s.said for s in outcome.steps[1:2]] == ["Status: ON"]


def test_the_last_status_has_the_devices_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a device may take to notice is no limit for a call: one with a status of a second would never confirm anything late."""
    monkeypatch.setattr("bridge.fence_agent.LAG_S", 2.4)
    config = simple(tmp_path, timeout_ms=9000)
    (tmp_path / "slow-7").write_text("1.0")
    (tmp_path / "late-7").touch()
    outcome = fence(config)
    assert outcome.ok, outcome


def test_a_device_may_notice_late_what_it_did(tmp_path: Path) -> None:
    config = simple(tmp_path)
    (tmp_path / "late-7").touch()
    outcome = fence(config)
    assert outcome.ok and not outcome.cut
    assert [(s.action, s.ok) for s in outcome.steps] == [("off", True), ("status", True), ("status", True)]


def test_a_timeout_is_a_failure_and_kills_the_whole_group(tmp_path: Path) -> None:
    config = simple(tmp_path, timeout_ms=800)
    agent = tmp_path / "fence_fake"
    inner = tmp_path / "inner"
    agent.rename(inner)
    agent.write_text(
        f"#!/bin/sh\nread -r line\n[ $line = action=metadata ] && {{ echo $line | {inner}; exit; }}\n"
        f"sleep 300 & echo $! > {tmp_path}/helper\nsleep 300\n"
    )
    agent.chmod(0o755)
    began = time.monotonic()
    outcome = fence(config)
    assert not outcome.ok and "did not end in time" in outcome.detail and time.monotonic() - began < 5
    helper = int((tmp_path / "helper").read_text())
    for _ in range(100):  # killed, and reaped by init or by nobody: a zombie counts as gone
        try:
            state = Path(f"/proc/{helper}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the helper of a killed agent lives on")


def test_the_end_of_an_agent_is_an_event_though_a_child_holds_its_output(tmp_path: Path) -> None:
    """No poll, and no waiting for the end of a pipe that somebody else holds open."""
    config = simple(tmp_path)
    agent = tmp_path / "fence_fake"
    inner = tmp_path / "inner"
    agent.rename(inner)
    agent.write_text(f"#!/bin/sh\nsleep 300 &\nexec {inner}\n")
    agent.chmod(0o755)
    began = time.monotonic()
    assert fence(config).ok and time.monotonic() - began < 4


def test_reboot_is_believed_and_a_missing_plug_is_the_nodes_name(tmp_path: Path) -> None:
    assert fence(simple(tmp_path, node={}, action="reboot")).ok
    assert calls(tmp_path) == [("reboot", "two")]
    assert (tmp_path / "on-two").exists()


def test_an_order_may_say_reboot_or_off(tmp_path: Path) -> None:
    assert fence(simple(tmp_path), action="reboot").ok
    assert calls(tmp_path) == [("reboot", "7")]


def test_two_supplies_are_off_together_and_then_on(tmp_path: Path) -> None:
    outcome = fence(supplies(tmp_path, "reboot"))
    assert outcome.ok and outcome.method == "a+b" and outcome.detail == "a+b: all off, then on"
    assert calls(tmp_path / "a") == [("off", "3"), ("status", "3"), ("on", "3")]
    assert calls(tmp_path / "b") == [("off", "5"), ("status", "5"), ("on", "5")]
    off_at = {s.device: i for i, s in enumerate(outcome.steps) if s.action == "status"}
    on_at = [i for i, s in enumerate(outcome.steps) if s.action == "on"]
    assert max(off_at.values()) < min(on_at)


@pytest.mark.parametrize("parallel", [True, False])
def test_one_supply_that_stays_on_is_no_fence_and_the_other_is_given_back(tmp_path: Path, parallel: bool) -> None:
    config = supplies(tmp_path, "reboot", parallel)
    (tmp_path / "b" / "fail").touch()
    outcome = fence(config)
    assert not outcome.ok and outcome.detail == "b: the outlet 5 does not answer"
    assert calls(tmp_path / "a") == [("off", "3"), ("status", "3"), ("on", "3")]


def test_parallel_is_parallel(tmp_path: Path) -> None:
    config = supplies(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "slow").write_text("0.8")
    began = time.monotonic()
    outcome = fence(config)
    assert outcome.ok and outcome.detail == "a+b: all off"
    assert time.monotonic() - began < 2 * (0.8 * 2)


def test_a_failed_call_is_repeated_as_configured(tmp_path: Path) -> None:
    config = supplies(tmp_path, retries=2)
    (tmp_path / "a" / "fail").touch()
    assert not fence(config).ok
    assert calls(tmp_path / "a") == [("off", "3")] * 3


def test_what_nobody_owes_any_more_is_not_done(tmp_path: Path) -> None:
    """SAFETY S1: asked just before the call. The node is back with a new boot incarnation, say."""
    outcome = fence(simple(tmp_path), still=lambda: False)
    assert not outcome.ok and "called off" in outcome.detail and calls(tmp_path) == []


def test_a_running_call_is_called_off(tmp_path: Path) -> None:
    config = simple(tmp_path, timeout_ms=60_000)
    (tmp_path / "hang").touch()

    async def story(f: Fences) -> Outcome:
        task = f.launch(FenceOrder(2, 7))
        while not calls(tmp_path):
            await asyncio.sleep(0.01)
        f.cancel(2, 8)  # another incarnation: not this one
        assert not task.done()
        f.cancel(2, 7)
        return await task

    began = time.monotonic()
    outcome = run(config, story)
    assert not outcome.ok and "called off" in outcome.detail and time.monotonic() - began < 10
    assert calls(tmp_path) == [("off", "7")]


def test_secrets_do_not_reach_any_log(tmp_path: Path) -> None:
    config = simple(tmp_path, password="hush-hush")
    for name in ("loud", "fail"):
        (tmp_path / name).touch()
    outcome = fence(config)
    (tmp_path / "fail").unlink()
    again = fence(config)
    assert again.ok and "hush" not in repr((outcome, again)) and "(hidden)" in repr(again)


# --- what is wrong is found at the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [("fence_nothing_like_this", "not installed"), ("/no/such/fence_agent", "does not exist")],
)
def test_a_missing_agent_is_named_with_the_remedy(name: str, word: str) -> None:
    config = ClusterConfig("c", (NodeConfig(1, "one", ("127.0.0.1",)),), fencing=FencingConfig(name))
    with pytest.raises(FenceAgentError, match=word) as caught:
        asyncio.run(Fences(config).check())
    assert name in str(caught.value) and caught.value.remedy and caught.value.exit_code == 78


def test_options_are_compared_with_what_the_agent_knows(tmp_path: Path) -> None:
    for option, value, word in (("pasword", "x", "did you mean 'password'"), ("method", "cycel", "one of onoff, cycle")):
        config = simple(tmp_path)
        config.fencing.options[option] = value
        with pytest.raises(FenceAgentError, match=word):
            asyncio.run(Fences(config).check())
    config = simple(tmp_path)
    del config.fencing.options["ip"]
    with pytest.raises(FenceAgentError, match="demands the option 'ip' for node one"):
        asyncio.run(Fences(config).check())
    config.fencing.options["ipaddr"] = "192.0.2.1"  # the option's old name will do
    asyncio.run(Fences(config).check())


def test_an_unusable_agent_is_found_at_the_start(tmp_path: Path) -> None:
    config = simple(tmp_path)
    (tmp_path / "fence_fake").write_text("#!/bin/sh\necho 'Usage: fence_test [options]'\n")
    with pytest.raises(FenceAgentError, match="not XML"):
        asyncio.run(Fences(config).check())
    os.chmod(tmp_path / "fence_fake", 0o644)
    with pytest.raises(FenceAgentError, match="not executable"):
        asyncio.run(Fences(config).check())
    storage = supplies(tmp_path, "reboot")
    make(tmp_path / "a", "fence_fake", fabric=True)
    with pytest.raises(FenceAgentError, match="cannot 'reboot'"):
        asyncio.run(Fences(storage).check())


def test_options_that_the_protocol_cannot_carry_are_refused(tmp_path: Path) -> None:
    outcome = fence(simple(tmp_path, node={"plug": "7\naction=on"}))
    assert not outcome.ok and "plug" in outcome.detail and calls(tmp_path) == []


def test_a_node_without_a_method_is_told_of(tmp_path: Path) -> None:
    config = ClusterConfig("c", (NodeConfig(1, "one", ("127.0.0.1",)), NodeConfig(2, "two", ("127.0.0.2",))))
    assert "no fence agent is configured for node 2" in fence(config).detail
