# SPDX-License-Identifier: GPL-2.0-only
"""`vcs metrics`: what a scraper gets, on the terminal."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import emit_json


@click.command("metrics")
@common
def metrics_(asked: Asked) -> None:
    """The state of this node in the text format of Prometheus. vcsd answers a scraper with the same where cluster.toml has
    [metrics] listen."""
    with asked.client() as client:
        text = client.metrics()
    if asked.as_json:
        emit_json("metrics", text)
    else:
        click.echo(text, nl=False)
