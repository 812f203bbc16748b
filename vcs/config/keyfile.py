# SPDX-License-Identifier: GPL-2.0-only
"""The shared key: 32 random bytes, kept as 64 hexadecimal digits in a file that only its owner may read.

While keys are rotated the file has two of them, a line each: the first one is sent under, all are accepted."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcs.config.problems import Problems
from vcs.config.schema import default_of, section
from vcs.errors import VcsError

KEY_BYTES = 32
KEYS_MAX = 4
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"Nobody else may read it, and the group may at most read."
KEYLESS_ENGINES = ("static",)
"Engines that send nothing and so need no key."
_READ_MAX = 4096


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in ``path``, the one to send under first: lines of 64 hexadecimal digits, or exactly 32 raw bytes. Raises VcsError, one
    line with the remedy."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_READ_MAX)
    except FileNotFoundError:
        raise VcsError(f"{path} does not exist", f"make it once with `vcs keygen {path}` and copy it to every node") from None
    except OSError as error:
        remedy = "run this as root" if isinstance(error, PermissionError) else "name a file made by `vcs keygen`"
        raise VcsError(f"{path} cannot be read: {error.strerror}", remedy) from None
    if mode & FORBIDDEN_MODE:
        raise VcsError(f"{path} has mode {stat.S_IMODE(mode):04o}, so others can read or change the key",
                       f"chmod 600 {path}, and make a new key if somebody may have read it")
    if len(data) == KEY_BYTES:
        return (data,)
    lines = data.split()
    if not lines or not all(re.fullmatch(rb"[0-9A-Fa-f]{%d}" % (2 * KEY_BYTES), line) for line in lines):
        raise VcsError(f"{path} holds no key of {KEY_BYTES} bytes (64 hexadecimal digits)", "make a new one with `vcs keygen`")
    keys = tuple(bytes.fromhex(line.decode()) for line in lines)
    if len(keys) > KEYS_MAX:
        raise VcsError(f"{path} holds {len(keys)} keys", f"keep at most {KEYS_MAX}, the one to send under first")
    seen: dict[int, int] = {}
    for number, key in enumerate(keys, 1):
        if seen.setdefault(key_id(key), number) != number:
            what = "are the same" if keys[seen[key_id(key)] - 1] == key else "cannot be told apart (one pair in 256)"
            raise VcsError(f"keys {seen[key_id(key)]} and {number} in {path} {what}", "remove one, and make another with `vcs keygen`")
    return keys


def key_id(key: bytes) -> int:
    """The byte by which a frame says which key it is under."""
    return hashlib.sha256(b"vcs key id" + key).digest()[0]


def check(cluster: Mapping[str, Any], base: Path, problems: Problems) -> tuple[bytes, ...]:
    """The keys in the file that [cluster] names, relative to ``base``; reports what is wrong with it and returns none then."""
    sec = section("cluster")
    key_of = {key.name: cluster.get(key.name, default_of(sec, key)) for key in sec.keys}
    if key_of["engine"] in KEYLESS_ENGINES and "key_file" not in cluster:
        return ()
    try:
        return read_keys(base / key_of["key_file"])
    except VcsError as error:
        problems.add(("cluster", "key_file"), error.message, error.remedy)
        return ()


def write_key(path: Path) -> None:
    """Make a key. Never overwrites: replacing a running cluster's key by accident would split it. Raises VcsError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise VcsError(f"{path} exists and is left as it is", "remove it first if you want a new key on every node") from None
    except OSError as error:
        raise VcsError(f"{path} cannot be made: {error.strerror}", "check the folder") from None
    with os.fdopen(fd, "w") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask said
        file.write(os.urandom(KEY_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
