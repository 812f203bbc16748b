# SPDX-License-Identifier: GPL-2.0-only
"""What fsck.gfs2 says of a file system that everybody has unmounted, and which of it is GFS2's own doing (docs/lab.md)."""

from __future__ import annotations

import re

from vcslab.gfs2 import SHARED_DISK, Gfs2Lab
from vcslab.story import check

STATFS = re.compile(r"|(Current|Calculated) statfs values:|(blocks|free|dinodes): +\d+ \(0x[0-9a-f]+\)")
PROGRESS = re.compile(
    r"|Initializing fsck|Validating resource group index\.|Level \d resource group check: .*|\(level \d passed\)|Starting \w+"
    r"|\w+ completed in .*|Reconciling bitmaps\.|fsck\.gfs2 complete|\d+ percent complete\."
)


def fsck(vcs: Gfs2Lab, node: int = 1) -> list[str]:
    """What fsck.gfs2 -n complains of. Its exit status must agree: 0 for nothing, 4 for faults that it left."""
    found = vcs[node].run(f"fsck.gfs2 -n {SHARED_DISK}", timeout=120)
    said = (found.out + found.err).splitlines()
    check("fsck.gfs2 complete" in said, f"fsck.gfs2 -n ended with {found.rc}: {said}")
    complaints = [line for line in said if not PROGRESS.fullmatch(line.strip())]
    check(found.rc == (4 if complaints else 0), f"exit {found.rc}: {said}")
    return complaints


def counters_only(complaints: list[str]) -> bool:
    """Do they concern the totals of statfs(2) alone? A replay after a kill can lose a survivor's share of those."""
    return (complaints[0] == "The statfs file is wrong:" and complaints[-1] == "The statfs file was not fixed."
            and all(STATFS.fullmatch(line) for line in complaints[1:-1]))  # fmt: skip


def mend_counters(vcs: Gfs2Lab, node: int = 1) -> None:
    vcs[node].run(f"fsck.gfs2 -y {SHARED_DISK}", timeout=120)
    left = fsck(vcs, node)
    check(not left, f"fsck.gfs2 -y did not mend it: {left}")
