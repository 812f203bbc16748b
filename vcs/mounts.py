# SPDX-License-Identifier: GPL-2.0-only
"""Which mounts hold a lockspace: so that a refusal names what a person must unmount (SAFETY S21). Reads sysfs and /proc, never waits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DLM_GROUP = "dlm:"
"A DLM lockspace's group has this prefix."


def gfs2_devices(sysfs: Path) -> dict[str, str]:
    """Lockspace -> "major:minor" of every mounted GFS2 (its sysfs folder is named CLUSTER:LOCKSPACE)."""
    found: dict[str, str] = {}
    try:
        folders = list(sysfs.iterdir())
    except OSError:
        return {}
    for folder in folders:
        lockspace = folder.name.partition(":")[2]
        try:
            found[lockspace] = (folder / "id").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
    return found


def mount_points(device: str, mountinfo: Path) -> list[str]:
    """Where a file system on that device is mounted in our mount namespace."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = [line.split(" ") for line in lines]
    return [_unescape(row[4]) for row in rows if len(row) > 4 and row[2] == device]


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), path)


def holders(groups: Iterable[str], sysfs: str = "/sys/fs/gfs2", mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """The groups for people: ``dlm:shared (mounted on /mnt/shared)``."""
    devices = gfs2_devices(Path(sysfs))
    told = []
    for group in sorted(groups):
        device = devices.get(group.removeprefix(DLM_GROUP)) if group.startswith(DLM_GROUP) else None
        where = mount_points(device, Path(mountinfo)) if device else []
        told.append(f"{group} (mounted on {', '.join(where)})" if where else group)
    return told
