# SPDX-License-Identifier: GPL-2.0-only
"""Flow control (the 1995 paper, section 8), in signed arithmetic: what the token carries is a peer's word and may be anything.

All is counted in units of about one segment, so that what is on its way is bounded in bytes whatever the frames' sizes are. The
window is what one rotation may carry; the token bears the smallest that any member can take.
"""

from __future__ import annotations

from membership.totem.limits import LOSS_SAMPLE, PAYLOAD_MAX, PAYLOAD_MIN, PER_VISIT, SEGMENT, WINDOW

COUNT_MAX = 0xFFFFFFFF


def units(size: int) -> int:
    """What ``size`` bytes of a frame weigh: at least 1."""
    return size // SEGMENT + 1


def window(buffer_bytes: int) -> int:
    """Units per rotation that a receive buffer takes. The kernel counts its own bookkeeping, up to as much again as the datagram; and
    what a member sent after the token may still wait when the next rotation's frames come."""
    return min(max(buffer_bytes // (2 * 2 * SEGMENT), 1), WINDOW)


def allowance(fcc: int, own_sent: int, backlog: int, own_backlog: int, own_last_backlog: int, limit: int = WINDOW) -> int:
    """Units (new frames and repairs) that this visit may send, 0 to PER_VISIT; the last frame may go beyond it.

    ``fcc``: units sent in the last rotation, ``own_sent`` our part in it; ``backlog``: sum of the members' queues,
    ``own_last_backlog`` our part in it; ``limit``: the window that the token bears.
    """
    limit = min(limit, WINDOW)
    room = min(PER_VISIT, limit - max(fcc - own_sent, 0))
    total = max(backlog - own_last_backlog, 0) + own_backlog
    if own_backlog > 0 and total > own_backlog:
        # A fair share of the window, and never nothing: repairs and a lone message must not starve behind others' queues.
        room = min(room, max(1, limit * own_backlog // total))
    return max(room, 0)


def update(counter: int, now: int, before: int) -> int:
    """The token's counter with our last contribution replaced by the new one."""
    return min(max(counter - before + now, 0), COUNT_MAX)


class FrameSize:
    """How large a frame to make: a frame of many segments is lost when one of them is.

    Of each LOSS_SAMPLE frames of the ring or more, the share that was sent again is looked at: above an eighth the size is halved,
    below a thirty-second it grows by a quarter.
    """

    __slots__ = ("payload_max",)

    def __init__(self) -> None:
        self.payload_max = PAYLOAD_MAX

    def judge(self, sent: int, again: int) -> bool:
        """``again`` of ``sent`` frames were sent again. False: too few to say anything; the count goes on."""
        if sent < LOSS_SAMPLE:
            return False
        if again * 8 > sent:
            self.payload_max = max(self.payload_max // 2, PAYLOAD_MIN)
        elif again * 32 <= sent:
            self.payload_max = min(self.payload_max + max(self.payload_max // 4, SEGMENT), PAYLOAD_MAX)
        return True
