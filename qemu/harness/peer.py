# SPDX-License-Identifier: GPL-2.0-only
"""Debian's dlm_tool for tests on the host: unpacked into the cache and not installed, as its package would start dlm_controld.

    python -m harness.peer        prints the folder
"""

from __future__ import annotations

from pathlib import Path

from harness.cache import built, run

PACKAGES = ("dlm-controld", "libdlm3", "libdlmcontrol3")


def _unpack(to: Path) -> None:
    try:
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", *PACKAGES], cwd=to)
    except RuntimeError:
        run(["apt-get", "update"])
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", *PACKAGES], cwd=to)
    for deb in sorted(to.glob("*.deb")):
        run(["dpkg", "-x", deb, to])
        deb.unlink()


def dlm_tool() -> dict[str, str]:
    """The environment in which `dlm_tool` is found. Raises RuntimeError if apt cannot provide it."""
    root = built("peer", "dlm-tool-1", _unpack)
    [libraries] = {str(p.parent) for p in root.rglob("libdlmcontrol.so.3")}
    return {"PATH": f"{root}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": libraries}


if __name__ == "__main__":
    print(dlm_tool()["PATH"].partition("/usr/sbin")[0])
