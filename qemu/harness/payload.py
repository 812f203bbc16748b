# SPDX-License-Identifier: GPL-2.0-only
"""The project itself as a small read-only disk: Python packages, tests, built modules, launchers, the agent.

Keyed by content and rebuilt in well under a second, so that a test always runs the source as it is now.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import tempfile
from pathlib import Path

from harness.cache import built, cache_dir, digest, prune, run
from harness.ext4 import ext4_image
from harness.image import PROJECT
from harness.kernels import GUEST, Kernel

FORMAT = "3"  # raise it when this file changes what lies in the payload
PACKAGES = ["vcs", "bridge", "membership", "dlm_glue", "tests", "tools", "compat"]
FILES = ["pyproject.toml"]
MOUNT = "/opt/vcs/src"
GUEST_MAGIC = 3495  # bytecode of Python 3.11, the guest's

#: command in the guest -> Python module
LAUNCHERS = {
    "vcs": "vcs.cli.main",
    "vcsd": "vcs.vcsd",
    "dlm_glue": "dlm_glue",
    "mount.gfs2": "vcs.cli.mount_gfs2",
}


def modules_of(kernel: Kernel) -> list[Path]:
    """Our modules built for `kernel`: build/kmod/<series>/**/*.ko, if they are for this very release."""
    folder = PROJECT / "build" / "kmod" / kernel.series
    wanted = f"vermagic={kernel.release} ".encode()
    return [path for path in sorted(folder.rglob("*.ko")) if wanted in path.read_bytes()]


def _files(kernel: Kernel) -> dict[str, Path]:
    """Path in the payload -> file on the host."""
    files: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*")):
            relative = path.relative_to(PROJECT)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if path.is_file() and not hidden:
                files[str(relative)] = path
    files |= {name: PROJECT / name for name in FILES if (PROJECT / name).exists()}
    files |= {f"lab/{path.name}": path for path in sorted(GUEST.iterdir()) if path.is_file()}
    files |= {f"lab/updates/{path.name}": path for path in modules_of(kernel)}
    return files


def _bytecode(source: Path, content: bytes, inside: str, target: Path) -> None:
    """Compile as if at `inside` in the guest; compiled files are kept by content."""
    kept = cache_dir() / "pyc" / digest(content, inside)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        try:
            py_compile.compile(str(source), str(temporary), dfile=inside, doraise=True, invalidation_mode=mode)
        except py_compile.PyCompileError:
            return  # somebody is writing this very file: the guest will say what is wrong with it
        temporary.rename(kept)
    target.parent.mkdir(exist_ok=True)
    shutil.copy(kept, target)


def _tables(tree: Path, kernel: Kernel) -> None:
    """The guest's /lib/modules: depmod's tables over the kernel's modules and ours together, and links to both."""
    with tempfile.TemporaryDirectory(prefix="vcs-depmod-", dir=cache_dir()) as name:
        lib = Path(name) / "lib" / "modules" / kernel.release
        shutil.copytree(kernel.modules, lib, copy_function=os.link)
        shutil.copytree(tree / "lab" / "updates", lib / "updates")
        run(["depmod", "-b", name, kernel.release])
        tables = tree / "lab" / "modules" / kernel.release
        tables.mkdir(parents=True)
        (tables / "kernel").symlink_to(f"/opt/vcs/modules/{kernel.release}/kernel")
        (tables / "updates").symlink_to("../../updates")
        for table in lib.glob("modules.*"):
            shutil.copy(table, tables / table.name)


def _build(files: dict[str, Path], contents: dict[str, bytes], kernel: Kernel, to: Path) -> None:
    tree = to / "tree"
    (tree / "lab" / "updates").mkdir(parents=True)
    compiles = importlib.util.MAGIC_NUMBER[:2] == GUEST_MAGIC.to_bytes(2, "little")
    for name, path in files.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[name])
        target.chmod(path.stat().st_mode & 0o777)
        if compiles and name.endswith(".py"):
            cached = target.parent / "__pycache__" / f"{target.stem}.cpython-311.pyc"
            _bytecode(target, contents[name], f"{MOUNT}/{name}", cached)
    for name, module in LAUNCHERS.items():
        launcher = tree / "lab" / "bin" / name
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(f'#!/bin/sh\nexec /usr/bin/python3 -S -m {module} "$@"\n', encoding="ascii")
        launcher.chmod(0o755)
    compat = tree / "lab" / "lib" / "compat"
    compat.mkdir(parents=True)
    run(["make", "-s", "-C", tree / "compat", f"OUT={compat}"])
    _tables(tree, kernel)
    ext4_image(tree, to / "payload.img", slack_mib=4)
    shutil.rmtree(tree)


def get(kernel: Kernel) -> Path:
    """The payload image for `kernel` and the source as it is now."""
    files = _files(kernel)
    contents = {name: path.read_bytes() for name, path in files.items()}
    modes = {name: str(path.stat().st_mode & 0o111) for name, path in files.items()}
    parts = [part for name in files for part in (name, modes[name], contents[name])]
    key = digest(FORMAT, kernel.release, str(LAUNCHERS), *parts)
    folder = built("payload", key, lambda to: _build(files, contents, kernel, to))
    prune("payload", 8, age_s=3600.0)
    return folder / "payload.img"
