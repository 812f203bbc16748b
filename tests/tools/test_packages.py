# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages, as `make deb` makes them, in a machine that boots under systemd and has nothing of this source but them: installed,
used, shut down under a mounted file system."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Cluster, LabTimeout, Machine, Result

from tests.tools import chroot
from tests.tools.own_modules import OWN_MODULES

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]
"The image of the tools may have to be built first."

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
SERIES = "6.12"
UNDRESS = r"""
# What the lab puts in the system's places is taken away.
rm -f /usr/local/bin /usr/sbin/mount.gfs2 /usr/lib/vcs /etc/dpkg/dpkg.cfg.d/99mmdebstrap
mkdir /usr/local/bin
rm /lib/modules/$(uname -r)/updates
depmod
hostname > /etc/hostname
"""
TOML = """[cluster]
name = "demo"
[[node]]
id = 1
name = "node1"
address = "10.77.0.1"
[node.fence]
plug = "node1"
[fencing]
agent = "fence_lab"
"""
DISK = "/root/shared"
"The disk stands outside of /dev: there is no udev here that would tell systemd of a device."
APPEND = [
    "lab.init=/lib/systemd/systemd",
    "systemd.unit=multi-user.target",
    "systemd.hostname=node1",
    "systemd.log_target=kmsg",  # what systemd does reaches the host with the kernel's messages, to the end
    "printk.devkmsg=on",
    *(f"systemd.mask={unit}" for unit in ("getty.target", "systemd-logind.service", "timers.target", "e2scrub_reap.service")),
]
"Debian's own init, without what is of no use to a machine that nobody logs in to."
INSTALL_S = 400.0
BOOT_S = 180.0
STOP_S = 120.0
"At most; a tenth of it on an idle host."
ASKED = "systemctl --no-pager list-jobs; systemctl --no-pager --failed; journalctl --no-pager -b -n 150 -o short-monotonic"


@dataclass
class Guest:
    """The machine, with commands that see nothing of this source."""

    lab: Cluster
    node: Machine

    def sh(self, command: str, timeout: float = 60.0, *, check: bool = True) -> Result:
        return self.node.run([*ENVIRONMENT, "sh", "-ec", command], timeout, check=check)

    def there(self, command: str) -> bool:
        """Whether the command succeeds."""
        return self.sh(command, check=False).rc == 0

    def boot(self) -> None:
        """To the end of systemd's boot, and nothing has failed."""
        self.node.boot(BOOT_S)
        ended = ("running", "degraded", "maintenance")
        try:
            self.lab.wait(lambda: self.sh("systemctl is-system-running", check=False).out.strip() in ended, BOOT_S, "the boot", poll=1.0)
            assert self.sh("systemctl is-system-running", check=False).out == "running\n"
        except (LabTimeout, AssertionError):
            print(self.sh(ASKED, check=False).out)
            raise

    def said(self) -> list[str]:
        """What systemd has said since the machine's boot, in order."""
        return [text.removeprefix("systemd[1]: ") for _, text in self.node.logs.kmsg if text.startswith("systemd[1]: ")]


def in_order(said: list[str], *starts: str) -> None:
    """Each of the lines was said once, one after the other."""
    places = [[i for i, line in enumerate(said) if line.startswith(start)] for start in starts]
    assert all(len(found) == 1 for found in places) and places == sorted(places), "\n".join([str(places), *said[-80:]])


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("deb")
    environment = {**os.environ, "PYTHONPATH": "qemu", "SOURCE_DATE_EPOCH": "1700000000"}  # byte code knows its source by the time
    subprocess.run([sys.executable, "packaging/deb/build.py", str(out)], cwd=ROOT, env=environment, check=True)
    return sorted(out.glob("*.deb"))


@pytest.fixture(scope="module")
def compiled(debs: list[Path]) -> chroot.Compiled:
    """Both were installed, looked at and purged once before, where compilers are fast."""
    return chroot.compiled(debs, SERIES)


@pytest.fixture(scope="module")
def guest(debs: list[Path], compiled: chroot.Compiled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("lab")
    with Cluster(nodes=1, kernel=SERIES, artifacts=folder, image_kind="tools", roots_kept=True, boot=False, append=" ".join(APPEND),
                 memory_mib=1024, shared_disk_mib=256) as lab:
        guest = Guest(lab, lab[1])
        guest.boot()
        for deb in debs:
            lab[1].write(f"/root/{deb.name}", deb.read_bytes())
        version = debs[0].name.split("_")[1]
        lab[1].write(chroot.PLACE.format(version=version), compiled.module)
        lab[1].write("/root/bytecode.tar.gz", compiled.bytecode)
        guest.sh(OWN_MODULES + UNDRESS)
        assert not guest.there("modprobe -n vcs") and not guest.there("command -v vcs")
        guest.sh("tar -xzf /root/bytecode.tar.gz -C /")
        print(guest.sh("dpkg -i /root/*.deb", INSTALL_S).out)
        yield guest


def test_installed(guest: Guest) -> None:
    """DKMS has the module, the program starts, and nothing else has."""
    assert "installed" in guest.sh("dkms status -m vcs").out
    guest.sh("modprobe vcs")
    assert "/updates/dkms/vcs.ko" in guest.sh("modinfo -n vcs").out
    assert guest.sh("vcs --version").out.startswith("vcs ")
    assert guest.sh("systemctl is-enabled vcsd.service", check=False).out == "disabled\n"
    assert guest.sh("systemctl is-active vcsd.service", check=False).out == "inactive\n"


def test_used_and_shut_down(guest: Guest) -> None:
    """Configured, enabled and mounted as the documentation says. A shutdown unmounts under the living cluster, and leaves it then."""
    guest.sh("modprobe gfs2; mkfs.gfs2 -q -O -p lock_dlm -t demo:home -j 1 -J 8 /dev/disk/by-id/virtio-shared0", 120)
    guest.sh(f"ln -s /dev/disk/by-id/virtio-shared0 {DISK}; echo '{DISK} /srv gfs2 _netdev,noatime 0 0' >> /etc/fstab")
    guest.node.write("/etc/vcs/cluster.toml", TOML)
    guest.sh("cd /etc/vcs && vcs keygen && vcs config check")
    guest.sh("systemctl daemon-reload; systemctl enable --now vcsd vcs-ready", 120)
    guest.sh("mount /srv; echo kept > /srv/file", 120)
    assert "dlm:home" in guest.sh("vcs groups").out

    asked = time.monotonic()
    guest.node.spawn([*ENVIRONMENT, "systemctl", "poweroff"], log="poweroff")  # it may be gone with the rest before it can answer
    guest.node.wait_off(STOP_S)
    print(f"shut down in {time.monotonic() - asked:.0f} s")
    assert guest.node.stop_reason == "guest-shutdown"
    in_order(guest.said(), "Unmounting srv.mount", "Unmounted srv.mount", "Stopped target remote-fs-pre.target", "Stopping vcsd.service",
             "vcsd.service: Deactivated successfully", "Stopped vcsd.service")
