# SPDX-License-Identifier: GPL-2.0-only
"""mount.gfs2 on hand-made superblocks and a tree like /sys/kernel/vcs; what is not refused ends in an execvp of mount(8)."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcs.cli import mount_gfs2

ROOT = Path(__file__).parents[2]


def image(path: Path, proto: bytes = b"lock_dlm", table: bytes = b"alpha:data", magic: int = 0x01161970, kind: int = 1) -> str:
    """A file with a struct gfs2_sb (linux/gfs2_ondisk.h) at 64 KiB, as mkfs.gfs2 writes it."""
    header = struct.pack(">IIQII", magic, kind, 0, 100, 0)
    sizes = struct.pack(">IIIIII", 1801, 1900, 0, 4096, 12, 0)
    inodes = struct.pack(">QQQQQQ", 1, 33, 0, 0, 2, 34)
    block = header + sizes + inodes
    assert len(block) == 96
    path.write_bytes(b"\0" * 65536 + (block + proto.ljust(64, b"\0") + table.ljust(64, b"\0")).ljust(4096, b"\0"))
    return str(path)


class Executed(Exception):
    pass


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "sysfs"
    (root / "providers").mkdir(parents=True)
    cluster(root, "h1", "alpha")
    comm(tmp_path, "1", "1")
    comm(tmp_path, "2", "0")
    return root


def comm(tmp_path: Path, nodeid: str, local: str) -> None:
    folder = tmp_path / "dlm" / "comms" / nodeid
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "local").write_text(local + "\n")


def cluster(root: Path, handle: str, name: str, state: str = "attached", quorate: str = "1") -> None:
    for path, value in (("cluster_name", name), ("provider/state", state), ("view/quorate", quorate), ("view/members", "1-3")):
        file = root / handle / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")


def refused(capsys: pytest.CaptureFixture[str], tree: Path, *arguments: str) -> str:
    """The one line that a refused mount prints."""
    assert mount_gfs2.main(list(arguments), str(tree), str(tree.parent / "dlm"), 0.0) == 32
    line = capsys.readouterr().err
    assert line.startswith("mount.gfs2: ") and line.count("\n") == 1
    return line[12:-1]


def executed(monkeypatch: pytest.MonkeyPatch, tree: Path, *arguments: str) -> list[str]:
    """The command that a mount becomes."""
    ran: list[list[str]] = []

    def execvp(file: str, command: list[str]) -> Any:
        assert file == "mount"
        ran.append(command)
        raise Executed

    monkeypatch.setattr(os, "execvp", execvp)
    with pytest.raises(Executed):
        mount_gfs2.main(list(arguments), str(tree), str(tree.parent / "dlm"), 0.0)
    return ran[0]


def test_a_mount_that_can_work(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = image(tmp_path / "d")
    assert executed(monkeypatch, tree, device, "/mnt") == ["mount", "-i", "-t", "gfs2", "--", device, "/mnt"]
    assert executed(monkeypatch, tree, device, "/mnt", "-sv", "-N", "7", "-o", "rw,noatime", "-t", "gfs2", "-o", "acl") == [
        "mount", "-i", "-t", "gfs2", "-sv", "-N", "7", "-o", "rw,noatime,acl", "--", device, "/mnt",
    ]  # fmt: skip


def test_the_dlm_has_no_address_yet(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comm(tmp_path, "1", "0")
    line = refused(capsys, tree, image(tmp_path / "d"), "/mnt")
    assert line.startswith("dlm_glue has not set the DLM up") and str(tmp_path / "dlm" / "comms") in line


def test_another_cluster(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device = image(tmp_path / "d", table=b"beta:data")
    assert refused(capsys, tree, device, "/mnt") == (
        f"{device} belongs to cluster 'beta' and this node is in 'alpha'; mount it there, or give it away for good with "
        f"`tunegfs2 -o locktable=alpha:data {device}` while it is mounted nowhere"
    )
    assert executed(monkeypatch, tree, device, "/mnt", "-o", "locktable=alpha:data")
    good = image(tmp_path / "g")
    assert "belongs to cluster 'gamma'" in refused(capsys, tree, good, "/mnt", "-o", "locktable=alpha:x,locktable=gamma:x")
    cluster(tree, "h2", "beta")
    assert executed(monkeypatch, tree, device, "/mnt")  # several clusters in one kernel: the right one is looked at
    cluster(tree, "h2", "beta", quorate="0")
    assert "'beta' is not quorate" in refused(capsys, tree, device, "/mnt")


@pytest.mark.parametrize("table", [b"", b"data", b":data", b"alpha:"])
def test_a_lock_table_without_a_cluster(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str], table: bytes) -> None:
    device = image(tmp_path / "d", table=table)
    line = refused(capsys, tree, device, "/mnt")
    assert line.endswith(f"names no cluster; `tunegfs2 -o locktable=CLUSTER:NAME {device}` while it is mounted nowhere")


@pytest.mark.parametrize(
    ("state", "quorate", "expected"),
    [
        ("lost", "1", "the provider of cluster 'alpha' is lost and this node waits to be fenced; reboot it, then start vcsd"),
        ("orphan", "1", "vcsd of cluster 'alpha' is not running; start it: `systemctl start vcsd`"),
        ("none", "0", "vcsd of cluster 'alpha' is not running; start it: `systemctl start vcsd`"),
        ("attached", "0", "cluster 'alpha' is not quorate (members 1-3); start vcsd on more nodes, `vcs why` says what is missing"),
        ("attached", "", "cluster 'alpha' is not quorate (members 1-3); start vcsd on more nodes, `vcs why` says what is missing"),
    ],
)
def test_a_cluster_that_cannot(
    tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str], state: str, quorate: str, expected: str
) -> None:
    cluster(tree, "h1", "alpha", state, quorate)
    assert refused(capsys, tree, image(tmp_path / "d"), "/mnt") == expected


def test_no_switch_and_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = image(tmp_path / "d")
    root = tmp_path / "sysfs"
    assert refused(capsys, root, device, "/mnt") == "the kernel module vcs is not loaded; `modprobe vcs`, then start vcsd"
    (root / "providers").mkdir(parents=True)
    assert refused(capsys, root, device, "/mnt") == "this node is in no cluster; start vcsd: `systemctl start vcsd`"


def test_a_local_file_system_and_a_remount_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = tmp_path / "none"
    assert executed(monkeypatch, none, image(tmp_path / "d", proto=b"lock_nolock", table=b""), "/mnt")
    shared = image(tmp_path / "e")
    assert executed(monkeypatch, none, shared, "/mnt", "-o", "lockproto=lock_nolock")
    assert executed(monkeypatch, none, shared, "/mnt", "-o", "remount,ro")


def test_no_gfs2(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in (image(tmp_path / "a", magic=1), image(tmp_path / "b", kind=2)):
        assert "holds no GFS2 file system" in refused(capsys, tree, device, "/mnt")
    (tmp_path / "short").write_bytes(b"x" * 65540)
    assert "holds no GFS2 file system" in refused(capsys, tree, str(tmp_path / "short"), "/mnt")
    assert "cannot be read: No such file" in refused(capsys, tree, str(tmp_path / "none"), "/mnt")


@pytest.mark.parametrize("arguments", [[], ["dev"], ["a", "b", "c"], ["a", "b", "-o"], ["a", "b", "-x"], ["a", "b", "--help"]])
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert mount_gfs2.main(arguments) == 1
    assert "usage: mount.gfs2 DEVICE DIR" in capsys.readouterr().err


@given(st.binary(max_size=300))
def test_any_superblock_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    device = tmp_path_factory.mktemp("sb") / "d"
    for head in (b"", bytes.fromhex("0116197000000001")):
        device.write_bytes(b"\0" * 65536 + head + data)
        try:
            proto, table = mount_gfs2.superblock(str(device))
        except mount_gfs2.Refused:
            continue
        assert len(data) >= 216 and "\0" not in proto + table


def test_it_is_one_file_that_starts_alone(tmp_path: Path) -> None:
    """Installed as it is, run by its own first line's interpreter flags: nothing of ours is importable."""
    script = tmp_path / "mount.gfs2"
    script.write_bytes((ROOT / "vcs/cli/mount_gfs2.py").read_bytes())
    got = subprocess.run([sys.executable, "-I", "-S", str(script), "/nonexistent", "/mnt"], capture_output=True, text=True, check=False)
    assert (got.returncode, got.stdout) == (32, "")
    assert got.stderr == "mount.gfs2: /nonexistent cannot be read: No such file or directory; is the disk there?\n"
