# SPDX-License-Identifier: GPL-2.0-only
"""Which method is tried when. Pure.

A failed attempt counts for the whole cluster; which method it was is the fencer's business, by its own configuration. So two nodes whose
files differ for a moment still agree on the state. With ``tries`` = 2 and two methods::

    attempt    0    1    2    3    4    5    6 ...
    method     a    a    b    b    a    a    b ...      by another fencer each time, where there is one
    pause      -    1 s  -    2 s  4 s  8 s  -          before it: another method begins at once, one that has failed waits
"""

from __future__ import annotations

from typing import Final

from vcs.config.model import ClusterConfig

SHIFT_MAX: Final = 16


def turn(attempt: int, methods: int, tries: int) -> int:
    """Index of the method for the attempt after ``attempt`` failed ones."""
    return (attempt // tries) % methods if methods else 0


def pause_ms(attempt: int, methods: int, tries: int, first_ms: int, longest_ms: int) -> int:
    """Pause before the attempt after ``attempt`` failed ones."""
    if not attempt or (methods > 1 and attempt % tries == 0 and attempt % (tries * methods)):
        return 0
    # A change of method was no wait, so it does not make the next one longer.
    whole, part = divmod(attempt, tries * methods) if methods else (0, 0)
    changes = whole * (methods - 1) + (part - 1) // tries if part else whole * (methods - 1)
    return min(first_ms << min(attempt - 1 - max(changes, 0), SHIFT_MAX), longest_ms)


def of(config: ClusterConfig, nodeid: int, attempt: int, cut: bool = False) -> tuple[int, int]:
    """(index of the method, pause before it in ms) for the next attempt on ``nodeid``. ``cut``: the last one did cut it off, by its
    device's word, and yet it has power. Then it may be booting, and its new boot ends the obligation unless we cut it off for ever."""
    methods, rules = len(config.fence_methods(nodeid)), config.fencing
    pause = pause_ms(attempt, methods, rules.tries, rules.retry_ms, rules.retry_max_ms)
    return turn(attempt, methods, rules.tries), max(pause, rules.boot_ms) if cut and pause else pause


def name(config: ClusterConfig, nodeid: int, index: int) -> str:
    """How people call the method."""
    found = config.fence_methods(nodeid)
    return found[index].name if index < len(found) else ""
