# SPDX-License-Identifier: GPL-2.0-only
"""`vcs wait`: until this node can use lockspaces. What is mounted or assembled while a machine boots is ordered after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from vcs.cli.common import Asked, common
from vcs.cli.mount_gfs2 import DLM, dlm_ready
from vcs.cli.render import emit_json
from vcs.errors import SwitchError, VcsError

if TYPE_CHECKING:
    from vcs.sysfs import Sysfs

POLL_S = 0.1
"Neither configfs nor the view in sysfs notifies. This is a machine's start, not a failover."


class NotReady(VcsError):
    """Time is up."""

    exit_code = 75


def missing(sysfs: Sysfs, handle: str, dlm: str) -> str:
    """What this node still lacks, in words; empty when it lacks nothing. Reads the kernel only."""
    try:
        report = sysfs.status(sysfs.choose(handle))
    except SwitchError as error:
        return error.message
    if report["provider"]["state"] != "attached":
        return f"the provider is {report['provider']['state'] or 'gone'}"
    if not report["view"]["quorate"]:
        members = ", ".join(str(n) for n in report["view"]["members"])
        return f"the cluster is not quorate (members: {members or 'none'})"
    return "" if dlm_ready(dlm) else "dlm_glue has not set the DLM up"


@click.command("wait")
@click.option("--timeout", type=float, default=0.0, metavar="SECONDS", help="Give up after so long.  [default: never]")
@click.option("--dlm", default=DLM, envvar="VCS_DLM", hidden=True)
@common
def wait_(asked: Asked, timeout: float, dlm: str) -> None:
    """Wait until this node is in a quorate view and its DLM can be used. Works without vcsd's socket and without root."""
    sysfs = asked.sysfs()
    deadline = time.monotonic() + timeout
    while what := missing(sysfs, asked.handle, dlm):
        if timeout and time.monotonic() >= deadline:
            raise NotReady(f"not ready after {timeout:g} s: {what}", "`vcs why` says what is waited for")
        time.sleep(POLL_S)
    if asked.as_json:
        emit_json("ready", True)
