# SPDX-License-Identifier: GPL-2.0-only
"""`vcs leave`: out of the cluster, cleanly, or the list of what holds this node in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypedDict, cast

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, emit_json
from vcs.errors import DaemonError
from vcs.mounts import by_lockspace

if TYPE_CHECKING:
    from vcs.report import GroupReport


class Holder(TypedDict):
    group: str
    level: str
    owner: str
    mounts: list[str]


@click.command("leave")
@common
def leave_(asked: Asked) -> None:
    """Leave the cluster cleanly. Needs no other node and no quorum. Refused while groups hold this node: they are named."""
    with asked.client() as client:
        try:
            client.leave()
        except DaemonError as error:
            holders: list[Holder] = []
            with contextlib.suppress(DaemonError):  # vcsd may have gone: what it refused is still to be told
                holders = _holders(cast("list[GroupReport]", client.groups()))
            if asked.as_json:
                emit_json("leave", {"left": False, "message": error.message, "remedy": error.remedy, "holders": holders})
            for holder in holders if not asked.as_json else []:
                mounts = f", mounted at {', '.join(holder['mounts'])}" if holder["mounts"] else ""
                owner = f", of {holder['owner']}" if holder["owner"] else ""
                click.echo(clean(f"group {holder['group']} ({holder['level']}{owner}{mounts})"))
            raise
    if asked.as_json:
        emit_json("leave", {"left": True})
    else:
        click.echo("left the cluster")


def _holders(groups: list[GroupReport]) -> list[Holder]:
    """The groups that hold this node, each with the mounts that stand on it."""
    mounts = by_lockspace()
    return [
        {
            "group": g["name"],
            "level": g.get("level", ""),
            "owner": g.get("owner", ""),
            "mounts": mounts.get(g["name"].rpartition(":")[2], []),
        }
        for g in groups
    ]
