# SPDX-License-Identifier: GPL-2.0-only
"""Records survive whole or are refused: forgetting an obligation is what they exist to prevent (SAFETY S6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.storage import RecordFile, StorageError, file_system_of, refuse_cluster_file_system


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "deep" / "er")
    assert file.load() is None
    for record in (b"", b'{"a":1}\nsecond line', bytes(range(256)) * 100):
        file.save(record)
        assert RecordFile(tmp_path / "deep" / "er").load() == record
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["coordinator.record"]


@pytest.mark.parametrize("cut", [0, 1, 5, 40, -1])
def test_a_damaged_record_is_an_error_and_not_an_empty_state(tmp_path: Path, cut: int) -> None:
    file = RecordFile(tmp_path)
    file.save(b"obligations: node 3")
    blob = file.path.read_bytes()
    file.path.write_bytes(blob[:cut])
    with pytest.raises(StorageError, match="damaged"):
        file.load()


def test_an_interrupted_save_leaves_the_old_record(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.save(b"old")
    file.path.with_suffix(".tmp").write_bytes(b"half a rec")
    assert RecordFile(tmp_path).load() == b"old"


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError):
        RecordFile(tmp_path / "file").save(b"x")


def test_a_cluster_file_system_is_refused(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    import os

    table = tmp_path / "mountinfo"
    table.write_text(f"30 1 {os.major(device)}:{os.minor(device)} / /x rw,noatime shared:1 - gfs2 /dev/vdb rw\n")
    assert file_system_of(tmp_path / "not" / "there", str(table)) == "gfs2"
    assert file_system_of("/proc") == "proc"
    refuse_cluster_file_system(tmp_path, "state folder")
