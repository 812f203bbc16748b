# SPDX-License-Identifier: GPL-2.0-only
"""`vcs fence`: have a node fenced, vouch for one that is off, and look at methods, devices and history."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, duration, emit_json, emit_table, node_names
from vcs.client import Client
from vcs.errors import VcsError

ACK = (
    "This states that node {node} is OFF, or that its machine has been reset since it failed. Its locks are given to others at once: "
    "if it still runs, it will destroy data on every shared file system."
)
FENCE = (
    "Node {node} is {state}. It will be {what} by its fence devices, without asking anything that runs there: "
    "what its programs have not written yet is lost, and its locks go to the others."
)
WHAT = {"off": "turned OFF", "reboot": "REBOOTED by force", "": "fenced as configured (see `vcs fence list`)"}


class FenceGroup(click.Group):
    """`vcs fence NODE` beside `vcs fence list`: what is no subcommand is a node. A node of such a name is given by its id."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "node", self.commands["node"], args
        return super().resolve_command(ctx, args)


@click.group("fence", cls=FenceGroup)
def fence_() -> None:
    """Fence a node: `vcs fence NODE`. Or look at fencing, and vouch for a node that is off."""


@fence_.command("node", hidden=True)
@click.argument("node")
@click.option("--off", "action", flag_value="off", default="", help="Turn it off, whatever is configured.")
@click.option("--reboot", "action", flag_value="reboot", help="Reboot it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def node_(asked: Asked, node: str, action: str, yes: bool) -> None:
    """Fence NODE (name or id), whether it has failed or not. Every node knows of it; the lowest that can does it."""
    action = action or ""
    with asked.client() as client:
        found = _find(client, node)
        label = f"{found.get('name') or 'node'} ({found['nodeid']})"
        if not yes:
            click.echo(clean(FENCE.format(node=label, state=found.get("state", "?"), what=WHAT[action])), err=True)
            click.confirm(clean(f"Fence {label}?"), abort=True, err=True)
        client.fence_node(int(found["nodeid"]), action)
    if asked.as_json:
        emit_json("fence", {"nodeid": int(found["nodeid"]), "action": action})
    else:
        click.echo(clean(f"ordered: {label} is being fenced; see `vcs why` and `vcs fence history`"))


@fence_.command("ack")
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def ack(asked: Asked, node: str, yes: bool) -> None:
    """State that the failed node NODE (name or id) is off."""
    with asked.client() as client:
        found = _find(client, node)
        nodeid, label = int(found["nodeid"]), f"{found.get('name') or 'node'} ({found['nodeid']})"
        if not yes:
            click.echo(clean(ACK.format(node=label)), err=True)
            click.confirm(clean(f"Is {label} off?"), abort=True, err=True)
        client.fence_ack(nodeid)
    if asked.as_json:
        emit_json("fence_ack", {"nodeid": nodeid})
    else:
        click.echo(clean(f"acknowledged: {label} is off"))


def _find(client: Client, node: str) -> dict[str, Any]:
    """The node of that name or id. Raises VcsError."""
    nodes = client.nodes()
    for n in nodes:
        if node in (n.get("name"), str(n.get("nodeid"))):
            return n
    known = ", ".join(f"{n.get('name')} ({n.get('nodeid')})" for n in nodes)
    raise VcsError(f"there is no node {node!r}", f"one of: {known}")


@fence_.command("list")
@common
def list_(asked: Asked) -> None:
    """Every node's methods, best first."""
    with asked.client() as client:
        methods, names = client.fence_methods(), node_names(client.nodes())
    if asked.as_json:
        emit_json("methods", methods)
        return
    rows = [(_name(names, m["nodeid"]), str(m["priority"]), " + ".join(m["devices"]), ", ".join(dict.fromkeys(m["agents"])),
             ", ".join(dict.fromkeys(m["actions"])), "together" if m["parallel"] else "") for m in methods]  # fmt: skip
    emit_table(("NODE", "PRIORITY", "DEVICES", "AGENT", "ACTION", ""), rows, "no fence device is configured")


@fence_.command("status")
@common
def status(asked: Asked) -> None:
    """Who must be fenced now, and whether the devices answered when this node asked them last."""
    with asked.client() as client:
        owed, devices, names = client.status().get("fencing", []), client.fence_devices(), node_names(client.nodes())
    if asked.as_json:
        emit_json("fencing", {"owed": owed, "devices": devices})
        return
    for f in owed:
        detail = f": {f['detail']}" if f.get("detail") else ""
        click.echo(clean(f"{_name(names, f['nodeid'])} must be fenced, {f['state']}{detail}"))
    if not owed:
        click.echo("nobody must be fenced")
    _devices(devices, names)


@fence_.command("check")
@common
def check(asked: Asked) -> None:
    """Ask every device now, from this node, whether it answers. Exit code 1 if one does not."""
    with asked.client() as client:
        names = node_names(client.nodes())
        devices = client.fence_devices(check=True)
    if asked.as_json:
        emit_json("devices", devices)
    else:
        _devices(devices, names)
    if not all(d["ok"] for d in devices):
        raise click.exceptions.Exit(1)


def _devices(devices: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    rows = [(str(d["device"]), _name(names, d["nodeid"]), "answers" if d["ok"] else "DOES NOT ANSWER",
             f"{duration((now - d['checked_ns']) // 1_000_000)} ago", str(d["detail"])) for d in devices]  # fmt: skip
    emit_table(("DEVICE", "FOR", "STATE", "ASKED", ""), rows, "no device has been asked yet")


@fence_.command("history")
@click.option("--last", "-n", type=click.IntRange(1), default=20, show_default=True, help="Only the last N.")
@common
def history(asked: Asked, last: int) -> None:
    """The last fences: who, why, by whom, how, and what was tried first. Kept over restarts."""
    with asked.client() as client:
        fences, names = client.fence_history()[-last:], node_names(client.nodes())
    if asked.as_json:
        emit_json("fences", fences)
        return
    if not fences:
        click.echo("nobody has had to be fenced")
    for f in fences:
        click.echo(clean(f"{_clock(f['owed_ns'])} {_name(names, f['nodeid'])}: {_result(f, names)}"))
        click.echo(clean(f"  why     {f['why']}" + (f"; held {', '.join(f['groups'])}" if f["groups"] else "")))
        for a in f["attempts"]:
            how = "runs" if a["ms"] is None else f"{'ok' if a['ok'] else 'FAILED'} after {duration(a['ms'])}: {a['detail']}"
            click.echo(clean(f"  {_clock(a['began_ns'])[11:]} {_name(names, a['by'])}, {a['method'] or 'method not known'}: {how}"))


def _result(f: Mapping[str, Any], names: Mapping[int, str]) -> str:
    if not f["ended_ns"]:
        return "must still be fenced"
    by = f" by {_name(names, f['by'])}" if f["by"] else ""
    return f"{f['result']}{by} after {duration(f['ms'])}: {f['how']}"


def _name(names: Mapping[int, str], nodeid: int) -> str:
    return names.get(nodeid, f"node {nodeid}")


def _clock(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_ns // 1_000_000_000)) + f".{wall_ns // 1_000_000 % 1000:03d}"
