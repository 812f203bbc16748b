# SPDX-License-Identifier: GPL-2.0-only
"""What ``make shell`` does before its prompt: a cluster with GFS2 mounted on every node, ready to be looked at and broken."""

from __future__ import annotations

from harness import Cluster

from vcslab.cluster import MOUNTPOINT, VcsCluster
from vcslab.story import wait_group


def setup(lab: Cluster, extra: str = "") -> None:
    """vcsd on every node, one GFS2 on the shared disk, mounted everywhere; ``extra`` is appended to the configuration."""
    nodes = [m.spec.node for m in lab]
    vcs = VcsCluster(lab, extra=extra)
    print("== vcsd starts on every node", flush=True)
    vcs.up(*nodes)
    print(f"== GFS2 is made and mounted on {MOUNTPOINT}", flush=True)
    vcs.mkfs(nodes[0], journals=len(nodes))
    vcs.mount_on(*nodes)
    wait_group(vcs, nodes)
    print(vcs[nodes[0]].run("vcs status; vcs nodes; vcs groups", timeout=30).out, flush=True)
    print("try: vcs why | vcs events --follow | off 2 | on 2 | ls /sys/kernel/vcs/demo", flush=True)
