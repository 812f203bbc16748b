# SPDX-License-Identifier: GPL-2.0-only
"""`vcs why`: what is waited for, on whom, and the remedy."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, duration, emit_json, emit_note


@click.command("why")
@common
def why_(asked: Asked) -> None:
    """What is waited for, on whom, and what to do. Nothing waits: it says so."""
    waits, note = asked.why()
    if asked.as_json:
        emit_json("waits", waits, note)
        return
    emit_note(note)
    if not waits:
        click.echo("nothing waits")
    for wait in waits:
        since = duration(wait.get("since_ms"))
        click.echo(clean(f"{wait.get('subject', '?')} waits{f' for {since}' if since else ''}"))
        click.echo(clean(f"  for     {wait.get('what', '?')}"))
        if wait.get("on"):
            click.echo(clean(f"  on      {', '.join(str(w) for w in wait['on'])}"))
        if wait.get("limit_ms"):
            click.echo(clean(f"  ends    by itself in {duration(wait['limit_ms'])}"))
        if wait.get("remedy"):
            condition = f" {wait['condition']}" if wait.get("condition") else ""
            click.echo(clean(f"  remedy  {wait['remedy']}{condition}"))
