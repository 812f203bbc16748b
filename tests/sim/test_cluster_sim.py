# SPDX-License-Identifier: GPL-2.0-only
"""A quick part of `make sim` and `make sim-canaries`: some seeds of each layer, one seed twice, every canary."""

from __future__ import annotations

import pytest

from tests.sim.canaries import CANARIES, judge
from tests.sim.canary import Canary
from tests.sim.run import run


@pytest.mark.parametrize("layer", ["oracle", "totem"])
@pytest.mark.parametrize("seed", range(1, 13))
def test_seed(seed: int, layer: str) -> None:
    outcome = run(seed, layer=layer)
    replay = f"make sim N=1 LAYER={layer} SEED={seed}"
    assert outcome.ok, f"{outcome.name}: {outcome.detail}\nreplay: {replay}"


@pytest.mark.parametrize("layer", ["oracle", "totem"])
def test_one_seed_one_trace(layer: str) -> None:
    assert run(7, layer=layer).trace_hash == run(7, layer=layer).trace_hash


def test_seeds_differ() -> None:
    assert run(7, layer="oracle").trace_hash != run(8, layer="oracle").trace_hash


@pytest.mark.parametrize("canary", CANARIES, ids=lambda c: c.name)
def test_canary(canary: Canary) -> None:
    caught, text = judge(canary)
    assert caught, text
