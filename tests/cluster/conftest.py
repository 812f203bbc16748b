# SPDX-License-Identifier: GPL-2.0-only
"""Clusters of three machines with the product on them, one per file; every story begins with all three well.

Files marked `turns` take turns (turns.py): a run has one of them, unless TURNS=all, a name with -k, or a file on the command line says
which.
"""

from __future__ import annotations

import os

import pytest
from harness.pytest_plugin import Factory
from vcslab import shell
from vcslab.cluster import VcsCluster
from vcslab.evidence import trace_on
from vcslab.story import wait_group

from tests.cluster.turns import left_out, seed

NODES = (1, 2, 3)
PATIENT = """
[totem]
token_ms = 1500
consensus_ms = 700
detect_ms = 500
[lease]
lease_ms = 12000
"""
"""These stories are about what must never happen, not about how soon: a host that is busy with other things must not look like a dead
node. `make demo` measures, with the defaults."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = [item.path for item in items if item.get_closest_marker("turns")]
    if not files or config.getoption("keyword") or os.environ.get("TURNS") == "all":
        return
    out = left_out(files, seed())
    config.hook.pytest_deselected(items=[item for item in items if item.path in out])
    items[:] = [item for item in items if item.path not in out]


def bring_back(vcs: VcsCluster, *nodes: int) -> None:
    """Nodes without power boot and start vcsd; the others are as they are."""
    vcs.lab.power.set_working()
    vcs.lab.network.heal()
    vcs.wait(lambda: not vcs.lab.power.serving, 30, "the power switch to do what it was asked for")
    off = [n for n in nodes or NODES if not vcs[n].on]
    vcs.lab.boot(*off) if off else None
    vcs.lab.each(lambda m: vcs.install(m.spec.node), *off) if off else None
    for n in off:
        trace_on(vcs, n)
        vcs.start(n)


def mounted_everywhere(vcs: VcsCluster) -> None:
    """Whatever the story before has left: three members, GFS2 mounted on all, its group at rest, no writer running."""
    bring_back(vcs)
    vcs.wait_quorate(*NODES)
    for n in NODES:
        vcs.stop_writers(n)
        if not vcs.mounted(n):
            vcs.mount(n)
    wait_group(vcs, NODES)


def with_gfs2(factory: Factory, extra: str) -> VcsCluster:
    """GFS2 made on the shared disk and mounted on all three; ``extra``: of the configuration."""
    lab = factory(nodes=3, shared_disk_mib=512)
    shell.setup(lab, extra)
    vcs = VcsCluster(lab, extra=extra)
    trace_on(vcs, *NODES)
    return vcs


@pytest.fixture(scope="module")
def three(module_cluster: Factory) -> VcsCluster:
    """Three nodes, quorate, nothing mounted; their switches' tracepoints are recorded."""
    vcs = VcsCluster(module_cluster(nodes=3, shared_disk_mib=512), extra=PATIENT)
    vcs.lab.each(lambda m: vcs.install(m.spec.node))
    trace_on(vcs, *NODES)
    for n in NODES:
        vcs.start(n)
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(*NODES)
    return vcs


@pytest.fixture(scope="module")
def made(module_cluster: Factory) -> VcsCluster:
    """The cluster of `make shell`. A file whose stories need another configuration has a fixture of this name."""
    return with_gfs2(module_cluster, PATIENT)


@pytest.fixture
def gfs2(made: VcsCluster) -> VcsCluster:
    """GFS2 mounted on all three, also when the story before has killed a node."""
    mounted_everywhere(made)
    return made
