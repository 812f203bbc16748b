# SPDX-License-Identifier: GPL-2.0-only
"""Files of the kernel's source that no package of headers has, in the cache: checkpatch with its lists of words, the netlink client.

    python -m harness.source       prints the folder; the first time it downloads 150 MB
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from harness.cache import built, cache_dir, digest, run, say

PACKAGE = "linux-source-6.12"
CHECKPATCH = ("scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch")
YNL = (
    "tools/net/ynl/cli.py", "tools/net/ynl/lib/__init__.py", "tools/net/ynl/lib/nlspec.py", "tools/net/ynl/lib/ynl.py",
    "Documentation/netlink/genetlink-legacy.yaml",
)  # fmt: skip
"The client that speaks any family by its YAML (`cli.py`), and the schema that it checks the YAML with."
FILES = (*CHECKPATCH, *YNL)


def _build(to: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vcs-source-", dir=cache_dir()) as name:
        say(f"downloading {PACKAGE}")
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE], cwd=Path(name))
        (deb,) = Path(name).glob("*.deb")
        members = shlex.join(f"{PACKAGE}/{file}" for file in FILES)
        unpack = (
            f"dpkg-deb --fsys-tarfile {shlex.quote(str(deb))} | tar xO ./usr/src/{PACKAGE}.tar.xz"
            f" | tar xJ -C {shlex.quote(str(to))} --strip-components=1 {members}"
        )
        run(["bash", "-o", "pipefail", "-c", unpack])


def get() -> Path:
    """The folder with FILES. Raises RuntimeError if apt cannot provide them."""
    return built("source", digest(PACKAGE, *FILES), _build)


if __name__ == "__main__":
    print(get())
    sys.exit(0)
