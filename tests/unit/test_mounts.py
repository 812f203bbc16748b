# SPDX-License-Identifier: GPL-2.0-only
"""A refusal names the mount that holds a node."""

from __future__ import annotations

from pathlib import Path

from vcs.mounts import holders

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 254:48 / /mnt/with\040space rw,noatime shared:20 - gfs2 /dev/vdd rw
41 22 254:48 / /srv/again rw,noatime shared:20 - gfs2 /dev/vdd rw
"""


def test_a_lockspace_is_told_with_its_mount_points(tmp_path: Path) -> None:
    (tmp_path / "gfs2" / "demo:shared").mkdir(parents=True)
    (tmp_path / "gfs2" / "demo:shared" / "id").write_text("254:48\n")
    (tmp_path / "mountinfo").write_text(TABLE)
    told = holders(["plain", "dlm:shared", "dlm:other"], str(tmp_path / "gfs2"), str(tmp_path / "mountinfo"))
    assert told == ["dlm:other", "dlm:shared (mounted on /mnt/with space, /srv/again)", "plain"]


def test_without_gfs2_the_groups_are_told_alone(tmp_path: Path) -> None:
    assert holders(["dlm:x"], str(tmp_path / "no"), str(tmp_path / "no")) == ["dlm:x"]
