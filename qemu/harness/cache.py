# SPDX-License-Identifier: GPL-2.0-only
"""The cache of built things (kernels, images): keyed by content, locked while building, never needed to exist.

Everything is built under a temporary name and renamed, so a reader sees either nothing or the whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_START = time.monotonic()


def say(text: str) -> None:
    """One line of progress on standard error, with the seconds since the program began."""
    print(f"[lab {time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    """`$VCS_CACHE`, or `~/.cache/vcs`; created if missing."""
    path = Path(os.environ.get("VCS_CACHE") or Path.home() / ".cache" / "vcs")
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str | bytes) -> str:
    """A short name of the content of `parts`, whose borders count."""
    sha = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        sha.update(len(raw).to_bytes(8, "little") + raw)
    return sha.hexdigest()[:16]


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, data: bytes | None = None) -> bytes:
    """Run a build command; its standard output. Raises RuntimeError with the end of what it said."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, cwd=cwd, input=data, capture_output=True, check=False)
    if done.returncode:
        said = (done.stdout[-1000:] + done.stderr[-3000:]).decode(errors="replace")
        raise RuntimeError(f"{' '.join(words)[:400]} exited {done.returncode}:\n{said}")
    return done.stdout


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`, so that two test processes do not build one thing twice."""
    with open(cache_dir() / f"{name}.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that builds {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `kind/key`; `build` fills a temporary one first if it does not exist yet."""
    final = cache_dir() / kind / key
    if final.exists():
        os.utime(final)  # see prune
        return final
    with locked(f"{kind}-{key}"):
        if final.exists():
            return final
        temporary = final.with_name(f".{key}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            build(temporary)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def prune(kind: str, keep: int, age_s: float = 86400.0) -> None:
    """Drop folders of `kind` that nobody asked for in `age_s` seconds, but keep the `keep` newest."""
    folder = cache_dir() / kind
    entries = [e for e in folder.iterdir() if not e.name.startswith(".") and not e.is_symlink()]
    for old in sorted(entries, key=lambda e: e.stat().st_mtime, reverse=True)[keep:]:
        if time.time() - old.stat().st_mtime > age_s:
            shutil.rmtree(old, ignore_errors=True)
