# SPDX-License-Identifier: GPL-2.0-only
"""The ring sequence on disk: written before it is used, whole or not at all.

A lost or damaged file is not fatal and not guessed at: the sequence starts low and rises by what peers tell; incarnations keep the
former life's identities apart.
"""

from __future__ import annotations

import os
import struct
import zlib

from membership.totem.limits import RING_SEQ_MAX
from vcs.errors import VcsError

_RECORD = struct.Struct(">8sQI")
_MAGIC = b"VCSRING1"


class RingSeqFile:
    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        "Why the last ``load`` could not use the file; empty: it could, or there was none."

    def load(self) -> int:
        """The stored sequence, 0 if there is none that can be trusted."""
        self.problem = ""
        try:
            with open(self.path, "rb") as f:
                data = f.read(_RECORD.size + 1)
        except FileNotFoundError:
            return 0
        except OSError as e:
            self.problem = f"cannot read {self.path}: {e.strerror}"
            return 0
        if len(data) == _RECORD.size:
            magic, seq, crc = _RECORD.unpack(data)
            if magic == _MAGIC and crc == zlib.crc32(data[:-4]) and seq < RING_SEQ_MAX:
                return int(seq)
        self.problem = f"{self.path} is damaged"
        return 0

    def store(self, seq: int) -> None:
        """Durable when it returns. Raises VcsError if the disk refuses."""
        record = struct.pack(">8sQ", _MAGIC, seq)
        record += struct.pack(">I", zlib.crc32(record))
        folder = os.path.dirname(self.path) or "."
        temporary = self.path + ".new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, record)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, self.path)
            dir_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(dir_fd)
            finally:
                os.close(dir_fd)
        except OSError as e:
            raise VcsError(f"cannot store the ring sequence in {self.path}: {e.strerror}", "is the disk full or read-only?") from e
