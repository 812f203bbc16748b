# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of our own that look for our mistakes: Debian's source of 6.12 with qemu/debug-kernel/*.config over allnoconfig.

Everything is built in, so the guest's only modules are ours. Each is built once and kept by the content of configuration and source
(a quarter of an hour of one core; with ccache installed, later builds of a changed configuration take a fraction).

    python -m harness.kernels debug        KASAN, lockdep, kmemleak, failslab, KUnit, gcov
    python -m harness.kernels kcsan        data races, and nothing else
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cache import built, cache_dir, digest, run, say
from harness.ext4 import ext4_image
from harness.source import PACKAGE

FORMAT = "2"  # raise it when this file changes what lies in the cache
FOLDER = Path(__file__).resolve().parent.parent / "debug-kernel"
VARIANTS = ("debug", "kcsan")
"Each has a fragment of its own over base.config."
#: only what is built later, our modules, is instrumented: the races of others are theirs
MAKE_WORDS = ("KCSAN_SANITIZE=n",)
#: what a build of a module outside the tree reads, beside the folders below
KEPT_NAMES = ("Makefile", "Kconfig", "Kbuild")
KEPT_FOLDERS = ("include", "scripts", "arch/x86/include")
KEPT_FILES = (".config", "Module.symvers", "tools/objtool/objtool")


def config(variant: str) -> bytes:
    """The fragments, one after the other."""
    return b"".join((FOLDER / f"{name}.config").read_bytes() for name in ("base", variant))


def recipe(variant: str) -> str:
    """A name of everything but the source that goes into the kernel's folder."""
    return digest(FORMAT, config(variant), *MAKE_WORDS)


def fetch(variant: str, kinds: Path) -> str:
    """The name of the kernel's folder in `kinds`, built if it is not there. Raises RuntimeError if apt or a build cannot."""
    uris = run(["apt-get", "download", "--print-uris", PACKAGE]).decode()
    key = f"{variant}-{digest(recipe(variant), uris.split(maxsplit=1)[1])}"
    built("kernels", key, lambda to: _build(variant, to, kinds / key))
    return key


def _build(variant: str, to: Path, final: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"vcs-{variant}-", dir=cache_dir()) as name:
        tree = Path(name) / "tree"
        tree.mkdir()
        say(f"{variant} kernel: downloading and unpacking the source")
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE], cwd=Path(name))
        (deb,) = Path(name).glob("*.deb")
        inside = f"dpkg-deb --fsys-tarfile {shlex.quote(str(deb))} | tar xO ./usr/src/{PACKAGE}.tar.xz"
        run(["bash", "-o", "pipefail", "-c", f"{inside} | tar xJ -C {shlex.quote(str(tree))} --strip-components=1"])
        deb.unlink()
        compile_tree(variant, tree)
        _install(tree, to, final)


def _make(tree: Path, *words: str) -> bytes:
    """Without a time, a user and a host in the image, so that one configuration makes one kernel."""
    stamp = ["KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=vcs", "KBUILD_BUILD_HOST=vcs"]
    compiler = ["CC=ccache gcc"] if shutil.which("ccache") else []
    return run(["make", "-s", "-C", tree, f"-j{os.cpu_count() or 1}", *stamp, *compiler, *MAKE_WORDS, *words])


def compile_tree(variant: str, tree: Path) -> None:
    """Configure and build in place. Raises RuntimeError, also when Kconfig did not take an option as it was written."""
    fragments = tree / "vcs.config"
    fragments.write_bytes(config(variant))
    _make(tree, f"KCONFIG_ALLCONFIG={fragments}", "allnoconfig")
    made = set((tree / ".config").read_text(encoding="utf-8").splitlines())
    wanted = [line for line in config(variant).decode().splitlines() if line.startswith("CONFIG_")]
    if lost := [line for line in wanted if line not in made]:
        raise RuntimeError(f"the {variant} kernel's configuration lost {', '.join(lost)}: what do they depend on?")
    say(f"{variant} kernel: building (once; a quarter of an hour of one core)")
    _make(tree, "vmlinux", "modules")


def _kept(tree: Path) -> Iterator[Path]:
    """Files that a build of modules needs, relative to the tree."""
    for path in tree.rglob("*"):
        relative = path.relative_to(tree)
        inside = any(relative.is_relative_to(folder) for folder in KEPT_FOLDERS)
        named = path.name.split(".")[0] in KEPT_NAMES
        if path.is_file() and (inside or named or str(relative) in KEPT_FILES) and path.suffix not in (".o", ".cmd"):
            yield relative


def _install(tree: Path, to: Path, final: Path) -> None:
    """The layout of a Debian kernel's folder, see kernels.Kernel."""
    release = run(["make", "-s", "-C", tree, "kernelrelease"]).decode().strip()
    shutil.copy(tree / "vmlinux", to / "vmlinux")
    kdir = to / "usr" / "src" / f"linux-headers-{release}"
    for relative in _kept(tree):
        target = kdir / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / relative, target)
    modules = to / "lib" / "modules" / release
    (modules / "kernel").mkdir(parents=True)
    for table in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(tree / table, modules / table)
    run(["depmod", "-b", to, release])
    ext4_image(to / "lib" / "modules", to / "modules.img")
    (to / "release").write_text(release, encoding="ascii")
    say(f"kernel {release} in {final}")
