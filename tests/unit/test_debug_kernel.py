# SPDX-License-Identifier: GPL-2.0-only
"""What `make vm-debug` stands on, as far as it can be asked without a kernel: configurations, and gcov's counters summed up."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from harness import debug_kernel

from tests.kernel.debug import coverage

PROGRAM = """\
#include <stdlib.h>
static int never(int n)
{
	return n + 1;
}
int main(int argc, char **argv)
{
	if (argc > 1)
		return never(atoi(argv[1]));
	return 0;
}
"""


@pytest.mark.parametrize("variant", debug_kernel.VARIANTS)
def test_an_option_is_set_once_and_a_variant_has_a_name_of_its_own(variant: str) -> None:
    text = debug_kernel.config(variant).decode()
    named = Counter(re.findall(r"^(?:# )?(CONFIG_\w+)(?:=| is not set)", text, re.MULTILINE))
    assert [name for name, times in named.items() if times > 1] == []
    assert f'CONFIG_LOCALVERSION="-vcs-{variant}"\n' in text


def test_variants_are_kept_apart() -> None:
    assert len({debug_kernel.recipe(variant) for variant in debug_kernel.VARIANTS}) == len(debug_kernel.VARIANTS)


def archive(built: Path, folder: Path, name: str, *words: str) -> None:
    """The counters of one run of the program, packed as a machine's are; the next run begins at zero."""
    subprocess.run([built / "program", *words], check=False)
    folder.mkdir(exist_ok=True)
    subprocess.run(["tar", "-C", "/", "-czf", str(folder / name), *(f"./{p.relative_to('/')}" for p in built.glob("*.gcda"))], check=True)
    for counters in built.glob("*.gcda"):
        counters.unlink()


def test_lines_of_all_machines_are_summed_up(tmp_path: Path) -> None:
    built, folder = tmp_path / "built", tmp_path / "gcov"
    built.mkdir()
    (built / "program.c").write_text(PROGRAM)
    subprocess.run(["gcc", "--coverage", "-O0", "-c", "program.c"], cwd=built, check=True)
    subprocess.run(["gcc", "--coverage", "-o", "program", "program.o"], cwd=built, check=True)
    archive(built, folder, "a.tgz")
    lines = coverage.summed(folder, built)["program.c"]
    assert lines.never == [2, 4, 9]
    assert lines.functions[4] == "never"
    assert lines.counts[8] == 1
    archive(built, folder, "b.tgz", "5")
    lines = coverage.summed(folder, built)["program.c"]
    assert lines.never == []
    assert lines.counts[8] == 2


def test_a_reason_is_of_a_line_or_of_a_function() -> None:
    reasons = {"a.c": {"return -ENODEV;": "why", "f()": "never"}}
    assert coverage.reason_of(reasons, "a.c", "g", "\t\treturn -ENODEV;") == "why"
    assert coverage.reason_of(reasons, "a.c", "f", "x = 1;") == "never"
    assert coverage.reason_of(reasons, "b.c", "f", "x = 1;") == ""
