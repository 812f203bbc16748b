# SPDX-License-Identifier: GPL-2.0-only
"""`vcs groups`."""

from __future__ import annotations

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import duration, emit_json, emit_note, emit_table, ranges


@click.command("groups")
@common
def groups_(asked: Asked) -> None:
    """Every group that this node is in, as the switch holds it. A phase with an asterisk is not acknowledged by this node yet."""
    groups, note = asked.groups()
    if asked.as_json:
        emit_json("groups", groups, note)
        return
    emit_note(note)
    emit_table(
        ("NAME", "LEVEL", "STATE", "EVENT", "PHASE", "MEMBERS", "OWNER", "FLAGS"),
        [
            (
                g.get("name"),
                g.get("level") or "-",
                g.get("state") or "-",
                g.get("event") or "-",
                f"{g.get('phase') or '-'}{'' if g.get('acked', True) or g.get('phase') in ('none', '') else '*'}",
                ranges(g.get("members") or []) or (f"{g['nr_members']} of them" if g.get("nr_members") else "-"),
                (g.get("owner") or "-")
                + (f" (gone for {duration(g['orphan_since_ms'])})" if g.get("orphan_since_ms") else ""),
                ",".join(g.get("flags") or []) or "-",
            )
            for g in groups
        ],
        "this node is in no group",
    )
