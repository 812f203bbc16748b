# SPDX-License-Identifier: GPL-2.0-only
"""Who uses a lockspace: so that a refusal names what a person must unmount or stop (SAFETY S21). Reads sysfs, debugfs and /proc, and never
waits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DLM_GROUP = "dlm:"
"A DLM lockspace's group has this prefix."
LVM = "lvm_"
"lvmlockd's lockspaces: this and the volume group's name, and lvm_global."
OCFS2_DEVICE = re.compile(r"\bDevice => Id: (\d+),(\d+)\s")
"The first line of OCFS2's fs_state."


@dataclass(frozen=True, slots=True)
class Places:
    """Where the kernel says these things; tests put them elsewhere."""

    gfs2: str = "/sys/fs/gfs2"
    ocfs2: str = "/sys/kernel/debug/ocfs2"
    block: str = "/sys/block"
    mountinfo: str = "/proc/self/mountinfo"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _folders(path: str) -> list[Path]:
    try:
        return sorted(Path(path).iterdir())
    except OSError:
        return []


def devices(places: Places) -> dict[str, str]:
    """Lockspace -> "major:minor" of every mounted cluster file system.

    GFS2 has a folder CLUSTER:LOCKSPACE in sysfs; OCFS2 one with the volume's UUID, which is its lockspace, in debugfs.
    """
    found = {folder.name.partition(":")[2]: _text(folder / "id") for folder in _folders(places.gfs2)}
    for folder in _folders(places.ocfs2):
        if match := OCFS2_DEVICE.search(_text(folder / "fs_state")):
            found[folder.name] = f"{match[1]}:{match[2]}"
    return {lockspace: device for lockspace, device in found.items() if device}


def arrays(places: Places) -> dict[str, str]:
    """Lockspace -> device of every running array; a clustered one's lockspace is its UUID."""
    uuids = {_text(folder / "md" / "uuid"): f"/dev/{folder.name}" for folder in _folders(places.block) if folder.name.startswith("md")}
    return {uuid: device for uuid, device in uuids.items() if uuid}


def mount_points(places: Places) -> dict[str, list[str]]:
    """ "major:minor" -> where it is mounted in our mount namespace."""
    found: dict[str, list[str]] = {}
    for line in _text(Path(places.mountinfo)).splitlines():
        row = line.split(" ")
        if len(row) > 4:
            found.setdefault(row[2], []).append(_unescape(row[4]))
    return found


def by_lockspace(places: Places = Places()) -> dict[str, list[str]]:
    """Lockspace -> where its file system is mounted."""
    mounted = mount_points(places)
    return {lockspace: where for lockspace, device in devices(places).items() if (where := mounted.get(device))}


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), path)


def holders(groups: Iterable[str], places: Places = Places()) -> list[str]:
    """The groups for people: ``dlm:shared (mounted on /mnt/shared)``."""
    mounted, running = by_lockspace(places), arrays(places)
    told = []
    for group in sorted(groups):
        lockspace = group.removeprefix(DLM_GROUP) if group.startswith(DLM_GROUP) else ""
        if lockspace in mounted:
            use = f"mounted on {', '.join(mounted[lockspace])}"
        elif lockspace in running:
            use = f"array {running[lockspace]}"
        elif lockspace.startswith(LVM):
            use = "lvmlockd"
        else:
            use = ""
        told.append(f"{group} ({use})" if use else group)
    return told
