# SPDX-License-Identifier: GPL-2.0-only
"""AES-256-GCM for the frames of seal.py: the one file that knows the library, so that the rest of the engine runs on any Python."""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from membership.api import Processor
from vcs.config.keyfile import key_id
from vcs.errors import VcsError

KEY_SIZE = 32


class AesGcm:
    """Keys of the processors from the cluster's key (32 bytes): HKDF-SHA256, then AES-256-GCM."""

    invalid: type[Exception] = InvalidTag

    def __init__(self, key: bytes, purpose: bytes = b"vcs totem 1") -> None:
        """``purpose``: what is sealed; two protocols never share a cipher. Raises VcsError for a key of another length."""
        if len(key) != KEY_SIZE:
            raise VcsError(f"the cluster key has {len(key)} bytes, not {KEY_SIZE}",
                           "make one: head -c 32 /dev/urandom > /etc/vcs/cluster.key")
        self._key, self._purpose = key, purpose
        self.key_id = key_id(key)

    def __call__(self, p: Processor, /) -> AESGCM:
        info = self._purpose + struct.pack(">IQQ", p.nodeid, p.boot, p.engine)
        return AESGCM(HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(self._key))


aes_gcm = AesGcm
