# SPDX-License-Identifier: GPL-2.0-only
"""What one node has to say about several groups at once travels as one message. Pure.

A message costs every node a look at every group. When a node dies that is in a hundred lockspaces, each survivor has a hundred
acknowledgements for each barrier: one by one they would cost the square of their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge.coordinator.messages import BUNDLE_MAX, Ack, Body, Bundle, GroupWord, Join, Leave

FEATURE_BUNDLE: Final = 3
"First feature level whose members understand one."
WORDS: Final = (Join, Leave, Ack)


def pack(words: Sequence[GroupWord], feature: int) -> list[Body]:
    """The messages to submit, in this order; ``feature`` is the level in force."""
    if feature < FEATURE_BUNDLE or len(words) < 2:
        return list(words)
    return [Bundle(tuple(words[i : i + BUNDLE_MAX])) for i in range(0, len(words), BUNDLE_MAX)]


def unpack(body: Body) -> Sequence[Body]:
    """What is said in a message."""
    return body.words if isinstance(body, Bundle) else (body,)
