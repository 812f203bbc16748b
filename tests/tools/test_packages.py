# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages, as `make deb` makes them: installed and purged in a chroot, installed and used in a machine that has nothing of this
source but them."""

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


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("deb")
    subprocess.run([sys.executable, "packaging/deb/build.py", str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "qemu"}, check=True)
    return sorted(out.glob("*.deb"))


@pytest.fixture(scope="module")
def module(debs: list[Path]) -> bytes:
    """What DKMS makes of vcs-dkms: both are installed, built and purged once before, where the compiler is fast."""
    return dkms_build.binaries(debs, SERIES)


@pytest.fixture(scope="module")
def guest(debs: list[Path], module: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("lab")
    with Cluster(nodes=1, kernel=SERIES, artifacts=folder, image_kind="tools", memory_mib=1536, cpus=2) as lab:
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
