# SPDX-License-Identifier: GPL-2.0-only
"""The engine interface: what every membership protocol under the bridge offers.

An engine gives one totally ordered stream under extended virtual synchrony (Moser, Amir, Melliar-Smith, Agarwal, ICDCS 1994):
configurations and messages arrive through one sink, in one order, and every member that goes from one configuration to the next
together with us has seen the same messages between the two. Kinds alternate: regular, transitional, regular. The first
configuration after a start is the singleton of the node itself.

An engine is found by the entry point group ``vcs.engines``; its factory takes :class:`EngineContext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from vcs.errors import VcsError
from vcs.model import RingId

if TYPE_CHECKING:
    from vcs.config.model import ClusterConfig
    from vcs.report import RingReport


class Order(IntEnum):
    """How a message is delivered. AGREED: in the total order. SAFE: and only when every member is known to hold it."""

    AGREED = 1
    SAFE = 2


class Kind(IntEnum):
    REGULAR = 1
    TRANSITIONAL = 2


class Processor(NamedTuple):
    """One engine process: ``boot`` is the kernel's incarnation, ``engine`` the process's own (SAFETY S1).

    A named tuple, because gatherings compare, sort and hash many of them.
    """

    nodeid: int
    boot: int
    engine: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """A membership, delivered in the stream. A transitional one ends the regular one before it: what is delivered inside it
    updates state, but nothing may be decided on it (SAFETY S5)."""

    kind: Kind
    ring: RingId
    members: tuple[Processor, ...]
    "Sorted by nodeid; always contains the local processor."


class Message(NamedTuple):
    """An application message, in its place. A tuple, because a busy stream makes very many."""

    sender: Processor
    ring: RingId
    "The regular configuration that it was sent in."
    seq: int
    "Position in the order of that ring (u64, strictly rising); several messages of one frame share it and keep their order."
    payload: bytes


@dataclass(frozen=True, slots=True)
class Rotation:
    """Evidence of quorum for the lease (SAFETY S9): a whole token rotation of a *regular* configuration is complete, and it began
    at ``began_ns`` (CLOCK_BOOTTIME), before this node sent what all members of ``ring`` then proved to have received."""

    ring: RingId
    began_ns: int


@dataclass(frozen=True, slots=True)
class Health:
    """What the engine noticed about a peer, for people and for the coordinator's evidence: never a verdict."""

    nodeid: int
    what: str
    "One of: silent, suspect, process_dead, left, returned."
    detail: str = ""
    engine: int = 0
    "Engine incarnation of the process that is meant; 0 where only the node is."


EngineEvent = Configuration | Message | Rotation | Health
Sink = Callable[[EngineEvent], None]


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine is made from."""

    config: ClusterConfig
    local: Processor
    state_dir: str
    "Folder for what must survive a restart (the ring sequence); private to the engine."
    sink: Sink
    "Called on the event loop's thread, in order; must not block."
    note: Callable[[str, dict[str, object]], None]
    "Structured note for the event log: (event name, fields)."


class Engine(ABC):
    """A running engine. All methods are called on one asyncio event loop's thread."""

    @abstractmethod
    async def start(self) -> None:
        """Begin: the singleton configuration reaches the sink before this returns. Raises VcsError if it cannot (address in use...)."""

    @abstractmethod
    async def leave(self) -> None:
        """Tell the others, stop, close. Idempotent. Nothing reaches the sink after it returned."""

    @abstractmethod
    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        """Queue a message. It is delivered to its sender too. Raises VcsError when larger than ``max_message`` or when the queue
        is full (the named limit of the engine)."""

    def reconfigure(self, config: ClusterConfig) -> None:
        """Take another configuration while running. Raises VcsError, with nothing changed, when that needs a restart."""
        raise VcsError("this engine takes another configuration at its start only", "restart it")

    @property
    @abstractmethod
    def max_message(self) -> int:
        """Largest payload in bytes."""

    @abstractmethod
    def status(self) -> dict[str, object]:
        """What `vcs status` shows of the engine: JSON-able."""

    def ring_report(self, names: Callable[[int], str], times: Callable[[int], str]) -> RingReport:
        """What `vcs ring` shows; an engine fills what it knows. ``names``: how a node is called; ``times``: how a CLOCK_BOOTTIME in ns
        is told as a time of day."""
        status = self.status()
        members = status.get("members")
        return {
            "engine": type(self).__name__,
            "state": str(status.get("state", "")),
            "local": 0,
            "ring": str(status.get("ring", "")),
            "members": list(members) if isinstance(members, list | tuple) else [],
        }
