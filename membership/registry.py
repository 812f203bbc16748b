# SPDX-License-Identifier: GPL-2.0-only
"""Engines by name: the built-in ones, and those that other distributions declare under the entry point group ``vcs.engines``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from membership.api import Engine, EngineContext
from vcs.errors import ConfigError

GROUP = "vcs.engines"
BUILT_IN = {"totem": "membership.totem.driver:TotemEngine", "static": "membership.static:StaticEngine"}
"Also found without an installed distribution; pyproject.toml declares the same."


def _declared() -> dict[str, str]:
    """Engines of other distributions: name -> ``module:attribute``."""
    from importlib.metadata import entry_points  # slow to import, and not needed for an engine of ours

    return {e.name: e.value for e in entry_points(group=GROUP)}


def known() -> list[str]:
    """Names of all engines, sorted."""
    return sorted(BUILT_IN.keys() | _declared().keys())


def factory(name: str) -> Callable[[EngineContext], Engine]:
    """The factory of the engine ``name``. Raises ConfigError, naming the known ones, if there is none or it cannot be imported."""
    target = BUILT_IN.get(name) or _declared().get(name)
    if target is None:
        raise ConfigError([f"unknown engine {name!r}; known ones: {', '.join(known())}"])
    module, _, attribute = target.partition(":")
    try:
        made: Callable[[EngineContext], Engine] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise ConfigError([f"engine {name!r} ({target}) cannot be loaded: {e}"]) from e
    return made
