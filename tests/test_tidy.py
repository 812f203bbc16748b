# SPDX-License-Identifier: GPL-2.0-only
"""Style as a test: who may import whom (DESIGN section "Layout"), what pure code may not touch, sizes, headers, the Makefile.

Exceptions are named here with their reason; one that is not needed any more fails too, so the lists only shrink by themselves.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("vcs", "bridge", "membership", "dlm_glue", "tools", "tests", "harness", "vcslab", "bench")

FUNCTION_MAX = 70
FILE_MAX = 400
TEST_FILE_MAX = 600
"Tests are lists: they are looked up, not read through."
MODULE_MAX = 2500
"""Lines of code of vcs.ko that people write: kmod/ with its public header, without what `make gen` makes, the heartbeat and the tests. A
line of code is one that is neither blank nor comment alone, as the aim of the design counts (2,000); with those it is 3,300 lines."""
SAMPLE_MAX = 60
"All lines of the consumer in docs/, which the tests build and run."
HEARTBEAT_MAX = 700
"All lines of vcs_heartbeat.ko that people write."
MADE = "by `make gen`; do not edit"

LONG_FUNCTIONS: dict[str, str] = {}
"``path:qualified.name`` -> why it is longer than FUNCTION_MAX lines."

LONG_FILES: dict[str, str] = {
    "bridge/driver.py": "one executor with a method of a few lines for each of thirteen effects",
    "kmod/cluster.c": "a cluster's life: add, attach, detach, orphan, lost, under one lock order",
    "kmod/group.c": "a group's life: joined, lost, orphaned, taken over, left, under one lock order",
    "kmod/spec/vcs.yaml": "the netlink interface: one definition, append only",
    "tests/kernel/contract.py": "the contract of the switch, told once for kernel and fake",
}
"path -> why it is longer than FILE_MAX lines."

# --- who may import whom ----------------------------------------------------------------------------------------------

ALLOWED: list[tuple[str, tuple[str, ...]]] = [
    ("vcs/model.py", ()),
    ("vcs/errors.py", ()),
    ("vcs/cli/mount_gfs2.py", ()),
    ("vcs/watchdog.py", ()),
    ("vcs/netlink*.py", ("vcs", "bridge.switch")),  # the port to the kernel implements the bridge's interface to a switch
    ("vcs/vcsd.py", ("vcs", "bridge", "membership")),  # the master puts the parts together
    ("vcs/cli/witness.py", ("vcs", "bridge.witness")),  # a daemon that is a command
    ("vcs/*", ("vcs",)),
    ("membership/*", ("vcs.model", "vcs.errors", "vcs.config", "vcs.report", "membership")),
    ("bridge/*", ("vcs", "membership", "bridge")),
    ("dlm_glue/plan.py", ("vcs.model", "dlm_glue")),
    ("dlm_glue/*", ("vcs", "bridge.switch", "dlm_glue")),
    ("qemu/harness/*", ("harness",)),
    ("qemu/guest/*", ()),
    ("qemu/vcslab/*", ("harness", "vcslab")),
    ("kmod/*", ()),
    ("packaging/*", ("harness",)),
    ("bench/*", ("harness", "vcslab", "bench", "vcs", "membership", "bridge.channel", "tests.sim")),  # our side of a comparison; growth
    ("tools/*", ("vcs.model", "dlm_glue.state", "tools")),  # values and words; they run on the system's Python
    ("tests/*", OURS),
    ("docs/make_*.py", OURS),  # parts of pages that are made from tables
    ("conftest.py", ()),
]
"First match counts: (file pattern, what of ours it may import)."

ONLY_IN: dict[str, tuple[str, ...]] = {
    "pyroute2": ("vcs/netlink*.py",),
    "asyncvarlink": ("vcs/control*.py",),
    "prometheus_client": ("vcs/metrics.py", "tests/*"),
    "cryptography": ("membership/totem/aes.py", "tests/*"),
    "yaml": ("kmod/spec/*.py", "tests/*"),
    "bcc": ("tools/attach.py",),
    "click": ("vcs/cli/*.py", "vcs/vcsd.py", "tests/*"),
}
"A library is known to one file, so that it can be changed there."

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "fcntl", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
PURE = (
    "vcs/model.py", "vcs/errors.py", "membership/api.py", "membership/totem/*.py", "bridge/coordinator/*.py",
    "dlm_glue/plan.py", "dlm_glue/state.py", "dlm_glue/fold.py", "vcs/batch.py", "bridge/channel/order.py",
    "bridge/failover.py", "bridge/fence_history.py", "vcs/failover.py",
    "bridge/witness/arbiter.py", "bridge/witness/session.py", "bridge/witness/wire.py",
    "tools/tracepoints.py", "tools/latency.py", "tools/locks.py", "tools/words.py",
)  # fmt: skip
DRIVERS: dict[str, str] = {
    "membership/totem/driver.py": "sockets, clock and tasks of the engine",
    "membership/totem/guardian.py": "the child that tells of our death",
    "membership/totem/last_gasp.py": "that child",
    "membership/totem/linkset.py": "the sockets of all links",
    "membership/totem/linkwatch.py": "the kernel's word about our own links",
    "membership/totem/memory.py": "the C library's allocator",
    "membership/totem/sockets.py": "the sockets of one link",
    "membership/totem/ringseq.py": "the file that keeps the ring sequence",
}
"What lies among pure files and is not: path -> what it drives."


@functools.cache
def tracked() -> tuple[str, ...]:
    """Every file under version control; in an unpacked archive every file that is not hidden or built."""
    got = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if got.returncode == 0:
        names = [n for n in got.stdout.split("\0") if n]
    else:
        names = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file()]
        names = [n for n in names if not n.startswith((".venv/", "build/", ".git/")) and "/." not in n]
    return tuple(n for n in names if (ROOT / n).is_file())


def python_files() -> list[str]:
    return [n for n in tracked() if n.endswith(".py")]


@functools.cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def imports(name: str, tree: ast.Module | None = None) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at the top or later: (dotted name, line)."""
    package = name.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree or tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # ``from vcs import model`` imports vcs.model; the plain name of the package alone would hide that.
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), node.lineno


def below(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == a or module.startswith(f"{a}.") for a in allowed)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, p) for p in patterns)


def test_there_is_something_to_look_at() -> None:
    assert {"vcs/model.py", "tests/test_tidy.py", "Makefile"} <= set(tracked())
    assert len(python_files()) > 50


def test_the_tools_are_not_under_version_control() -> None:
    """A folder of tools, or a link to one, would replace everybody else's at the next pull."""
    assert not [n for n in tracked() if n.split("/")[0] in (".venv", "build")]
    assert subprocess.run(["git", "ls-files", ".venv"], cwd=ROOT, capture_output=True, text=True, check=False).stdout == ""


def test_dependency_directions() -> None:
    wrong = []
    for name in python_files():
        allowed = next((a for pattern, a in ALLOWED if fnmatch.fnmatch(name, pattern)), None)
        assert allowed is not None, f"{name}: in no folder that DESIGN's layout knows; add it to ALLOWED"
        for module, line in imports(name):
            if below(module, OURS) and not below(module, allowed) and module not in ("vcs.__version__",):
                wrong.append(f"{name}:{line}: imports {module}; it may import {', '.join(allowed) or 'nothing of ours'}")
    assert not wrong, "\n".join(wrong)


def test_libraries_are_known_to_one_file() -> None:
    wrong = [
        f"{name}:{line}: imports {module}; only {', '.join(ONLY_IN[top])} may"
        for name in python_files()
        for module, line in imports(name)
        if (top := module.partition(".")[0]) in ONLY_IN and not matches(name, ONLY_IN[top])
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_code_has_no_clock_socket_or_chance() -> None:
    found = [n for n in python_files() if matches(n, PURE)]
    assert {"bridge/coordinator/core.py", "membership/totem/wire.py", "dlm_glue/plan.py"} <= set(found)
    wrong, drivers = [], set()
    for name in found:
        for module, line in imports(name):
            if module.partition(".")[0] in IMPURE:
                drivers.add(name)
                if name not in DRIVERS:
                    wrong.append(f"{name}:{line}: imports {module}: time, bytes and chance are arguments here")
    assert not wrong, "\n".join(wrong)
    assert drivers == set(DRIVERS), "an exception that is not needed any more"


def test_pure_code_says_nothing_by_itself() -> None:
    """print() and open() need no import, and are no less impure for it."""
    wrong = [
        f"{name}:{node.lineno}: {node.func.id}()"
        for name in python_files()
        if matches(name, PURE) and name not in DRIVERS
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "open", "input", "exec", "eval")
    ]
    assert not wrong, "\n".join(wrong)


# --- files ------------------------------------------------------------------------------------------------------------

SOURCES = (".py", ".c", ".h", ".sh", ".yaml", ".yml", ".service", ".toml", ".example")


def test_licence_on_the_first_line() -> None:
    wrong = []
    for name in tracked():
        if not (name.endswith(SOURCES) or name in ("Makefile", ".ci/run")) or name.endswith("cluster.toml.example"):
            continue
        lines = (ROOT / name).read_text().split("\n", 2)
        first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
        if not re.search(r"SPDX-License-Identifier: \(?\(?GPL-2\.0", first):
            wrong.append(f"{name}: the first line is {first!r}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is() -> None:
    wrong = [n for n in python_files() if not (ast.get_docstring(tree_of(n)) or "").strip()]
    assert not wrong, wrong


def places() -> Iterator[tuple[str, int, str]]:
    for name in tracked():
        if name == "tests/test_tidy.py":
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield name, number, line


HOSTS = ("www.kernel.org", "kernel.org", "www.gnu.org", "varlink.org", "www.freedesktop.org", "www.w3.org")
"Hosts that a text may name: references for readers. The build fetches nothing by an address of its own."


def test_no_place_of_one_machine() -> None:
    """Nothing names a folder of somebody's machine, a mirror or a package index: those are the machine's own settings."""
    folder = re.compile(r"(?<![\w.$})-])/(?:work|home|Users)/\w")
    url = re.compile(r"https?://([\w.-]+)")
    index = re.compile(r"--(?:extra-)?index-url|--trusted-host|--find-links|^deb(?:-src)? \S*://")
    wrong = []
    for name, number, line in places():
        if name == "COPYING":
            continue
        hosts = [h for h in url.findall(line) if h not in HOSTS and "." in h and not h.startswith(("127.", "192.0.2.", "10."))]
        if folder.search(line) or index.search(line) or hosts:
            wrong.append(f"{name}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_to_do() -> None:
    pattern = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
    wrong = [f"{n}:{i}: {line.strip()}" for n, i, line in places() if pattern.search(line) and n != "COPYING"]
    assert not wrong, "\n".join(wrong)


def test_links_in_documents_lead_somewhere() -> None:
    wrong = []
    for name, number, line in places():
        if not name.endswith(".md"):
            continue
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if "://" not in target and not (ROOT / name).parent.joinpath(target).exists():
                wrong.append(f"{name}:{number}: {target}")
    assert not wrong, "\n".join(wrong)


# --- sizes ------------------------------------------------------------------------------------------------------------


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every function below ``node``: (qualified name, lines)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield name, (child.end_lineno or 0) - child.lineno + 1
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Kernel style: the opening and the closing brace of a function stand in the first column."""
    lines = text.split("\n")
    begin = -1
    for i, line in enumerate(lines):
        if line == "{":
            begin = i
        elif line == "}" and begin >= 0:
            heads = (re.search(r"\b(\w+)\(", lines[j]) for j in range(begin - 1, max(begin - 6, -1), -1) if lines[j][:1].strip())
            head = next((m[1] for m in heads if m), "?")
            yield head, i - begin + 1
            begin = -1


def test_functions_fit_a_screen() -> None:
    sizes: dict[str, int] = {}
    for name in tracked():
        if name.endswith(".py"):
            sizes |= {f"{name}:{f}": n for f, n in functions(tree_of(name))}
        elif name.endswith(".c"):
            sizes |= {f"{name}:{f}": n for f, n in c_functions((ROOT / name).read_text())}
    long = {f: n for f, n in sizes.items() if n > FUNCTION_MAX}
    assert len(sizes) > 500
    assert not {f: n for f, n in long.items() if f not in LONG_FUNCTIONS}
    assert not set(LONG_FUNCTIONS) - set(long), "an exception that is not needed any more"


def c_lines(text: str) -> int:
    """Lines of C that say something: no comment, not blank."""
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return sum(1 for line in bare.splitlines() if line.strip())


def test_the_module_stays_small() -> None:
    texts = {n: (ROOT / n).read_text() for n in tracked() if fnmatch.fnmatch(n, "kmod/*.[ch]") and "/tests/" not in n}
    texts = {n: t for n, t in texts.items() if not n.startswith("kmod/heartbeat/")}
    sizes = {n: c_lines(t) for n, t in texts.items() if MADE not in t[:200]}
    assert len(sizes) > 10
    assert sum(sizes.values()) <= MODULE_MAX, sizes


def test_the_sample_consumer_fits_a_page() -> None:
    assert (ROOT / "docs/sample_consumer.c").read_text().count("\n") <= SAMPLE_MAX


def test_the_heartbeat_stays_small() -> None:
    texts = {n: (ROOT / n).read_text() for n in tracked() if fnmatch.fnmatch(n, "kmod/heartbeat/*.[ch]")}
    sizes = {n: t.count("\n") for n, t in texts.items() if MADE not in t[:200]}
    assert len(sizes) > 3
    assert sum(sizes.values()) <= HEARTBEAT_MAX, sizes


def test_files_fit_a_sitting() -> None:
    long = {}
    for name in tracked():
        if name == "COPYING" or (ROOT / name).suffix not in (*SOURCES, ".md", ""):
            continue
        text = (ROOT / name).read_text(errors="replace")
        if MADE in text[:200]:
            continue
        lines = text.count("\n")
        if lines > (TEST_FILE_MAX if name.startswith("tests/") else FILE_MAX):
            long[name] = lines
    assert not {n: lines for n, lines in long.items() if n not in LONG_FILES}
    assert not {n for n in LONG_FILES if n not in long and (ROOT / n).exists()}, "an exception that is not needed any more"


# --- the Makefile -----------------------------------------------------------------------------------------------------


def test_every_target_is_in_the_help() -> None:
    """A target that `make` does not list is not supported, so there is none."""
    text = (ROOT / "Makefile").read_text()
    phony = {t for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for t in line.split()}
    rules = {t for line in re.findall(r"^([a-z][\w -]*):(?![=:])", text, re.M) for t in line.split()}
    told = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", text, re.M))
    assert {"help", "setup", "test", "lint"} <= told
    assert rules == told, "targets without a `## what it does`, or told and without a rule"
    assert phony == told, "a target that is no file must be .PHONY"
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.strip()} == told


def test_nobody_opens_dlm_monitor() -> None:
    """SAFETY S18: its last close stops every lockspace of the node, without a barrier. Only comments may speak of it."""
    for package in ("vcs", "bridge", "membership", "dlm_glue"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
            spoken = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs]
            assert not [text for text in spoken if "dlm-monitor" in text or "dlm_monitor" in text], path


# --- the tests of this file's own means -------------------------------------------------------------------------------


def test_imports_are_seen_wherever_they_stand() -> None:
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    from time import sleep\n    importlib.import_module('i.j')\n    __import__('k')\n"
    )
    found = [m for m, _line in imports("p/q/r.py", ast.parse(source))]
    assert sorted(found) == ["a.b", "c.d", "i.j", "k", "p.f.g", "p.q.e", "time.sleep"]


def test_lines_of_c_are_counted() -> None:
    assert c_lines("/* one\n * two */\nint a; /* b */\n\n// c\nint d;\n") == 2


def test_c_functions_are_measured() -> None:
    text = "struct x {\n\tint a;\n};\n\nstatic int\nfoo(int a,\n    int b)\n{\n\treturn 1;\n}\n\nint bar(void)\n{\n}\n"
    assert list(c_functions(text)) == [("foo", 3), ("bar", 2)]
