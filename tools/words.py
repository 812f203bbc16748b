# SPDX-License-Identifier: GPL-2.0-only
"""The fields of our tracepoints in words. Pure."""

from __future__ import annotations

import errno

from tools.tracepoints import Event
from vcs.model import GroupState, Phase, ProviderState, event_text

CALLS = ("-", "stop", "start", "finish", "lost", "left")
QUORATE = 1
CLUSTER = ("cluster", "handle")
"In a column of their own."
EVENTS = ("event", "acked_event", "current_event")


def word(event: Event, name: str) -> str:
    """The value of one field. Unknown numbers stay numbers."""
    value = event.fields[name]
    if isinstance(value, str):
        return value
    kind: type[Phase] | type[GroupState] | type[ProviderState] | None = None
    if name in ("phase", "acked_phase"):
        kind = Phase
    elif name == "state":
        kind = GroupState if "group" in event.fields else ProviderState
    if kind is not None:
        return kind(value).name.lower() if value in list(kind) else str(value)
    if name in EVENTS:
        return event_text(value) if value else "-"
    if name == "err":
        return errno.errorcode.get(abs(value), str(value)) if value else "0"
    if name == "call":
        return CALLS[value] if 0 <= value < len(CALLS) else str(value)
    if name == "flags" and event.name.startswith("vcs_view"):
        return "quorate" if value & QUORATE else "-"
    return f"{value:x}" if name == "incarnation" else str(value)


def details(event: Event) -> str:
    """All fields but the cluster's, as key=value; a view's ring as one."""
    parts = []
    for name in event.fields:
        if name in CLUSTER or name == "ring_rep":
            continue
        if name == "ring_seq":
            parts.append(f"ring={word(event, name)}.{word(event, 'ring_rep')}")
        else:
            parts.append(f"{name}={word(event, name)}")
    return " ".join(parts)
