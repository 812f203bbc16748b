# SPDX-License-Identifier: GPL-2.0-only
"""How much a core holds: every object that can be reached from it, counted. What grows without end shows here at once."""

from __future__ import annotations

import gc
import types
from collections import deque

_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType, types.MappingProxyType)


def reachable(*roots: object) -> int:
    """Objects below ``roots``, code and classes left out. Small integers and the like count once."""
    seen: set[int] = set()
    waiting: deque[object] = deque(roots)
    while waiting:
        item = waiting.popleft()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        waiting.extend(gc.get_referents(item))
    return len(seen)


def resident_kb(pid: int | str = "self") -> int:
    """VmRSS of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
