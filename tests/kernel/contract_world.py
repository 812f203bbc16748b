# SPDX-License-Identifier: GPL-2.0-only
"""What the contract tests stand on: the backend (a kernel, or the model of it) and a small world in one cluster of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Protocol

import pytest

from bridge.switch import ConsumerPort, Joined, ProviderPort, Reader
from vcs.errors import SwitchError
from vcs.model import Group, GroupFlags, GroupState, Level, Member, Phase, RingId

WAIT_MS = 10_000
"Far above anything that is right, so that only what never comes fails."
_handles = count(1)


class Port(ProviderPort, ConsumerPort, Protocol):
    """One socket; the ports are not kept apart, the switch must do that."""


class Backend(Protocol):
    """One switch under test. Ports that a test opens are closed behind it by the backend."""

    def port(self) -> Port: ...
    "A socket with every right."
    def tight_port(self) -> Port: ...
    "A socket that holds only a few hints."
    def unprivileged(self) -> AbstractContextManager[Port]: ...
    "A socket of somebody without CAP_SYS_ADMIN; calls are his inside the block."
    def now_ns(self) -> int: ...
    "CLOCK_BOOTTIME."
    def advance(self, ms: int) -> None: ...
    "Let time pass."
    def wait(self, what: str, condition: Callable[[], bool], port: Reader, limit_ms: int = WAIT_MS) -> None: ...
    def resets(self, handle: str) -> int: ...
    "How often that cluster's lease has reset the machine, which runs dry: nothing else comes of it."
    "Until ``condition``, looked at again with every hint on ``port``; fails the test after ``limit_ms``."


@contextmanager
def refused(*errnos: int, attribute: str | None = None) -> Iterator[None]:
    """The block must end with a SwitchError of one of these errnos that says something (and names ``attribute``)."""
    with pytest.raises(SwitchError) as caught:
        yield
    error = caught.value
    assert error.errno in errnos, f"errno {error.errno} ({error}), expected one of {errnos}"
    assert error.message
    if attribute is not None:
        assert error.attribute == attribute


LOSE_MS, LOSE_EVENT = 1500, 1 << 40
"The event lies above those of the tests; what they order after a loss begins above it."


class World:
    """A cluster of its own with an attached provider, whose node has nodeid 1."""

    NODEID = 1

    def __init__(self, backend: Backend, lease_ms: int = 0, attach: bool = True, grace_ms: int = 0) -> None:
        self.backend = backend
        self.handle = f"c{next(_handles)}"
        self.provider = backend.port()
        self.reader = backend.port()
        self.reader.hints()
        self.incarnation = self.reader.info().incarnation
        self.me = Member(self.NODEID, self.incarnation)
        self.peer = Member(2, 0xABCD_EF01_2345_6789)
        self.ring = 0
        self.session = 0
        self.provider.cluster_add(self.handle, f"name-of-{self.handle}", self.NODEID)
        if attach:
            self.attach(lease_ms, grace_ms=grace_ms)

    def attach(self, lease_ms: int = 0, port: Port | None = None, grace_ms: int = 0) -> None:
        self.provider = port or self.provider
        self.session = self.provider.attach(self.handle, lease_ms, grace_ms).session

    def renew(self, valid_from_ns: int = 0) -> int:
        """Renew the lease with evidence of that moment, or of now; returns it."""
        evidence = valid_from_ns or self.backend.now_ns()
        self.provider.lease_renew(self.handle, self.session, evidence)
        return evidence

    def resets(self) -> int:
        return self.backend.resets(self.handle)

    def view(self, *members: Member, quorate: bool = True) -> int:
        """Install a view of these members, by default of this node and its peer."""
        self.ring += 4
        return self.provider.view_set(
            self.handle, self.session, RingId(self.ring, 1), quorate, members or (self.me, self.peer)
        )

    def group(self, name: str = "g") -> Group:
        return self.reader.group(self.handle, name)

    def stop(self, event: int, name: str = "g") -> None:
        self.provider.group_stop(self.handle, self.session, name, event)

    def start(self, event: int, *members: Member, name: str = "g") -> None:
        self.provider.group_start(self.handle, self.session, name, event, members or (self.me,))

    def finish(self, event: int, name: str = "g") -> None:
        self.provider.group_finish(self.handle, self.session, name, event)

    def left(self, name: str = "g", error: int = 0) -> None:
        self.provider.group_left(self.handle, self.session, name, error)

    def consumer(
        self, name: str = "g", flags: GroupFlags = GroupFlags.NONE, owner: str = "tester"
    ) -> Consumer:
        return Consumer(self, name, flags, owner)

    def member(self, event: int, name: str = "g", flags: GroupFlags = GroupFlags.NONE) -> Consumer:
        """A consumer whose group has been through a whole event, with this node alone."""
        consumer = self.consumer(name, flags)
        self.cycle(consumer, event)
        return consumer

    def cycle(self, consumer: Consumer, event: int, *members: Member) -> None:
        self.stop(event, consumer.name)
        consumer.ack(event, Phase.STOP)
        self.start(event, *members, name=consumer.name)
        consumer.ack(event, Phase.START)
        self.finish(event, consumer.name)

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        self.backend.wait(what, condition, self.reader)

    def wait_gone(self, name: str = "g") -> None:
        self.wait(f"group {name} to be gone", lambda: name not in {g.name for g in self.reader.groups(self.handle)})

    def wait_state(self, state: GroupState, name: str = "g") -> None:
        self.wait(f"group {name} to be {state.name}", lambda: self.group(name).state is state)

    def die(self) -> None:
        """The provider's process ends, without a word."""
        self.provider.close()
        self.wait("the provider to be an orphan", lambda: self.provider_state() == "ORPHAN")
        self.provider = self.backend.port()

    def lose(self) -> None:
        """The provider is lost, with all groups: an armed lease runs out, that of a group which then goes."""
        self.die()
        self.attach(LOSE_MS, grace_ms=60_000)
        self.view()
        armed = self.member(LOSE_EVENT, "armed", GroupFlags.NEEDS_FENCE)
        self.wait("the provider to be lost", lambda: self.provider_state() == "LOST")
        armed.leave()
        self.wait_gone("armed")
        self.provider.close()
        self.provider = self.backend.port()

    def provider_state(self) -> str:
        return next(c.provider_state.name for c in self.reader.clusters() if c.handle == self.handle)


class Consumer:
    """One socket that has joined one group."""

    def __init__(self, world: World, name: str, flags: GroupFlags, owner: str) -> None:
        self.world = world
        self.name = name
        self.port = world.backend.port()
        self.joined: Joined = self.port.join(world.handle, name, Level.USER, flags, owner)

    def ack(self, event: int, phase: Phase, session: int | None = None) -> None:
        session = self.joined.session if session is None else session
        self.port.ack(self.world.handle, session, self.name, event, phase)

    def leave(self) -> None:
        self.port.leave(self.world.handle, self.joined.session, self.name)

    def die(self) -> None:
        self.port.close()
