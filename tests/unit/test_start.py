# SPDX-License-Identifier: GPL-2.0-only
"""What a start imports, and what it does not: a daemon that is started again serves nobody until it is there (SAFETY S16).

Every module costs, above all under emulation. Each program is loaded in an interpreter of its own, as far as it gets before it does
anything, and says what it has then.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NEEDLESS = {
    "argparse", "distutils", "doctest", "email", "encodings.idna", "ensurepip", "ftplib", "html", "http", "importlib.metadata",
    "importlib.resources", "mimetypes", "multiprocessing", "optparse", "pdb", "pkg_resources", "pydoc", "pyroute2.iproute",
    "pyroute2.ndb", "pyroute2.netlink.rtnl", "pytest", "setuptools", "smtplib", "sqlite3", "tempfile", "unittest", "urllib.request",
    "webbrowser", "wsgiref", "xml.dom", "xml.sax", "yaml", "zipfile",
}  # fmt: skip
"Nothing here has a use for these; they come with something that has one thing of use. With everything below them."
OF_OTHERS = {
    "vcsd": {"dlm_glue", "vcs.cli"},
    "dlm_glue": {"bridge.coordinator", "click", "cryptography", "membership", "asyncvarlink", "prometheus_client"},
    "vcs status": {"asyncio", "bridge", "cryptography", "logging", "membership", "pathlib", "pyroute2", "subprocess", "tomllib",
                   "vcs.config", "vcs.mounts", "vcs.report", "vcs.sysfs"},
}  # fmt: skip
"What others need, and this program does not."
ALLOWED = {"dlm_glue": {"argparse"}, "vcsd": {"email", "html", "http", "mimetypes", "tempfile", "urllib.request", "wsgiref"}}
"A program -> what it does use of NEEDLESS."


def imports_of(path: str) -> list[str]:
    """Every import statement of a file, those in functions with it; without what is there for type checkers alone."""
    tree = ast.parse((ROOT / path).read_text())
    unseen = {id(n) for top in tree.body if isinstance(top, ast.If) and "TYPE_CHECKING" in ast.unparse(top.test) for n in ast.walk(top)}
    return [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and id(n) not in unseen]


PROGRAMS = {
    "vcsd": [*imports_of("vcs/vcsd.py"), "from membership.registry import factory; factory('totem')",
             "import vcs.netlink; vcs.netlink.load_codec()",
             "import membership.totem.sockets; membership.totem.sockets.resolve('127.0.0.1', 1)"],
    "dlm_glue": [*imports_of("dlm_glue/process.py"), "import vcs.netlink; vcs.netlink.load_codec()"],
    "vcs status": [*imports_of("vcs/cli/main.py"), "import vcs.cli.status"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_start_imports_what_it_needs(program: str) -> None:
    statements = [s for s in PROGRAMS[program] if "__future__" not in s]
    code = "\n".join([*statements, "import sys", "print(*sys.modules)"])
    # -S: site looks for modules of its own (and finds those of the tests' environment).
    path = [str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))]
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[1:1] = {path}\n{code}"], cwd=ROOT, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "vcs.errors" in loaded
    banned = (NEEDLESS | OF_OTHERS[program]) - ALLOWED.get(program, set())
    assert not sorted(m for m in loaded if any(m == b or m.startswith(f"{b}.") for b in banned))
