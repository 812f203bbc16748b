# SPDX-License-Identifier: GPL-2.0-only
"""The writer that runs in a guest: fixed-size records appended to one shared file under a cluster-wide flock, each fsynced.

Self-contained (it is copied into the guest). A record is 128 bytes: global counter, node, boot, the node's own counter, CRC. The writer
reads the last record under the lock and writes the next global counter, so two holders of the lock at once, or a write that was
lost after its fsync, leave a gap, a fork or a repetition that `check` finds. A line on stdout is printed only after the fsync.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import zlib

RECORD = 128


def pack(counter: int, node: int, boot: int, own: int) -> bytes:
    """One record: ``counter node boot own crc``, padded with dots, ending in a newline."""
    head = f"{counter:012d} {node:04d} {boot:08x} {own:010d} ".encode()
    body = head + f"{zlib.crc32(head):08x} ".encode()
    return body + b"." * (RECORD - len(body) - 1) + b"\n"


def unpack(record: bytes) -> tuple[int, int, int, int]:
    """(counter, node, boot, own); raises ValueError on a torn or altered record."""
    fields = record.split(b" ")
    if len(record) != RECORD or len(fields) < 5:
        raise ValueError(f"torn record {record[:60]!r}")
    head = b" ".join(fields[:4]) + b" "
    if int(fields[4], 16) != zlib.crc32(head):
        raise ValueError(f"bad checksum in {record[:60]!r}")
    return int(fields[0]), int(fields[1]), int(fields[2], 16), int(fields[3])


def last_counter(fd: int) -> int:
    size = os.fstat(fd).st_size
    if size == 0:
        return 0
    if size % RECORD:
        raise ValueError(f"size {size} is no multiple of {RECORD}")
    return unpack(os.pread(fd, RECORD, size - RECORD))[0]


def write(path: str, node: int, boot: int, pause_ms: float, limit: int) -> None:
    """Append until killed or until ``limit`` records (0: no limit); a line of JSON per fsynced record."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    own = 0
    while not limit or own < limit:
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            counter = last_counter(fd) + 1
            own += 1
            os.pwrite(fd, pack(counter, node, boot, own), (counter - 1) * RECORD)
            os.fsync(fd)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
        done = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        print(json.dumps({"began": began, "t": done, "counter": counter, "node": node, "boot": boot, "own": own}), flush=True)
        time.sleep(pause_ms / 1000)


def check(path: str) -> dict[str, object]:
    """Read the whole file; every record must be whole, the global counter without gap, each writer's own counter rising by one."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    index = 0
    with open(path, "rb") as file:
        while record := file.read(RECORD):
            index += 1
            try:
                counter, node, boot, own = unpack(record)
            except ValueError as error:
                problems.append(f"record {index}: {error}")
                continue
            if counter != index:
                problems.append(f"record {index} carries counter {counter}")
            key = f"{node}/{boot:08x}"
            if own != seen.get(key, 0) + 1:
                problems.append(f"record {index}: writer {key} jumps from {seen.get(key, 0)} to {own}")
            seen[key] = own
    return {"records": index, "writers": seen, "problems": problems[:20]}


def main(argv: list[str]) -> int:
    if argv[0] == "write":
        path, node, boot, pause_ms, limit = argv[1:6]
        write(path, int(node), int(boot, 16), float(pause_ms), int(limit))
        return 0
    result = check(argv[1])
    print(json.dumps(result))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
