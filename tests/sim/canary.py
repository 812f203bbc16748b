# SPDX-License-Identifier: GPL-2.0-only
"""What a canary is: a rule broken on purpose, and the checkers that may catch it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch


@contextmanager
def swap(*changes: tuple[object, str, object]) -> Iterator[None]:
    """Replace functions for the length of one run; put back whatever happens."""
    held = [patch.object(where, name, new) for where, name, new in changes]
    for change in held:
        change.start()
    try:
        yield
    finally:
        for change in held:
            change.stop()


@dataclass(frozen=True, slots=True)
class Canary:
    name: str
    caught_by: frozenset[str]
    "Names of the checkers that may catch it."
    broken: Callable[[], Any]
    "Context manager in which the rule is broken."
    faults: tuple[str, ...] = ()
    "Faults that the breakage needs; empty: whatever the seeds draw."
    lease: bool = False
    "Only clusters that fence themselves."
    engine: str = ""
    "Name of the engine's canary, if the rule is below the coordinator."
    rule: str = ""
    "Name of the story (rules.py) that shows it; empty: drawn seeds do."
