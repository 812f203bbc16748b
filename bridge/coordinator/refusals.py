# SPDX-License-Identifier: GPL-2.0-only
"""What was found wrong in the order. This node's joins: how its switch is told, and why, for whoever asks. Not replicated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from bridge.coordinator.api import Notice

TOLD_MAX: Final = 64


@dataclass(slots=True)
class Refusals:
    current: dict[str, int] = field(default_factory=dict)
    "Groups that the switch still shows -> errno."
    told: dict[str, tuple[int, str]] = field(default_factory=dict)
    "(errno, words), the newest TOLD_MAX."

    def read(self, held: Collection[str]) -> None:
        """The switch holds these groups now: another try of one that is gone is a new one."""
        self.current = {name: code for name, code in self.current.items() if name in held}

    def heard(self, notes: list[Notice]) -> None:
        """What the delivery of an own message has led to."""
        for fields in (n.fields for n in notes if n.event == "join_refused"):
            name, code = str(fields["group"]), int(str(fields["error"]))
            self.current[name] = code
            self.told.pop(name, None)
            self.told[name] = (code, str(fields["why"]))
            while len(self.told) > TOLD_MAX:
                del self.told[next(iter(self.told))]


def of_command(notes: list[Notice]) -> str:
    """Why a command changed nothing."""
    return next((str(n.fields.get("why", "")) for n in reversed(notes) if n.event == "command_refused"), "nothing is to be changed")
