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

from harness.cache import built, cache_dir, digest, prune, run, say
from harness.kernels import ext4_image

PROJECT = Path(__file__).resolve().parents[2]
FORMAT = "1"  # raise it when this file changes what lies in the image
SUITE = "bookworm"
PYTHON = "3.11"

DEBIAN = [
    "python3", "gfs2-utils", "libdlm3", "kmod", "iproute2", "util-linux", "mount", "procps",
    "busybox-static", "e2fsprogs", "iputils-ping", "tcpdump", "strace", "stress-ng",
    # the DLM's other users, and the control plane that ours is compared with (decision 0017)
    "ocfs2-tools", "lvm2", "lvm2-lockd", "mdadm", "corosync", "dlm-controld",
]

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


def _debian(to: Path) -> None:
    say(f"image: Debian {SUITE} with {len(DEBIAN)} packages and what they need (half a minute)")
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDE]
    options += ["--variant=minbase", f"--include={','.join(DEBIAN)}", "--aptopt=Acquire::Languages \"none\""]
    run(["mmdebstrap", "--quiet", *options, SUITE, to / "root.tar", *apt_sources()])


def _python(to: Path) -> None:
    say("image: Python packages")
    platforms = [f"--platform={name}" for name in PLATFORMS]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    options += [f"--python-version={PYTHON}", "--implementation=cp", *platforms, f"--target={to / 'lib'}"]
    run([sys.executable, "-m", "pip", "install", *options, *python_requirements()])
    for bulk in ("bin", "__pycache__"):
        shutil.rmtree(to / "lib" / bulk, ignore_errors=True)


def _root(debian: Path, packages: Path, to: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vcs-image-", dir=cache_dir()) as name:
        root = Path(name) / "root"
        root.mkdir()
        say("image: unpacking, compiling, writing the file system")
        run(["tar", "-xf", debian / "root.tar", "-C", root, "--exclude=./dev/*"])
        vcs = root / "opt" / "vcs"
        for folder in ("src", "modules"):
            (vcs / folder).mkdir(parents=True)
        shutil.copytree(packages / "lib", vcs / "lib")
        compile_all = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        run(["chroot", root, *compile_all, "/opt/vcs/lib"])
        (root / "etc" / "hosts").write_text(HOSTS, encoding="ascii")
        _link(root)
        (root / "etc" / "fstab").write_text("", encoding="ascii")
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


def get() -> Path:
    """The root image's path; built if the cache has none. Needs root (chroot, ownership in the image)."""
    debian_key = digest(FORMAT, SUITE, *DEBIAN, *EXCLUDE)
    python_key = digest(FORMAT, PYTHON, *python_requirements())
    key = digest(FORMAT, debian_key, python_key, HOSTS, str(LINKS), LVM)

    def build(to: Path) -> None:
        debian = built("debian", debian_key, _debian)
        packages = built("python", python_key, _python)
        _root(debian, packages, to)
        for kind in ("images", "debian", "python"):
            prune(kind, 2)

    return built("images", key, build) / "root.img"


if __name__ == "__main__":
    print(get())
