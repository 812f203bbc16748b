# SPDX-License-Identifier: GPL-2.0-only
"""How long groups take to stop, to start and to be back, from the switch's tracepoints; and histograms as bcc prints them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tools.tracepoints import Event
from vcs.model import Phase

KINDS = {
    "stop": "from the order to stop until the consumer has acknowledged it",
    "start": "from the order to start until the consumer has acknowledged it",
    "recovery": "from the first stop until the finish, events that replaced it included",
}
STARS = 40


@dataclass(frozen=True, slots=True)
class Took:
    """One measured time."""

    handle: str
    group: str
    kind: str
    ns: int


@dataclass(slots=True)
class _Round:
    """What is open of a group."""

    begun_ns: int
    "Of the first stop since the last finish."
    event: int
    ordered_ns: int
    phase: Phase


class Latency:
    """Feed it every event; it answers with what an event ends."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Round] = {}

    def feed(self, event: Event) -> list[Took]:
        """What began before the tracing is not measured; a group that is left or lost in between is forgotten."""
        key = (event.text("handle"), event.text("group"))
        now = self._open.get(key)
        took: list[Took] = []
        match event.name:
            case "vcs_group_stop":
                begun = event.ns if now is None else now.begun_ns
                self._open[key] = _Round(begun, event.number("event"), event.ns, Phase.STOP)
            case "vcs_group_start" if now is not None:
                now.ordered_ns, now.phase = event.ns, Phase.START
            case "vcs_group_ack" if now is not None and event.number("acked_event") == now.event:
                if event.number("acked_phase") == now.phase and now.phase in (Phase.STOP, Phase.START):
                    took = [Took(*key, now.phase.name.lower(), event.ns - now.ordered_ns)]
            case "vcs_group_finish" if now is not None:
                took = [Took(*key, "recovery", event.ns - now.begun_ns)]
                del self._open[key]
            case "vcs_group_left" | "vcs_group_lost":
                self._open.pop(key, None)
        return took


def histogram(values: Iterable[int], unit: str) -> list[str]:
    """Lines of a histogram over powers of two: the bucket of 0 and 1, then 2 to 3, 4 to 7..."""
    counts: dict[int, int] = {}
    for value in values:
        bucket = max(value.bit_length() - 1, 0)
        counts[bucket] = counts.get(bucket, 0) + 1
    if not counts:
        return []
    most = max(counts.values())
    lines = [f"     {unit:<19} : count     distribution"]
    for bucket in range(min(counts), max(counts) + 1):
        low, high = (1 << bucket if bucket else 0), (1 << bucket + 1) - 1
        count = counts.get(bucket, 0)
        lines.append(f"{low:>10} -> {high:<10} : {count:<8} |{'*' * (count * STARS // most):<{STARS}}|")
    return lines
