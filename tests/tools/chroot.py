# SPDX-License-Identifier: GPL-2.0-only
"""Both packages in a chroot of the tools image, where everything is as fast as the host: installed, looked at, purged. What is compiled at
the installation is kept for a machine, which would need minutes: the module, packed as DKMS packs it for machines without a compiler, and
the byte code of Python."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import image, kernels
from harness.cache import built, cache_dir, digest, run

CHROOT = r"""
mount -t proc proc "$0/proc"
mount --bind /dev "$0/dev"
exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive sh -exc "$1"
"""
BUILD = r"""
rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap  # it excludes man pages
version=$(dpkg-deb -f /root/vcs-dkms.deb Version)
release=$(ls /lib/modules)
dpkg -i /root/vcs-dkms.deb /root/vcs-cluster.deb
test -e /lib/modules/$release/updates/dkms/vcs.ko
dkms mktarball -m vcs -v $version -k $release --binaries-only --archive binaries.tar.gz
cp /var/lib/dkms/vcs/$version/tarball/binaries.tar.gz /root/
find /usr/lib/vcs-cluster -name __pycache__ -prune | tar -czf /root/bytecode.tar.gz -T -
test $(tar -tzf /root/bytecode.tar.gz | grep -c '\.pyc$') -gt 200

vcs --version | grep '^vcs '
for program in vcsd dlm_glue vcssnoop vcslat vcsdlm; do
	(cd / && $program --help >/dev/null)
done
dpkg -L vcs-cluster | sed -n 's,^/usr/share/man/man./\(.*\)\.\(.\)\.gz$,\1 \2,p' >/root/pages
test $(wc -l </root/pages) = $pages
while read -r name section; do whatis -s $section $name | grep "^$name ($section)"; done </root/pages
asked='COMP_WORDS=(vcs stat) COMP_CWORD=1; _vcs_completion vcs stat vcs; echo ${COMPREPLY[@]}'
bash -c "source /usr/share/bash-completion/completions/vcs; $asked" | grep -w status
fish -c 'complete -C "vcs stat"' | grep -w status
zsh -n /usr/share/zsh/vendor-completions/_vcs
env _VCS_COMPLETE=zsh_complete COMP_WORDS='vcs stat' COMP_CWORD=1 vcs | grep -w status

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
PAGES = Path(__file__).parents[2] / "docs" / "man"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What an installation compiles."""

    module: bytes  #: for PLACE
    bytecode: bytes  #: tar.gz from the root; py3compile takes what is there, if the sources' times are the same


def content(package: Path) -> list[str | bytes]:
    """Names and contents of what is in a package, its scripts included; the times are of no interest."""
    with tempfile.TemporaryDirectory(prefix="vcs-deb-") as name:
        run(["dpkg-deb", "--raw-extract", package, name])
        files = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
        return [part for path in files for part in (str(path.relative_to(name)), path.read_bytes())]


def compiled(packages: list[Path], series: str) -> Compiled:
    """What DKMS and py3compile make of the packages for the kernel. Raises RuntimeError with what was said if the module does not build,
    if a program, a man page or a completion is not found where Debian looks for it, or if a purge of both leaves something but the
    administrator's own files."""
    kernel = kernels.get(series)
    script = f"pages={len(list(PAGES.glob('*.md')))}\n{BUILD}"

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
            run(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", CHROOT, root, script])
            for kept in ("binaries.tar.gz", "bytecode.tar.gz"):
                (to / kept).write_bytes((root / "root" / kept).read_bytes())

    key = digest("2", *(part for package in packages for part in content(package)), kernel.folder.name, script)
    folder = built("dkms", key, build)
    return Compiled((folder / "binaries.tar.gz").read_bytes(), (folder / "bytecode.tar.gz").read_bytes())
