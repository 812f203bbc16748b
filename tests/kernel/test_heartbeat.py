# SPDX-License-Identifier: GPL-2.0-only
"""The provider `heartbeat` on every kernel that we build for: one virtual machine each, in which guest_heartbeat*.py run. Each
of their cases is a case here, by the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Cluster

from tests.kernel.test_contract_vm import Run, guest_cases, parse

pytestmark = pytest.mark.vm

FILES = ("tests/kernel/guest_heartbeat.py", "tests/kernel/guest_heartbeat_wire.py")
KERNELS = [pytest.param(s, marks=pytest.mark.xdist_group(f"heartbeat-{s}")) for s in ("6.1", "6.12")]
RESULTS = "/run/heartbeat.xml"
LIMIT_S = 300.0
COMMAND = (
    "modprobe vcs_heartbeat && cd /opt/vcs/src && "
    f"python3 -m pytest -q -p no:cacheprovider --timeout=60 --junitxml={RESULTS} {' '.join(FILES)}"
)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    """The run on a kernel; its machine is booted when the first case asks, and lives until the file is done."""
    runs: dict[str, Run] = {}

    def run(series: str) -> Run:
        if series not in runs:
            cluster = Cluster(1, series, cpus=2, artifacts=tmp_path_factory.mktemp(f"heartbeat-{series}"))
            cluster.__enter__()
            runs[series] = Run(cluster, "")
            result = cluster[1].run(COMMAND, LIMIT_S)
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
@pytest.mark.parametrize("case", guest_cases(FILES))
def test_case(run_of: Callable[[str], Run], series: str, case: str) -> None:
    run = run_of(series)
    assert case in run.failures, f"{case} was not run on {series}:\n{run.output[-4000:]}"
    assert not run.failures[case], f"{case} on {series}:\n{run.failures[case]}"


@pytest.mark.parametrize("series", KERNELS)
def test_the_kernel_did_not_complain(
    run_of: Callable[[str], Run], series: str, record_property: Callable[[str, object], None]
) -> None:
    """And how long it took to see what."""
    run = run_of(series)
    run.cluster.check_splats()
    for name, value in run.figures.items():
        record_property(f"{series} {name}", value)
        print(f"{series}: {name} {value}")
    assert {f"silent_to_view_ms_{n}" for n in range(3)} <= run.figures.keys()
