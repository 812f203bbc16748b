# SPDX-License-Identifier: GPL-2.0-only
"""The userland model of the switch under the contract that the kernel's passes too."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bridge.switch import Reader
from tests.fakes.switch import FakeSwitch
from tests.fakes.switch_port import FakePort
from tests.kernel.contract import *  # noqa: F403  (the tests)
from tests.kernel.contract_lease import *  # noqa: F403
from tests.kernel.contract_world import WAIT_MS, Backend, World
from vcs.model import GroupFlags

STEP_MS = 10


class FakeBackend:
    """The model with a clock that the test moves."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000
        self.switch = FakeSwitch(0x1234_5678_9ABC_DEF0, self.now_ns)

    def port(self) -> FakePort:
        return self.switch.provider()

    def tight_port(self) -> FakePort:
        return self.switch.provider(hints_max=8)

    @contextmanager
    def unprivileged(self) -> Iterator[FakePort]:
        yield self.switch.reader()

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, ms: int) -> None:
        self._now_ns += ms * 1_000_000
        self.switch.tick()

    def wait(self, what: str, condition: Callable[[], bool], port: Reader, limit_ms: int = WAIT_MS) -> None:
        for _ in range(limit_ms // STEP_MS):
            if condition():
                return
            self.advance(STEP_MS)
        pytest.fail(f"waited for {what}")

    def resets(self, handle: str) -> int:
        return self.switch.resets


@pytest.fixture
def backend() -> Backend:
    return FakeBackend()


def test_the_descriptor_is_readable_while_there_are_hints() -> None:
    backend = FakeBackend()
    world, port = World(backend), backend.port()
    poll = select.poll()
    poll.register(port.hints_fd(), select.POLLIN)
    assert not poll.poll(0)
    world.view()
    world.view()
    assert poll.poll(0)
    assert len(port.hints()) == 2
    assert not poll.poll(0)
    port.close()


def test_next_deadline_is_when_the_lease_runs_out() -> None:
    backend = FakeBackend()
    world = World(backend, lease_ms=1000, grace_ms=500)
    world.view()
    assert backend.switch.next_deadline() is None
    world.member(10, flags=GroupFlags.NEEDS_FENCE)
    assert backend.switch.next_deadline() == backend.now_ns() + 1_000_000_000
    backend.advance(999)
    assert world.provider_state() == "ATTACHED"
    backend.advance(1)
    assert world.provider_state() == "LOST"
    assert backend.switch.next_deadline() == backend.now_ns() + 500_000_000
    backend.advance(500)
    assert (world.resets(), backend.switch.next_deadline()) == (1, None)


def test_the_observer_sees_every_change_in_order() -> None:
    seen: list[str] = []
    switch = FakeSwitch(5, observer=lambda what, handle, group, number: seen.append(what))
    port = switch.provider()
    port.cluster_add("c", "n", 1)
    port.attach("c", 0)
    port.close()
    assert seen == ["cluster_add", "provider_attach", "provider_orphan"]
