# SPDX-License-Identifier: GPL-2.0-only
"""Rules of [[dlm.lockspace]]: every lockspace once, weights of nodes that exist, and somebody to have a share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcs.config.model import LockspaceConfig
from vcs.config.problems import Problems


def check(tables: list[dict[str, Any]], nodes: list[dict[str, Any]], problems: Problems) -> tuple[LockspaceConfig, ...]:
    """What could be read of the tables, in order of their names."""
    ids = {str(n[key]): int(n["id"]) for n in nodes if "id" in n for key in ("id", "name") if key in n}
    found: dict[str, LockspaceConfig] = {}
    for table in tables:
        name, path = table.get("name"), table["_path"]
        if name is None:
            continue
        if "/" in name or name.startswith("."):
            problems.add((*path, "name"), f"{name!r} is no lockspace", "write the name that /sys/kernel/dlm shows")
        if name in found:
            problems.add((*path, "name"), f"{name!r} stands twice", "keep one of the two")
        weights = _weights(table.get("weights", {}), (*path, "weights"), ids, problems)
        found[name] = LockspaceConfig(name, bool(table.get("nodir", False)), weights)
    return tuple(found[name] for name in sorted(found))


def _weights(table: Mapping[str, int], path: tuple[str | int, ...], ids: Mapping[str, int], problems: Problems) -> dict[int, int]:
    weights: dict[int, int] = {}
    for name, weight in table.items():
        if name not in ids:
            problems.add(path, f"{name!r} is no node", "write the name or id of a [[node]]")
        elif ids[name] in weights:
            problems.add(path, f"node {name} stands twice", "by its name or by its id, once")
        else:
            weights[ids[name]] = weight
    if weights and not any(weights.values()):
        problems.add(path, "no node has a share", "give at least one node a weight above 0")
    return weights
