# SPDX-License-Identifier: GPL-2.0-only
"""`vcs ring` and the metrics of real daemons: what they say of a killed process, a silent host and a node that leaves is what happened."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.process.channels import EngineNode, EngineNodes, settle
from tests.process.channels import run as run_story
from tests.process.story import DaemonNode, PowerSwitch, free_port, make_config, until, write_config
from tests.process.test_cli import vcs


def names(nodeid: int) -> str:
    return f"node {nodeid}"


def test_a_killed_process_and_a_leave_as_the_command_tells_them(tmp_path: Path) -> None:
    async def story() -> None:
        path = write_config(make_config(PowerSwitch(tmp_path / "power")), tmp_path / "etc")
        port = free_port()
        path.write_text(path.read_text() + f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
        daemons = [DaemonNode(path, n, tmp_path) for n in (1, 2, 3)]
        one = daemons[0]
        try:
            await one.start()
            for other in daemons[1:]:
                other._config_path = path.with_name(f"{other.id}.toml")  # one port, three nodes on one machine: only the first answers
                other._config_path.write_text(path.read_text().replace(f'"127.0.0.1:{port}"', '""'))
                await other.start()
            await until(lambda: all(d.view() == [1, 2, 3] for d in daemons), 30, one.tail)
            ring: dict[str, Any] = (await vcs(one, "ring", "--json")).json["ring"]
            assert (ring["engine"], ring["state"], ring["local"], ring["members"]) == ("totem", "operational", 1, [1, 2, 3])
            assert {(p["nodeid"], p["name"], p["member"]) for p in ring["peers"]} == {(2, "node2", True), (3, "node3", True)}
            assert any(link["rtt_us"] for p in ring["peers"] for link in p["links"])
            daemons[2].kill(signal.SIGKILL)
            await until(lambda: one.view() == [1, 2], 30, one.tail)
            text = (await vcs(one, "ring")).out
            assert re.search(r"\n  the engine of node3 \(3\) died at \d\d:\d\d:\d\d\.\d{3}: the process that watches over it", text), text
            assert re.search(r"\nnode3 \(3\) +outside|\nnode3 \(3\) +not heard", text), text
            daemons[1].kill(signal.SIGTERM)
            assert await daemons[1].ended() == 0
            await until(lambda: (one.switch.view(one.handle).members[1:]) == (), 30, one.tail)
            text = (await vcs(one, "ring", "--changes", "9")).out
            assert re.search(r"\n  node2 \(2\) left at \d\d:\d\d:\d\d\.\d{3}\n", text), text
            assert "alone until it hears others" in text

            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")[2].decode()
            writer.close()
            found = {f.name: f for f in text_string_to_metric_families(body)}
            assert found["vcs_totem_members"].samples[0].value == 1
            assert found["vcs_totem_configurations"].samples[0].value >= 4
            assert (await vcs(one, "metrics")).out.startswith("# HELP vcs_node_info This node.\n")
        finally:
            for daemon in daemons:
                await daemon.close()

    asyncio.run(story())


def deafen(node: EngineNode, deaf: bool) -> None:
    """The host is cut off without a notice: nothing comes in, and so nothing goes out either."""
    engine: Any = node.engine
    engine._links.listen(not deaf)
    engine._closed = deaf
    if not deaf:
        engine._rearm()


def test_a_silent_host_is_told_with_its_evidence_and_its_return(tmp_path: Path) -> None:
    async def story() -> None:
        async with EngineNodes(tmp_path) as nodes:
            programs = await nodes.programs()
            deafen(nodes[3], True)
            await settle(lambda: programs[0].members() == (1, 2) == programs[1].members())
            # Both tell it, each by its own evidence or by the other's word; who asked says how often and for how long.
            told = [node.engine.ring_report(names, lambda t: f"T{t}") for node in nodes.all[:2]]
            for report in told:
                (sentence,) = report["why"]
                own = r"^node 3 stopped answering at T\d+: \d+ asks unanswered for \d+ ms"
                assert re.search(own + r"|^node \d could not get an answer from node 3", sentence), sentence
                assert sentence.endswith("Its process may still run")
                change = report["changes"][-1]
                assert (change["went"], change["came"], change["members"]) == ([3], [], [1, 2]) and change["took_ms"] < 5000
            assert any("stopped answering" in report["why"][0] for report in told)
            silent = [p for report in told for p in report["peers"] if p["nodeid"] == 3]
            assert not any(p["member"] for p in silent) and any(p["kept_outside"] for p in silent)
            deafen(nodes[3], False)
            await settle(lambda: programs[0].members() == (1, 2, 3))
            report = nodes[1].engine.ring_report(names, str)
            assert re.search(r"^node 3 joined at \d+$", report["why"][0]), report["why"]
            assert not report["claims"] and report["token"]["visits"] > 0

    run_story(story)
