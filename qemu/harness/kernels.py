# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernels for the guests: image, modules, and a tree to build modules against.

The newest of each series is looked up with apt-cache, downloaded and unpacked into the cache; nothing is
installed on the host (6.12's headers would pull in an image with its boot loader hooks).

    python -m harness.kernels [6.1 | 6.12 | debug | kcsan ...]  prints what make and the lab need
    python -m harness.kernels --refresh                    asks apt again for the newest
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import debug_kernel
from harness.cache import built, cache_dir, digest, locked, run, say
from harness.ext4 import ext4_image

#: series -> what its header packages look like
SERIES = {
    "6.1": re.compile(r"linux-headers-(6\.1\.0-\d+)-amd64"),
    "6.12": re.compile(r"linux-headers-(6\.12\.\d+\+deb12)-amd64"),
}

DEBUG, KCSAN = OURS = debug_kernel.VARIANTS  #: in place of a series, see harness.debug_kernel

#: what the guest may load; the closure of dependencies comes along
MODULES = [
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "ext4", "squashfs",
    "overlay", "loop", "dlm", "gfs2", "configfs", "ocfs2", "ocfs2_dlmfs", "ocfs2_stackglue",
    "ocfs2_stack_o2cb", "ocfs2_stack_user", "md-cluster", "raid1", "dm-mod", "sctp", "sctp_diag",
    "tcp_diag", "inet_diag", "udp_diag", "softdog", "i6300esb", "sch_netem", "nf_tables", "nft_ct",
    "nfnetlink", "9p", "9pnet_virtio", "dm-flakey", "dm-delay", "netconsole",
]

#: what the initrd needs to reach the root image and the channels
BOOT_MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "ext4", "configfs"]

GUEST = Path(__file__).resolve().parent.parent / "guest"

FORMAT = "5"  # raise it when this file changes what lies in the cache


@dataclass(frozen=True, slots=True)
class Kernel:
    """One unpacked kernel."""

    series: str
    release: str  #: as in uname -r
    folder: Path

    @property
    def vmlinux(self) -> Path:
        """Uncompressed ELF, booted by PVH: two seconds faster under emulation than the bzImage."""
        return self.folder / "vmlinux"

    @property
    def vmlinuz(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def kdir(self) -> Path:
        """For `make -C <kdir> M=...`."""
        return self.folder / "usr" / "src" / f"linux-headers-{self.release}"

    @property
    def modules(self) -> Path:
        """The guest's /lib/modules/<release>: plain .ko files with depmod's tables."""
        return self.folder / "lib" / "modules" / self.release

    @property
    def initrd(self) -> Path:
        """Built when missing: it changes more often than the kernel does."""
        key = digest(self.folder.name, *BOOT_MODULES, (GUEST / "init.c").read_bytes())
        return built("initrd", key, lambda to: _initrd(self, to)) / "initrd"

    @property
    def modules_image(self) -> Path:
        """The modules as a small ext4 file system, the guest's second disk."""
        return self.folder / "modules.img"

    @property
    def config(self) -> Path:
        return self.kdir / ".config"


def _recipe(series: str) -> str:
    """A name of everything but the packages that goes into a kernel's folder."""
    return debug_kernel.recipe(series) if series in OURS else digest(FORMAT, *MODULES)


def newest(series: str) -> str:
    """The newest release of `series` that apt offers, such as 6.1.0-NN. Raises LookupError."""
    pattern = SERIES[series]
    names = run(["apt-cache", "pkgnames", "linux-headers-6"]).decode().split()
    found = [m[1] for name in names if (m := pattern.fullmatch(name))]
    if not found:
        raise LookupError(f"apt knows no linux-headers of series {series}: run apt-get update as root")
    return max(found, key=lambda text: [int(n) for n in re.findall(r"\d+", text)])


def _exists(package: str) -> bool:
    done = subprocess.run(["apt-cache", "show", "--no-all-versions", package], capture_output=True, check=False)
    return done.returncode == 0 and b"\nFilename:" in done.stdout


def _packages(release: str) -> list[str]:
    image = f"linux-image-{release}-amd64"
    kbuild = [f"linux-kbuild-{release}", "linux-kbuild-" + ".".join(release.split(".")[:2])]
    return [
        image if _exists(image) else f"{image}-unsigned",
        f"linux-headers-{release}-amd64",
        f"linux-headers-{release}-common",
        next(name for name in kbuild if _exists(name)),
    ]


def _hashes(packages: list[str]) -> str:
    """What apt would download, with checksums: the content key."""
    out = run(["apt-get", "download", "--print-uris", *packages]).decode()
    return "\n".join(sorted(line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("'")))


def extract_vmlinux(vmlinuz: bytes) -> bytes:
    """The ELF image inside a bzImage (boot protocol 2.08: payload_offset and payload_length)."""
    setup_sectors = vmlinuz[0x1F1] or 4
    start = (setup_sectors + 1) * 512 + int.from_bytes(vmlinuz[0x248:0x24C], "little")
    payload = vmlinuz[start : start + int.from_bytes(vmlinuz[0x24C:0x250], "little")]
    if payload.startswith(b"\xfd7zXZ"):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        # the payload ends with its size, which zstd takes for trash after having written everything
        elf = subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True, check=False).stdout
    else:
        raise ValueError(f"kernel payload starts with {payload[:6].hex()}: neither xz nor zstd")
    if not elf.startswith(b"\x7fELF"):
        raise ValueError("the kernel's payload is no ELF image")
    return elf


def _dependencies(base: Path, release: str, names: Iterable[str]) -> list[Path]:
    """Module files of `names` and all they need, in load order; what is built in costs nothing."""
    files: dict[Path, None] = {}
    for name in names:
        show = ["modprobe", "--show-depends", "-a", "-d", str(base), "-S", release, name]
        done = subprocess.run(show, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            verb, _, path = line.partition(" ")
            if verb == "insmod":
                files[Path(path.split()[0])] = None
    return list(files)


def _initrd(kernel: Kernel, to: Path) -> None:
    """Our init and the modules that reach the disks, uncompressed: nothing to unpack under emulation."""
    root = to / "tree"
    for name in ("dev", "proc", "sys", "root", "modules"):
        (root / name).mkdir(parents=True)
    run(["gcc", "-static", "-Os", "-Wall", "-Wextra", "-o", root / "init", GUEST / "init.c"])
    order = _dependencies(kernel.folder, kernel.release, BOOT_MODULES)
    for path in order:
        shutil.copy(path, root / "modules" / path.name)
    (root / "modules" / "order").write_text("".join(f"{p.name}\n" for p in order), encoding="ascii")
    names = "\n".join(sorted(str(p.relative_to(root)) for p in root.rglob("*")))
    archive = run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=root, data=names.encode())
    (to / "initrd").write_bytes(archive)
    shutil.rmtree(root)


def _modules(unpacked: Path, release: str, to: Path) -> None:
    source = unpacked / "lib" / "modules" / release
    run(["depmod", "-b", unpacked, release])
    target = to / "lib" / "modules" / release
    for path in _dependencies(unpacked, release, MODULES):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xz":
            copy.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copy(path, copy)
    for table in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / table, target / table)
    run(["depmod", "-b", to, release])


def _headers(unpacked: Path, to: Path, final: Path) -> None:
    """Headers and kbuild, with the one absolute path in their Makefile aimed at the cache."""
    (to / "usr").mkdir()
    for part in ("src", "lib"):
        shutil.move(unpacked / "usr" / part, to / "usr" / part)
    for makefile in (to / "usr" / "src").glob("*-amd64/Makefile"):
        text = makefile.read_text(encoding="utf-8")
        makefile.write_text(text.replace("/usr/src/", f"{final}/usr/src/"), encoding="utf-8")


def _build(series: str, base: str, packages: list[str], to: Path, final: Path) -> None:
    release = f"{base}-amd64"
    with tempfile.TemporaryDirectory(prefix="vcs-kernel-", dir=cache_dir()) as name:
        work = Path(name)
        say(f"kernel {series}: downloading {release}")
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", *packages], cwd=work)
        unpacked = work / "root"
        for deb in sorted(work.glob("*.deb")):
            say(f"kernel {series}: unpacking {deb.name.split('_')[0]}")
            run(["dpkg", "-x", deb, unpacked])
        vmlinuz = unpacked / "boot" / f"vmlinuz-{release}"
        (to / "vmlinux").write_bytes(extract_vmlinux(vmlinuz.read_bytes()))
        shutil.copy(vmlinuz, to / "vmlinuz")
        _modules(unpacked, release, to)
        _headers(unpacked, to, final)
        ext4_image(to / "lib" / "modules", to / "modules.img")
    (to / "release").write_text(release, encoding="ascii")


def _fetch(series: str, kinds: Path) -> str:
    """The name of the newest kernel's folder in `kinds`, built if it is not there."""
    if series in OURS:
        return debug_kernel.fetch(series, kinds)
    base = newest(series)
    packages = _packages(base)
    key = f"{base}-{digest(_recipe(series), _hashes(packages))}"
    built("kernels", key, lambda to: _build(series, base, packages, to, kinds / key))
    return key


def get(series: str, *, refresh: bool = False) -> Kernel:
    """The cached kernel of `series` ("6.1", "6.12", OURS), fetched if the cache has none; `refresh` asks apt again.

    Raises KeyError for an unknown series, LookupError or RuntimeError if apt cannot provide it.
    """
    if series not in (*SERIES, *OURS):
        raise KeyError(f"kernel series {series!r}: known are {', '.join((*SERIES, *OURS))}")
    kinds = cache_dir() / "kernels"
    current = kinds / f"current-{series}-{_recipe(series)}"
    with locked(f"kernel-{series}"):
        if refresh or not current.exists():
            try:
                key = _fetch(series, kinds)
            except (LookupError, RuntimeError) as error:  # no package lists yet, or older than the archive
                say(f"kernel {series}: {str(error).splitlines()[0]}; trying again after apt-get update")
                run(["apt-get", "update"])
                key = _fetch(series, kinds)
            current.unlink(missing_ok=True)
            current.symlink_to(key)
    folder = current.resolve()
    return Kernel(series, (folder / "release").read_text(encoding="ascii"), folder)


def main(words: list[str]) -> int:
    """`python -m harness.kernels`: NAME=value lines that make and shell scripts can read."""
    refresh = "--refresh" in words
    field = next((w.removeprefix("--field=") for w in words if w.startswith("--field=")), None)
    for series in [w for w in words if not w.startswith("--")] or list(SERIES):
        kernel = get(series, refresh=refresh)
        facts = {
            "series": series,
            "release": kernel.release,
            "kdir": kernel.kdir,
            "vmlinux": kernel.vmlinux,
            "vmlinuz": kernel.vmlinuz,
            "modules": kernel.modules,
        }
        print(facts[field] if field else " ".join(f"{k}={v}" for k, v in facts.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
