# SPDX-License-Identifier: GPL-2.0-only
"""Clusters as fixtures: artifacts kept on failure, kernel reports fail the test in which they appear.

`cluster` and `module_cluster` are factories: `cluster(nodes=3, shared_disk_mib=512)` boots and is closed at the end.
Environment: VCS_KERNEL=6.1 (or 6.1,6.12; debug, kcsan) chooses the kernels of tests that take the `kernel` fixture; KEEP=1 keeps
artifacts of passed tests as well; GCOV=folder keeps what was covered there (harness.gcov).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import gcov
from harness.cluster import Cluster
from harness.image import PROJECT
from harness.kernels import OURS

ARTIFACTS = PROJECT / "build" / "artifacts"
Factory = Callable[..., Cluster]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kernels(*series): the kernels a test with the `kernel` fixture runs on")
    if folder := os.environ.get("GCOV"):
        Cluster.at_close.append(lambda cluster: gcov.collect(cluster, Path(folder)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kernel`: what the marker says, else VCS_KERNEL, else 6.12."""
    if "kernel" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("kernels")
        series = list(marker.args) if marker else os.environ.get("VCS_KERNEL", "6.12").split(",")
        if marker and "VCS_KERNEL" in os.environ:
            wanted = os.environ["VCS_KERNEL"].split(",")
            series = [s for s in wanted if s in series or s in OURS]
        metafunc.parametrize("kernel", series, scope="session")


def artifact_folder(nodeid: str) -> Path:
    """build/artifacts/<test>, empty."""
    name = re.sub(r"[^\w.-]+", "-", nodeid.removeprefix("tests/")).strip("-")
    folder = ARTIFACTS / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _clusters(nodeid: str) -> Iterator[Factory]:
    opened: list[Cluster] = []
    base = artifact_folder(nodeid)

    def make(nodes: int = 3, kernel: str | None = None, **options: Any) -> Cluster:
        series = kernel or os.environ.get("VCS_KERNEL", "6.12").split(",")[0]
        folder = base if not opened else base.with_name(f"{base.name}-{len(opened) + 1}")
        cluster = Cluster(nodes, series, artifacts=folder, **options)
        opened.append(cluster)
        cluster.__enter__()
        return cluster

    try:
        yield make
    finally:
        for cluster in reversed(opened):
            cluster.close(check=False)
            if not cluster.failed and not cluster.splats.found and not os.environ.get("KEEP"):
                shutil.rmtree(cluster.artifacts, ignore_errors=True)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Factory]:
    """A factory of clusters that live for one test."""
    yield from _clusters(request.node.nodeid)


@pytest.fixture(scope="module")
def module_cluster(request: pytest.FixtureRequest) -> Iterator[Factory]:
    """A factory of clusters that live for one file's tests."""
    yield from _clusters(request.node.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that passed while a kernel complained has not passed."""
    del item
    result = yield
    for alive in list(Cluster.live):
        alive.check_splats()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """After a failure: ask the nodes what they wait for, and say where everything is."""
    del item
    report = yield
    if report.failed:
        for alive in list(Cluster.live):
            alive.failed = True
            alive.diagnose()
            timeline = alive.timeline.render(kernel=False).splitlines()[-40:]
            report.sections.append(("lab", "\n".join([alive.where(), "the timeline's end:", *timeline])))
    return report
