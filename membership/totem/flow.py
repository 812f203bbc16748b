# SPDX-License-Identifier: GPL-2.0-only
"""Flow control (the 1995 paper, section 8), in signed arithmetic: what the token carries is a peer's word and may be anything."""

from __future__ import annotations

from membership.totem.limits import PER_VISIT, WINDOW

COUNT_MAX = 0xFFFFFFFF


def allowance(fcc: int, backlog: int, own_backlog: int, own_last_backlog: int) -> int:
    """Frames (new ones and repairs) that this visit may send, 0 to PER_VISIT.

    ``fcc``: frames sent in the last rotation; ``backlog``: sum of the members' queues; ``own_last_backlog``: our part in it.
    """
    room = min(PER_VISIT, WINDOW - fcc)
    total = max(backlog - own_last_backlog, 0) + own_backlog
    if own_backlog > 0 and total > own_backlog:
        # A fair share of the window, and never nothing: repairs and a lone message must not starve behind others' queues.
        room = min(room, max(1, WINDOW * own_backlog // total))
    return max(room, 0)


def update(counter: int, now: int, before: int) -> int:
    """The token's counter with our last contribution replaced by the new one."""
    return min(max(counter - before + now, 0), COUNT_MAX)
