# SPDX-License-Identifier: GPL-2.0-only
"""What people want of this node: to leave, to be restarted, to have something ordered. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.coordinator.api import PlannedRestart
from bridge.coordinator.state import FAILED

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator


def leave(c: Coordinator) -> None:
    held = sorted(c.feed.switch or {})
    if held:
        c.feed.note("leave_refused", groups=held, why=f"this node is still in {', '.join(held)}")
    else:
        c.feed.leave_wanted = True


def restart(c: Coordinator, event: PlannedRestart) -> None:
    """The others are told, in the order, before the daemon goes: so its absence is no doubt (SAFETY S16)."""
    if c.deciding and c.state.admitted(c.local.nodeid):
        c.feed.restart_ms = event.planned_ms
    else:
        c.feed.note("restart_refused", why="this node is not in a quorate configuration: there is nobody to tell")


def say(c: Coordinator) -> None:
    """What administrators want: say it to everybody, or say that it cannot be said."""
    me = c.state.nodes.get(c.local.nodeid)
    for body in list(c.feed.commands):
        if c.mode.value in ("inquorate", "waiting"):
            c.feed.answer(body, False, "there is no quorum here, so nothing can be ordered; see `vcs quorum`")
        elif c.mode.value == "primary" and me is not None and me.status == FAILED:
            c.feed.answer(body, False, "this node has failed; ask another one")
        elif c.mode.value == "primary":
            c.feed.say(body)
