# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's switch shows in /sys/kernel/vcs (KERNEL-API.md section 8): for commands that work without vcsd and without root.

Reads are not one snapshot: a file may vanish between two of them. What is gone reads as empty; nothing here raises for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from vcs.errors import SwitchError, VcsError
from vcs.model import event_text
from vcs.report import GroupReport, NodeReport, StatusReport, WhyReport, incarnation_text

ROOT = "/sys/kernel/vcs"
_LEVELS = {"1": "fencing", "2": "lock_manager", "3": "file_system", "4": "user"}
_NOT_CLUSTERS = ("providers",)


class Sysfs:
    """The switch under ``root``."""

    def __init__(self, root: str = ROOT) -> None:
        self.root = Path(root)

    def loaded(self) -> bool:
        return self.root.is_dir()

    def handles(self) -> list[str]:
        """Handles of the clusters that this kernel holds."""
        try:
            names = sorted(os.listdir(self.root))
        except OSError:
            return []
        return [n for n in names if n not in _NOT_CLUSTERS and (self.root / n / "cluster_name").exists()]

    def choose(self, handle: str = "") -> str:
        """The cluster meant by ``handle``, or the only one there is. Raises SwitchError or VcsError with the remedy."""
        if not self.loaded():
            raise _unavailable("the kernel module vcs is not loaded", "`modprobe vcs`, then start vcsd")
        handles = self.handles()
        if handle:
            if handle in handles:
                return handle
            there = f"there are {', '.join(handles)}" if handles else "this kernel holds no cluster"
            raise _unavailable(f"no cluster with the handle {handle!r}", there)
        if not handles:
            raise _unavailable("this kernel holds no cluster", "start vcsd: `systemctl start vcsd`")
        if len(handles) > 1:
            raise VcsError(f"this kernel holds {len(handles)} clusters", f"say which with --handle: {', '.join(handles)}")
        return handles[0]

    def text(self, *parts: str) -> str:
        """One attribute, stripped; empty when it is not there (any more)."""
        try:
            return self.root.joinpath(*parts).read_text("utf-8", "replace").strip()
        except OSError:
            return ""

    def number(self, *parts: str) -> int:
        try:
            return int(self.text(*parts), 0)
        except ValueError:
            return 0

    def status(self, handle: str) -> StatusReport:
        report: StatusReport = {
            "source": "kernel",
            "handle": handle,
            "cluster": self.text(handle, "cluster_name"),
            "nodeid": self.number(handle, "nodeid"),
            "node": "",
            "provider": {"type": self.text(handle, "provider", "type"), "state": self.text(handle, "provider", "state").lower()},
            "view": {
                "generation": self.number(handle, "view", "generation"),
                "ring": self.text(handle, "view", "ring"),
                "quorate": self.number(handle, "view", "quorate") != 0,
                "members": parse_ranges(self.text(handle, "view", "members")),
            },
            "groups": len(self._group_names(handle)),
        }
        if self.text(handle, "lease", "lease_ms"):
            report["lease"] = {
                "lease_ms": self.number(handle, "lease", "lease_ms"),
                "remaining_ms": self.number(handle, "lease", "remaining_ms"),
            }
        return report

    def nodes(self, handle: str) -> list[NodeReport]:
        """The members of the view: the kernel knows no others, and no names."""
        local = self.number(handle, "nodeid")
        own = incarnation_text(self.number(handle, "incarnation"))
        return [
            {
                "nodeid": nodeid,
                "name": "",
                "state": "member",
                "local": nodeid == local,
                "votes": 1,
                "incarnation": own if nodeid == local else "",
                "addresses": [],
            }
            for nodeid in parse_ranges(self.text(handle, "view", "members"))
        ]

    def groups(self, handle: str) -> list[GroupReport]:
        return [self._group(handle, name) for name in self._group_names(handle)]

    def _group_names(self, handle: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / handle / "groups"))
        except OSError:
            return []

    def _group(self, handle: str, name: str) -> GroupReport:
        at = (handle, "groups", name)
        level = self.text(*at, "level").lower().replace("-", "_")
        event, acked = self.text(*at, "event"), self.text(*at, "acked_event")
        return {
            "name": name,
            "level": _LEVELS.get(level, level),
            "flags": [f for f in self.text(*at, "flags").lower().replace(",", " ").replace("-", "_").split() if f not in ("none", "0")],
            "state": self.text(*at, "state").lower(),
            "event": _event(event),
            "phase": self.text(*at, "phase").lower() or "none",
            # sysfs has the event of the newest acknowledgement but not its phase: an older event is all that can be told.
            "acked": event == acked,
            "members": [],  # sysfs has their number alone
            "nr_members": self.number(*at, "nr_members"),
            "owner": self.text(*at, "owner"),
            "orphan_since_ms": self.number(*at, "orphan_since_ms"),
            "age_ms": self.number(*at, "age_ms"),
        }


def _unavailable(message: str, remedy: str) -> SwitchError:
    error = SwitchError(2, message)
    error.remedy = remedy
    return error


def _event(text: str) -> str:
    """An event id, however the kernel spells it, as ring.counter."""
    if text.isdecimal():
        return event_text(int(text)) if int(text) else ""
    return text


def parse_ranges(text: str) -> list[int]:
    """``1-3,7`` as numbers. What is no range is left out: this reads for people, it decides nothing."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            low, high = int(first), int(last or first)
            found += range(low, min(high, low + 100_000) + 1)
    return found


def why(status: StatusReport, groups: list[GroupReport]) -> list[WhyReport]:
    """What waits, as far as the kernel alone can tell. A pure function."""
    found: list[WhyReport] = []
    cluster = f"cluster {status['cluster']}"
    state = status["provider"]["state"]
    if state == "lost":
        lost = [g["name"] for g in groups if g["state"] == "lost"]
        found.append({
            "subject": cluster,
            "what": f"the provider is lost and {len(lost) or 'no'} group{'' if len(lost) == 1 else 's'} with it: they stay stopped",
            "on": ["the other nodes, which count this node as failed and fence it"],
            "remedy": "let this node be fenced, or reboot it; a new vcsd does not bring the groups back",
        })
    elif state == "orphan":
        found.append({
            "subject": cluster,
            "what": "the provider's process is gone; without a new one this node will have failed in a moment",
            "on": ["vcsd"],
            "remedy": "start vcsd: `systemctl start vcsd`",
        })
    elif state != "attached":
        found.append({"subject": cluster, "what": "no provider has attached", "on": ["vcsd"],
                      "remedy": "start vcsd: `systemctl start vcsd`"})
    elif not status["view"]["quorate"]:
        found.append({"subject": cluster, "what": "quorum: nothing starts without it", "on": ["other nodes"],
                      "remedy": "start vcsd on more nodes, or find out why they cannot be reached"})
    found += [wait for group in groups if (wait := _why_group(group)) is not None]
    return found


def _why_group(group: GroupReport) -> WhyReport | None:
    subject = f"group {group['name']}"
    owner = group["owner"] or "its consumer"
    if group["orphan_since_ms"]:
        return {"subject": subject, "what": f"nobody has acted for it for {group['orphan_since_ms']} ms: its consumer is gone",
                "on": [owner], "remedy": f"start {owner} again: it takes the group over"}
    if group["state"] == "lost" or group["phase"] in ("none", "finish", ""):
        return None
    if not group["acked"]:
        return {"subject": subject, "what": f"the acknowledgement of {group['phase']} {group['event']} on this node",
                "on": [owner], "remedy": ""}
    if group["phase"] == "stop":
        return {"subject": subject, "what": f"stopped by event {group['event']}: the start, which needs every member's stop, "
                "every failed member fenced, and quorum", "on": ["the other members"], "remedy": "ask vcsd: `vcs why` as root"}
    return {"subject": subject, "what": f"started by event {group['event']}: every member's recovery", "on": ["the other members"],
            "remedy": ""}
