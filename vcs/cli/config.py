# SPDX-License-Identifier: GPL-2.0-only
"""`vcs config check` and `vcs config show`."""

from __future__ import annotations

import dataclasses

import click

from vcs.cli.render import clean, emit_json
from vcs.config.load import DEFAULT_PATH, load
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError


@click.group("config")
def config_() -> None:
    """The configuration, cluster.toml."""


HIDDEN = "(hidden)"
SECRET = ("pass", "pwd", "secret", "community", "token")
"Options of agents with such a name are not shown: people paste this output into bug reports."

_FILE = click.argument("file", default=DEFAULT_PATH, type=click.Path(dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (an interface: it carries a version).")
_NO_KEY = click.option("--no-key", is_flag=True, help="Leave the key file alone.")


@config_.command("check")
@_FILE
@_NO_KEY
@_JSON
def check(file: str, no_key: bool, as_json: bool) -> None:
    """Find every error in FILE  [default: /etc/vcs/cluster.toml]. Exit code 78 if there is one."""
    try:
        config = load(file, with_key=not no_key)
    except ConfigError as error:
        if as_json:
            emit_json("check", {"file": file, "problems": error.problems})
        raise
    if as_json:
        emit_json("check", {"file": file, "problems": []})
        return
    nodes = len(config.nodes)
    click.echo(clean(f"{file}: cluster {config.name}, {nodes} node{'' if nodes == 1 else 's'}: no error"))


@config_.command("show")
@_FILE
@_JSON
def show(file: str, as_json: bool) -> None:
    """Every value that holds, defaults included. Neither the key nor passwords are shown."""
    config = load(file, with_key=False)
    if as_json:
        emit_json("config", _plain(config))
        return
    for name, value in _flat(_plain(config)):
        click.echo(clean(f"{name} = {value}"))


def _plain(config: ClusterConfig) -> dict[str, object]:
    values = dataclasses.asdict(config)
    del values["key"]
    for options in (values["fencing"]["options"], *(n["fence"] for n in values["nodes"])):
        options.update({k: HIDDEN for k in options if any(s in k.lower() for s in SECRET)})
    return values


def _flat(values: object, name: str = "") -> list[tuple[str, str]]:
    """``quorum.wait_for_all``, ``nodes.1.name`` and so on: a list is numbered by the id of what it holds, where there is one."""
    if isinstance(values, dict):
        return [leaf for key, value in values.items() for leaf in _flat(value, f"{name}.{key}" if name else str(key))]
    if isinstance(values, list | tuple) and values and isinstance(values[0], dict):
        return [leaf for value in values for leaf in _flat(value, f"{name}.{value['id']}")]
    if isinstance(values, list | tuple):
        return [(name, ", ".join(str(v) for v in values))]
    if isinstance(values, bool):
        return [(name, str(values).lower())]
    return [(name, str(values))]
