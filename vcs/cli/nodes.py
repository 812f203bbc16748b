# SPDX-License-Identifier: GPL-2.0-only
"""`vcs nodes`."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import emit_json, emit_note, emit_table


@click.command("nodes")
@common
def nodes_(asked: Asked) -> None:
    """Every configured node and its state (without vcsd: the members of the kernel's view). The local node has an asterisk."""
    nodes, note = asked.nodes()
    if asked.as_json:
        emit_json("nodes", nodes, note)
        return
    emit_note(note)
    emit_table(
        ("ID", "NAME", "STATE", "VOTES", "ADDRESSES", "INCARNATION"),
        [
            (
                f"{n.get('nodeid')}{'*' if n.get('local') else ''}",
                n.get("name") or "-",
                n.get("state") or "-",
                n.get("votes", "-"),
                ",".join(n.get("addresses") or []) or "-",
                n.get("incarnation") or "-",
            )
            for n in nodes
        ],
        "no node is a member",
    )
