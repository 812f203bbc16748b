# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of kmod/ have run: gcov's counters of all machines (harness.gcov), summed up.

    python -m tests.kernel.debug.coverage build/gcov     a table per file, and every line that never ran, with the reason (uncovered.toml)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.kernels import DEBUG

ROOT = Path(__file__).parents[3]
REASONS = Path(__file__).parent / "uncovered.toml"
WANTED = 0.90
"What the kernel suite has to cover of kmod/."


@dataclass
class Lines:
    """Of one file: how often each line ran, and in which function it stands."""

    counts: Counter[int] = field(default_factory=Counter)
    functions: dict[int, str] = field(default_factory=dict)

    @property
    def never(self) -> list[int]:
        return sorted(line for line, times in self.counts.items() if not times)


def reports(archive: Path) -> Iterator[dict[str, object]]:
    """gcov's own report of each object whose counters are in the archive. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="vcs-gcov-") as name:
        subprocess.run(["tar", "-C", name, "-xzf", str(archive)], check=True)
        for counters in sorted(Path(name).rglob("*.gcda")):
            notes = Path("/", counters.relative_to(name)).with_suffix(".gcno")
            if not notes.exists():
                raise SystemExit(f"{notes} is missing: the modules were built elsewhere, or anew")
            shutil.copy(notes, counters.with_suffix(".gcno"))
            said = subprocess.run(
                ["gcov", "--json-format", "--stdout", counters.name], cwd=counters.parent, check=True, capture_output=True
            )
            yield from (json.loads(line) for line in said.stdout.splitlines() if line.strip())


def summed(folder: Path, built: Path) -> dict[str, Lines]:
    """File below kmod/ -> its lines, over all archives; what is a test itself does not count."""
    files: dict[str, Lines] = {}
    for archive in sorted(folder.glob("*.tgz")):
        for report in reports(archive):
            for source in report["files"]:  # type: ignore[attr-defined]
                path = Path(os.path.normpath(Path(str(report["current_working_directory"]), source["file"])))
                if not path.is_relative_to(built) or path.relative_to(built).parts[0] == "tests":
                    continue
                lines = files.setdefault(str(path.relative_to(built)), Lines())
                for line in source["lines"]:
                    lines.counts[line["line_number"]] += line["count"]
                    lines.functions[line["line_number"]] = line.get("function_name", "")
    return files


def reason_of(reasons: dict[str, dict[str, str]], name: str, function: str, text: str) -> str:
    """By the line's text, or by the function when none of it runs."""
    of_file = reasons.get(name, {})
    return of_file.get(text.strip()) or of_file.get(f"{function}()") or ""


def main(words: list[str]) -> int:
    """1 when less is covered than WANTED, or when a line that never ran has no reason."""
    built = ROOT / "build" / "kmod" / DEBUG
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    files = summed(Path(words[0]), built)
    unexplained = 0
    for name, lines in sorted(files.items()):
        ran = len(lines.counts) - len(lines.never)
        print(f"{name}: {ran} of {len(lines.counts)} lines, {100 * ran / len(lines.counts):.1f} %")
    for name, lines in sorted(files.items()):
        text = (built / name).read_text(encoding="utf-8").splitlines()
        for line in lines.never:
            reason = reason_of(reasons, name, lines.functions[line], text[line - 1])
            unexplained += not reason
            print(f"{name}:{line}: {lines.functions[line]}: {text[line - 1].strip()}   -- {reason or 'NO REASON'}")
    total = sum(len(lines.counts) for lines in files.values())
    ran = total - sum(len(lines.never) for lines in files.values())
    print(f"all: {ran} of {total} lines, {100 * ran / max(1, total):.1f} %; {unexplained} that never ran have no reason")
    return int(not total or ran < WANTED * total or unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
