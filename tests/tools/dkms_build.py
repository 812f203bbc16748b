# SPDX-License-Identifier: GPL-2.0-only
"""DKMS builds the package's module in a chroot of the tools image, and packs it as DKMS packs binaries for machines without a compiler.
The compiler runs as fast as the host does there: under emulation it takes minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import image, kernels
from harness.cache import built, cache_dir, digest, run

CHROOT = r"""
mount -t proc proc "$0/proc"
mount --bind /dev "$0/dev"
exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive sh -exc "$1"
"""
BUILD = r"""
version=$(dpkg-deb -f /root/module.deb Version)
release=$(ls /lib/modules)
dpkg -i /root/module.deb
test -e /lib/modules/$release/updates/dkms/vcs.ko
dkms mktarball -m vcs -v $version -k $release --binaries-only --archive binaries.tar.gz
cp /var/lib/dkms/vcs/$version/tarball/binaries.tar.gz /root/
dpkg -P vcs-dkms
test ! -e /lib/modules/$release/updates/dkms/vcs.ko
test ! -e /var/lib/dkms/vcs
"""
PLACE = "/usr/share/vcs-dkms/vcs-{version}.dkms.tar.gz"
"Where the package's script looks for binaries before it builds."


def content(package: Path) -> list[str | bytes]:
    """Names and contents of what is in a package, its scripts included; the times are of no interest."""
    with tempfile.TemporaryDirectory(prefix="vcs-deb-") as name:
        run(["dpkg-deb", "--raw-extract", package, name])
        files = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
        return [part for path in files for part in (str(path.relative_to(name)), path.read_bytes())]


def binaries(package: Path, series: str) -> bytes:
    """What DKMS makes of vcs-dkms for the kernel. Raises RuntimeError with what was said if it does not build, or is not removed."""
    kernel = kernels.get(series)

    def build(to: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="vcs-dkms-", dir=cache_dir()) as name:
            root = Path(name)
            image.unpack("tools", root)
            modules = root / "lib" / "modules" / kernel.release
            modules.mkdir(parents=True)
            (modules / "build").symlink_to(f"/usr/src/linux-headers-{kernel.release}")
            for table in ("modules.order", "modules.builtin"):
                (modules / table).write_bytes((kernel.modules / table).read_bytes())
            (root / "root" / "module.deb").write_bytes(package.read_bytes())
            run(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", CHROOT, root, BUILD])
            (to / "binaries.tar.gz").write_bytes((root / "root" / "binaries.tar.gz").read_bytes())

    key = digest("1", *content(package), kernel.folder.name, BUILD)
    return (built("dkms", key, build) / "binaries.tar.gz").read_bytes()
