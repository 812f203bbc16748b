# SPDX-License-Identifier: GPL-2.0-only
"""Batch channels of groups in whole nodes: messages and events of the coordinator in one order, held until an event was processed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bridge.channel.groups import NotAMember
from tests.process.channels import Program
from tests.process.story import NEEDS, ROOT, Consumer, DaemonNode, Node, Nodes, PowerSwitch, make_config, until, write_config
from vcs import events
from vcs.batch import Batch, Event
from vcs.channel import Channel, ChannelClosed, open_channel
from vcs.client import Client
from vcs.errors import DaemonError
from vcs.model import GroupFlags, Phase


class Slowly(Consumer):
    """A consumer that takes its time with the start of an event: until ``go``."""

    go = True

    def _step(self) -> None:
        group = self.group()
        if self.go or group is None or group.phase is not Phase.START:
            super()._step()

    def proceed(self) -> None:
        self.go = True
        self._step()


def tell(folder: Path, story: Callable[[Nodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Nodes(make_config(PowerSwitch(folder / "power")), folder) as nodes:
            await nodes.form()
            await story(nodes)

    asyncio.run(run())


def program(node: Node, group: str = "x", explicit: bool = False) -> Program:
    assert node.component is not None
    return Program(Channel(node.component.open_channel(group, explicit)))


async def joined(nodes: Nodes, *who: int, flags: GroupFlags = NEEDS) -> dict[int, Program]:
    """Consumers in group x on these nodes, and a program at each, told of the event that runs on all of them."""
    for n in who:
        nodes[n].join("x", flags)
    await nodes.until(lambda: all(nodes[n].consumers[-1].running_on() == list(who) for n in who))
    programs = {n: program(nodes[n]) for n in who}
    await nodes.until(lambda: all(p.members() == who for p in programs.values()))
    return programs


def test_messages_and_events_in_one_order_until_the_group_is_left(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        programs = await joined(nodes, 1, 2, 3)
        for i in range(100):
            for n, p in programs.items():
                await p.send(b"%d:%d" % (n, i), bytes(60_000) if i % 25 == 0 else b"")
        await nodes.until(lambda: all(len(p.lines()) == 600 for p in programs.values()))
        assert programs[1].lines() == programs[2].lines() == programs[3].lines()
        late = program(nodes[1])
        await nodes.until(lambda: late.members() == (1, 2, 3))
        nodes[3].consumers[-1].leave()
        await nodes.until(lambda: programs[3].closed)
        assert programs[3].closed == "this node has left the group"
        await nodes.until(lambda: programs[1].members() == (1, 2) == programs[2].members())
        await programs[2].send(b"we two")
        await nodes.until(lambda: programs[1].of(2)[-1] == b"we two" == programs[2].of(2)[-1] == (late.of(2) or [b""])[-1])
        assert programs[1].lines() == programs[2].lines()
        assert programs[1].lines()[-1][:3] == (programs[1].channel.event, 1, 2), "the count begins anew in each event"
        with pytest.raises(NotAMember, match="is not in group 'x'"):
            program(nodes[3])
        for p in (programs[1], programs[2], late):
            p.channel.close()

    tell(tmp_path, story)


def test_messages_of_an_event_are_held_until_it_was_processed_here(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        nodes[1].join()
        nodes[2].consumers.append(Slowly(nodes[2].switch, nodes[2].handle, "x"))
        slow = nodes[2].consumers[-1]
        assert isinstance(slow, Slowly)
        await nodes.until(lambda: nodes[1].consumers[0].running_on() == slow.running_on() == [1, 2])
        one, two, own = program(nodes[1]), program(nodes[2]), program(nodes[2], explicit=True)
        await nodes.until(lambda: one.members() == two.members() == own.members() == (1, 2))
        own.channel.processed(own.channel.event)
        slow.go = False
        nodes[3].join()
        await nodes.until(lambda: one.members() == (1, 2, 3))
        await one.send(b"of the new event")
        await nodes.until(lambda: one.of(1) == [b"of the new event"])
        # The explicit one knows of the event, and decides itself.
        await nodes.until(lambda: own.members() == (1, 2, 3))
        assert not own.of(1)
        own.channel.processed(own.channel.event)
        await nodes.until(lambda: own.of(1) == [b"of the new event"])
        group = slow.group()
        assert group is not None and group.phase is Phase.START and group.acked_phase is Phase.STOP
        assert two.members() == (1, 2) and not two.of(1), "told of an event that was not processed here"
        slow.proceed()
        await nodes.until(lambda: two.members() == (1, 2, 3) and two.of(1) == [b"of the new event"])
        assert two.lines() == one.lines() == own.lines()
        for p in (one, two, own):
            p.channel.close()

    tell(tmp_path, story)


def test_a_power_cut_in_the_middle_of_a_flood(tmp_path: Path) -> None:
    """The survivors agree on every message and its event; none of theirs is lost or doubled; the dead one's have no hole."""

    async def story(nodes: Nodes) -> None:
        programs = await joined(nodes, 1, 2, 3)

        async def talk(n: int) -> None:
            for i in range(1200):
                if programs[n].closed:
                    return
                await programs[n].send(b"%d:%d\0" % (n, i) + bytes(2000))
                if n == 3 and i == 600:
                    await nodes[3].power_cut()
                    return
                await asyncio.sleep(0)

        await asyncio.gather(*(talk(n) for n in programs))
        one, two = programs[1], programs[2]
        await nodes.until(lambda: one.members() == (1, 2) == two.members(), 30)
        await nodes.until(lambda: len(one.of(1)) == len(one.of(2)) == len(two.of(1)) == len(two.of(2)) == 1200, 30)
        assert one.lines() == two.lines()
        for n in (1, 2):
            assert [m.split(b"\0")[0] for m in one.of(n)] == [b"%d:%d" % (n, i) for i in range(1200)]
        heard = [m.split(b"\0")[0] for m in one.of(3)]
        assert heard == [b"3:%d" % i for i in range(len(heard))]
        told = [e for e in one.got if isinstance(e, Event)]
        assert [e.members for e in told][-2:] == [(1, 2, 3), (1, 2)]
        assert all(a.event < b.event for a, b in pairwise(told))
        batches = [b for b in one.got if isinstance(b, Batch)]
        assert all(b.sent <= b.event for b in batches)
        await nodes.until(lambda: programs[3].closed)
        one.channel.close()
        two.channel.close()

    tell(tmp_path, story)


CHILD = """
import os, sys
from vcs.channel import open_channel
with open_channel("x", sys.argv[1]) as channel:
    for _ in range(2):
        print(channel.receive(20), flush=True)
    channel.send(b"from a process")
    print(channel.receive(20).messages, flush=True)
    sys.stdin.read()
"""


def test_real_daemons_real_programs(tmp_path: Path) -> None:
    """The descriptor comes over the control socket; a killed program is cleaned up; a killed vcsd ends the channels."""

    async def story() -> None:
        path = write_config(make_config(PowerSwitch(tmp_path / "power"), nodes=1), tmp_path / "etc")
        daemon = DaemonNode(path, 1, tmp_path)
        door = str(daemon.run_dir / "vcs.sock")
        try:
            await daemon.start()
            await until(lambda: daemon.view() == [1], 20, daemon.tail)
            with pytest.raises(DaemonError, match="is not in group 'x'") as refused:
                await asyncio.to_thread(open_channel, "x", door)
            assert refused.value.exit_code == 3
            user = Consumer(daemon.switch, daemon.handle, "x")
            await until(lambda: user.running_on() == [1], 20, daemon.tail)
            channel = await asyncio.to_thread(open_channel, "x", door)
            first = await asyncio.to_thread(channel.receive, 20)
            assert first == Event(user.seen[-1][1], (1,))
            channel.send(b"one")
            assert await asyncio.to_thread(channel.receive, 20) == Batch(first.event, 1, 1, first.event, [b"one"])
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, door], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None and child.stdin is not None
            assert await asyncio.to_thread(child.stdout.readline) == f"{first}\n"
            channel.send(b"hello child")
            assert "hello child" in await asyncio.to_thread(child.stdout.readline)
            assert "from a process" in await asyncio.to_thread(child.stdout.readline)
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdin.close()
            child.stdout.close()

            def closed() -> list[object]:
                records = events.read(str(daemon.run_dir / "events.jsonl"))
                return [r["why"] for r in records if r["event"] == "channel_closed"]

            await until(lambda: closed() == ["the program closed it"], 20, daemon.tail)
            with Client(door) as client:
                status = await asyncio.to_thread(client.status)
            assert json.dumps(status)
            daemon.kill(signal.SIGKILL)
            await daemon.ended()
            with pytest.raises(ChannelClosed, match="closed the connection"):
                while True:
                    assert await asyncio.to_thread(channel.receive, 20) is not None
        finally:
            await daemon.close()

    asyncio.run(story())
