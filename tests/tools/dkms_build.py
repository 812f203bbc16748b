# SPDX-License-Identifier: GPL-2.0-only
"""Both packages in a chroot of the tools image: installed, the module built by DKMS and packed as DKMS packs binaries for machines without
a compiler, and purged. The compiler runs as fast as the host does there: under emulation it takes minutes."""

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
version=$(dpkg-deb -f /root/vcs-dkms.deb Version)
release=$(ls /lib/modules)
dpkg -i /root/vcs-dkms.deb /root/vcs-cluster.deb
test -e /lib/modules/$release/updates/dkms/vcs.ko
dkms mktarball -m vcs -v $version -k $release --binaries-only --archive binaries.tar.gz
cp /var/lib/dkms/vcs/$version/tarball/binaries.tar.gz /root/

systemctl enable vcsd.service vcs-ready.service
echo secret > /etc/vcs/cluster.key
dpkg -L vcs-cluster vcs-dkms | grep . | while read -r f; do if [ -f $f ]; then echo $f; fi; done > /root/brought
test $(wc -l < /root/brought) -gt 200
dpkg -P vcs-cluster vcs-dkms
while read -r f; do test ! -e $f; done < /root/brought
test -z "$(find /etc/systemd/system -lname '*vcs*' -o -name 'vcs*')"
for gone in /usr/lib/vcs-cluster /usr/lib/vcs /var/lib/vcs /var/lib/dkms/vcs /usr/src/vcs-$version; do
	test ! -e $gone
done
test ! -e /lib/modules/$release/updates/dkms/vcs.ko
test "$(ls /etc/vcs)" = cluster.key
"""
PLACE = "/usr/share/vcs-dkms/vcs-{version}.dkms.tar.gz"
"Where the package's script looks for binaries before it builds."


def content(package: Path) -> list[str | bytes]:
    """Names and contents of what is in a package, its scripts included; the times are of no interest."""
    with tempfile.TemporaryDirectory(prefix="vcs-deb-") as name:
        run(["dpkg-deb", "--raw-extract", package, name])
        files = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
        return [part for path in files for part in (str(path.relative_to(name)), path.read_bytes())]


def binaries(packages: list[Path], series: str) -> bytes:
    """What DKMS makes of vcs-dkms for the kernel. Raises RuntimeError with what was said if it does not build, or if a purge of both
    leaves something but the administrator's own files."""
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
            for package in packages:
                (root / "root" / f"{package.name.split('_')[0]}.deb").write_bytes(package.read_bytes())
            run(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", CHROOT, root, BUILD])
            (to / "binaries.tar.gz").write_bytes((root / "root" / "binaries.tar.gz").read_bytes())

    key = digest("1", *(part for package in packages for part in content(package)), kernel.folder.name, BUILD)
    return (built("dkms", key, build) / "binaries.tar.gz").read_bytes()
