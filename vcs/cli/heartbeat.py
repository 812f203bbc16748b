# SPDX-License-Identifier: GPL-2.0-only
"""`vcs heartbeat`: seat the kernel's own provider, and take it away again. Nothing of ours runs in between."""

from __future__ import annotations

import errno
import subprocess

import click

from vcs.cli.render import clean, emit_json
from vcs.component import own_node
from vcs.config.load import DEFAULT_PATH, load
from vcs.errors import SwitchError, VcsError
from vcs.heartbeat import INTERVAL_MS, MODULE, PORT, TYPE, from_config
from vcs.netlink import KernelSwitch

LOAD_LIMIT_S = 30.0

_HANDLE = click.option("--handle", default="", envvar="VCS_HANDLE", help="Handle of the cluster in this kernel.  [default: its name]")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (an interface: it carries a version).")


@click.group("heartbeat")
def heartbeat_() -> None:
    """Membership from the kernel alone: views, without groups, fencing and lease. It needs neither vcsd nor an engine."""


@heartbeat_.command("start")
@click.option("--config", "path", default=DEFAULT_PATH, type=click.Path(dir_okay=False), help="  [default: /etc/vcs/cluster.toml]")
@click.option("--node", "wanted", default="", help="Name or id of this node.  [default: by host name, then by address]")
@click.option("--port", default=PORT, type=click.IntRange(1, 65535), show_default=True, help="UDP, on every node.")
@click.option("--interval-ms", default=INTERVAL_MS, type=click.IntRange(20, 10000), show_default=True, help="Alike on every node.")
@_HANDLE
@_JSON
def start(path: str, wanted: str, port: int, interval_ms: int, handle: str, as_json: bool) -> None:
    """Load the modules, and beat to the nodes of cluster.toml until `vcs heartbeat stop`."""
    config = load(path)
    node, beat = own_node(config, wanted), from_config(config, port, interval_ms)
    handle = handle or config.name
    _load_module()
    switch = KernelSwitch()
    try:
        _add(switch, handle, config.name, node.id)
        switch.attach_kernel(handle, TYPE, beat.attributes())
    except SwitchError as error:
        if error.errno == errno.EBUSY:
            raise VcsError(f"cluster {handle} has a provider already", "stop vcsd, or `vcs heartbeat stop` first") from error
        raise
    finally:
        switch.close()
    if as_json:
        emit_json("heartbeat", {"handle": handle, "nodeid": node.id, "nodes": len(beat.nodes), "interval_ms": interval_ms})
    else:
        click.echo(clean(f"{handle}: node {node.id} beats to {len(beat.nodes) - 1} others every {interval_ms} ms; see `vcs status`"))


@heartbeat_.command("stop")
@click.argument("handle", envvar="VCS_HANDLE")
@_JSON
def stop(handle: str, as_json: bool) -> None:
    """Say goodbye to the others and give the seat of cluster HANDLE back. The cluster goes, too, unless somebody uses it."""
    switch = KernelSwitch()
    try:
        switch.detach_kernel(handle)
        try:
            switch.cluster_del(handle)
            kept = ""
        except SwitchError as error:
            if error.errno != errno.EBUSY:
                raise
            kept = error.message
    except SwitchError as error:
        if error.errno == errno.ESTALE:
            raise VcsError(f"cluster {handle} has no provider in the kernel", "`vcs status` says which it has") from error
        raise
    finally:
        switch.close()
    if as_json:
        emit_json("heartbeat", {"handle": handle, "kept": bool(kept)})
    else:
        click.echo(clean(f"{handle}: stopped" + (f"; the cluster is kept: {kept}" if kept else "")))


def _load_module() -> None:
    """Raises VcsError. modprobe knows that the one needs the other."""
    try:
        done = subprocess.run(["modprobe", MODULE], capture_output=True, text=True, timeout=LOAD_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VcsError(f"modprobe {MODULE}: {error}", "load it by hand") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise VcsError(f"modprobe {MODULE}: {said}", "is the module built for this kernel, and are you root?")


def _add(switch: KernelSwitch, handle: str, name: str, nodeid: int) -> None:
    """Make the cluster, or adopt it if it is the one that is meant. Raises VcsError."""
    try:
        switch.cluster_add(handle, name, nodeid)
    except SwitchError as error:
        if error.errno != errno.EEXIST:
            raise
        there = next(c for c in switch.clusters() if c.handle == handle)
        if (there.name, there.nodeid) != (name, nodeid):
            raise VcsError(
                f"handle {handle} is node {there.nodeid} of cluster {there.name!r} in this kernel", "give another --handle"
            ) from error
