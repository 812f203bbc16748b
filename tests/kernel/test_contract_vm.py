# SPDX-License-Identifier: GPL-2.0-only
"""The module under the contract of the switch, on every kernel that we build for.

One virtual machine per kernel runs the guest's files with pytest, once; each of their cases is a case here, by the
same name, and fails with the guest's own report. A kernel that complains (a splat) fails what is asked afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Cluster

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
# Under xdist (--dist loadgroup) all cases of a kernel stay in one worker, so that its machine boots once.
KERNELS = [pytest.param(s, marks=pytest.mark.xdist_group(f"contract-{s}")) for s in ("6.1", "6.12")]
GUEST_FILES = tuple(f"tests/kernel/guest_{name}.py" for name in ("contract", "module", "rules", "stress"))
RESULTS = "/run/contract.xml"
GUEST_LIMIT_S = 500.0
COMMAND = (
    # Dry, also when a test loads it again: a lease that runs out must not reset the tests' own machine.
    "mkdir -p /run/modprobe.d && echo options vcs dry_run=1 > /run/modprobe.d/vcs.conf && modprobe vcs && cd /opt/vcs/src && "
    f"python3 -m pytest -q -p no:cacheprovider --timeout=60 --junitxml={RESULTS} {' '.join(GUEST_FILES)}"
)


def guest_cases(files: tuple[str, ...] = GUEST_FILES) -> list[str]:
    """Names of the guest's cases, as its pytest will name them: `file::test[param]`, without the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    cases = [line.removeprefix("tests/kernel/") for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0, f"the guest's tests cannot be collected:\n{done.stdout}{done.stderr}"
    return cases


@dataclass
class Run:
    """What one machine reported."""

    cluster: Cluster
    output: str
    failures: dict[str, str] = field(default_factory=dict)
    "Case -> report, empty when it passed."
    figures: dict[str, str] = field(default_factory=dict)


def parse(xml: str) -> tuple[dict[str, str], dict[str, str]]:
    """(case -> what went wrong or '', figures) from the guest's JUnit file."""
    failures: dict[str, str] = {}
    figures: dict[str, str] = {}
    for case in ET.fromstring(xml).iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}.py::{case.get('name')}"
        trouble = [e for e in case if e.tag in ("failure", "error", "skipped")]
        said = "\n".join(f"{e.tag}: {e.get('message')}\n{e.text or ''}" for e in trouble)
        failures[name] = failures.get(name, "") + said
        for figure in case.iter("property"):
            figures[figure.get("name", "")] = figure.get("value", "")
    return failures, figures


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    """The run on a kernel; its machine is booted when the first case asks, and lives until the file is done."""
    runs: dict[str, Run] = {}

    def run(series: str) -> Run:
        if series not in runs:
            cluster = Cluster(1, series, cpus=2, artifacts=tmp_path_factory.mktemp(f"contract-{series}"))
            cluster.__enter__()
            runs[series] = Run(cluster, "")
            result = cluster[1].run(COMMAND, GUEST_LIMIT_S)
            runs[series].output = result.out + result.err
            try:
                runs[series].failures, runs[series].figures = parse(cluster[1].read(RESULTS))
            except OSError:
                pytest.fail(f"the guest's pytest left no results:\n{runs[series].output}")
        return runs[series]

    yield run
    for done in runs.values():
        done.cluster.close(check=False)


@pytest.mark.parametrize("series", KERNELS)
@pytest.mark.parametrize("case", guest_cases())
def test_case(run_of: Callable[[str], Run], series: str, case: str) -> None:
    run = run_of(series)
    assert case in run.failures, f"{case} was not run on {series}:\n{run.output[-4000:]}"
    assert not run.failures[case], f"{case} on {series}:\n{run.failures[case]}"


@pytest.mark.parametrize("series", KERNELS)
def test_the_kernel_did_not_complain(run_of: Callable[[str], Run], series: str) -> None:
    run_of(series).cluster.check_splats()


@pytest.mark.parametrize("series", KERNELS)
def test_figures(
    run_of: Callable[[str], Run], series: str, record_property: Callable[[str, object], None]
) -> None:
    """Not a benchmark, a bound: a call is far below what a recovery is allowed to take."""
    figures = run_of(series).figures
    for name, value in figures.items():
        record_property(f"{series} {name}", value)
        print(f"{series}: {name} {value}")
    assert int(figures["group_read_us"]) < 100_000
    assert int(figures["killed_to_orphan_us"]) < 1_000_000
