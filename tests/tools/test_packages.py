# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages, as `make deb` makes them: installed, used under systemd from boot to shutdown, and removed, in one machine that has
nothing of this source but them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Cluster, Machine, Result

from tests.tools import dkms_build
from tests.tools.own_modules import OWN_MODULES

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]
"The image of the tools may have to be built first."

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
SERIES = "6.12"
INSTALL_S = 200.0
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
#: the disk stands outside of /dev: there is no udev here that would tell systemd of a device
MOUNT = """[Unit]
Description=a cluster file system
[Mount]
What=/root/shared
Where=/srv
Type=gfs2
Options=_netdev,noatime
[Install]
WantedBy=remote-fs.target
"""
SYSTEMD = (
    "exec unshare --fork --kill-child --pid --mount --mount-proc "
    "env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target"
)
"Debian's systemd as PID 1 of a namespace: the lab's machines have an init of their own."


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

    def inside(self, command: str, timeout: float = 60.0, *, check: bool = True) -> Result:
        """Where systemd is PID 1."""
        return self.sh(f"nsenter -t $(pgrep -xo systemd) -m -p -- {command}", timeout, check=check)

    def stamp(self, unit: str, which: str) -> int:
        """A moment of a unit, in us of CLOCK_MONOTONIC; 0: not yet."""
        return int(self.inside(f"systemctl show --value -p {which}TimestampMonotonic {unit}").out)


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("deb")
    subprocess.run([sys.executable, "packaging/deb/build.py", str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "qemu"}, check=True)
    return sorted(out.glob("*.deb"))


@pytest.fixture(scope="module")
def module(debs: list[Path]) -> bytes:
    """What DKMS makes of vcs-dkms: installed, built and removed once before, where the compiler is fast."""
    return dkms_build.binaries(next(deb for deb in debs if deb.name.startswith("vcs-dkms")), SERIES)


@pytest.fixture(scope="module")
def guest(debs: list[Path], module: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("lab")
    with Cluster(nodes=1, kernel=SERIES, artifacts=folder, image_kind="tools", memory_mib=1536, cpus=2, shared_disk_mib=256) as lab:
        guest = Guest(lab, lab[1])
        for deb in debs:
            lab[1].write(f"/root/{deb.name}", deb.read_bytes())
        version = debs[0].name.split("_")[1]
        lab[1].write(dkms_build.PLACE.format(version=version), module)
        guest.sh(OWN_MODULES + UNDRESS)
        assert not guest.there("modprobe -n vcs") and not guest.there("command -v vcs")
        print(guest.sh("dpkg -i /root/*.deb", INSTALL_S).out)
        yield guest


def test_installed(guest: Guest) -> None:
    """DKMS has the module; programs, man pages and completions are found where Debian looks for them."""
    assert "installed" in guest.sh("dkms status -m vcs").out
    guest.sh("modprobe vcs")
    assert "/updates/dkms/vcs.ko" in guest.sh("modinfo -n vcs").out
    assert guest.sh("vcs --version").out.startswith("vcs ")
    assert guest.sh("cd / && vcsd --help && dlm_glue --help && vcssnoop --help && vcslat --help && vcsdlm --help")
    for source in (ROOT / "docs" / "man").glob("*.md"):
        page, section = source.stem.rsplit(".", 1)
        assert f"{page} ({section})" in guest.sh(f"whatis -s {section} {page}").out
    complete = "COMP_WORDS=(vcs stat) COMP_CWORD=1; _vcs_completion vcs stat vcs; echo ${COMPREPLY[@]}"
    found = guest.sh(f"bash -c 'source /usr/share/bash-completion/completions/vcs; {complete}'").out
    assert "status" in found.split()
    assert "status" in guest.sh("fish -c 'complete -C \"vcs stat\"'").out.split()
    guest.sh("zsh -n /usr/share/zsh/vendor-completions/_vcs")
    assert "status" in guest.sh("env _VCS_COMPLETE=zsh_complete COMP_WORDS='vcs stat' COMP_CWORD=1 vcs").out.split()
    assert guest.sh("systemctl is-enabled vcsd.service", check=False).out.strip() == "disabled"


def test_from_boot_to_shutdown_in_order(guest: Guest) -> None:
    """Enabled units and a mount with _netdev: it is mounted after the cluster is there, and unmounted before vcsd stops."""
    guest.sh("modprobe gfs2; mkfs.gfs2 -q -O -p lock_dlm -t demo:home -j 1 -J 8 /dev/disk/by-id/virtio-shared0", 120)
    guest.sh("ln -s /dev/disk/by-id/virtio-shared0 /root/shared")
    guest.node.write("/etc/vcs/cluster.toml", TOML)
    guest.node.write("/etc/systemd/system/srv.mount", MOUNT)
    guest.sh("cd /etc/vcs && vcs keygen && vcs config check")
    guest.sh("systemctl enable vcsd.service vcs-ready.service srv.mount; systemctl mask getty.target systemd-logind.service")
    boot = guest.node.spawn([*ENVIRONMENT, "sh", "-c", SYSTEMD], log="systemd")
    guest.lab.wait(lambda: guest.inside("mountpoint -q /srv", check=False).rc == 0, 120, "the mount at boot", poll=1.0)
    assert 0 < guest.stamp("vcs-ready.service", "ActiveEnter") <= guest.stamp("srv.mount", "InactiveExit")
    assert 0 < guest.stamp("vcsd.service", "ActiveEnter") <= guest.stamp("vcs-ready.service", "InactiveExit")
    guest.inside("sh -c 'echo kept > /srv/file'")
    assert "dlm:home" in guest.sh("vcs groups").out

    refused = guest.sh("dpkg -r vcs-cluster", check=False)
    assert refused.rc != 0
    assert "this node is in the group dlm:home; unmount" in refused.out + refused.err
    assert guest.sh("dpkg-query -W -f '${Status}' vcs-cluster").out == "install ok installed"

    guest.inside("systemctl poweroff", check=False)  # it may be gone with the rest before it can answer
    guest.lab.wait(lambda: boot.rc is not None, 90, "systemd to have stopped everything")
    told = guest.sh("journalctl -D /run/log/journal -o cat _PID=1 || journalctl -D /run/log/journal -o cat").out.splitlines()
    places = [next(i for i, line in enumerate(told) if line.startswith(start)) for start in
              ("Unmounted srv.mount", "Stopping vcsd.service", "vcsd.service: Deactivated successfully")]
    assert places == sorted(places), "\n".join(told[-60:])
    assert guest.sh("ls /sys/kernel/vcs").out.split() == ["api_version", "providers"], "the node left its cluster"


def test_removed(guest: Guest) -> None:
    """Nothing is left that the packages brought, but the administrator's own configuration."""
    guest.sh("dpkg -L vcs-cluster vcs-dkms | grep . | while read -r f; do if [ -f $f ]; then echo $f; fi; done > /root/brought")
    assert int(guest.sh("wc -l < /root/brought").out) > 200
    guest.sh("modprobe -r vcs; dpkg -P vcs-cluster vcs-dkms", 120)
    left = guest.sh("while read -r f; do if [ -e $f ]; then echo $f; fi; done < /root/brought").out
    assert left == ""
    assert not guest.there("modprobe -n vcs")
    assert guest.sh("find /etc/systemd/system -lname '*vcs*' -o -name 'vcs*'").out == ""
    for gone in ("/usr/lib/vcs-cluster", "/var/lib/vcs", "/usr/lib/vcs", "/var/lib/dkms/vcs", "/usr/src/vcs-*"):
        assert not guest.there(f"ls -d {gone}"), gone
    assert guest.sh("ls /etc/vcs").out.split() == ["cluster.key", "cluster.toml"]
