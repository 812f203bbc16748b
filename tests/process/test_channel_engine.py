# SPDX-License-Identifier: GPL-2.0-only
"""Batch channels over a real ring: one order for everybody, through deaths; and what becomes of slow, dead and rude programs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from bridge.channel.limits import Limits
from tests.process.channels import EngineNodes, run, settle
from tests.process.story import ROOT, PowerSwitch, make_config, until, write_config
from vcs import batch
from vcs.batch import Batch, Event
from vcs.channel import Channel, ChannelClosed


def test_everybody_sees_one_order_and_the_longest_messages_fit(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            programs = await nodes.programs()
            for i in range(60):
                for n, program in enumerate(programs, 1):
                    await program.send(*(f"{n}:{i}:{k}".encode() for k in range(20)))
                    if i % 20 == 0:
                        await program.send(bytes([n]) * 60_000, b"", bytes([n]) * batch.MESSAGE_MAX)
            total = 3 * (60 * 20 + 3 * 3)
            await settle(lambda: all(len(p.lines()) == total for p in programs))
            first = programs[0].lines()
            assert first == programs[1].lines() == programs[2].lines()
            assert [seq for _event, seq, _sender, _m in first] == list(range(1, total + 1))
            for n, program in enumerate(programs, 1):
                assert isinstance(program.got[-1], Batch)
                sent = [m for i in range(60) for m in [*(f"{n}:{i}:{k}".encode() for k in range(20))]]
                assert [m for m in program.of(n) if m[:2] == f"{n}:".encode()] == sent

    run(story)


def test_a_death_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Node 3 dies while all send. The survivors' messages come at both, each once, in order, at the same place of the same event."""

    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            programs = await nodes.programs()

            async def talk(n: int) -> None:
                for i in range(400):
                    if not programs[n - 1].closed:
                        await programs[n - 1].send(f"{n}:{i}".encode() + bytes(3000))
                    await asyncio.sleep(0)
                    if n == 3 and i == 200:
                        nodes[3].die()
                        return

            await asyncio.gather(*(talk(n) for n in (1, 2, 3)))
            one, two = programs[0], programs[1]
            await settle(lambda: one.members() == (1, 2) == two.members() and len(one.of(1)) == len(two.of(2)) == 400)
            await settle(lambda: len(one.lines()) == len(two.lines()))
            assert one.lines() == two.lines()
            for n in (1, 2):
                assert [m.split(b"\0")[0] for m in one.of(n)] == [f"{n}:{i}".encode() for i in range(400)]
            heard = [m.split(b"\0")[0] for m in one.of(3)]
            assert heard == [f"3:{i}".encode() for i in range(len(heard))], "of the dead one a beginning, without holes"
            events = [e.event for e in one.got if isinstance(e, Event)]
            assert all(a < b for a, b in pairwise(events))
            for event in events:
                seqs = [seq for e, seq, _sender, _m in one.lines() if e == event]
                assert seqs == list(range(1, len(seqs) + 1))
            assert len({e for e, *_ in one.lines()}) > 1, "nothing was said after the change"

    run(story)


def test_who_does_not_read_is_cut_off_and_the_others_go_on(tmp_path: Path) -> None:
    limits = Limits(socket=64 << 10, behind=128 << 10, caught_up=32 << 10, backlog=4 << 20, slow_s=1.5, linger_s=60)

    async def story() -> None:
        async with EngineNodes(tmp_path, limits) as nodes:
            programs = await nodes.programs()
            deaf = Channel.at(nodes[2].socket, "g")
            await asyncio.wait_for(programs[0].send(*(i.to_bytes(4, "big") + bytes(4000) for i in range(2000))), 30)
            await settle(lambda: all(len(p.of(1)) == 2000 for p in programs))
            hub = nodes[2].channels.hub
            assert hub.counters["pauses"] >= 1, "it held nobody up before it was cut off"
            assert len(hub._ports) == 1
            assert [f["why"] for n, f in nodes[2].notes if n == "channel_closed"] == [
                "this program is too slow: it has read nothing for 1.5 s"
            ]
            assert programs[0].lines() == programs[1].lines() == programs[2].lines()
            seen: list[object] = []
            assert "too slow" in await asyncio.to_thread(_reason, deaf, seen)
            assert 0 < len([d for d in seen if isinstance(d, Batch)]) < 2000

    run(story)


def test_a_slow_program_holds_up_the_group_but_loses_nothing(tmp_path: Path) -> None:
    limits = Limits(socket=64 << 10, behind=128 << 10, caught_up=32 << 10, backlog=2 << 20)

    async def story() -> None:
        async with EngineNodes(tmp_path, limits) as nodes:
            programs = await nodes.programs()
            slow = Channel.at(nodes[3].socket, "g")
            sending = asyncio.create_task(programs[0].send(*(i.to_bytes(4, "big") + bytes(4000) for i in range(2000))))
            got: list[bytes] = []
            while len(got) < 2000:
                found = await asyncio.to_thread(slow.receive, 10)
                assert found is not None
                if isinstance(found, Batch):
                    got += found.messages
            await sending
            assert [int.from_bytes(m[:4], "big") for m in got] == list(range(2000))
            assert max(port.backlog for port in nodes[3].channels.hub._ports.values()) <= 2 << 20
            slow.close()

    run(story)


def test_rude_and_dead_programs(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path, Limits(channels=5)) as nodes:
            programs = await nodes.programs()
            path = nodes[1].socket
            short = b"\1\0\0\0\2\0\0\0" + bytes(8) + b"\4\0\0\0\4\0\0\0abc"
            for rude in (short, b"\7", batch.pack_processed(1), bytes(batch.PACKET_MAX + 1)):
                channel = Channel.at(path, "g")
                channel._socket.setblocking(True)
                channel._socket.send(rude)
                channel._socket.setblocking(False)
                reason = await asyncio.to_thread(_reason, channel)
                assert "malformed" in reason, reason
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as nobody:
                nobody.connect(path)
                nobody.send(b"what?")
                assert await asyncio.to_thread(nobody.recv, 2000) == batch.pack_closed("a hello was expected")
            many = [Channel.at(path, "g") for _ in range(4)]
            await settle(lambda: len(nodes[1].channels.hub._ports) == 5)
            assert "limit 5" in await asyncio.to_thread(_reason, Channel.at(path, "g"))
            for channel in many:
                channel.close()
            await settle(lambda: len(nodes[1].channels.hub._ports) == 1)
            await programs[0].send(b"still here")
            await settle(lambda: all(p.of(1) == [b"still here"] for p in programs))

    run(story)


def _reason(channel: Channel, seen: list[object] | None = None) -> str:
    """Read to the end: why it was closed."""
    try:
        while (found := channel.receive(10)) is not None:
            if seen is not None:
                seen.append(found)
    except ChannelClosed as closed:
        return str(closed)
    return ""


def test_a_plain_program_without_an_event_loop(tmp_path: Path) -> None:
    """The small server as a process, a blocking program against it, and what happens when the server is killed."""
    config = write_config(make_config(PowerSwitch(tmp_path / "power"), nodes=1), tmp_path / "etc")
    path = str(tmp_path / "s")
    argv = [sys.executable, "-m", "bridge.channel.node", "--config", str(config), "--node", "1", "--socket", path]
    with subprocess.Popen([*argv, "--state-dir", str(tmp_path / "state")], cwd=ROOT, stdout=subprocess.DEVNULL) as server:
        try:
            asyncio.run(until(lambda: os.path.exists(path)))
            with Channel.at(path, "g") as channel:
                first = channel.receive(10)
                assert isinstance(first, Event) and first.members == (1,) and channel.event == first.event
                for i in range(50_000):
                    channel.put(b"%d" % i)
                channel.flush()
                got: list[bytes] = []
                while len(got) < 50_000:
                    found = channel.receive(10)
                    assert isinstance(found, Batch) and found.seq == len(got) + 1 and found.sender == 1
                    got += found.messages
                assert got == [b"%d" % i for i in range(50_000)]
                assert channel.receive(0) is None
                channel.put(b"flushed before it waits")
                found = channel.receive(10)
                assert isinstance(found, Batch) and found.messages == [b"flushed before it waits"]
                server.kill()
                assert "closed the connection" in _reason(channel)
        finally:
            server.send_signal(signal.SIGKILL)


