# SPDX-License-Identifier: GPL-2.0-only
"""Recorded output: the log of a scenario's run without chance, kept in tests/golden/totem and compared line by line.

A difference is no proof of an error: it says that the protocol now does something else, or the same at another time. Read it; if it
is meant, ``make golden`` records anew (or ``python -m tests.scenarios.golden test_t06_...`` for some), and the diff is part of the
commit.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.script import Script

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "totem"
DIFFERENCES_SHOWN = 40

Body = Callable[..., None]


@dataclass(slots=True)
class Scenario:
    """A script with its name, and the ways in which it is run."""

    name: str
    body: Body
    options: dict[str, Any] = field(default_factory=dict)
    "Of :class:`Script`."
    cases: Sequence[Any] = ()
    "Values of the body's second argument; the first is the recorded one."
    seeds: int = 3
    "Runs with varying delays, for every case."

    def run(self, case: Any, **options: Any) -> Script:
        script = Script(**{**self.options, **options})
        if self.cases:
            self.body(script, case)
        else:
            self.body(script)
        script.end()
        return script

    def recorded(self) -> str:
        """The log of the run without chance."""
        case = self.cases[0] if self.cases else None
        script = self.run(case)
        about = (self.body.__doc__ or self.name).strip().splitlines()[0]
        head = [f"# {self.name}{f' {case}' if self.cases else ''}: {about}",
                f"{'# ms':>12}  {'who':>3}  {'state':<11}  event"]
        return "\n".join(line.rstrip() for line in [*head, *script.log]) + "\n"

    @property
    def path(self) -> Path:
        return GOLDEN / f"{self.name.removeprefix('test_')}.txt"

    def compare(self) -> None:
        want = self.path.read_text() if self.path.exists() else ""
        got = self.recorded()
        if got != want:
            lines = list(difflib.unified_diff(want.splitlines(), got.splitlines(), "recorded", "now", lineterm="", n=2))
            raise AssertionError("\n".join([f"{self.name}: not as recorded; if this is meant: make golden", *lines[:DIFFERENCES_SHOWN]]))

    def others(self) -> None:
        """Every case, with varying delays; a failure names its seed."""
        for case in self.cases or (None,):
            for seed in range(self.seeds):
                try:
                    self.run(case, seed=f"{self.name}/{seed}", jitter=True)
                except Exception as e:
                    e.add_note(f"{self.name}: case {case!r}, seed {seed}")
                    raise


SCENARIOS: dict[str, Scenario] = {}


def scenario(nodes: Any = 3, cases: Sequence[Any] = (), seeds: int = 3, **options: Any) -> Callable[[Body], Callable[[str], None]]:
    """Make a script a test: once compared with its recorded log, and once over cases and seeds."""

    def register(body: Body) -> Callable[[str], None]:
        made = SCENARIOS[body.__name__] = Scenario(body.__name__, body, {"nodes": nodes, **options}, tuple(cases), seeds)

        def test(how: str) -> None:
            if how == "recorded":
                made.compare()
            else:
                made.others()

        test.__name__ = body.__name__
        test.__doc__ = body.__doc__
        test.__module__ = body.__module__
        ways = ["recorded", "seeds"] if seeds else ["recorded"]
        return pytest.mark.parametrize("how", ways)(test)

    return register


def modules() -> list[str]:
    return [f"tests.scenarios.{p.stem}" for p in sorted(HERE.glob("test_*.py"))]


def main(names: list[str]) -> int:
    """Record ``names``, or all; the files of scenarios that are gone are removed."""
    for module in modules():
        importlib.import_module(module)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    wanted = {n.removesuffix(".txt") for n in names} or set(SCENARIOS)
    failed = 0
    for name in sorted(wanted):
        try:
            text = SCENARIOS[name].recorded()
        except Exception as e:
            print(f"{name}: {str(e).splitlines()[0]}", file=sys.stderr)
            failed += 1
            continue
        old = SCENARIOS[name].path.read_text() if SCENARIOS[name].path.exists() else ""
        if text != old:
            SCENARIOS[name].path.write_text(text)
            print(f"recorded {name}")
    if not names:
        for path in GOLDEN.glob("*.txt"):
            if f"test_{path.stem}" not in SCENARIOS:
                path.unlink()
                print(f"removed {path.stem}")
    return 1 if failed else 0


if __name__ == "__main__":
    # ``python -m`` runs this file under another name than the scenarios import: use theirs.
    sys.exit(importlib.import_module("tests.scenarios.golden").main(sys.argv[1:]))
