# SPDX-License-Identifier: GPL-2.0-only
"""`vcs keygen`."""

from __future__ import annotations

from pathlib import Path

import click

from vcs.cli.render import clean, emit_json
from vcs.config.keyfile import write_key
from vcs.config.model import ClusterConfig

_DEFAULT = str(ClusterConfig("", ()).key_file)


@click.command("keygen")
@click.argument("file", default=_DEFAULT, type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON (an interface: it carries a version).")
def keygen_(file: str, as_json: bool) -> None:
    """Make a key of 32 random bytes in FILE  [default: /etc/vcs/cluster.key], mode 0600. Never overwrites."""
    write_key(Path(file))
    if as_json:
        emit_json("keygen", {"file": file})
    else:
        click.echo(clean(f"{file}: a new key; copy it to every node, by a way that nobody else can read"))
