# SPDX-License-Identifier: GPL-2.0-only
"""A second CPython, of another version and word size: the same seed must give the same trace there.

It is CPython 3.14 as WebAssembly (32 bit), the npm package ``pyodide``, run by node: what the simulation draws, hashes and orders may
depend on neither the version nor the width of a hash. ``python -m tests.sim.second_python`` puts it into the cache; nothing is
downloaded twice, and a download that is not what is named here is refused.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "pyodide@314.0.7"
SHA512 = "0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
ROOT = Path(__file__).resolve().parents[2]


def home() -> Path:
    """Where it is, or will be: the name says what is in it."""
    cache = Path(os.environ.get("VCS_CACHE") or Path.home() / ".cache" / "vcs")
    return cache / f"{PACKAGE}-{hashlib.sha256(SHA512.encode()).hexdigest()[:12]}"


def fetch() -> Path:
    """Have it in the cache. Raises RuntimeError with what is missing or wrong."""
    place = home()
    if (place / "pyodide.mjs").exists():
        return place
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is missing: apt-get install nodejs npm")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        subprocess.run(["npm", "pack", PACKAGE, "--silent", "--pack-destination", folder], check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != SHA512:
            raise RuntimeError(f"{PACKAGE} is not what it was: its SHA-512 differs")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        try:
            os.rename(Path(folder) / "package", place)
        except OSError:
            if not (place / "pyodide.mjs").exists():  # else another process was quicker
                raise
    return place


def evaluate(code: str, timeout: float = 600) -> str:
    """What ``code``'s last expression is there, as text. Raises RuntimeError with its traceback."""
    script = Path(__file__).with_suffix(".mjs")
    done = subprocess.run(["node", str(script), str(fetch()), str(ROOT), code], capture_output=True, text=True,
                          timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return done.stdout.rstrip("\n")


def main() -> int:
    fetch()
    print("second Python:", evaluate("import sys; sys.version.split()[0] + ', ' + str(sys.maxsize.bit_length() + 1) + ' bit'"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
