# SPDX-License-Identifier: GPL-2.0-only
"""Files of tests that run inside of a virtual machine, one per kernel: each of their cases is a case outside, by the same name, and fails
with the guest's own report."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Cluster

from tests.kernel.versions import SLOW

ROOT = Path(__file__).parents[2]
PYTEST = "python3 -m pytest -q --assert=plain --showlocals -p no:cacheprovider"
"""In a guest. pytest writes the asserts of each file anew, which it could not keep on a payload that is read-only: two thirds of the
processor time until the first case, twenty seconds under emulation. The values that it would show are among the locals."""


def guest_cases(files: tuple[str, ...]) -> list[str]:
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
    series: str
    output: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    "Case -> report, empty when it passed."
    figures: dict[str, str] = field(default_factory=dict)

    def judge(self, case: str) -> None:
        assert case in self.failures, f"{case} was not run on {self.series}:\n{self.output[-4000:]}"
        assert not self.failures[case], f"{case} on {self.series}:\n{self.failures[case]}"


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


def runs(
    factory: pytest.TempPathFactory, name: str, before: str, files: tuple[str, ...], limit_s: float, expected: str = ""
) -> Iterator[Callable[[str], Run]]:
    """For a fixture: series of a kernel -> its run. The machine is booted when the first case asks, and lives until the file is done.
    ``before``: the shell command that makes it ready; ``expected``: a pattern of reports that the tests provoke."""
    results = f"/run/{name}.xml"
    command = (
        f"{before} && cd /opt/vcs/src && "
        f"{PYTEST} --timeout={60 * SLOW:.0f} --junitxml={results} {' '.join(files)}"
    )
    made: dict[str, Run] = {}

    def run(series: str) -> Run:
        if series not in made:
            cluster = Cluster(1, series, cpus=2, artifacts=factory.mktemp(f"{name}-{series}"))
            cluster.__enter__()
            made[series] = Run(cluster, series)
            if expected:
                cluster.splats.allow(expected)
            result = cluster[1].run(command, limit_s * SLOW)
            made[series].output = result.out + result.err
            try:
                made[series].failures, made[series].figures = parse(cluster[1].read(results))
            except OSError:
                pytest.fail(f"the guest's pytest left no results:\n{made[series].output}")
        return made[series]

    yield run
    for done in made.values():
        done.cluster.close(check=False)
