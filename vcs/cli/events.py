# SPDX-License-Identifier: GPL-2.0-only
"""`vcs events`: the event log of this node, from vcsd, or from its file when vcsd does not run."""

from __future__ import annotations

import json
import select
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import VERSION, clean
from vcs.client import NotAllowed, NotRunning
from vcs.errors import VcsError
from vcs.events import RESERVED, Tail, read

Record = Mapping[str, object]


@click.command("events")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--last", "-n", type=click.IntRange(0), default=0, help="Only the last N of those so far.  [default: all]")
@common
def events_(asked: Asked, follow: bool, last: int) -> None:
    """What happened on this node, by every process of it. With --json one JSON object a line: the first says the version."""
    if asked.as_json:
        click.echo(json.dumps({"version": VERSION}))
    if follow:
        # Everything so far, then everything after it, from the file that all processes write: nothing falls between two sources.
        for record in _follow(f"{asked.run_dir}/events.jsonl", last):
            _show(record, asked.as_json)
        return
    records = _so_far(asked)
    for record in deque(records, maxlen=last) if last else records:
        _show(record, asked.as_json)


def _so_far(asked: Asked) -> Iterator[Record]:
    try:
        with asked.client() as client:
            yield from client.events()
    except (NotRunning, NotAllowed):
        yield from read(f"{asked.run_dir}/events.jsonl")


def _follow(path: str, last: int) -> Iterator[Record]:
    try:
        tail = Tail(path, from_start=True)
    except OSError as error:
        raise VcsError(f"{path}: {error.strerror}", "has vcsd ever run here? give its --run-dir otherwise") from None
    try:
        so_far = tail.poll()
        yield from so_far[-last:] if last else so_far
        while True:
            select.select([tail.fileno()], [], [])
            yield from tail.poll()
    finally:
        tail.close()


def _show(record: Record, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record, default=str))
        return
    wall = record.get("wall")
    at = datetime.fromtimestamp(wall / 1e9).strftime("%H:%M:%S.%f")[:-3] if isinstance(wall, int) else "-"
    fields = " ".join(f"{k}={_value(v)}" for k, v in record.items() if k not in RESERVED)
    click.echo(clean(f"{at} {record.get('node') or '-'} {record.get('source') or '-'} {record.get('event')} {fields}".rstrip()))


def _value(value: object) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, default=str)
