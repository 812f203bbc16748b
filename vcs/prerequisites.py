# SPDX-License-Identifier: GPL-2.0-only
"""What the DLM's users wait for that no membership can give them: a module, a mount, a value in configfs. Reads sysfs and configfs alone,
and never waits; so `vcs why` can say it whether vcsd runs or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vcs.mounts import DLM_GROUP, Places, holders
from vcs.report import WhyReport


@dataclass(frozen=True, slots=True)
class Trees:
    """Where the kernel says these things."""

    dlm: str
    configfs: str


def _text(path: Path) -> str | None:
    """None: it is not there."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def missing(cluster: str, groups: Collection[str], trees: Trees, places: Places | None = None) -> list[WhyReport]:
    """``cluster``: the name that the switch has; ``groups``: those that it holds. Empty: nothing is missing."""
    base = Path(trees.configfs, "dlm", "cluster")
    if not Path(trees.dlm).is_dir():
        return [_dlm("the kernel module dlm is not loaded: there can be no lockspace", "modprobe dlm")]
    if not base.parent.is_dir():
        return [_dlm(f"configfs is not mounted on {trees.configfs}: dlm_glue cannot set the DLM up",
                     f"mount -t configfs configfs {trees.configfs}")]
    if all(_text(comm / "local") != "1" for comm in _folders(base / "comms")):
        return [_dlm("dlm_glue has not set the DLM up: every join fails (ENOTCONN)", "see `vcs events`: glue_failed, if it does not last")]
    return [*_options(base, cluster), *_undriven(trees, groups, places or Places())]


def _dlm(what: str, remedy: str) -> WhyReport:
    return {"subject": "the DLM", "what": what, "on": ["this node"], "remedy": remedy}


def _options(base: Path, cluster: str) -> list[WhyReport]:
    """Values that dlm_glue has written and somebody else has changed."""
    again = "stop whoever wrote that, then restart vcsd"
    found = []
    name = _text(base / "cluster_name")
    if name != cluster:
        found.append(_dlm(f"its cluster is called {name!r}, and this node's {cluster!r}: mounts and volume groups are refused", again))
    if _text(base / "recover_callbacks") == "0":
        found.append(_dlm("recover_callbacks is 0: an OCFS2 cannot be mounted, and a mount that fails so leaks its lockspace", again))
    return found


def _undriven(trees: Trees, groups: Collection[str], places: Places) -> list[WhyReport]:
    """Lockspaces of the kernel that no group governs: nobody starts them, and their users wait."""
    found: list[WhyReport] = []
    for folder in _folders(Path(trees.dlm)):
        group = DLM_GROUP + folder.name
        if group in groups:
            continue
        [user] = holders([group], places)
        use = user.removeprefix(group)
        found.append({
            "subject": f"lockspace {folder.name}", "what": f"a group in the switch: the kernel has it{use}, and nobody drives it",
            "on": ["dlm_glue, if it was made just now"], "remedy": "reboot this node", "condition": "if it stays so: its join has leaked",
        })
    return found
