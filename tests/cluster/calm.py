# SPDX-License-Identifier: GPL-2.0-only
"""A cluster for stories that load three emulated machines at once: a node that does not run for a second is not dead."""

from __future__ import annotations

from harness.pytest_plugin import Factory
from vcslab.cluster import VcsCluster
from vcslab.evidence import trace_on

from tests.cluster.conftest import NODES

CALM = """
[totem]
token_ms = 4000
consensus_ms = 2000
detect_ms = 1400
[lease]
lease_ms = 30000
"""
LIMIT_S = 180.0
"For a node's start; it takes ten seconds where nothing else runs."


def site(make: Factory, kernel: str = "6.12", disks: int = 1, extra: str = "", modules: str = "dlm") -> VcsCluster:
    """Three nodes with the product, quorate, with ``disks`` shared disks (vdd, vde, ...); their tracepoints are recorded. ``extra``:
    more tables of cluster.toml; ``modules``: loaded first."""
    vcs = VcsCluster(make(nodes=3, kernel=kernel, shared_disk_mib=512, shared_disks=disks), extra=CALM + extra)
    vcs.lab.each(lambda m: vcs.install(m.spec.node))
    vcs.lab.each(lambda m: m.run(f"modprobe -a {modules}", timeout=60, check=True))
    trace_on(vcs, *NODES)
    vcs.lab.each(lambda m: vcs.start(m.spec.node))
    vcs.wait_quorate(*NODES, timeout=LIMIT_S)
    vcs.wait_dlm(*NODES, timeout=LIMIT_S)
    return vcs
