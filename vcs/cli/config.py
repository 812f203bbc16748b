# SPDX-License-Identifier: GPL-2.0-only
"""`vcs config check` and `vcs config show`."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import click

from vcs.agents import HIDDEN, check_agents, is_secret
from vcs.cli.render import clean, emit_json
from vcs.config.load import DEFAULT_PATH, load
from vcs.config.model import ClusterConfig
from vcs.config.schema import SECTIONS, paths
from vcs.errors import ConfigError


@click.group("config")
def config_() -> None:
    """The configuration, cluster.toml."""


_FILE = click.argument("file", default=DEFAULT_PATH, type=click.Path(dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (an interface: it carries a version).")
_NO_KEY = click.option("--no-key", is_flag=True, help="Leave the key file alone.")


@config_.command("check")
@_FILE
@_NO_KEY
@click.option("--no-agents", is_flag=True, help="Leave the fence agents alone: they need not be installed here.")
@_JSON
def check(file: str, no_key: bool, no_agents: bool, as_json: bool) -> None:
    """Find every error in FILE  [default: /etc/vcs/cluster.toml]. Exit code 78 if there is one.

    Fence agents are asked which options they know and demand; nobody is fenced by it.
    """
    try:
        config = load(file, with_key=not no_key)
        if not no_agents:
            check_agents(config, file)
    except ConfigError as error:
        if as_json:
            emit_json("check", {"file": file, "problems": error.problems})
        raise
    if as_json:
        emit_json("check", {"file": file, "problems": []})
        return
    nodes = len(config.nodes)
    click.echo(clean(f"{file}: cluster {config.name}, {nodes} node{'' if nodes == 1 else 's'}: no error"))


def _complete_key(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """For the shell: sections and keys, from the schema."""
    known = [*(s.name for s in SECTIONS), *paths()]
    return [k for k in known if k.startswith(begun)]


@config_.command("show")
@_FILE
@click.option("--key", "keys", multiple=True, shell_complete=_complete_key, help="Only this section or key, e.g. quorum or node.name.")
@_JSON
def show(file: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Every value that holds, defaults included. Neither the key nor passwords are shown."""
    unknown = [k for k in keys if k not in {*(s.name for s in SECTIONS), *paths()}]
    if unknown:
        close = difflib.get_close_matches(unknown[0], list(paths()), n=1)
        raise click.BadParameter(f"{unknown[0]!r} is no key" + (f"; did you mean {close[0]!r}?" if close else ""), param_hint="--key")
    config = as_tree(load(file, with_key=False))
    chosen = [(path, value) for path, value in _flat(config) if not keys or any(_below(path, k) for k in keys)]
    if as_json:
        emit_json("config", config if not keys else {".".join(path): value for path, value in chosen})
        return
    for path, value in chosen:
        click.echo(clean(f"{'.'.join(path)} = {_text(value)}"))


def as_tree(config: ClusterConfig) -> dict[str, Any]:
    """The configuration as cluster.toml would spell it out, without secrets."""
    values = dataclasses.asdict(config)
    del values["key"], values["more_keys"]
    nodes = values.pop("nodes")
    sections = {name: value for name, value in values.items() if isinstance(value, dict)}
    cluster = {name: value for name, value in values.items() if name not in sections}
    devices = cluster.pop("fence_devices")
    for node in nodes:
        node["method"] = [m | {"options": _flat_options(m["options"])} for m in node.pop("methods")]
    methods = [m["options"] for n in nodes for m in n["method"]]
    for options in (sections["fencing"]["options"], *(n["fence"] for n in nodes), *(d["options"] for d in devices), *methods):
        _hide(options)
    if config.quorum.witness is None:
        del sections["quorum"]["witness"]
    sections["dlm"]["lockspace"] = list(sections["dlm"].pop("lockspaces"))
    return {"cluster": cluster, "node": list(nodes), "fence_device": list(devices), **sections}


def _flat_options(options: dict[str, Any]) -> dict[str, Any]:
    """As cluster.toml has them: those for all devices beside the tables for one."""
    return {**options.get("", {}), **{name: table for name, table in options.items() if name}}


def _hide(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            _hide(value)
        elif is_secret(name):
            options[name] = HIDDEN


Path = tuple[str, ...]


def _flat(value: object, path: Path = ()) -> list[tuple[Path, object]]:
    """Every leaf with its path; a node stands under its id, a lockspace under its name: ``node.1.votes``, ``dlm.lockspace.x.nodir``."""
    if isinstance(value, dict):
        return [leaf for key, below in value.items() for leaf in _flat(below, (*path, str(key)))]
    if isinstance(value, list):
        return [leaf for i, table in enumerate(value, 1) for leaf in _flat(table, (*path, str(table.get("id") or table.get("name") or i)))]
    return [(path, value)]


def _below(path: Path, key: str) -> bool:
    """Whether ``path`` is ``key`` or in it; the id of a node and the name of a lockspace are no part of a key."""
    wanted = tuple(key.split("."))
    if path[:2] == ("dlm", "lockspace"):
        path = (*path[:2], *path[3:])
    without_id = (path[0], *path[2:]) if path[0] == "node" else path
    return without_id[: len(wanted)] == wanted


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
