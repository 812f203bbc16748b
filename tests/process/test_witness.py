# SPDX-License-Identifier: GPL-2.0-only
"""Two real vcsd and a real `vcs witness` over loopback: who goes on, who stops, and what people are told meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.coordinator.api import AskWitness, WitnessAnswer
from bridge.witness.client import WitnessClient
from membership.api import Processor
from tests.process.story import ROOT, Consumer, DaemonNode, PowerSwitch, make_config, until, write_config
from tests.process.test_cli import vcs
from vcs import events
from vcs.config.load import load
from vcs.model import Phase, RingId

WHERE = "127.0.0.9"
TIMEOUT_MS = 2000


def free_port() -> int:
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
            s.bind((WHERE, port))
            return port


def config_with_witness(folder: Path, power: PowerSwitch) -> Path:
    path = write_config(make_config(power, 2), folder / "etc")
    with path.open("a") as file:
        file.write(f'[quorum.witness]\naddress = "{WHERE}"\nport = {free_port()}\ntimeout_ms = {TIMEOUT_MS}\n')
    return path


class Witness:
    """The process, and what it says."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._log = path, folder / "witness.log"
        self.process: asyncio.subprocess.Process | None = None
        self._log.touch()

    def said(self) -> str:
        return self._log.read_text()

    async def start(self) -> None:
        before = self.said().count("grants nothing for")
        with self._log.open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "vcs.cli.main", "witness", "--config", str(self._path), cwd=ROOT, stderr=err, env=dict(os.environ))
        await until(lambda: self.said().count("grants nothing for") > before, 20, self.said)

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[list[DaemonNode], PowerSwitch, Witness]]:
    power = PowerSwitch(folder / "power")
    path = config_with_witness(folder, power)
    nodes = [DaemonNode(path, n, folder) for n in (1, 2)]
    witness = Witness(path, folder)
    try:
        await witness.start()
        for node in nodes:
            await node.start()
        await until(lambda: all(n.view() == [1, 2] for n in nodes), 30, lambda: "\n".join(n.tail() for n in nodes))
        yield nodes, power, witness
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                node.kill(signal.SIGCONT)
            await node.close()
        await witness.end(signal.SIGKILL)


def test_the_witness_goes_the_other_node_goes_and_both_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (nodes, power, witness):
            one, two = nodes
            users = [Consumer(n.switch, n.handle, "x") for n in nodes]

            def tell() -> str:
                return "\n".join([*(n.tail() for n in nodes), witness.said()])

            await until(lambda: all(u.running_on() == [1, 2] for u in users), 30, tell)
            event = users[0].group()
            assert "answers, is not needed now" in (await vcs(one, "quorum")).out

            # The witness alone: nothing stops.
            assert await witness.end(signal.SIGKILL) == -signal.SIGKILL
            silent = str(one.run_dir / "events.jsonl")
            await until(lambda: any(e["event"] == "witness_silent" for e in events.read(silent)), 30, tell)
            assert "DOES NOT ANSWER" in (await vcs(one, "quorum")).out
            assert "does not answer; half of the nodes could not go on" in (await vcs(one, "status")).out
            assert "vcs_witness_up 0.0" in (await vcs(one, "metrics")).out
            assert [n.view() for n in nodes] == [[1, 2]] * 2 and users[0].group() == event
            await witness.start()

            # Node 2 falls silent: node 1 goes on by the witness's word, after it has fenced it.
            two.kill(signal.SIGSTOP)
            await until(lambda: power.is_off(2), 30, tell)
            two.kill(signal.SIGKILL)
            await until(lambda: users[0].running_on() == [1], 30, tell)
            said = (await vcs(one, "quorum", "--json")).json["quorum"]
            assert (said["votes"], said["expected"], said["needed"]) == (1, 2, 1)
            assert said["witness"]["granted"] and 0 < said["witness"]["left_ms"] <= TIMEOUT_MS
            assert "granted to ring" in witness.said() and "nodes 1\n" in witness.said()

            # And the witness: node 1 stops, and says why.
            assert await witness.end(signal.SIGTERM) == 0
            await until(lambda: one.view() == [] and (g := users[0].group()) is not None and g.phase is Phase.STOP, 30, tell)
            why = (await vcs(one, "why")).out
            assert "exactly half of the votes are here" in why and "does not answer" in why, why
            await witness.start()
            await until(lambda: one.view() == [1] and users[0].running_on() == [1], 30, tell)

            # Node 2 boots.
            await two.close()
            users[1].die()
            power.on(2)
            (two.folder / "switch").unlink()  # the kernel's end, of a boot that is over
            nodes[1] = DaemonNode(two._config_path, 2, tmp_path)
            await nodes[1].start()
            await until(lambda: all(n.view() == [1, 2] for n in nodes), 30, tell)
            await until(lambda: "has no grant any more" in witness.said(), 30, tell)

    asyncio.run(story())


def test_garbage_and_strangers_are_dropped_and_counted(tmp_path: Path) -> None:
    """A frame that was recorded is worth nothing, and neither is one under another key."""
    path = config_with_witness(tmp_path, PowerSwitch(tmp_path / "power"))
    config = load(path)
    held = config.quorum.witness
    assert held is not None

    async def story() -> None:
        witness = Witness(path, tmp_path)
        await witness.start()
        answers: list[WitnessAnswer] = []
        client = WitnessClient(config, Processor(1, 7, 7), answers.append)
        recorded: list[bytes] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for rubbish in (b"", b"x" * 200, bytes(9000)):
                noise.sendto(rubbish, (held.address, held.port))
            seal = client._sealer.seal
            client._sealer.seal = lambda body: recorded.append(seal(body)) or recorded[-1]  # type: ignore[func-returns-value,method-assign]
            client.ask(AskWitness(1, True, RingId(8, 1), (1,), (2,), 0))
            await until(lambda: answers, 10, witness.said)
            assert (answers[0].number, answers[0].verdict) == (1, "starting") and 0 < answers[0].left_ms <= 1.05 * TIMEOUT_MS
            for frame in recorded:
                noise.sendto(frame, (held.address, held.port))
            client.ask(AskWitness(2, False, RingId(0, 0), (), (), 0))
            await until(lambda: len(answers) > 1, 10, witness.said)
        assert answers[1].verdict == "noted"
        client.close()
        assert await witness.end(signal.SIGTERM) == 0
        last = witness.said().splitlines()[-1]
        assert "short 1" in last and "magic 2" in last and "replayed 1" in last and "hello 2" in last, last

    asyncio.run(story())


def test_a_cluster_without_a_witness_has_none_to_run(tmp_path: Path) -> None:
    path = write_config(make_config(PowerSwitch(tmp_path / "power"), 2), tmp_path / "etc")

    async def story() -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "vcs.cli.main", "witness", "--config", str(path), cwd=ROOT,
                                                       stderr=asyncio.subprocess.PIPE)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode or 0, err.decode()

    code, text = asyncio.run(story())
    assert code == 78 and "write [quorum.witness] with the address of this machine" in text
