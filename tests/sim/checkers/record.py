# SPDX-License-Identifier: GPL-2.0-only
"""What the checkers of the engine look at, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from membership.api import Configuration, Kind, Message, Processor
from tests.sim.engine_node import EngineHost, Node
from tests.sim.world import Violation
from vcs.model import RingId

Key = tuple[RingId, Processor | None]
"""One configuration. The second part is its representative where disks are lost: a node without its file may use a ring sequence again,
and its incarnation tells the two apart (docs/totem.md)."""


@dataclass(slots=True)
class Period:
    """What one processor was told inside one configuration."""

    conf: Configuration
    key: Key
    regular: Key
    "The regular configuration that it is, or comes from."
    messages: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class Sent:
    """One message as it was submitted."""

    sender: Processor
    safe: bool
    ring: RingId | None
    "The regular configuration that its sender was in, None before the first."
    past: int
    "How many messages its sender had been told in that configuration."
    number: int
    "Position among all that were submitted."


@dataclass(slots=True)
class Record:
    """Everything that the checkers look at."""

    disks_lost: bool = False
    periods: dict[Processor, list[Period]] = field(default_factory=dict)
    submitted: dict[bytes, Sent] = field(default_factory=dict)
    "Payloads are unique."
    dead: set[Processor] = field(default_factory=set)
    hosts: dict[Processor, EngineHost] = field(default_factory=dict)
    _installed: dict[tuple[Processor, RingId], int] = field(default_factory=dict)
    _delivered: dict[tuple[Processor, RingId], set[bytes]] = field(default_factory=dict)

    def key(self, conf: Configuration) -> Key:
        return conf.ring, conf.members[0] if self.disks_lost else None

    def origin(self, p: Processor, conf: Configuration) -> Key:
        """The regular configuration that ``conf``, about to be told to ``p``, is or comes from."""
        periods = self.periods.get(p)
        return self.key(conf) if conf.kind is Kind.REGULAR or not periods else periods[-1].regular

    def add_configuration(self, p: Processor, conf: Configuration) -> None:
        periods = self.periods.setdefault(p, [])
        periods.append(Period(conf, self.key(conf), self.origin(p, conf)))
        if conf.kind is Kind.REGULAR:
            self._installed.setdefault((p, conf.ring), len(periods) - 1)

    def add_submitted(self, payload: bytes, p: Processor, safe: bool) -> None:
        periods = self.periods.get(p)
        last = periods[-1] if periods else None
        ring = last.conf.ring if last is not None and last.conf.kind is Kind.REGULAR else None
        self.submitted[payload] = Sent(p, safe, ring, len(last.messages) if last is not None and ring is not None else 0,
                                       len(self.submitted))

    def installed(self, p: Processor, ring: RingId) -> int | None:
        """Index of the regular configuration ``ring`` at ``p``, None if it never installed it."""
        return self._installed.get((p, ring))

    def delivered_in(self, p: Processor, ring: RingId) -> set[bytes]:
        """Payloads that ``p`` delivered in ``ring`` or its transitional successor. Only at the end: the answer is kept."""
        out = self._delivered.get((p, ring))
        if out is None:
            out = self._delivered[p, ring] = {m.payload for m in self.history(p, ring)}
        return out

    def history(self, p: Processor, ring: RingId) -> list[Message]:
        """The messages that ``p`` delivered in ``ring`` and then in its transitional successor."""
        at = self.installed(p, ring)
        if at is None:
            return []
        periods = self.periods[p]
        return periods[at].messages + (periods[at + 1].messages if at + 1 < len(periods) else [])

    def walk(self) -> Iterator[tuple[Processor, int, Period]]:
        for p, periods in self.periods.items():
            for i, period in enumerate(periods):
                yield p, i, period


class Checker:
    """Sees every event before it is recorded, and everything at the end."""

    name = ""

    def __init__(self, record: Record) -> None:
        self.record = record

    def fail(self, detail: str) -> None:
        raise Violation(self.name, detail)

    def on_configuration(self, p: Processor, conf: Configuration) -> None: ...

    def on_message(self, p: Processor, message: Message) -> None: ...

    def after_event(self, node: Node, host: EngineHost) -> None: ...

    @classmethod
    def watches(cls, what: str) -> bool:
        """This checker has its own method for ``what``: the others need not be called."""
        return getattr(cls, what) is not getattr(Checker, what)

    def at_end(self) -> None: ...
