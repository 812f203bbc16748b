# SPDX-License-Identifier: GPL-2.0-only
"""The fault matrix (`make faults`): every fault, and after it the same judgement. See docs/faults.md."""

from __future__ import annotations

import pytest

from tests.cluster.faults import trial
from tests.cluster.faults.arena import Arena
from tests.cluster.faults.trial import Fault

pytestmark = pytest.mark.vm


def test_fault(arena: Arena, fault: Fault) -> None:
    if arena.broken:
        arena.reset()
    row = trial.run(arena, fault)
    print(f"{fault.about} {row}")
