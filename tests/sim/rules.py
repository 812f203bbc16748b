# SPDX-License-Identifier: GPL-2.0-only
"""All stories of the files scenarios_*.py in this folder, and all canaries of canaries_*.py: a new file is found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import tests.sim
from tests.sim.canary import Canary
from tests.sim.scenarios import Rule


def _modules(prefix: str) -> Iterator[ModuleType]:
    for name in sorted(m.name for m in pkgutil.iter_modules(tests.sim.__path__) if m.name.startswith(prefix)):
        yield importlib.import_module(f"tests.sim.{name}")


def all_rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for module in _modules("scenarios_"):
        assert not found.keys() & module.RULES.keys(), f"{module.__name__} tells a rule that another file tells"
        found |= module.RULES
    return found


def all_canaries() -> tuple[Canary, ...]:
    """Those that a story shows."""
    return tuple(c for module in _modules("canaries_") for c in getattr(module, "CANARIES", ()))
