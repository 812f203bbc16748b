# SPDX-License-Identifier: GPL-2.0-only
"""The engine with one rule broken on purpose: the checkers must notice. Production code knows nothing of this."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from membership.totem import recovery
from membership.totem.core import Core
from membership.totem.ring import Ring
from membership.totem.wire import Entry

if TYPE_CHECKING:
    from membership.api import Processor
    from tests.sim.engine_node import EngineHost


class Canary(AbstractContextManager["Canary"]):
    """Breaks a rule while it is entered: ``replace`` names (owner, attribute, broken function)."""

    replace: tuple[tuple[type | ModuleType, str, Callable[..., Any]], ...] = ()

    def __init__(self) -> None:
        self._whole: list[tuple[type | ModuleType, str, Any]] = []

    def __enter__(self) -> Canary:
        for owner, name, broken in self.replace:
            self._whole.append((owner, name, getattr(owner, name)))
            setattr(owner, name, broken)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for owner, name, whole in self._whole:
            setattr(owner, name, whole)

    def host(self, host: EngineHost) -> None:
        """Break something in one host."""


def _across_a_hole(self: Core, ring: Ring, safe_upto: int) -> None:
    """Delivers whatever is here, in order, and does not wait for what is missing."""
    for seq in sorted(ring.store):
        if seq > ring.delivered:
            frame = ring.store[seq]
            if frame.safe and seq > safe_upto:
                break
            ring.delivered = seq
            self.emit(ring, frame)


class DeliverAcrossAHole(Canary):
    replace = ((Core, "deliver_contiguous", _across_a_hole),)


_contiguous = Core.deliver_contiguous


def _safe_as_agreed(self: Core, ring: Ring, _safe_upto: int) -> None:
    _contiguous(self, ring, 1 << 62)


class SafeAsAgreed(Canary):
    """A safe message is delivered as soon as it is here."""

    replace = ((Core, "deliver_contiguous", _safe_as_agreed),)


class RingSeqNotPersisted(Canary):
    """The write of the ring sequence is left out."""

    def host(self, host: EngineHost) -> None:
        host.persist = lambda ring_seq: None  # type: ignore[method-assign]


def _no_obligations(old: tuple[Processor, ...], entries: list[Entry]) -> tuple[int, bool]:
    """As if no earlier attempt had promised anything."""
    return recovery.mask_of(old, tuple(e.processor for e in entries)), True


class ObligationsDropped(Canary):
    replace = ((recovery, "promise", _no_obligations),)


ENGINE_CANARIES: dict[str, type[Canary]] = {
    "deliver_across_a_hole": DeliverAcrossAHole,
    "safe_as_agreed": SafeAsAgreed,
    "ring_seq_not_persisted": RingSeqNotPersisted,
    "obligations_dropped": ObligationsDropped,
}
