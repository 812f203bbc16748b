# SPDX-License-Identifier: GPL-2.0-only
"""`vcs fence ack`: a person takes the responsibility that a fence device could not."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, emit_json
from vcs.client import Client
from vcs.errors import VcsError

WARNING = (
    "This states that node {node} is OFF, or that its machine has been reset since it failed. Its locks are given to others at once: "
    "if it still runs, it will destroy data on every shared file system."
)


@click.group("fence")
def fence_() -> None:
    """Fencing by hand."""


@fence_.command("ack")
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def ack(asked: Asked, node: str, yes: bool) -> None:
    """State that the failed node NODE (name or id) is off."""
    with asked.client() as client:
        nodeid, label = _find(client, node)
        if not yes:
            click.echo(clean(WARNING.format(node=label)), err=True)
            click.confirm(clean(f"Is {label} off?"), abort=True, err=True)
        client.fence_ack(nodeid)
    if asked.as_json:
        emit_json("fence_ack", {"nodeid": nodeid})
    else:
        click.echo(clean(f"acknowledged: {label} is off"))


def _find(client: Client, node: str) -> tuple[int, str]:
    """(nodeid, label) of a node by name or id. Raises VcsError."""
    nodes = client.nodes()
    for n in nodes:
        if node in (n.get("name"), str(n.get("nodeid"))):
            return int(n["nodeid"]), f"{n.get('name') or 'node'} ({n['nodeid']})"
    known = ", ".join(f"{n.get('name')} ({n.get('nodeid')})" for n in nodes)
    raise VcsError(f"there is no node {node!r}", f"one of: {known}")
