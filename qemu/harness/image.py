# SPDX-License-Identifier: GPL-2.0-only
"""The guests' root image: Debian bookworm without systemd, Python packages under /opt/vcs/lib.

One image serves every kernel (modules come on a disk of their own) and every state of the source (the payload
is another), so it is built once per list of packages: about a minute.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from harness import kernels
from harness.cache import built, cache_dir, digest, prune, run, say
from harness.ext4 import ext4_image

PROJECT = Path(__file__).resolve().parents[2]
FORMAT = "1"  # raise it when this file changes what lies in the image
SUITE = "bookworm"
PYTHON = "3.11"

CORE = [
    "python3", "gfs2-utils", "libdlm3", "kmod", "iproute2", "util-linux", "mount", "procps",
    "busybox-static", "e2fsprogs", "iputils-ping",
]

#: nearly every test boots "base"; another kind is for the tests that ask for it alone (decision 0019)
KINDS: dict[str, list[str]] = {
    "base": [
        *CORE, "tcpdump", "strace", "stress-ng",
        # the DLM's other users, and the control plane that ours is compared with (decision 0017)
        "ocfs2-tools", "lvm2", "lvm2-lockd", "mdadm", "corosync", "dlm-controld",
    ],
    # bcc with its compiler; what builds and starts our own packages; the shells that they bring completion for
    "tools": [*CORE, "python3-bpfcc", "dkms", "systemd", "man-db", "zsh", "fish"],
}
HEADERS = {"tools": ("6.1", "6.12")}
"Kind -> series of the kernels whose headers lie in the image, at their places: bcc and dkms compile against them."

#: pure Python, so that kernel tests can be pytest runs inside the guest
GUEST_PYTHON = ["pytest>=8", "pytest-timeout>=2.3"]

EXCLUDE = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"]
PLATFORMS = ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64"]

#: what the payload brings, at its places in the system
LINKS = {
    "lib/modules": "/opt/vcs/src/lab/modules",
    "usr/local/bin": "/opt/vcs/src/lab/bin",
    "usr/sbin/mount.gfs2": "/opt/vcs/src/lab/bin/mount.gfs2",
    "usr/sbin/fence_lab": "/opt/vcs/src/lab/fence_lab",
    "usr/lib/vcs": "/opt/vcs/src/lab/lib",
    "etc/mtab": "/proc/self/mounts",  # systemd makes it elsewhere; mkfs.ocfs2 stops without it
}

#: nobody runs udev here: LVM must not wait for it
LVM = """activation {
	udev_sync = 0
	udev_rules = 0
	verify_udev_operations = 0
}
devices {
	obtain_device_list_from_udev = 0
}
"""

HOSTS = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{n} node{n}\n" for n in range(1, 17))


def python_requirements() -> list[str]:
    """What the project's Python needs at run time, from pyproject.toml."""
    with open(PROJECT / "pyproject.toml", "rb") as file:
        return [*tomllib.load(file)["project"]["dependencies"], *GUEST_PYTHON]


def apt_sources() -> list[Path]:
    """The host's own apt sources for the guest's suite: files that name it as a suite, not as part of a name."""
    etc = Path("/etc/apt")
    candidates = [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]
    candidates += sorted(etc.glob("sources.list.d/*.sources"))
    suite = re.compile(rf"(^|\s){SUITE}(-updates|-security)?(\s|/|$)", re.M)
    found = [path for path in candidates if path.is_file() and suite.search(path.read_text(encoding="utf-8"))]
    if not found:
        raise LookupError(f"no apt source of {SUITE} in /etc/apt: the lab builds its image from the machine's own sources")
    return found


def _debian(packages: list[str], to: Path) -> None:
    say(f"image: Debian {SUITE} with {len(packages)} packages and what they need (half a minute)")
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDE]
    options += ["--variant=minbase", f"--include={','.join(packages)}", "--aptopt=Acquire::Languages \"none\""]
    run(["mmdebstrap", "--quiet", *options, SUITE, to / "root.tar", *apt_sources()])


def pip_install(requirements: list[str], to: Path) -> None:
    """Wheels for the guests' Python, unpacked in ``to/lib``."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    options += [f"--python-version={PYTHON}", "--implementation=cp", *platforms, f"--target={to / 'lib'}"]
    run([sys.executable, "-m", "pip", "install", *options, *requirements])
    for bulk in ("bin", "__pycache__"):
        shutil.rmtree(to / "lib" / bulk, ignore_errors=True)


def _python(to: Path) -> None:
    say("image: Python packages")
    pip_install(python_requirements(), to)


def _headers(root: Path, series: str) -> None:
    """A kernel's headers from the cache, where Debian's package would put them."""
    kernel = kernels.get(series)
    for part in ("src", "lib"):
        shutil.copytree(kernel.folder / "usr" / part, root / "usr" / part, symlinks=True, dirs_exist_ok=True)
    makefile = root / "usr" / "src" / kernel.kdir.name / "Makefile"
    makefile.write_text(makefile.read_text(encoding="utf-8").replace(f"{kernel.folder}/usr/src/", "/usr/src/"), encoding="utf-8")
    (root / "usr" / "src" / kernel.kdir.name / "vmlinux").unlink(missing_ok=True)  # else a build makes BTF, and that needs pahole


def unpack(kind: str, root: Path) -> None:
    """The image's Debian with its kernels' headers as files below ``root``: what a chroot needs."""
    wanted = KINDS[kind]
    debian = built("debian", _debian_key(wanted), lambda folder: _debian(wanted, folder))
    run(["tar", "-xf", debian / "root.tar", "-C", root, "--exclude=./dev/*"])
    for series in HEADERS.get(kind, ()):
        _headers(root, series)


def _debian_key(wanted: list[str]) -> str:
    return digest(FORMAT, SUITE, *wanted, *EXCLUDE)


def _root(kind: str, packages: Path, to: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vcs-image-", dir=cache_dir()) as name:
        root = Path(name) / "root"
        root.mkdir()
        say("image: unpacking, compiling, writing the file system")
        unpack(kind, root)
        vcs = root / "opt" / "vcs"
        for folder in ("src", "modules"):
            (vcs / folder).mkdir(parents=True)
        shutil.copytree(packages / "lib", vcs / "lib")
        compile_all = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        run(["chroot", root, *compile_all, "/opt/vcs/lib"])
        (root / "etc" / "hosts").write_text(HOSTS, encoding="ascii")
        _link(root)
        (root / "etc" / "fstab").write_text("", encoding="ascii")
        if (root / "etc" / "lvm").is_dir():
            (root / "etc" / "lvm" / "lvmlocal.conf").write_text(LVM, encoding="ascii")
        shutil.rmtree(root / "var" / "lib" / "apt", ignore_errors=True)
        ext4_image(root, to / "root.img", slack_mib=256)


def _link(root: Path) -> None:
    """Point LINKS into the payload, over whatever Debian has there."""
    for place, target in LINKS.items():
        path = root / place
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def get(kind: str = "base") -> Path:
    """The path of the root image of ``kind`` (KINDS); built if the cache has none. Needs root (chroot, ownership in the image)."""
    python_key = digest(FORMAT, PYTHON, *python_requirements())
    releases = [kernels.get(name).folder.name for name in HEADERS.get(kind, ())]
    key = digest(FORMAT, _debian_key(KINDS[kind]), python_key, HOSTS, str(LINKS), LVM, *releases)

    def build(to: Path) -> None:
        packages = built("python", python_key, _python)
        _root(kind, packages, to)
        for cached in ("images", "debian", "python"):
            prune(cached, 2 * len(KINDS))

    return built("images", key, build) / "root.img"


if __name__ == "__main__":
    print(get(*sys.argv[1:]))
