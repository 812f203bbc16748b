# SPDX-License-Identifier: GPL-2.0-only
"""Durable records: what must be true after a power cut is on the disk before it is acted on (SAFETY S6).

A record is replaced as a whole: temporary file, fsync, rename, fsync of the folder. Its first line carries length and SHA-256, so
a torn or damaged record is recognised. A damaged one is an error and not an empty state: forgetting obligations is what the file
exists to prevent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from vcs.errors import VcsError

MAGIC = "vcs-record 1"
CLUSTER_FILE_SYSTEMS = frozenset({"gfs2", "ocfs2"})
"A daemon that the lock manager waits for must not itself wait for these (SAFETY S20)."


class StorageError(VcsError):
    """A record cannot be read or written."""

    exit_code = 74


class RecordFile:
    """One record in ``folder``. Not thread-safe: one save at a time."""

    def __init__(self, folder: str | Path, name: str = "coordinator") -> None:
        self.folder = Path(folder)
        self.path = self.folder / f"{name}.record"
        self.saves = 0

    def load(self) -> bytes | None:
        """The record, None if none was ever written. Raises StorageError if it is damaged or unreadable."""
        try:
            blob = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error
        head, _, record = blob.partition(b"\n")
        if head.decode("ascii", "replace") != _header(record):
            raise StorageError(
                f"{self.path} is damaged ({len(blob)} bytes, checksum does not fit)",
                "restore it, or make sure that every other node is off or has left, and remove it",
            )
        return record

    def save(self, record: bytes) -> None:
        """Returns when ``record`` is on the disk. Blocks; raises StorageError."""
        temporary = self.path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                rest = memoryview(_header(record).encode() + b"\n" + record)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self.path)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise StorageError(f"{self.path}: {error.strerror}") from error
        self.saves += 1


def _header(record: bytes) -> str:
    return f"{MAGIC} {len(record)} {hashlib.sha256(record).hexdigest()}"


def file_system_of(path: str | Path, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Type of the file system that ``path``, or the nearest existing folder above it, lies on; "" if it cannot be told."""
    here = Path(path).absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    try:
        device = os.stat(here).st_dev
        lines = Path(mountinfo).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        match = re.match(r"\d+ \d+ (\d+:\d+) .* - (\S+) ", line)
        if match and match[1] == wanted:
            return match[2]
    return ""


def refuse_cluster_file_system(path: str | Path, what: str) -> None:
    """Raises StorageError if ``path`` lies on a file system that needs this daemon to work (SAFETY S20)."""
    kind = file_system_of(path)
    if kind in CLUSTER_FILE_SYSTEMS:
        raise StorageError(
            f"{what} {path} lies on {kind}, which waits for this daemon", "move it to a local file system"
        )
