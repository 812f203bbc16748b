# SPDX-License-Identifier: GPL-2.0-only
"""One seed, one trace: in one process, with another hash seed, and on another Python of another word size."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.sim.engine_run import run_engine_seed
from tests.sim.second_python import ROOT, evaluate

SEEDS = range(20)
CODE = """
import json, sys
from tests.sim.engine_run import run_engine_seed
json.dumps([list(sys.version_info[:2]), [[r.trace_hash, r.events] for r in map(run_engine_seed, range({}, {}))]])
"""


def test_two_python_versions_give_the_same_traces() -> None:
    version, there = json.loads(evaluate(CODE.format(SEEDS.start, SEEDS.stop)))
    assert tuple(version) != sys.version_info[:2], "the second Python is the first one"
    here = [[r.trace_hash, r.events] for r in map(run_engine_seed, SEEDS)]
    differ = [seed for seed, a, b in zip(SEEDS, here, there, strict=True) if a != b]
    assert not differ, f"seeds {differ} run differently on Python {version}"
    assert len({h for h, _events in here}) == len(SEEDS), "different seeds give different traces"


def test_another_hash_seed_gives_the_same_traces() -> None:
    here = {seed: run_engine_seed(seed).trace_hash for seed in (1, 2, 3)}
    for seed, trace in here.items():
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim.batch", "--hash", f"--seed={seed}", "--layer=engine"], cwd=ROOT, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed + 40)}, capture_output=True)
        assert done.stdout.strip() == trace, f"seed {seed} depends on the hash seed"
