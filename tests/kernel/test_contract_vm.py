# SPDX-License-Identifier: GPL-2.0-only
"""The module under the contract of the switch, on every kernel that we build for.

One virtual machine per kernel runs the guest's files with pytest, once; each of their cases is a case here, by the
same name, and fails with the guest's own report. A kernel that complains (a splat) fails what is asked afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kernel.guest_rules import EXPECTED
from tests.kernel.in_guest import Run, guest_cases, runs
from tests.kernel.versions import SERIES, check_leaks

pytestmark = pytest.mark.vm

# Under xdist (--dist loadgroup) all cases of a kernel stay in one worker, so that its machine boots once.
KERNELS = [pytest.param(s, marks=pytest.mark.xdist_group(f"contract-{s}")) for s in SERIES]
FILES = tuple(f"tests/kernel/guest_{name}.py" for name in ("contract", "module", "rules", "stress"))
LIMIT_S = 500.0
# Dry, also when a test loads it again: a lease that runs out must not reset the tests' own machine.
BEFORE = "mkdir -p /run/modprobe.d && echo options vcs dry_run=1 > /run/modprobe.d/vcs.conf && modprobe vcs"


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    yield from runs(tmp_path_factory, "contract", BEFORE, FILES, LIMIT_S, EXPECTED)


@pytest.mark.parametrize("series", KERNELS)
@pytest.mark.parametrize("case", guest_cases(FILES))
def test_case(run_of: Callable[[str], Run], series: str, case: str) -> None:
    run_of(series).judge(case)


@pytest.mark.parametrize("series", KERNELS)
def test_the_kernel_did_not_complain(run_of: Callable[[str], Run], series: str) -> None:
    cluster = run_of(series).cluster
    check_leaks(cluster[1])
    cluster.check_splats()


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
