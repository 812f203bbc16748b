# SPDX-License-Identifier: GPL-2.0-only
"""A witness on a block device, past every cache. Runs in a virtual machine.

    python3 -S blocks.py write DEVICE FIRST NODE     writes blocks until it is killed; prints each number after the device has it
    python3 -S blocks.py check DEVICE FIRST          prints {"newest": N, "node": NODE, "problems": [...]}

A writer owns BLOCKS blocks of 4 KiB from block FIRST on and writes them round and round; each carries the writer's node, a number that
rises by one, and a checksum. So after its death the newest number must be at least the last that was printed, the numbers of the last
round must all be there, and no block may be half old and half new.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
import zlib

BLOCK = 4096
BLOCKS = 64
RECORD = struct.Struct("<4sIQI")
MAGIC = b"blk1"
PAUSE_S = 0.005
"Three machines that write without a pause leave two emulating cores nothing for the cluster itself."


def fill(page: mmap.mmap, node: int, number: int) -> None:
    """The record at both ends of the block and between: a torn one shows."""
    head = struct.pack("<4sIQ", MAGIC, node, number)
    record = head + struct.pack("<I", zlib.crc32(head))
    page[:] = (record * (BLOCK // RECORD.size + 1))[:BLOCK]


def parse(page: bytes) -> tuple[int, int]:
    """(node, number), (0, 0) for a block never written. Raises ValueError."""
    if not any(page):
        return 0, 0
    magic, node, number, crc = RECORD.unpack_from(page)
    if magic != MAGIC or crc != zlib.crc32(page[: RECORD.size - 4]):
        raise ValueError("no record")
    if page != (page[: RECORD.size] * (BLOCK // RECORD.size + 1))[:BLOCK]:
        raise ValueError(f"torn: begins as number {number}")
    return node, number


def write(device: str, first: int, node: int) -> None:
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    page = mmap.mmap(-1, BLOCK)
    number = 0
    while True:
        number += 1
        fill(page, node, number)
        os.pwritev(fd, [page], (first + number % BLOCKS) * BLOCK)
        print(number, flush=True)
        time.sleep(PAUSE_S)


def check(device: str, first: int) -> dict[str, object]:
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    page = mmap.mmap(-1, BLOCK)
    found: dict[int, tuple[int, int]] = {}
    problems = []
    for index in range(BLOCKS):
        os.preadv(fd, [page], (first + index) * BLOCK)
        try:
            found[index] = parse(bytes(page))
        except ValueError as error:
            problems.append(f"block {first + index}: {error}")
    node, newest = max(found.values(), key=lambda pair: pair[1])
    for number in range(max(1, newest - BLOCKS + 1), newest + 1):
        if found.get(number % BLOCKS) != (node, number):
            problems.append(f"number {number} of node {node} is not in its block, but {found.get(number % BLOCKS)}")
    return {"newest": newest, "node": node, "problems": problems[:10]}


def main(words: list[str]) -> int:
    if words[0] == "write":
        write(words[1], int(words[2]), int(words[3]))
    result = check(words[1], int(words[2]))
    print(json.dumps(result))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
