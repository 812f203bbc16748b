# SPDX-License-Identifier: GPL-2.0-only
"""The keeper of the hardware watchdog, as a process, with a pipe for a device and a folder for sysfs. A machine with real devices:
tests/kernel/test_lease_vm.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcs import watchdog

SECONDS = 0.4
PERIOD_S = SECONDS / 4
RUN = (
    "import signal; from vcs import watchdog as w; stop = {{signal.SIGTERM}}; signal.pthread_sigmask(signal.SIG_BLOCK, stop); "
    "w.keep({fd}, {seconds}, {root!r}, stop)"
)


def show(root: Path, state: str, armed: int = 1, dry: int = 0, handle: str = "alpha") -> None:
    folder = root / handle / "lease"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("dry_run", dry), ("reset_armed", armed), ("state", state)):
        (folder / name).write_text(f"{value}\n")


class Keeper:
    """The process, and what it has written."""

    def __init__(self, root: Path) -> None:
        self.read, write = os.pipe()
        code = RUN.format(fd=write, seconds=SECONDS, root=str(root))
        self.process = subprocess.Popen([sys.executable, "-c", code], pass_fds=(write,), stderr=subprocess.PIPE)
        os.close(write)
        os.set_blocking(self.read, False)

    def pings(self, within_s: float) -> int:
        """How many come in that time."""
        self.drain()
        watcher = subprocess.run(["sleep", str(within_s)], check=True)  # time itself is measured here, there is no event
        assert watcher.returncode == 0
        return self.drain()

    def drain(self) -> int:
        try:
            return len(os.read(self.read, 65536))
        except BlockingIOError:
            return 0

    def wait_ping(self) -> None:
        os.set_blocking(self.read, True)
        assert os.read(self.read, 1) == b"\0"
        os.set_blocking(self.read, False)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    (tmp_path / "providers").mkdir()
    (tmp_path / "api_version").write_text("1\n")
    return tmp_path


@pytest.fixture
def keeper(sysfs: Path) -> Iterator[Keeper]:
    keeper = Keeper(sysfs)
    keeper.wait_ping()
    yield keeper
    keeper.process.kill()
    keeper.process.wait()
    assert keeper.process.stderr is not None
    keeper.process.stderr.close()
    os.close(keeper.read)


@pytest.mark.parametrize(
    ("state", "armed", "dry", "found"),
    [
        ("armed", 1, 0, (True, False)),
        ("expired", 1, 0, (True, True)),
        ("reset", 1, 0, (True, True)),
        ("idle", 0, 0, (False, False)),
        ("none", 0, 0, (False, False)),
        ("expired", 0, 0, (False, False)),
        ("expired", 1, 1, (False, False)),
    ],
)
def test_what_a_lease_means(sysfs: Path, state: str, armed: int, dry: int, found: tuple[bool, bool]) -> None:
    """Without a grace (reset_armed 0), or in a dry run, a lease that has run out resets nothing: so neither does the watchdog."""
    show(sysfs, state, armed, dry)
    assert watchdog.look(str(sysfs)) == found


def test_one_cluster_is_enough(sysfs: Path) -> None:
    show(sysfs, "armed", handle="alpha")
    show(sysfs, "expired", handle="beta")
    assert watchdog.look(str(sysfs)) == (True, True)


def test_without_the_module_nothing_is_armed(tmp_path: Path) -> None:
    assert watchdog.look(str(tmp_path / "nowhere")) == (False, False)


def test_what_cannot_be_read_is_not_vouched_for(sysfs: Path) -> None:
    show(sysfs, "armed")
    (sysfs / "alpha" / "lease" / "state").unlink()
    (sysfs / "alpha" / "lease" / "state").mkdir()
    assert watchdog.look(str(sysfs)) == (True, True)


def test_it_pings_until_the_lease_has_run_out(sysfs: Path, keeper: Keeper) -> None:
    show(sysfs, "armed")
    assert keeper.pings(5 * PERIOD_S) >= 2
    show(sysfs, "expired")
    keeper.pings(2 * PERIOD_S)
    assert keeper.pings(5 * PERIOD_S) == 0
    show(sysfs, "idle", armed=0)
    assert keeper.pings(5 * PERIOD_S) >= 2


def test_it_lets_go_only_when_nothing_is_armed(sysfs: Path, keeper: Keeper) -> None:
    show(sysfs, "armed")
    keeper.process.send_signal(signal.SIGTERM)
    assert keeper.pings(5 * PERIOD_S) >= 2
    assert keeper.process.poll() is None
    show(sysfs, "idle", armed=0)
    assert keeper.process.wait(10) == 0


def test_a_device_that_is_none_is_refused(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.write_bytes(b"")
    script = str(Path(watchdog.__file__))
    done = subprocess.run([sys.executable, "-I", "-S", script, str(device), "5"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "ioctl" in done.stderr
    assert device.read_bytes() == b"V"


def test_it_needs_nothing_of_ours(tmp_path: Path) -> None:
    """Isolated, without site-packages, from another folder: a broken installation does not break it."""
    code = f"import runpy, sys; sys.argv = ['watchdog', '{tmp_path}/none', '5']; runpy.run_path('{watchdog.__file__}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, "No such file" in done.stderr) == (1, True)
