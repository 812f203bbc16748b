# SPDX-License-Identifier: GPL-2.0-only
"""Small file systems for the guests, made without mounting anything."""

from __future__ import annotations

from pathlib import Path

from harness.cache import run


def ext4_image(tree: Path, image: Path, slack_mib: int = 8) -> None:
    """A journal-less ext4 file system in the sparse file `image` with the content of `tree`."""
    used = sum(-(-p.lstat().st_size // 4096) * 4096 + 512 for p in tree.rglob("*"))
    size = (used * 17 // 16 + (slack_mib << 20)) >> 10
    layout = ["-O", "^has_journal,^resize_inode,^metadata_csum", "-m", "0", "-E", "lazy_itable_init=1"]
    run(["mke2fs", "-q", "-F", "-t", "ext4", *layout, "-d", tree, image, f"{size}k"])
