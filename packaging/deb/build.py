# SPDX-License-Identifier: GPL-2.0-only
"""The Debian packages, for `make deb`: vcs-dkms (the module's source) and vcs-cluster (everything else), into build/deb/.

    python packaging/deb/build.py [OUT]

The userland lies in a private directory with the libraries that Debian 12 has not, or not in the versions that pyproject.toml asks for;
programs put that directory into their own path and nobody else's. Man pages are made by go-md2man, completions by click.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from harness.cache import built, digest, run, say
from harness.image import pip_install

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PRIVATE = "/usr/lib/vcs-cluster"
PACKAGES = ("vcs", "bridge", "membership", "dlm_glue", "tools")
#: place -> (module, options of its Python). bcc is a package of Debian's: its tools see those.
PROGRAMS = {
    "usr/bin/vcs": ("vcs.cli.main", "-IS"),
    "usr/sbin/vcsd": ("vcs.vcsd", "-IS"),
    "usr/sbin/dlm_glue": ("dlm_glue.__main__", "-IS"),
    "usr/sbin/mount.gfs2": ("vcs.cli.mount_gfs2", "-IS"),
    "usr/sbin/vcssnoop": ("tools.vcssnoop", "-I"),
    "usr/sbin/vcslat": ("tools.vcslat", "-I"),
    "usr/sbin/vcsdlm": ("tools.vcsdlm", "-I"),
}
LAUNCHER = """#!/usr/bin/python3 {options}
import runpy
import sys

sys.path[:0] = ["{private}", "{private}/lib"]
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/vcs",
    "zsh": "usr/share/zsh/vendor-completions/_vcs",
    "fish": "usr/share/fish/vendor_completions.d/vcs.fish",
}


def project() -> tuple[str, list[str]]:
    """(version, what Python needs) from pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        table = tomllib.load(file)["project"]
    return table["version"], table["dependencies"]


def epoch() -> int:
    """The time of every file in the packages, so that one source makes one package: of the last commit, or of pyproject.toml."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    said = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) if said else int((ROOT / "pyproject.toml").stat().st_mtime)


def put(root: Path, place: str, text: str | bytes, mode: int = 0o644) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)


def copy(root: Path, place: str, files: Iterable[Path], base: Path) -> None:
    """Files at their places below ``base``, below ``place``."""
    for path in files:
        put(root, f"{place}/{path.relative_to(base)}", path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)


def sources(folder: Path, *patterns: str) -> list[Path]:
    return sorted(p for pattern in patterns for p in folder.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts)


def man(text: str, version: str, when: str) -> str:
    """A page of docs/man in roff, with the head that man and whatis want."""
    title = re.match(r"# ([\w.-]+)\((\d)\)\n", text)
    if title is None:
        raise ValueError(f"a man page begins with `# name(section)`, not with {text[:40]!r}")
    first = text[title.end() :].strip().split("\n\n")[0].replace("\n", " ")
    about = re.sub(r"^`[^`]*`:? (describes )?", "", first).split(". ")[0].rstrip(".").replace("`", "")
    body = f"# {title[1]}\n\n# NAME\n\n{title[1]} - {about}\n\n# DESCRIPTION\n\n{text[title.end():]}"
    roff = run(["go-md2man"], data=re.sub(r"^## ", "# ", body, flags=re.M).encode()).decode()
    roff = re.sub(r"^\.TH .*\n", "", roff, flags=re.M).removeprefix(".nh\n")
    return f"'\\\" t\n.TH {title[1].upper()} {title[2]} \"{when}\" \"vcs {version}\" \"Virtual Cluster Switch\"\n.nh\n{roff}"


def completion(shell: str) -> bytes:
    environment = {**os.environ, "_VCS_COMPLETE": f"{shell}_source", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "vcs.cli.main"], env=environment, capture_output=True, check=False)
    if b"_VCS_COMPLETE" not in done.stdout:
        raise RuntimeError(f"click gave no completion for {shell}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def userland(root: Path, version: str, when: str) -> None:
    """What vcs-cluster holds."""
    for package in PACKAGES:
        copy(root, PRIVATE[1:], sources(ROOT / package, "*.py"), ROOT)
    needs = project()[1]
    library = built("deb-python", digest(*needs), lambda to: pip_install(needs, to)) / "lib"
    copy(root, f"{PRIVATE[1:]}/lib", sources(library, "*"), library)
    for place, (module, options) in PROGRAMS.items():
        put(root, place, LAUNCHER.format(options=options, private=PRIVATE, module=module), 0o755)
    units = ROOT / "packaging" / "systemd"
    copy(root, "lib/systemd/system", sources(units, "*.service", "*.conf"), units)
    put(root, "usr/share/doc/vcs-cluster/cluster.toml.example", (ROOT / "etc" / "cluster.toml.example").read_bytes())
    copy(root, "usr/share/doc/vcs-cluster/examples", sources(ROOT / "tools", "*_example.txt"), ROOT / "tools")
    for page in sorted((ROOT / "docs" / "man").glob("*.md")):
        name = page.stem
        put(root, f"usr/share/man/man{name[-1]}/{name}.gz", gzip.compress(man(page.read_text(), version, when).encode(), mtime=0))
    for shell, place in COMPLETIONS.items():
        put(root, place, completion(shell))
    compat = root / "usr" / "lib" / "vcs" / "compat"
    compat.mkdir(parents=True)
    run(["make", "-s", "-C", ROOT / "compat", f"OUT={compat}"])
    for folder in ("etc/vcs", "var/lib/vcs"):
        (root / folder).mkdir(parents=True)
        (root / folder).chmod(0o700 if folder.startswith("var") else 0o755)


def module(root: Path, version: str) -> None:
    """What vcs-dkms holds: the module's source without its tests."""
    place, kmod = f"usr/src/vcs-{version}", ROOT / "kmod"
    keep = [p for p in sources(kmod, "*.c", "*.h") if "tests" not in p.parts and not p.name.endswith(".mod.c")]
    copy(root, place, keep, kmod)
    kbuild = [line for line in (kmod / "Kbuild").read_text().splitlines() if "tests/" not in line and "kunit" not in line]
    put(root, f"{place}/Kbuild", "\n".join(kbuild) + "\n")
    modules = [name for line in kbuild if line.startswith("obj-m") for name in re.findall(r"([\w-]+)\.o", line)]
    lines = [f'BUILT_MODULE_NAME[{i}]="{name}"\nDEST_MODULE_LOCATION[{i}]="/updates/dkms"' for i, name in enumerate(modules)]
    conf = (HERE / "dkms.conf").read_text().replace("@VERSION@", version).replace("@MODULES@", "\n".join(lines))
    put(root, f"{place}/dkms.conf", conf)


def finish(root: Path, name: str, version: str, out: Path, when: int) -> Path:
    """Control files, then the package itself."""
    put(root, f"usr/share/doc/{name}/copyright", "The Virtual Cluster Switch, under the GNU General Public License, version 2 only:\n"
        "/usr/share/common-licenses/GPL-2\n")
    control = (HERE / f"{name}.control").read_text().replace("@VERSION@", version)
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) // 1024
    put(root, "DEBIAN/control", control.replace("Section:", f"Installed-Size: {size}\nSection:", 1))
    for script in ("postinst", "prerm", "postrm"):
        path = HERE / f"{name}.{script}"
        if path.exists():
            put(root, f"DEBIAN/{script}", path.read_text().replace("@VERSION@", version), 0o755)
    for path in [root, *root.rglob("*")]:
        if path.is_dir() and path != root / "var" / "lib" / "vcs":
            path.chmod(0o755)
        os.utime(path, (when, when), follow_symlinks=False)
    architecture = re.search(r"^Architecture: (\w+)$", control, re.M)
    assert architecture is not None
    package = out / f"{name}_{version}_{architecture[1]}.deb"
    run(["env", f"SOURCE_DATE_EPOCH={when}", "dpkg-deb", "-Zxz", "-z3", "--root-owner-group", "--build", root, package])
    return package


def build(out: Path) -> list[Path]:
    """Both packages; the files. Raises RuntimeError with what a tool said."""
    version, when = project()[0], epoch()
    out.mkdir(parents=True, exist_ok=True)
    packages = []
    with tempfile.TemporaryDirectory(prefix="vcs-deb-") as name:
        day = run(["date", "-u", "-d", f"@{when}", "+%Y-%m-%d"]).decode().strip()
        for package in ("vcs-cluster", "vcs-dkms"):
            root = Path(name) / package
            root.mkdir()
            if package == "vcs-cluster":
                userland(root, version, day)
            else:
                module(root, version)
            packages.append(finish(root, package, version, out, when))
            say(f"{packages[-1]}: {packages[-1].stat().st_size >> 10} KiB")
    return packages


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "deb"))
    shutil.rmtree(ROOT / "packaging" / "deb" / "__pycache__", ignore_errors=True)
