# SPDX-License-Identifier: GPL-2.0-only
"""A refusal names the mount, the array or the daemon that holds a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcs.mounts import Places, by_lockspace, holders

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 254:48 / /mnt/with\040space rw,noatime shared:20 - gfs2 /dev/vdd rw
41 22 254:48 / /srv/again rw,noatime shared:20 - gfs2 /dev/vdd rw
42 22 254:64 / /mnt/o rw,noatime shared:21 - ocfs2 /dev/vde rw
nonsense
"""
VOLUME = "0F6E7A1B2C3D4E5F60718293A4B5C6D7"
ARRAY = "99125279-ccc9-1234-5678-0123456789ab"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name, text in (
        ("gfs2/demo:shared/id", "254:48\n"),
        ("gfs2/demo:elsewhere/id", "254:80\n"),
        (f"ocfs2/{VOLUME}/fs_state", f"    Device => Id: 254,64  Uuid: {VOLUME}  Gen: 0x1234  Label: shared\n    Volume => State: 1\n"),
        ("ocfs2/locking_filter/other", ""),
        ("block/md0/md/uuid", f"{ARRAY}\n"),
        ("block/vdd/size", "1\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "mountinfo").write_text(TABLE)
    return Places(str(tmp_path / "gfs2"), str(tmp_path / "ocfs2"), str(tmp_path / "block"), str(tmp_path / "mountinfo"))


def test_a_lockspace_is_told_with_its_use(places: Places) -> None:
    groups = ["plain", "dlm:shared", "dlm:other", "dlm:elsewhere", f"dlm:{VOLUME}", f"dlm:{ARRAY}", "dlm:lvm_vgs"]
    assert holders(groups, places) == [
        f"dlm:{VOLUME} (mounted on /mnt/o)",
        f"dlm:{ARRAY} (array /dev/md0)",
        "dlm:elsewhere",
        "dlm:lvm_vgs (lvmlockd)",
        "dlm:other",
        "dlm:shared (mounted on /mnt/with space, /srv/again)",
        "plain",
    ]


def test_mounts_by_lockspace(places: Places) -> None:
    assert by_lockspace(places) == {"shared": ["/mnt/with space", "/srv/again"], VOLUME: ["/mnt/o"]}


def test_without_any_the_groups_are_told_alone(tmp_path: Path) -> None:
    no = str(tmp_path / "no")
    assert holders(["dlm:x"], Places(no, no, no, no)) == ["dlm:x"]
