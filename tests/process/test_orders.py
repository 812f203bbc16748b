# SPDX-License-Identifier: GPL-2.0-only
"""What an administrator orders for the whole cluster, from the command line to real vcsd processes: votes, maintenance, the shutdown."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

from tests.process.story import Consumer, DaemonNode, PowerSwitch, until
from tests.process.test_cli import tell, vcs


def test_votes_maintenance_and_the_shutdown_of_the_cluster(tmp_path: Path) -> None:
    async def story(daemons: list[DaemonNode], power: PowerSwitch) -> None:
        one, two, three = daemons
        user = Consumer(two.switch, two.handle, "lock:x")
        await until(lambda: user.running_on() == [2], 30, two.tail)

        assert "votes    3 of 3 are here, 2 are needed\n" in (await vcs(one, "quorum")).out
        refused = await vcs(one, "quorum", "expected", "2")
        assert (refused.code, refused.err) == (1, "vcs: the nodes that are here have 3 votes; see `vcs quorum`\n")
        assert (await vcs(one, "quorum", "expected", "4")).code == 0
        assert (await vcs(three, "quorum", "--json")).json["quorum"]["expected"] == 4

        assert (await vcs(one, "maintenance", "on", "--for", "1h", "--reason", "new switch")).code == 0
        said = (await vcs(three, "maintenance", "status")).out
        assert re.search(r"another (59|60) min, asked for at node 1: new switch", said), said
        assert "MAINTENANCE" in (await vcs(two, "status")).out
        assert (await vcs(three, "maintenance", "off")).code == 0
        assert (await vcs(one, "maintenance", "off")).code == 1
        assert (await vcs(one, "maintenance", "status")).out == "no maintenance\n"

        refused = await vcs(three, "shutdown", "--cluster", "--yes")
        assert refused.code == 1
        assert "node 2 is in lock:x" in refused.err
        user.leave()
        await until(lambda: user.left, 30, two.tail)
        assert (await vcs(three, "shutdown", "--cluster", "--yes")).code == 0
        assert await asyncio.gather(*(d.ended(30) for d in daemons)) == [0, 0, 0]
        assert power.calls() == []

    tell(tmp_path, story)


def test_a_node_that_dies_in_a_maintenance_is_fenced_after_it(tmp_path: Path) -> None:
    async def story(daemons: list[DaemonNode], power: PowerSwitch) -> None:
        one, _two, three = daemons
        users = {d.id: Consumer(d.switch, d.handle, "x") for d in daemons}
        await until(lambda: all(u.running_on() == [1, 2, 3] for u in users.values()), 30, one.tail)
        assert (await vcs(one, "maintenance", "on")).code == 0
        three.kill(signal.SIGSTOP)
        await until(lambda: one.view() == [1, 2], 30, one.tail)
        assert power.calls() == []
        assert (await vcs(one, "maintenance", "off")).code == 0
        await until(lambda: len(power.calls()) == 1, 30, one.tail)
        await until(lambda: all(users[n].running_on() == [1, 2] for n in (1, 2)), 30, one.tail)
        three.kill(signal.SIGCONT)

    tell(tmp_path, story)
