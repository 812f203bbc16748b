# SPDX-License-Identifier: GPL-2.0-only
"""Real vcsd processes: how they start, refuse, are killed, come back, and end. The kernels are userland switches in the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.process.story import Consumer, DaemonNode, PowerSwitch, make_config, until, write_config
from vcs import events
from vcs.batch import Batch, Event
from vcs.channel import Channel, open_channel
from vcs.client import Client
from vcs.errors import DaemonError
from vcs.model import GroupState, ProviderState


@dataclass
class Daemons:
    all: list[DaemonNode]
    power: PowerSwitch
    folder: Path

    def __getitem__(self, nodeid: int) -> DaemonNode:
        return self.all[nodeid - 1]

    async def until(self, what: Callable[[], object], timeout_s: float = 30.0) -> None:
        await until(what, timeout_s, lambda: "\n".join(f"--- vcsd {d.id}\n{d.tail()}" for d in self.all))

    async def form(self) -> None:
        for daemon in self.all:
            await daemon.start()
        await self.until(lambda: all(d.view() == [1, 2, 3] for d in self.all))


@contextlib.asynccontextmanager
async def daemons(folder: Path) -> AsyncIterator[Daemons]:
    power = PowerSwitch(folder / "power")
    path = write_config(make_config(power), folder / "etc")
    found = Daemons([DaemonNode(path, n, folder) for n in (1, 2, 3)], power, folder)
    try:
        yield found
    finally:
        for daemon in found.all:
            await daemon.close()


def tell(folder: Path, story: Callable[[Daemons], Awaitable[None]]) -> None:
    async def run() -> None:
        async with daemons(folder) as them:
            await story(them)

    asyncio.run(run())


def ask(daemon: DaemonNode, method: str) -> object:
    with Client(str(daemon.run_dir / "vcs.sock")) as client:
        return getattr(client, method)()


def listens(daemon: DaemonNode) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        return door.connect_ex(str(daemon.run_dir / "vcs.sock")) == 0


async def channel_of(them: Daemons, daemon: DaemonNode) -> Channel:
    """A channel of group x there, which has been told of the event."""
    await them.until(lambda: listens(daemon))
    channel = await asyncio.to_thread(open_channel, "x", str(daemon.run_dir / "vcs.sock"))
    assert isinstance(await asyncio.to_thread(channel.receive, 20), Event)
    return channel


async def said(channel: Channel, word: bytes) -> Batch:
    """What came of saying it."""
    channel.send(word)
    heard = await asyncio.to_thread(channel.receive, 20)
    assert isinstance(heard, Batch) and heard.messages == [word]
    return heard


def test_a_vcsd_that_is_killed_and_does_not_come_back_is_fenced(tmp_path: Path) -> None:
    """kill -9 under a live group: the others wait for it as long as the lease, then fence, and start only after that."""

    async def story(them: Daemons) -> None:
        await them.form()
        users = {d.id: Consumer(d.switch, d.handle, "x") for d in them.all}
        await them.until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()))
        them[2].kill(signal.SIGKILL)
        assert await them[2].ended() == -signal.SIGKILL
        group = users[2].group()
        assert group is not None and group.state is GroupState.MEMBER
        assert them[2].switch.clusters()[0].provider_state is ProviderState.ORPHAN
        await them.until(lambda: all(users[n].running_on() == [1, 3] for n in (1, 3)))
        fenced = [t for plug, t in them.power.calls() if plug == "2"]
        assert len(fenced) == 1 and len(them.power.calls()) == 1
        starts = [t for n in (1, 3) for phase, _, members, t in users[n].seen if phase == "start" and members == (1, 3)]
        assert len(starts) == 2 and min(starts) > fenced[0], "a start before the fence"

    tell(tmp_path, story)


def test_a_vcsd_that_is_restarted_under_live_groups_costs_nobody_a_fence(tmp_path: Path) -> None:
    """kill -9, SIGTERM, and kill -9 of all at once, each over a live group, and back (SAFETY S16, S19)."""

    async def story(them: Daemons) -> None:
        await them.form()
        users = {d.id: Consumer(d.switch, d.handle, "x") for d in them.all}
        whole = [1, 2, 3]

        def through(event: int) -> bool:
            return all((g := u.group()) is not None and g.finished_event > event and u.running_on() == whole for u in users.values())

        def last() -> int:
            return max(g.finished_event for u in users.values() if (g := u.group()) is not None)

        await them.until(lambda: through(0))
        joined = {m.nodeid: m.join_id for m in users[1].group().finished_members}  # type: ignore[union-attr]
        before = last()
        for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 3)):
            with await channel_of(them, them[1]) as one:
                heard = await said(one, b"before")
            them[2].kill(number)
            assert await them[2].ended() == code, them[2].tail()
            await them.until(lambda: them[1].view() == [1, 3])
            await them[2].start()
            await them.until(lambda: all(d.view() == whole for d in them.all))
            with await channel_of(them, them[1]) as one, await channel_of(them, them[2]) as two:
                again = await said(one, b"after")
                assert (again.event, again.seq) == (before, heard.seq + 1), "the group's event goes on"
                assert await asyncio.to_thread(two.receive, 20) == again, "what comes next has the same number for all"
        assert last() == before, "nobody was stopped"
        for daemon in them.all:
            daemon.kill(signal.SIGKILL)
        for daemon in them.all:
            await daemon.ended()
        for daemon in them.all:
            await daemon.start()
        await them.until(lambda: through(before))
        assert {m.nodeid: m.join_id for m in users[1].group().finished_members} == joined  # type: ignore[union-attr]
        assert them.power.calls() == []

    tell(tmp_path, story)


def test_a_clean_stop_leaves_and_a_live_group_forbids_it(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        await them.form()
        user = Consumer(them[3].switch, them[3].handle, "x")
        await them.until(lambda: user.running_on() == [3])
        them[1].kill(signal.SIGTERM)
        assert await them[1].ended() == 0, them[1].tail()
        assert "left the cluster cleanly" in them[1].stderr() and not them[1].switch.clusters()
        await them.until(lambda: them[2].view() == [2, 3])
        them[3].kill(signal.SIGHUP)
        await them.until(lambda: "was read again and is in force" in them[3].stderr())
        them[3].kill(signal.SIGTERM)
        assert await them[3].ended() == 3
        assert "groups are live here: x" in them[3].stderr()
        await them.until(lambda: [plug for plug, _ in them.power.calls()] in ([], ["3"]))

    tell(tmp_path, story)


def test_the_control_socket_answers_for_a_running_cluster(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        await them.form()
        user = Consumer(them[1].switch, them[1].handle, "x")
        await them.until(lambda: user.running_on() == [1])
        status = await asyncio.to_thread(ask, them[1], "status")
        assert isinstance(status, dict) and json.dumps(status)
        assert (status["cluster"], status["node"], status["groups"]) == ("story", "node1", 1)
        assert status["view"]["members"] == [1, 2, 3] and status["view"]["quorate"] is True
        assert {"votes": 3, "expected": 3, "needed": 2}.items() <= status["quorum"].items() and status["provider"]["state"] == "attached"
        assert 0 < status["lease"]["remaining_ms"] <= status["lease"]["lease_ms"] == 10000
        nodes = await asyncio.to_thread(ask, them[1], "nodes")
        assert isinstance(nodes, list)
        assert [(n["nodeid"], n["name"], n["state"], n["local"]) for n in nodes] == [
            (1, "node1", "member", True),
            (2, "node2", "member", False),
            (3, "node3", "member", False),
        ]
        assert nodes[1]["incarnation"] == f"{them[2].switch.incarnation:016x}"
        groups = await asyncio.to_thread(ask, them[1], "groups")
        assert isinstance(groups, list) and [(g["name"], g["state"], g["members"]) for g in groups] == [("x", "member", [1])]
        assert await asyncio.to_thread(ask, them[1], "why") == []
        them[3].kill(signal.SIGTERM)
        assert await them[3].ended() == 0
        await them.until(lambda: them[1].view() == [1, 2])
        nodes = await asyncio.to_thread(ask, them[1], "nodes")
        assert isinstance(nodes, list) and nodes[2]["state"] == "left"

    tell(tmp_path, story)


def test_leave_over_the_socket_refuses_then_works(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        await them.form()
        user = Consumer(them[2].switch, them[2].handle, "x")
        await them.until(lambda: user.running_on() == [2])
        try:
            await asyncio.to_thread(ask, them[2], "leave")
            raise AssertionError("left with a live group")
        except DaemonError as error:
            assert "x" in str(error)
        assert them[2].process is not None and them[2].process.returncode is None
        user.leave()
        await them.until(lambda: user.left)
        await asyncio.to_thread(ask, them[2], "leave")
        assert await them[2].ended() == 0
        assert not them[2].switch.clusters()

    tell(tmp_path, story)


def test_what_happens_is_in_the_event_log_on_one_clock(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        began = events.boottime_ns()
        await them.form()
        user = Consumer(them[1].switch, them[1].handle, "x")
        await them.until(lambda: user.running_on() == [1])
        records = list(events.read(str(them[1].run_dir / "events.jsonl")))
        names = [r["event"] for r in records]
        for name in ("attached", "bridge_started", "view_installed", "group_stop", "group_start", "group_finish"):
            assert name in names, names
        assert names.index("group_stop") < names.index("group_start") < names.index("group_finish")
        times = [int(str(r["t"])) for r in records]
        assert times == sorted(times) and times[0] > began
        assert {r["node"] for r in records} == {"node1"}

    tell(tmp_path, story)


def run_once(folder: Path, text: str, *more: str) -> tuple[int, str]:
    """One vcsd with that cluster.toml; (exit code, standard error)."""

    async def run() -> tuple[int, str]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_text("00" * 32)
        (folder / "key").chmod(0o600)
        (folder / "cluster.toml").write_text(text)
        daemon = DaemonNode(folder / "cluster.toml", 1, folder)
        try:
            await daemon.start(*more)
            return await daemon.ended(), daemon.stderr()
        finally:
            await daemon.close()

    return asyncio.run(run())


GOOD = """[cluster]
name = "story"
key_file = "key"
[[node]]
id = 1
name = "node1"
address = "127.0.0.1"
"""


def test_every_problem_of_a_configuration_is_one_line(tmp_path: Path) -> None:
    code, err = run_once(tmp_path, GOOD + '[[node]]\nid = 1\nname = "node2"\naddress = "127.0.0.300"\n[totem]\ntokken = 3\n')
    assert code == 78
    lines = [line for line in err.splitlines() if "cluster.toml:" in line]
    assert len(lines) >= 3 and all(line.startswith("<3>") for line in lines)
    assert "Traceback" not in err


def test_an_unknown_node_a_missing_agent_and_a_missing_file(tmp_path: Path) -> None:
    code, err = run_once(tmp_path / "a", GOOD, "--node", "nobody")
    assert code == 78 and "no such node" in err and "node1 (1)" in err
    code, err = run_once(tmp_path / "b", GOOD + '[fencing]\nagent = "fence_of_nobody"\n')
    assert code == 78 and "fence_of_nobody" in err and "install" in err
    code, err = run_once(tmp_path / "c", GOOD, "--config", "/no/such/cluster.toml")
    assert code == 78 and "/no/such/cluster.toml" in err
    for text in (err,):
        assert "Traceback" not in text


def test_there_is_one_vcsd_per_handle(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        await them[1].start()
        await them.until((them[1].run_dir / "vcs.sock").exists)
        first = them[1].process
        assert first is not None
        await them[1].start()
        second = them[1].process
        assert second is not None and second is not first
        assert await them[1].ended() == 75
        assert f"process {first.pid} holds" in them[1].stderr()
        them[1].process = first

    tell(tmp_path, story)


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    async def story(them: Daemons) -> None:
        path = str(tmp_path / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notify:
            notify.bind(path)
            os.environ["NOTIFY_SOCKET"] = path
            try:
                await them[1].start()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(notify, 100), 20) == b"READY=1"
            them[1].kill(signal.SIGTERM)
            assert await asyncio.wait_for(loop.sock_recv(notify, 100), 20) == b"STOPPING=1"
            assert await them[1].ended() == 0, them[1].tail()

    tell(tmp_path, story)
