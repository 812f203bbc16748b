# SPDX-License-Identifier: GPL-2.0-only
"""The provider `heartbeat` on every kernel that we build for: one virtual machine each, in which guest_heartbeat*.py run. Each
of their cases is a case here, by the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kernel.in_guest import Run, guest_cases, runs
from tests.kernel.versions import SERIES, check_leaks

pytestmark = pytest.mark.vm

FILES = ("tests/kernel/guest_heartbeat.py", "tests/kernel/guest_heartbeat_wire.py")
KERNELS = [pytest.param(s, marks=pytest.mark.xdist_group(f"heartbeat-{s}")) for s in SERIES]
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Run]]:
    yield from runs(tmp_path_factory, "heartbeat", "modprobe vcs_heartbeat", FILES, LIMIT_S)


@pytest.mark.parametrize("series", KERNELS)
@pytest.mark.parametrize("case", guest_cases(FILES))
def test_case(run_of: Callable[[str], Run], series: str, case: str) -> None:
    run_of(series).judge(case)


@pytest.mark.parametrize("series", KERNELS)
def test_the_kernel_did_not_complain(
    run_of: Callable[[str], Run], series: str, record_property: Callable[[str, object], None]
) -> None:
    """And how long it took to see what."""
    run = run_of(series)
    check_leaks(run.cluster[1])
    run.cluster.check_splats()
    for name, value in run.figures.items():
        record_property(f"{series} {name}", value)
        print(f"{series}: {name} {value}")
    assert {f"silent_to_view_ms_{n}" for n in range(3)} <= run.figures.keys()
