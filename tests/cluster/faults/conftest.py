# SPDX-License-Identifier: GPL-2.0-only
"""Which faults are done, and the table at the end.

FAULTS: names or parts of names, separated by commas, or "all"; without it the subset that SEED chooses. SEED: a number; without it the
commit's, so that every commit sees another part of the matrix and everybody who tests it the same. FENCING=self: no power switch, the
lease fences; faults of the switch are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness.pytest_plugin import Factory

from tests.cluster.faults.arena import Arena, Row
from tests.cluster.faults.stories import MATRIX, subset
from tests.cluster.faults.trial import Fault
from tests.cluster.turns import seed

ROWS = pytest.StashKey[list[Row]]()


def power() -> bool:
    return os.environ.get("FENCING", "power") != "self"


def chosen() -> list[Fault]:
    said = os.environ.get("FAULTS", "")
    if said:
        parts = [""] if said == "all" else said.split(",")
        found = [f for f in MATRIX if any(part in f.name for part in parts) and (power() or not f.switch)]
        if not found:
            raise pytest.UsageError(f"FAULTS={said}: no fault has such a name; there are {', '.join(f.name for f in MATRIX)}")
        return found
    return subset(seed())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        faults = chosen()
        metafunc.parametrize("fault", faults, ids=[f.name for f in faults])


@pytest.fixture(scope="module")
def arena(module_cluster: Factory, request: pytest.FixtureRequest) -> Iterator[Arena]:
    """One cluster for all the faults of a run; after one that failed it is made anew."""
    made = Arena(module_cluster(nodes=3, shared_disk_mib=256, boot=False), seed(), power=power())
    request.config.stash[ROWS] = made.rows
    try:
        made.form()
        yield made
    finally:
        made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    write = terminalreporter.write_line
    terminalreporter.section(f"faults (SEED={seed()})")
    write(f"{'fault':18} {'outcome':8} {'stall of survivors, ms':26} {'fences (by->whom, after the fault)':52} seconds")
    for row in rows:
        stall = " ".join(f"n{n} {ms:.0f}" for n, ms in sorted(row.stall_ms.items()))
        fences, notes = ", ".join(row.fences) or "-", "; ".join(row.notes)
        write(f"{row.fault:18} {row.outcome:8} {stall or '-':26} {fences:52} {row.seconds:7.0f} {notes}".rstrip())
