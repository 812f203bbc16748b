# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading vcs.ko, and its C interface through the test consumer module. Runs as root inside a virtual
machine (tests/kernel/test_contract_vm.py starts it)."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.contract_world import World, refused
from tests.kernel.guest_contract import KernelBackend
from vcs.errors import SwitchError
from vcs.netlink import KernelSwitch

MODULES = Path("/proc/modules")


def loaded(name: str = "vcs") -> bool:
    return any(line.split()[0] == name for line in MODULES.read_text().splitlines())


def unload(name: str = "vcs") -> str:
    """What rmmod complained of; empty when the module is gone."""
    return subprocess.run(["rmmod", name], capture_output=True, text=True, check=False).stderr


def load(name: str = "vcs", *options: str) -> None:
    subprocess.run(["modprobe", name, *options], check=True, timeout=30)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    backend = KernelBackend()
    yield backend
    if loaded():
        backend.clean()
    else:
        load()


def test_the_module_is_not_unloaded_under_anybody(backend: KernelBackend) -> None:
    world = World(backend, attach=False)
    consumer = world.consumer()
    assert "in use" in unload()
    world.attach()
    assert "in use" in unload()
    world.view()
    world.cycle(consumer, 10)
    assert world.group().finished_event == 10


def test_without_the_module_a_call_says_what_to_do(backend: KernelBackend) -> None:
    port = backend.port()
    before = port.info().incarnation
    assert unload() == ""
    with pytest.raises(SwitchError, match="modprobe vcs") as caught:
        KernelSwitch()
    assert caught.value.errno == errno.ENOENT
    with refused(errno.ENOENT):
        port.info()
    load()
    assert KernelSwitch().info().incarnation not in (0, before)


def test_loading_and_unloading_again_and_again(backend: KernelBackend) -> None:
    for _ in range(5):
        assert unload() == ""
        load()
        world = World(KernelBackend())
        world.view()
        world.member(10).leave()
        world.left()
        world.wait_gone()
        world.provider.detach(world.handle, world.session)
        world.provider.cluster_del(world.handle)
