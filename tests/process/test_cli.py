# SPDX-License-Identifier: GPL-2.0-only
"""The command line against real vcsd processes: what it says while a cluster lives, waits and is left."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.story import ROOT, Consumer, DaemonNode, PowerSwitch, make_config, until, write_config


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def vcs(daemon: DaemonNode, *arguments: str) -> Result:
    """`vcs ARGUMENTS` on that node, as a process of its own (the node's switch lives in this one)."""
    argv = ["-m", "vcs.cli.main", *arguments, "--run-dir", str(daemon.run_dir)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


Story = Callable[[list[DaemonNode], PowerSwitch], Awaitable[None]]


def tell(folder: Path, story: Story) -> None:
    async def run() -> None:
        power = PowerSwitch(folder / "power")
        path = write_config(make_config(power), folder / "etc")
        daemons = [DaemonNode(path, n, folder) for n in (1, 2, 3)]
        try:
            for daemon in daemons:
                await daemon.start()
            await until(lambda: all(d.view() == [1, 2, 3] for d in daemons), 30, lambda: "\n".join(d.tail() for d in daemons))
            await story(daemons, power)
        finally:
            for daemon in daemons:
                await daemon.close()

    asyncio.run(run())


def test_a_cluster_seen_from_the_command_line(tmp_path: Path) -> None:
    async def story(daemons: list[DaemonNode], _power: PowerSwitch) -> None:
        one = daemons[0]
        user = Consumer(one.switch, one.handle, "lock:x")
        await until(lambda: user.running_on() == [1], 30, one.tail)
        status = (await vcs(one, "status", "--json")).json["status"]
        assert (status["source"], status["cluster"], status["handle"], status["node"]) == ("vcsd", "story", "story1", "node1")
        assert status["view"]["quorate"] and status["view"]["members"] == [1, 2, 3]
        quorum = status["quorum"]
        assert (quorum["votes"], quorum["expected"], quorum["needed"], quorum["voters"]) == (3, 3, 2, [1, 2, 3])
        assert status["provider"] == {"type": "user", "state": "attached"}
        assert one.process is not None and status["daemon"]["pid"] == one.process.pid
        text = (await vcs(one, "status")).out
        assert "cluster   story (handle story1)\nnode      node1 (1)\n" in text and ", quorate, members 1-3\n" in text

        nodes = (await vcs(one, "nodes", "--json")).json["nodes"]
        assert [(n["nodeid"], n["name"], n["state"], n["local"]) for n in nodes] == [
            (1, "node1", "member", True), (2, "node2", "member", False), (3, "node3", "member", False)]  # fmt: skip
        (group,) = (await vcs(one, "groups", "--json")).json["groups"]
        assert (group["name"], group["state"], group["phase"], group["members"]) == ("lock:x", "member", "finish", [1])
        assert (await vcs(one, "why")).out == "nothing waits\n"
        assert any(json.loads(line).get("event") == "bridge_started" for line in (await vcs(one, "events", "--json")).out.splitlines())

        refused = await vcs(one, "leave")
        assert refused.code == 3 and refused.out == "group lock:x (lock_manager, of test)\n"
        assert "lock:x" in refused.err and one.process.returncode is None
        user.leave()
        await until(lambda: user.left, 30, one.tail)
        assert (await vcs(one, "leave")).out == "left the cluster\n"
        assert await one.ended() == 0
        gone = await vcs(one, "leave")
        assert (gone.code, gone.err) == (75, "vcs: vcsd is not running; start it with `systemctl start vcsd`\n")

    tell(tmp_path, story)


def test_why_names_a_fence_that_fails_and_ack_ends_it(tmp_path: Path) -> None:
    async def story(daemons: list[DaemonNode], power: PowerSwitch) -> None:
        one, _two, three = daemons
        users = {d.id: Consumer(d.switch, d.handle, "x") for d in daemons}
        await until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()), 30, one.tail)
        (power.folder / "broken").touch()
        three.kill(signal.SIGKILL)
        await until(lambda: len(power.calls()) >= 1, 30, one.tail)
        waits: list[dict[str, Any]] = []

        async def named() -> bool:
            waits[:] = (await vcs(one, "why", "--json")).json["waits"]
            return any(w["remedy"] == "vcs fence ack 3" for w in waits)  # between two attempts; while one runs there is nothing to do

        async with asyncio.timeout(60):
            while not await named():
                pass
        assert [w["subject"] for w in waits] == ["node node3", "group x"]
        states = {n["name"]: n["state"] for n in (await vcs(one, "nodes", "--json")).json["nodes"]}
        assert states == {"node1": "member", "node2": "member", "node3": "failed"}
        assert not users[1].running_on()
        unknown = await vcs(one, "fence", "ack", "node7", "--yes")
        assert unknown.code == 1 and "there is no node 'node7'" in unknown.err
        assert (await vcs(one, "fence", "ack", "node3", "--yes")).out == "acknowledged: node3 (3) is off\n"
        await until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)), 30, one.tail)
        assert (await vcs(one, "why")).out == "nothing waits\n"

    tell(tmp_path, story)
