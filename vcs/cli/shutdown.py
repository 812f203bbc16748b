# SPDX-License-Identifier: GPL-2.0-only
"""`vcs shutdown --cluster`: everybody leaves, in order (SAFETY S21)."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import emit_json


@click.command("shutdown")
@click.option("--cluster", is_flag=True, help="The whole cluster, not this node alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def shutdown_(asked: Asked, cluster: bool, yes: bool) -> None:
    """Shut the whole cluster down: every node leaves, one after the other, and its vcsd ends. Nobody is fenced.

    Refused while any node is in a group (it has a cluster file system mounted, say) or must be fenced: they are named, and nothing has
    happened.
    """
    if not cluster:
        raise click.UsageError("this shuts down the whole cluster, so say --cluster; for this node alone there is `vcs leave`")
    if not yes:
        click.confirm("Shut down the cluster on every node?", abort=True, err=True)
    with asked.client() as client:
        client.shut_down()
    if asked.as_json:
        emit_json("shutdown", True)
    else:
        click.echo("the cluster is shutting down: the nodes leave one after the other")
