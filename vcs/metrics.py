# SPDX-License-Identifier: GPL-2.0-only
"""The state of a node as Prometheus metrics: for `vcs metrics`, and for a scraper where cluster.toml says so.

What is shown is read at the moment of asking from the same reports as `vcs status` and `vcs ring` (a few hundred microseconds on vcsd's
loop); the text is made from them by a thread, at most once a second. Names follow Prometheus' conventions: base units, ``_total`` for
counters, what differs in labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric, StateSetMetricFamily

from vcs.config.rules import endpoint
from vcs.errors import DaemonError
from vcs.report import DeviceReport, GroupReport, NodeReport, PeerReport, RingReport, StatusReport

STATES = ("operational", "gather", "commit", "recovery")
REUSE_S = 1.0
"Asked again within this time, the same text is the answer."
YIELD_S = 0.0002
"Pause of the thread after each family of metrics."
REQUEST_MAX = 8 << 10
"Bytes of a request."
REQUEST_S = 5.0
CONNECTIONS_MAX = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What all metrics are made from: the reports of one moment."""

    status: StatusReport
    nodes: Sequence[NodeReport]
    groups: Sequence[GroupReport]
    ring: RingReport | None
    devices: Sequence[DeviceReport] = ()


class _Collector:
    """The families of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._of = snapshot

    def collect(self) -> Iterable[Metric]:
        ring = self._of.ring
        parts = [_node(self._of)]
        if ring is not None:
            parts += [_ring(ring), _peers(ring.get("peers", [])), _channels(ring.get("channels", {}))]
        for family in chain.from_iterable(parts):
            yield family
            # One interpreter lock for all threads: the engine's loop must not wait for it until the whole text is made.
            time.sleep(YIELD_S)


def _gauge(name: str, text: str, value: float | None) -> Iterable[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float | None) -> Iterable[Metric]:
    if value is not None:
        yield CounterMetricFamily(name, text, value=value)


def _by(kind: type[Any], name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float | None]]) -> Metric:
    family: Any = kind(name, text, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(list(values), value)
    made: Metric = family
    return made


def _node(of: Snapshot) -> Iterable[Metric]:
    status: Mapping[str, Any] = of.status
    daemon = status.get("daemon") or {}
    yield InfoMetricFamily(
        "vcs_node",
        "This node.",
        value={
            "cluster": status["cluster"], "node": status["node"], "nodeid": str(status["nodeid"]),
            "version": str(daemon.get("version", "")), "engine": of.ring["engine"] if of.ring else "",
        },
    )  # fmt: skip
    view = status["view"]
    yield from _gauge("vcs_quorate", "1 if the view in the kernel is quorate.", int(view["quorate"]))
    yield from _gauge("vcs_view_generation", "Generation of the view in the kernel.", view["generation"])
    yield from _gauge("vcs_provider_attached", "1 if the kernel holds this vcsd for its provider.",
                      int(status["provider"]["state"] == "attached"))
    quorum = status.get("quorum") or {}
    yield from _gauge("vcs_votes", "Votes present.", quorum.get("votes"))
    yield from _gauge("vcs_votes_expected", "All votes there are.", quorum.get("expected"))
    yield from _gauge("vcs_votes_needed", "Votes needed to be quorate.", quorum.get("needed"))
    if (witness := quorum.get("witness")) is not None:
        yield from _gauge("vcs_witness_up", "1 if the witness answers, and does not refuse.",
                          int(witness["answers"] and not witness["refuses"]))
        yield from _gauge("vcs_witness_granted", "1 while this node goes on by the witness's word.", int(witness["granted"]))
    lease = status.get("lease") or {}
    if lease:
        yield from _gauge("vcs_lease_seconds", "Length of the lease.", lease["lease_ms"] / 1000)
        yield from _gauge("vcs_lease_remaining_seconds", "Until the kernel stops the groups unless renewed.",
                          lease["remaining_ms"] / 1000)
    yield from _gauge("vcs_uptime_seconds", "How long vcsd has run.", daemon["uptime_ms"] / 1000 if "uptime_ms" in daemon else None)
    yield _by(GaugeMetricFamily, "vcs_node_state", "1 for the state that a configured node is in.", ("peer", "state"),
              [((n["name"], n["state"]), 1) for n in of.nodes])
    yield _by(GaugeMetricFamily, "vcs_fencing_pending", "Failed nodes that nobody has made sure of yet.",
              ("peer", "state"), [((f["name"], f["state"]), 1) for f in status.get("fencing", [])])
    names = {n["nodeid"]: n["name"] for n in of.nodes}
    yield _by(GaugeMetricFamily, "vcs_fence_device_up", "1 if the fence device answered when it was asked last.", ("device", "peer"),
              [((d["device"], names.get(d["nodeid"], str(d["nodeid"]))), int(d["ok"])) for d in of.devices])
    yield _by(GaugeMetricFamily, "vcs_group_stopped", "1 while a group of this node is in no finished event.",
              ("group", "level"), [((g["name"], g["level"]), int(g["phase"] != "finish")) for g in of.groups])


def _ring(ring: RingReport) -> Iterable[Metric]:
    states = dict.fromkeys(STATES, False) | {ring["state"]: True}
    yield StateSetMetricFamily("vcs_totem_state", "State of the engine's machine.", value=states)
    yield from _gauge("vcs_totem_members", "Members of the ring.", len(ring["members"]))
    yield from _counter("vcs_totem_configurations", "Regular configurations since the start.", ring.get("configurations"))
    changes = ring.get("changes")
    if changes:
        yield from _gauge("vcs_totem_configuration_age_seconds", "Age of the present configuration.",
                          changes[-1]["age_ms"] / 1000)
        yield from _gauge("vcs_totem_configuration_took_seconds", "From the first doubt to the configuration.",
                          changes[-1]["took_ms"] / 1000)
    if (claims := ring.get("claims")) is not None:
        yield from _gauge("vcs_totem_claims", "Pairs of nodes without a round trip, as far as this node knows.", len(claims))
    if token := ring.get("token"):
        rotation = token["rotation_us"]
        yield from _gauge("vcs_totem_token_rotation_seconds", "Smoothed rotation of the busy ring.", rotation / 1e6 if rotation else None)
        yield from _counter("vcs_totem_token_retransmits", "Tokens sent again.", token["retransmits"])
    if traffic := ring.get("traffic"):
        yield from _gauge("vcs_totem_messages_queued", "Messages that wait for the token.", traffic["queued"])
        yield from _gauge("vcs_totem_frames_stored", "Frames kept for others.", traffic["stored"])
        yield from _counter("vcs_totem_frames_repaired", "Frames sent again for others.", traffic["repaired"])
        yield from _gauge("vcs_totem_frame_max_bytes", "Largest payload of a frame, adapted to what gets through.", traffic["frame_max"])
    yield _by(CounterMetricFamily, "vcs_totem_dropped", "Frames that came and were not used.", ("reason",),
              [((k.removeprefix("dropped_"),), n) for k, n in ring.get("drops", {}).items()])
    drops = ring.get("drops", {})
    yield _by(CounterMetricFamily, "vcs_totem_events", "What else the engine counts.", ("event",),
              [((k,), n) for k, n in ring.get("counters", {}).items() if k not in drops])


def _peers(peers: Sequence[PeerReport]) -> Iterable[Metric]:
    def each(value: Callable[[PeerReport], float | None]) -> list[tuple[Sequence[str], float | None]]:
        return [((p["name"],), value(p)) for p in peers]

    yield _by(GaugeMetricFamily, "vcs_totem_peer_member", "1 if the node is in the ring.", ("peer",), each(lambda p: int(p["member"])))
    yield _by(GaugeMetricFamily, "vcs_totem_peer_silent_seconds", "For how long the node has owed an answer.", ("peer",),
              each(lambda p: p["owes_ms"] / 1000))
    yield _by(GaugeMetricFamily, "vcs_totem_peer_kept_outside", "1 while there is no steady round trip with it.", ("peer",),
              each(lambda p: int(p["kept_outside"])))
    labels = ("peer", "link")
    links = [((p["name"], str(link["link"])), p, link) for p in peers for link in p["links"]]
    yield _by(GaugeMetricFamily, "vcs_totem_link_up", "1 if the node is heard and answers on the link.", labels,
              [(at, int(link["state"] == "up")) for at, _p, link in links])
    yield _by(GaugeMetricFamily, "vcs_totem_link_used", "1 if the link is the one in use.", labels,
              [(at, int(link["link"] == p["link"])) for at, p, link in links])
    yield _by(GaugeMetricFamily, "vcs_totem_link_round_trip_seconds", "Smoothed.", labels,
              [(at, link["rtt_us"] / 1e6 if link["rtt_us"] is not None else None) for at, _p, link in links])
    yield _by(GaugeMetricFamily, "vcs_totem_link_loss_ratio", "Asks without an answer, lately.", labels,
              [(at, link["loss_percent"] / 100 if link["loss_percent"] is not None else None) for at, _p, link in links])
    yield _by(CounterMetricFamily, "vcs_totem_link_asks", "What demanded an answer.", labels,
              [(at, link["asked"]) for at, _p, link in links])
    yield _by(CounterMetricFamily, "vcs_totem_link_answers", "Answers.", labels, [(at, link["answered"]) for at, _p, link in links])


def _channels(counters: Mapping[str, int]) -> Iterable[Metric]:
    yield from _gauge("vcs_channels", "Batch channels that are open.", counters.get("open", 0))
    yield from _counter("vcs_channel_bundles", "Packets of messages delivered, of all groups of this node.", counters.get("bundles", 0))
    yield from _counter("vcs_channel_bytes", "Their bytes.", counters.get("bytes", 0))
    yield from _counter("vcs_channel_pauses", "How often this node asked a group to wait for a slow program.", counters.get("pauses", 0))
    yield from _counter("vcs_channel_void", "Packets whose ring had ended: their senders repeat them.", counters.get("void", 0))
    yield from _counter("vcs_channel_closed", "Channels that have ended.", counters.get("closed", 0))


def exposition(snapshot: Snapshot) -> bytes:
    """The text that Prometheus reads. Takes some milliseconds for a large cluster."""
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class Exposition:
    """The text of a running vcsd. ``snapshot`` is called on the loop, the text is made by a thread, and kept for a second."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._making: asyncio.Future[bytes] | None = None
        self._made_at = -REUSE_S

    async def text(self) -> bytes:
        """Raises VcsError when vcsd cannot tell its state."""
        loop = asyncio.get_running_loop()
        fresh = self._making is not None and (not self._making.done() or loop.time() - self._made_at < REUSE_S)
        if not fresh or (self._making is not None and self._making.done() and self._making.exception() is not None):
            self._made_at = loop.time()
            self._making = asyncio.ensure_future(asyncio.to_thread(exposition, self._snapshot()))
        assert self._making is not None
        return await asyncio.shield(self._making)


class MetricsServer:
    """HTTP, no more of it than a scraper needs: ``GET /metrics``, one request a connection."""

    def __init__(self, listen: str, exposition: Exposition) -> None:
        self._listen, self._exposition = listen, exposition
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Raises DaemonError."""
        try:
            address, port = endpoint(self._listen)
            self._server = await asyncio.start_server(self._serve, address, port, limit=REQUEST_MAX)
        except (OSError, ValueError) as error:
            raise DaemonError(f"metrics: cannot listen on {self._listen}: {error}", "correct [metrics] listen in cluster.toml") from error

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(REQUEST_S):
                        request = await reader.readuntil(b"\r\n\r\n")
                        writer.write(await self._answer(request))
                        await writer.drain()
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _reply("400 Bad Request", b"this is no HTTP\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _reply("405 Method Not Allowed", b"only GET\n", "Allow: GET, HEAD\r\n")
        if words[1].split(b"?")[0] != b"/metrics":
            return _reply("404 Not Found", b"see /metrics\n")
        try:
            text = await self._exposition.text()
        except Exception:
            log.exception("metrics")
            return _reply("500 Internal Server Error", b"vcsd cannot tell its state now\n")
        return _reply("200 OK", text, f"Content-Type: {CONTENT_TYPE_LATEST}\r\n", body=words[0] == b"GET")


def _reply(status: str, text: bytes, headers: str = "Content-Type: text/plain; charset=utf-8\r\n", body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (text if body else b"")
