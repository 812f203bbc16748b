# SPDX-License-Identifier: GPL-2.0-only
"""`vcs maintenance`: no fencing and no reset for an announced, limited time (SAFETY S24)."""

from __future__ import annotations

import re

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, duration, emit_json

DAY_MS = 24 * 3_600_000
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000}


class Length(click.ParamType[int]):
    """``90s``, ``10m``, ``2h``: a length of time, in ms, of at most a day."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time: write 90s, 10m or 2h", param, ctx)
        ms = int(found[1]) * UNITS[found[2]]
        if ms > DAY_MS:
            self.fail(f"{value} is longer than 24h", param, ctx)
        return ms


@click.group("maintenance")
def maintenance_() -> None:
    """Freeze fencing and resets in the whole cluster for a limited time. It ends by itself."""


@maintenance_.command("on")
@click.option("--for", "for_ms", type=Length(), default="10m", show_default=True, help="How long, at most 24h.")
@click.option("--reason", default="", help="Shown to everybody.")
@common
def on(asked: Asked, for_ms: int, reason: str) -> None:
    """Begin, or set a new length. What waits for a fence waits until it is over: data is as safe as ever."""
    with asked.client() as client:
        client.maintenance(for_ms, reason)
    if asked.as_json:
        emit_json("maintenance", {"for_ms": for_ms, "reason": reason})
    else:
        click.echo(f"maintenance for {duration(for_ms)}: nobody is fenced, and no machine resets itself")


@maintenance_.command("off")
@common
def off(asked: Asked) -> None:
    """End it now."""
    with asked.client() as client:
        client.maintenance(0)
    if asked.as_json:
        emit_json("maintenance", None)
    else:
        click.echo("maintenance is over")


@maintenance_.command("status")
@common
def status(asked: Asked) -> None:
    """Is there one, for how long, and why."""
    with asked.client() as client:
        held = client.status().get("maintenance")
    if asked.as_json:
        emit_json("maintenance", held)
    elif not held:
        click.echo("no maintenance")
    else:
        reason = f": {held['reason']}" if held.get("reason") else ""
        click.echo(clean(f"maintenance for another {duration(held['left_ms'])}, asked for at node {held['by']}{reason}"))
