# SPDX-License-Identifier: GPL-2.0-only
"""The one place that knows how answers look: a table, a list of facts, or JSON."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import click

VERSION = 1
"Of the shapes in vcs/report.py: the top-level ``version`` of every --json."


def emit_json(name: str, value: object, note: str = "") -> None:
    """``{"version": 1, NAME: value}``, and a note when the answer is not vcsd's."""
    document = {"version": VERSION, name: value, **({"note": note} if note else {})}
    click.echo(json.dumps(document, indent=2, default=str))


def emit_table(header: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Columns as wide as they must be; the last one is never padded. ``empty`` is said instead of a table without rows."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    for line in [list(header), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def emit_facts(facts: Iterable[tuple[str, str]]) -> None:
    """``name  value``, one a line; empty values are left out."""
    shown = [(name, clean(value)) for name, value in facts if value]
    width = max((len(name) for name, _value in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def emit_note(note: str) -> None:
    if note:
        click.echo(note)
        click.echo()


def clean(text: str) -> str:
    """Names come from other machines: nothing of theirs may steer the terminal."""
    return "".join("?" if unicodedata.category(c).startswith("C") else c for c in text)


def ranges(numbers: Iterable[object]) -> str:
    """``1-3,7``."""
    found = sorted({n for n in numbers if isinstance(n, int)})
    parts: list[str] = []
    for i, number in enumerate(found):
        if i and found[i - 1] == number - 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return ",".join(parts)


def duration(ms: object) -> str:
    """A length of time for people: two units at most."""
    if not isinstance(ms, int | float) or ms < 0:
        return ""
    if ms < 10_000:
        return f"{int(ms)} ms"
    seconds = int(ms / 1000)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def node_names(nodes: Iterable[Mapping[str, object]]) -> dict[int, str]:
    """nodeid -> ``name (id)`` for those that have a name."""
    return {n["nodeid"]: f"{n['name']} ({n['nodeid']})" for n in nodes if n.get("name") and isinstance(n["nodeid"], int)}
