# SPDX-License-Identifier: GPL-2.0-only
"""Reading the view is a load: nothing in it is atomic, nothing that others could see is stored. By the built module's machine code.

No machine is booted; marked with the others because it needs `make kmod`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

BUILT = Path(__file__).parents[2] / "build" / "kmod"
STORES = ("mov", "add", "sub", "inc", "dec", "and", "or", "xor", "not", "neg", "set", "bts", "btr", "btc", "cmov", "stos", "movs")
ATOMIC = ("lock", "xchg", "cmpxchg", "xadd", "mfence", "sfence", "lfence")


def code_of(module: Path, function: str) -> list[str]:
    """The instructions of a function, without those that tracing puts in front and the return's thunk."""
    said = subprocess.run(
        ["objdump", "-d", "--no-addresses", f"--disassemble={function}", module], capture_output=True, text=True, check=True
    ).stdout
    rows = (re.sub(r"^\s*(?:[0-9a-f]{2} )+\s*", "", line).strip() for line in said.splitlines() if line.startswith(("\t", " ")))
    return [row for row in rows if row and not row.startswith("...")]


def shared_stores(code: list[str]) -> list[str]:
    """Instructions that are atomic, order memory, or write to it elsewhere than on the own stack (AT&T: the last operand is the target)."""
    found = []
    for row in code:
        name, _, operands = row.partition(" ")
        target = re.split(r",(?![^(]*\))", operands.split("#")[0].split("<")[0].strip())[-1]
        writes = name.startswith(STORES) and "(" in target and not re.search(r"\(%r[sb]p[,)]", target)
        if name.startswith(ATOMIC) or writes:
            found.append(row)
    return found


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_a_read_of_the_view_stores_nothing(series: str) -> None:
    code = code_of(BUILT / series / "vcs.ko", "vcs_view_rcu")
    assert any(re.match(r"mov\s+0x[0-9a-f]+\(%rdi\),%rax", row) for row in code), f"not the function that was meant:\n{code}"
    assert len(code) < 20
    assert not shared_stores(code)


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_the_check_sees_a_store(series: str) -> None:
    """What it has to find is in the function that pins a cluster: it counts under a lock."""
    assert shared_stores(code_of(BUILT / series / "vcs.ko", "vcs_cluster_put"))
