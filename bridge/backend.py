# SPDX-License-Identifier: GPL-2.0-only
"""What the control socket tells of a running bridge: the shapes of vcs/report.py, filled from coordinator, engine and switch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

from bridge.component import Component
from bridge.coordinator.messages import Expect, FenceNode, MaintenanceOff, MaintenanceOn, ShutDown
from bridge.coordinator.waits import subject as called
from vcs import events
from vcs.errors import VcsError
from vcs.failover import Failover
from vcs.metrics import Exposition, Snapshot
from vcs.report import (
    DeviceReport,
    FenceReport,
    FencingReport,
    GroupReport,
    MethodReport,
    NodeReport,
    QuorumReport,
    RingReport,
    StatusReport,
    WhyReport,
    group_report,
    incarnation_text,
    view_report,
)

VERSION = "0.1.0"

Picture = Mapping[str, Any]
"The coordinator's describe()."


class ComponentBackend:
    """Implements vcs.control.Backend. ``on_left`` is called after a clean leave that was asked for here."""

    def __init__(self, component: Component, on_left: Callable[[], None]) -> None:
        self._component = component
        self._on_left = on_left
        self._began_ns = events.boottime_ns()
        self.exposition = Exposition(self._snapshot)
        "The state as metrics."

    # --- pictures -----------------------------------------------------------------------------------------------------

    def status(self) -> StatusReport:
        c = self._component
        cluster, picture = c.cluster_info(), self._picture()
        config = c.config.node(c.nodeid)
        report: StatusReport = {
            "source": "vcsd",
            "handle": c.handle,
            "cluster": c.config.name,
            "nodeid": c.nodeid,
            "node": config.name if config else "",
            "provider": {
                "type": cluster.provider if cluster else "",
                "state": cluster.provider_state.name.lower() if cluster else "none",
            },
            "view": view_report(c.view()),
            "groups": len(c.groups()),
            "daemon": {
                "pid": os.getpid(),
                "version": VERSION,
                "uptime_ms": (events.boottime_ns() - self._began_ns) // 1_000_000,
            },
            "engine": c.engine.status() if c.engine is not None else {},
            "fencing": self._fencing(picture),
            "notes": [*self._notes(picture), *refused_frames(c.engine.status() if c.engine is not None else {})],
        }
        quorum = picture.get("quorum")
        if quorum:
            keys = [key for key in QuorumReport.__annotations__ if key != "witness" or quorum[key] is not None]
            report["quorum"] = {key: quorum[key] for key in keys}  # type: ignore[typeddict-item]
        if picture.get("maintenance"):
            report["maintenance"] = picture["maintenance"]
        if cluster is not None and cluster.lease_ms:
            report["lease"] = {"lease_ms": cluster.lease_ms, "remaining_ms": cluster.lease_remaining_ms}
        return report

    def nodes(self) -> Sequence[NodeReport]:
        picture = self._picture()
        known = {int(n["nodeid"]): n for n in picture.get("nodes", ())}
        owed = {int(o["nodeid"]) for o in picture.get("obligations", ())}
        fenced = self._component.discharged()
        view = self._component.view()
        found: list[NodeReport] = []
        for node in self._component.config.nodes:
            row = known.get(node.id, {})
            incarnation = int(row.get("incarnation", 0)) or view.incarnation_of(node.id) or 0
            found.append(
                {
                    "nodeid": node.id,
                    "name": node.name,
                    "state": _state(row, node.id in owed, (node.id, incarnation) in fenced),
                    "local": node.id == self._component.nodeid,
                    "votes": node.votes,
                    "incarnation": incarnation_text(incarnation),
                    "addresses": list(node.addresses),
                }
            )
        return found

    def groups(self) -> Sequence[GroupReport]:
        return [group_report(g) for g in self._component.groups()]

    def why(self) -> Sequence[WhyReport]:
        config = self._component.config
        found: list[WhyReport] = []
        for item in cast("Sequence[Picture]", self._component.why()):
            group = str(item.get("group") or "")
            on = [self._who(x) for x in item.get("on", ())]
            text = str(item.get("text", ""))
            subject = called(group) if group else f"cluster {config.name}"
            if item.get("what") in ("fence", "failed") and on:
                subject = f"node {on[0]}"
            report: WhyReport = {"subject": subject, "what": text, "on": on, "remedy": str(item.get("remedy", ""))}
            if item.get("condition") and item.get("remedy"):
                report["condition"] = str(item["condition"])
            for key in ("since_ms", "limit_ms"):
                if item.get(key) is not None:
                    report[key] = int(item[key])
            found.append(report)
        return found

    def ring(self) -> RingReport:
        c = self._component
        if c.engine is None:
            raise VcsError("the engine has not been started")
        wall = time.time_ns() - events.boottime_ns()
        report = c.engine.ring_report(self._label, lambda t: clock_text(t + wall))
        report["local"] = c.nodeid
        report["engine"] = c.config.engine
        report["channels"] = c.channel_counters()
        for peer in report.get("peers", ()):
            peer["name"] = self._who(peer["nodeid"])
        return report

    def describe(self) -> Picture:
        return self._picture()

    async def metrics(self) -> str:
        return (await self.exposition.text()).decode()

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.status(), self.nodes(), self.groups(), self.ring() if self._component.engine is not None else None,
                        self.fence_devices())

    # --- wishes -------------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        await self._component.leave()
        self._on_left()

    async def expect_votes(self, votes: int) -> None:
        await self._component.command(Expect(votes), "see `vcs quorum`")

    async def maintenance(self, for_ms: int, reason: str) -> None:
        await self._component.command(MaintenanceOn(for_ms, reason) if for_ms else MaintenanceOff(0))

    async def shut_down(self) -> None:
        await self._component.command(ShutDown(), "unmount and stop what uses them there, then try again")

    async def fence_node(self, nodeid: int, action: str) -> None:
        await self._component.command(FenceNode(nodeid, action), "see `vcs why` and `vcs fence list`")

    def fence_methods(self) -> Sequence[MethodReport]:
        return self._component.fencing.methods()

    def fence_devices(self) -> Sequence[DeviceReport]:
        return self._component.fencing.devices()

    async def fence_check(self) -> Sequence[DeviceReport]:
        return await self._component.fencing.check_devices()

    def fence_history(self) -> Sequence[FenceReport]:
        return self._component.fencing.recorder.history()

    def failovers(self) -> Sequence[Failover]:
        return self._component.fencing.recorder.timelines()

    def fence_ack(self, nodeid: int) -> None:
        self._component.fence_ack(nodeid)

    def open_channel(self, group: str, explicit: bool) -> socket.socket:
        return self._component.open_channel(group, explicit)

    async def events(self, follow: bool) -> AsyncIterator[Mapping[str, object]]:
        """All processes' events of this node: what is on disk, then, with ``follow``, what comes."""
        path = self._component.log.path
        if not follow:
            for record in events.read(path):
                yield record
            return
        stream = events.follow(path, history=True)
        try:
            async for record in stream:
                yield record
        finally:
            await stream.aclose()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _picture(self) -> Picture:
        return self._component.describe()

    def _label(self, nodeid: int) -> str:
        node = self._component.config.node(nodeid)
        return f"{node.name} ({nodeid})" if node else f"node {nodeid}"

    def _who(self, who: object) -> str:
        node = self._component.config.node(who) if isinstance(who, int) else None
        return node.name if node else str(who)

    def _fencing(self, picture: Picture) -> list[FencingReport]:
        found: list[FencingReport] = []
        states = {"launched": "running", "retry": "failed", "pending": "waiting"}
        for o in picture.get("obligations", ()):
            state = states.get(str(o["phase"]), str(o["phase"]))
            if state == "waiting" and not self._component.config.fences:
                state = "lease" if o["self_fence_at_ns"] else "manual"
            found.append(
                {
                    "nodeid": int(o["nodeid"]),
                    "name": self._who(int(o["nodeid"])),
                    "incarnation": incarnation_text(int(o["incarnation"])),
                    "state": state,
                    "detail": str(o["detail"]),
                    "groups": ["(all)"] if o["everything"] else list(o["groups"]),
                }
            )
        return found

    def _notes(self, picture: Picture) -> list[str]:
        notes = []
        config = self._component.config
        if config.self_fencing and not self._component.self_fence.usable:
            notes.append("self-fencing is configured, but this kernel's module does not reset the machine: is it loaded with dry_run=1?")
        if not config.fences and not config.self_fencing:
            notes.append("no fence agent is configured: a failed node holds its groups until `vcs fence ack`")
        if picture.get("maintenance"):
            left = int(picture["maintenance"]["left_ms"]) // 1000
            notes.insert(0, f"MAINTENANCE for another {left} s: nobody is fenced, no machine resets itself; see `vcs maintenance status`")
        if picture.get("shutdown"):
            notes.insert(0, "the cluster is being shut down: the nodes leave one after the other, and no group can be joined")
        witness = picture.get("quorum", {}).get("witness")
        if witness is not None and (witness["refuses"] or not witness["answers"]):
            what = f"refuses: {witness['verdict']}" if witness["answers"] else "does not answer"
            notes.append(f"the witness at {witness['address']} port {witness['port']} {what}; half of the nodes could not go on")
        notes += self._component.fencing.alarms({n.id: n.name for n in config.nodes})
        if picture.get("leaving"):
            notes.append("this node is leaving")
        counters = picture.get("counters", {})
        if counters.get("bad_record"):
            notes.append("the record of the last membership could not be read")
        if counters.get("garbage"):
            notes.append(f"{counters['garbage']} ordered messages were not understood: do all nodes run the same version?")
        return notes


def clock_text(wall_ns: int) -> str:
    """A time of day with milliseconds, of this machine's zone."""
    return f"{time.strftime('%H:%M:%S', time.localtime(wall_ns // 1_000_000_000))}.{wall_ns // 1_000_000 % 1000:03d}"


def refused_frames(engine: Mapping[str, object]) -> list[str]:
    """Frames that the engine could not open, for the person who has to mend it."""
    counters = engine.get("counters")
    if not isinstance(counters, Mapping):
        return []
    notes = []
    # Another key nearly always has another id; "seal" is the one pair in 256 that shares it, or a frame that was changed on the way.
    if number := counters.get("dropped_key", 0) + counters.get("dropped_seal", 0):
        notes.append(f"{number} frames were not sealed with this node's key: is cluster.key the same on every node?")
    if number := counters.get("dropped_version"):
        notes.append(f"{number} frames have another protocol version: do all nodes run the same vcsd?")
    if number := counters.get("dropped_unknown_node"):
        notes.append(f"{number} frames came from a node that cluster.toml does not know: is cluster.toml the same on every node?")
    return notes


def _state(row: Picture, owed: bool, fenced: bool) -> str:
    status, present = str(row.get("status", "unseen")), bool(row.get("present"))
    if owed:
        return "failed"
    if status == "member" and present:
        return "member"
    if status in ("left", "detached"):
        return status
    if status == "failed" and fenced:
        return "fenced"
    return "joining" if present else "down"
