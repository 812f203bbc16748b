# SPDX-License-Identifier: GPL-2.0-only
"""One story per rule of SAFETY, in the simulator; all of scenarios_*.py."""

from __future__ import annotations

import pytest

from tests.sim.rules import all_rules
from tests.sim.scenarios import Rule

RULES = all_rules()


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_rule(rule: Rule, seed: int) -> None:
    rule.tell(seed)
