# SPDX-License-Identifier: GPL-2.0-only
"""`vcs witness`: runs on a machine outside of the cluster."""

from __future__ import annotations

import asyncio
import logging

import click

from vcs import log as vcs_log
from vcs.config.load import DEFAULT_PATH


@click.command("witness")
@click.option("--config", "path", default=DEFAULT_PATH, show_default=True, type=click.Path(dir_okay=False), help="The cluster's own.")
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
def witness_(path: str, verbose: bool) -> None:
    """Be the witness of a cluster: let exactly half of its votes go on, one half at a time.

    Run it on a machine outside of the cluster, with the nodes' cluster.toml and key file; see [quorum.witness] in cluster.toml(5).
    """
    from bridge.witness.daemon import run

    running = vcs_log.start(logging.DEBUG if verbose else logging.INFO)
    try:
        asyncio.run(run(path))
    finally:
        running.stop()
