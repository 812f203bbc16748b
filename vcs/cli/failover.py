# SPDX-License-Identifier: GPL-2.0-only
"""`vcs failover`: the timeline of the last failovers, as text, JSON and a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, duration, emit_json, node_names
from vcs.errors import VcsError
from vcs.failover import Failover, svg, text


@click.group("failover")
def failover_() -> None:
    """How long a failover took, phase by phase: detected, view, stopped, fenced, started, recovered, finished."""


_SVG = click.option("--svg", "picture", type=click.Path(dir_okay=False, writable=True), help="Write a picture for a browser.")


def _ask(asked: Asked) -> tuple[list[Failover], dict[int, str]]:
    with asked.client() as client:
        return cast("list[Failover]", client.failovers()), node_names(client.nodes())


@failover_.command("last")
@_SVG
@common
def last(asked: Asked, picture: str | None) -> None:
    """The newest one that this node knows of."""
    found, names = _ask(asked)
    if not found:
        raise VcsError("this node has seen no failover", "its memory begins with the first start of vcsd here")
    _show(asked, found[-1], names, picture)


@failover_.command("show")
@click.argument("number", type=int)
@_SVG
@common
def show(asked: Asked, number: int, picture: str | None) -> None:
    """The one with that NUMBER in `vcs failover list`."""
    found, names = _ask(asked)
    one = next((f for f in found if f["number"] == number), None)
    if one is None:
        known = f"there are {found[0]['number']} to {found[-1]['number']}" if found else "there is none"
        raise VcsError(f"there is no failover {number}", known)
    _show(asked, one, names, picture)


@failover_.command("list")
@common
def list_(asked: Asked) -> None:
    """Those that this node remembers, oldest first."""
    found, names = _ask(asked)
    if asked.as_json:
        emit_json("failovers", found)
        return
    if not found:
        click.echo("this node has seen no failover")
    for f in found:
        who = ", ".join(names.get(v["nodeid"], f"node {v['nodeid']}") for v in f["victims"])
        state = f"over after {duration(f['done_ms'])}" if f["complete"] else "not over"
        click.echo(clean(f"{f['number']:>4}  {_clock(f['wall_ns'])}  {who}: {state}, {len(f['groups'])} groups"))


def _show(asked: Asked, one: Failover, names: Mapping[int, str], picture: str | None) -> None:
    called: Callable[[int], str] = lambda nodeid: names.get(nodeid, f"node {nodeid}")  # noqa: E731
    title = f"failover {one['number']}, {_clock(one['wall_ns'])}: {', '.join(called(v['nodeid']) for v in one['victims'])}"
    if picture:
        try:
            with open(picture, "w", encoding="utf-8") as file:
                file.write(svg(one, called, title))
        except OSError as error:
            raise VcsError(f"{picture}: {error.strerror}", "give another file") from None
    if asked.as_json:
        emit_json("failover", cast("Any", one))
        return
    click.echo(clean(title))
    for line in text(one, called):
        click.echo(clean(line))
    if picture:
        click.echo(clean(f"picture: {picture}"))


def _clock(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_ns // 1_000_000_000)) + f".{wall_ns // 1_000_000 % 1000:03d}"
