# SPDX-License-Identifier: GPL-2.0-only
"""Metrics: what Prometheus' own parser reads in them, that names keep to its conventions, and the little HTTP server."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.test_ring_report import REPORT, link, peer
from vcs.config.load import loads
from vcs.config.rules import endpoint
from vcs.errors import ConfigError, DaemonError, VcsError
from vcs.metrics import REQUEST_MAX, Exposition, MetricsServer, Snapshot, exposition

STATUS: Any = {
    "source": "vcsd", "handle": "alpha", "cluster": "alpha", "nodeid": 1, "node": "node1",
    "provider": {"type": "user", "state": "attached"}, "view": {"generation": 7, "ring": "34.1", "quorate": True, "members": [1, 2]},
    "groups": 1, "daemon": {"pid": 4711, "version": "0.1.0", "uptime_ms": 7_500_000},
    "quorum": {"votes": 2, "expected": 3, "needed": 2}, "lease": {"lease_ms": 5000, "remaining_ms": 4950},
    "fencing": [{"nodeid": 3, "name": "node3", "incarnation": "ff", "state": "running", "detail": "", "groups": []}],
}  # fmt: skip
NODES: Any = [{"nodeid": n, "name": f"node{n}", "state": "member" if n < 3 else "failed"} for n in (1, 2, 3)]
GROUPS: Any = [{"name": "gfs2:data", "level": "lock_manager", "phase": "stop"}]


def snapshot(**changes: Any) -> Snapshot:
    return Snapshot(STATUS, NODES, GROUPS, cast(Any, {**REPORT, **changes}))


def values(text: str) -> dict[str, float]:
    """``name{label="value"}`` -> value, as Prometheus reads it."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_what_a_scraper_reads() -> None:
    got = values(exposition(snapshot()).decode())
    expected = {
        'vcs_node_info{cluster="alpha",engine="totem",node="node1",nodeid="1",version="0.1.0"}': 1,
        "vcs_quorate": 1, "vcs_votes_needed": 2, "vcs_lease_remaining_seconds": 4.95, "vcs_uptime_seconds": 7500,
        'vcs_node_state{peer="node3",state="failed"}': 1, 'vcs_fencing_pending{peer="node3",state="running"}': 1,
        'vcs_group_stopped{group="gfs2:data",level="lock_manager"}': 1,
        'vcs_totem_state{vcs_totem_state="operational"}': 1, 'vcs_totem_state{vcs_totem_state="gather"}': 0,
        "vcs_totem_members": 2, "vcs_totem_configurations_total": 4, "vcs_totem_configuration_took_seconds": 0.25125,
        "vcs_totem_token_rotation_seconds": 462.4e-6, "vcs_totem_token_retransmits_total": 3, "vcs_totem_claims": 1,
        'vcs_totem_dropped_total{reason="seal"}': 12, 'vcs_totem_events_total{event="rings"}': 3,
        'vcs_totem_peer_silent_seconds{peer="node3"}': 1.2345, 'vcs_totem_peer_kept_outside{peer="node3"}': 1,
        'vcs_totem_link_up{link="0",peer="node2"}': 0, 'vcs_totem_link_up{link="1",peer="node2"}': 1,
        'vcs_totem_link_used{link="1",peer="node2"}': 1, 'vcs_totem_link_loss_ratio{link="0",peer="node2"}': 0.125,
        'vcs_totem_link_round_trip_seconds{link="1",peer="node3"}': 0.02, 'vcs_totem_link_asks_total{link="1",peer="node3"}': 9,
        "vcs_channels": 1, "vcs_channel_bundles_total": 7,
    }  # fmt: skip
    assert {k: got.get(k) for k in expected} == pytest.approx(expected)
    assert 'vcs_totem_link_round_trip_seconds{link="0",peer="node2"}' not in got, "what was not measured is not told"
    assert got["process_resident_memory_bytes"] > 1 << 20


def test_names_keep_to_the_conventions() -> None:
    text = exposition(snapshot()).decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    ours = {name: kind for name, kind in types.items() if name.startswith("vcs_")}
    assert len(ours) > 30
    for name, kind in ours.items():
        assert re.fullmatch(r"vcs_[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|us|ns|percent|kb)(_|$)", name), "base units only"
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.M))
    assert set(ours) <= helped


def test_a_node_whose_engine_knows_little() -> None:
    sparse = {"engine": "other", "state": "up", "local": 1, "ring": "1.1", "members": [1]}
    got = values(exposition(Snapshot(STATUS, NODES, GROUPS, cast(Any, sparse))).decode())
    assert got["vcs_totem_members"] == 1 and not any(k.startswith("vcs_totem_link") for k in got)
    assert "vcs_totem_members" not in values(exposition(Snapshot(STATUS, NODES, GROUPS, None)).decode())


def test_names_of_others_cannot_break_the_text() -> None:
    nodes: Any = [{"nodeid": 2, "name": 'a"b\\c\nd', "state": "member"}]
    got = values(exposition(Snapshot(STATUS, nodes, [], None)).decode())
    assert got['vcs_node_state{peer="a"b\\c\nd",state="member"}'] == 1


def test_the_loop_is_free_while_the_text_is_made() -> None:
    """64 nodes with three links: the loop's longest pause is far below what the text takes, and one text serves all who ask."""
    calls = []

    def large() -> Snapshot:
        calls.append(1)
        return snapshot(peers=[peer(n, link(0), link(1), link(2)) for n in range(2, 65)])

    async def run() -> None:
        made = Exposition(large)
        texts = await asyncio.gather(*(made.text() for _ in range(20)))
        assert len(calls) == 1 and len({*texts}) == 1
        assert await made.text() is texts[0]
        of = large()
        families = len([*text_string_to_metric_families(exposition(of).decode())])
        task = asyncio.ensure_future(asyncio.to_thread(exposition, of))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.0001)
            turns += 1
        # Without giving way, the thread holds the interpreter for 5 ms at a time: three turns.
        assert turns > 8, f"{turns} turns of the loop, {families} families"

    asyncio.run(run())


def test_an_error_is_not_kept() -> None:
    answers: list[object] = [VcsError("not now"), snapshot()]

    def sometimes() -> Snapshot:
        answer = answers.pop(0)
        if isinstance(answer, VcsError):
            raise answer
        assert isinstance(answer, Snapshot)
        return answer

    async def run() -> None:
        made = Exposition(sometimes)
        with pytest.raises(VcsError, match="not now"):
            await made.text()
        assert b"vcs_quorate 1.0" in await made.text()

    asyncio.run(run())


# --- the server -------------------------------------------------------------------------------------------------------------


def served(story: Callable[[str, int], Awaitable[None]], of: Callable[[], Snapshot] = snapshot) -> None:
    async def run() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = MetricsServer(f"127.0.0.1:{port}", Exposition(of))
        await server.start()
        try:
            await story("127.0.0.1", port)
            with pytest.raises(DaemonError, match="cannot listen"):
                await MetricsServer(f"127.0.0.1:{port}", Exposition(of)).start()
        finally:
            await server.close()

    asyncio.run(run())


async def ask(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def test_a_scrape_and_what_is_no_scrape() -> None:
    async def story(host: str, port: int) -> None:
        answer = await ask(host, port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Type: text/plain; version=" in head
        assert f"Content-Length: {len(body)}".encode() in head and values(body.decode())["vcs_quorate"] == 1
        assert (await ask(host, port, b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert (await ask(host, port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert (await ask(host, port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(host, port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert (await ask(host, port, b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert await ask(host, port, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * REQUEST_MAX + b"\r\n") == b""
        idle = [await asyncio.open_connection(host, port) for _ in range(12)]
        for _reader, writer in idle:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await ask(host, port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")

    served(story)


def test_a_vcsd_that_cannot_tell_says_so() -> None:
    def never() -> Snapshot:
        raise VcsError("the engine has not been started")

    async def story(host: str, port: int) -> None:
        assert (await ask(host, port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 500")

    served(story, never)


def test_where_it_listens() -> None:
    assert endpoint("127.0.0.1:9464") == ("127.0.0.1", 9464) and endpoint("[::1]:80") == ("::1", 80)
    for wrong in ("127.0.0.1", ":9464", "localhost:9464", "::1:9464", "[127.0.0.1]:80", "127.0.0.1:0", "127.0.0.1:65536", "1.2.3.4:x"):
        with pytest.raises(ValueError):
            endpoint(wrong)
    text = '[cluster]\nname = "a"\nengine = "static"\n[[node]]\nid = 1\nname = "n"\naddress = "127.0.0.1"\n[metrics]\nlisten = "{}"\n'
    assert loads(text.format("127.0.0.1:9464"), with_key=False).metrics.listen == "127.0.0.1:9464"
    assert loads(text.format(""), with_key=False).metrics.listen == ""
    with pytest.raises(ConfigError, match=re.escape("cluster.toml:9: ")):
        loads(text.format("localhost"), with_key=False)
