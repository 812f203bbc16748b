# SPDX-License-Identifier: GPL-2.0-only
"""The witness of the block device stories must see what it is for: a lost write, a torn one, somebody else's."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests.cluster import blocks


def image(path: Path, newest: int, *, node: int = 2) -> list[bytes]:
    """What a writer leaves that was killed after ``newest``."""
    pages = [bytes(blocks.BLOCK)] * blocks.BLOCKS
    page = mmap.mmap(-1, blocks.BLOCK)
    for number in range(1, newest + 1):
        blocks.fill(page, node, number)
        pages[number % blocks.BLOCKS] = bytes(page)
    path.write_bytes(b"".join(pages))
    return pages


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "O_DIRECT", 0)  # a file system in memory has none
    return tmp_path / "device"


@pytest.mark.parametrize("newest", [1, 63, 64, 200])
def test_all_is_there(device: Path, newest: int) -> None:
    image(device, newest)
    assert blocks.check(str(device), 0) == {"newest": newest, "node": 2, "problems": []}


def test_a_lost_write_is_seen(device: Path) -> None:
    pages = image(device, 200)
    older = image(device, 140)
    pages[150 % blocks.BLOCKS] = older[150 % blocks.BLOCKS]
    device.write_bytes(b"".join(pages))
    assert blocks.check(str(device), 0)["problems"] == ["number 150 of node 2 is not in its block, but (2, 86)"]


def test_a_torn_block_is_seen(device: Path) -> None:
    pages, older = image(device, 200), image(device, 140)
    at = 199 % blocks.BLOCKS
    pages[at] = pages[at][:2048] + older[at][2048:]
    device.write_bytes(b"".join(pages))
    problems = blocks.check(str(device), 0)["problems"]
    assert isinstance(problems, list) and "torn" in problems[0]


def test_another_writer_is_seen(device: Path) -> None:
    pages, other = image(device, 200), image(device, 200, node=3)
    pages[5] = other[5]
    device.write_bytes(b"".join(pages))
    assert blocks.check(str(device), 0)["problems"]
