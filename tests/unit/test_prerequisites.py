# SPDX-License-Identifier: GPL-2.0-only
"""What `vcs why` says of a DLM that cannot be used, each kind by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcs.mounts import Places
from vcs.prerequisites import Trees, missing
from vcs.report import WhyReport

GOOD = {
    "config/dlm/cluster/comms/1/local": "0", "config/dlm/cluster/comms/2/local": "1", "config/dlm/cluster/cluster_name": "demo",
    "config/dlm/cluster/recover_callbacks": "1", "dlm/shared/id": "7",
}  # fmt: skip


def told(root: Path, files: dict[str, str]) -> list[WhyReport]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    places = Places(*(str(root / name) for name in ("gfs2", "ocfs2", "block", "mountinfo")))
    return missing("demo", {"dlm:shared", "x"}, Trees(str(root / "dlm"), str(root / "config")), places)


def test_nothing_is_missing(tmp_path: Path) -> None:
    assert told(tmp_path, GOOD) == []


@pytest.mark.parametrize(("without", "changed", "words", "remedy"), [
    ("dlm/", {}, "module dlm is not loaded", "modprobe dlm"),
    ("config/", {}, "configfs is not mounted", "mount -t configfs"),
    ("", {"config/dlm/cluster/comms/2/local": "0"}, "dlm_glue has not set the DLM up", "vcs events"),
    ("config/dlm/cluster/", {"config/dlm/x": ""}, "dlm_glue has not set the DLM up", "vcs events"),
    ("", {"config/dlm/cluster/cluster_name": "other"}, "its cluster is called 'other', and this node's 'demo'", "restart vcsd"),
    ("", {"config/dlm/cluster/recover_callbacks": "0"}, "OCFS2", "restart vcsd"),
])  # fmt: skip
def test_one_thing_is_missing(tmp_path: Path, without: str, changed: dict[str, str], words: str, remedy: str) -> None:
    [row] = told(tmp_path, {k: v for k, v in GOOD.items() if not without or not k.startswith(without)} | changed)
    assert row["subject"] == "the DLM" and words in row["what"] and remedy in row["remedy"]


def test_a_lockspace_that_nobody_drives_is_named_with_its_user(tmp_path: Path) -> None:
    leaked = {"dlm/lost/id": "9", "dlm/lvm_vgs/id": "8"}
    by_name = {row["subject"]: row for row in told(tmp_path, GOOD | leaked)}
    assert sorted(by_name) == ["lockspace lost", "lockspace lvm_vgs"]
    assert "the kernel has it (lvmlockd), and nobody drives it" in by_name["lockspace lvm_vgs"]["what"]
    assert by_name["lockspace lost"]["condition"] == "if it stays so: its join has leaked"
