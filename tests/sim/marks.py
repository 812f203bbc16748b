# SPDX-License-Identifier: GPL-2.0-only
"""Which branches of the protocol a simulation took: a run that never takes one proves nothing about it.

``install`` puts a loader before the usual one; it compiles the modules named in MODULES with a mark at the beginning of every function
and of every branch (also of the ones that are not written: an ``if`` without ``else`` that was not true). A mark is one store into a
bytearray, so a marked run costs hardly more. Without ``install`` nothing is marked.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, ModuleType
from typing import Any

PACKAGE = "membership.totem"
MODULES = ("clique", "commit", "flow", "gather", "links", "operational", "packing", "parked", "peers", "recovery", "repair", "ring",
           "seats", "token", "verdict", "watch")
REQUIRED = ("recovery",)
"Modules of which every branch must be taken."
UNREACHED: dict[str, str] = {
    "recovery: first_token: if sender.nodeid != ring.predecessor or message.ring != ring.id":
        "a token goes to the successor alone, and one of another ring would have to be later than a whole gathering: recorded, or a lie",
    "recovery: release: if not (token is not None)": "the timer runs only while the token rests",
    "recovery: on_mcast: if not (inner.origin in core.ring.by_id)": "only a liar wraps what no member sent",
}
"``module: the branch's text`` -> why the simulation cannot take it."


class Marked:
    """One module's marks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.hits = bytearray()

    def add(self, text: str) -> int:
        self.texts.append(text)
        self.hits.append(0)
        return len(self.texts) - 1


MARKED: dict[str, Marked] = {}


class _Marker(ast.NodeTransformer):
    def __init__(self, marked: Marked) -> None:
        self.marked = marked
        self._function: list[str] = []

    def _mark(self, at: ast.AST, text: str) -> ast.stmt:
        number = self.marked.add(f"{'.'.join(self._function)}: {text}")
        node = ast.parse(f"__marks__[{number}] = 1").body[0]
        for child in ast.walk(node):
            ast.copy_location(child, at)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._function.append(node.name)
        self.generic_visit(node)
        self._function.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._function.append(node.name)
        self.generic_visit(node)
        at = 1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0
        node.body.insert(at, self._mark(node.body[0], "called"))
        self._function.pop()
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        text = ast.unparse(node.test)
        self.generic_visit(node)
        if self._function:
            node.body.insert(0, self._mark(node, f"if {text}"))
            if not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)):
                node.orelse.insert(0, self._mark(node, f"if not ({text})"))
        return node

    def _loop(self, node: ast.For | ast.While, text: str) -> ast.AST:
        self.generic_visit(node)
        if self._function:
            node.body.insert(0, self._mark(node, text))
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._loop(node, f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}")

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._loop(node, f"while {ast.unparse(node.test)}")


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Always from the source: what is cached has no marks."""
        return self._marked(self.get_data(self.path))

    def _marked(self, data: bytes) -> CodeType:
        name = self.name.rpartition(".")[2]
        marked = MARKED[name] = Marked(name)
        tree = _Marker(marked).visit(ast.parse(data, self.path))
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        module.__dict__["__marks__"] = MARKED[self.name.rpartition(".")[2]].hits
        exec(code, module.__dict__)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        package, _, name = fullname.rpartition(".")
        if package != PACKAGE or name not in MODULES or not path:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=_Loader(fullname, spec.origin))


def install() -> None:
    """Before anything imports the engine."""
    assert not any(f"{PACKAGE}.{m}" in sys.modules for m in MODULES), "the engine is imported already"
    sys.meta_path.insert(0, _Finder())


def taken() -> dict[str, bytes]:
    """Module -> one byte per mark, 1 where it was passed in this process."""
    return {name: bytes(marked.hits) for name, marked in MARKED.items()}


class Coverage:
    """What all processes together have taken."""

    def __init__(self) -> None:
        self.hits: dict[str, bytearray] = {name: bytearray(len(m.texts)) for name, m in MARKED.items()}

    def add(self, hits: dict[str, bytes]) -> None:
        for name, some in hits.items():
            mine = self.hits[name]
            for i, hit in enumerate(some):
                if hit:
                    mine[i] = 1

    def missed(self, name: str) -> list[str]:
        return [f"{name}: {t}" for t, hit in zip(MARKED[name].texts, self.hits[name], strict=True) if not hit]

    def missed_required(self) -> list[str]:
        return [text for name in REQUIRED if name in MARKED for text in self.missed(name) if text not in UNREACHED]

    def line(self) -> str:
        """One line for people."""
        parts = [f"{name} {sum(hits)}/{len(hits)}" for name, hits in sorted(self.hits.items())]
        return "branches " + ", ".join(parts)
