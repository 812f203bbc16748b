# SPDX-License-Identifier: GPL-2.0-only
"""``python -m dlm_glue --config FILE --handle HANDLE``: the process. Started by vcsd, which it outlives (SAFETY S15).

Environment: VCS_UEVENT_FD (a bound uevent socket) and VCS_JOURNAL_FD (a file), both kept by whoever started us; without them it opens
its own. Ends on SIGTERM and changes nothing then: the lockspaces go on, a successor takes over.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import gc
import logging
import os
import signal
import socket

from bridge.switch import Reader
from dlm_glue import connecting
from dlm_glue.apply import Applier, Setup
from dlm_glue.component import Glue
from dlm_glue.controld_log import LoggedTree, LogRing
from dlm_glue.controld_seat import Seat
from dlm_glue.controld_server import ControldServer
from dlm_glue.journal import Journal
from dlm_glue.lockspace import NODEID_MAX, OsTree
from dlm_glue.plock_device import KernelDevice
from dlm_glue.plock_log import Log, boot_id
from dlm_glue.plock_loop import Plocks
from dlm_glue.uevents import UeventReader, open_socket
from vcs import realtime
from vcs.channel import open_channel
from vcs.client import Client
from vcs.config.load import DEFAULT_PATH, load
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError, SwitchError, VcsError
from vcs.events import EventLog

logger = logging.getLogger("dlm_glue")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("dlm_glue", description="Feeds the kernel's DLM from the Virtual Cluster Switch.")
    parser.add_argument("--config", default=DEFAULT_PATH, help="cluster.toml")
    parser.add_argument("--handle", default="", help="instance handle of the cluster in the switch (default: its name)")
    parser.add_argument("--run-dir", default="/run/vcs", help="where events.jsonl is")
    parser.add_argument("--node", default="", help="ignored: the switch knows which node this is")
    parser.add_argument("--no-realtime", action="store_true", help="do not lock memory or ask for real-time priority")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def descriptor(name: str) -> int | None:
    """A descriptor that we inherited."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None


def uevent_reader() -> UeventReader:
    fd = descriptor("VCS_UEVENT_FD")
    return UeventReader(open_socket() if fd is None else socket.socket(fileno=fd))


def journal() -> Journal:
    fd = descriptor("VCS_JOURNAL_FD")
    return Journal.create() if fd is None else Journal(fd)


def setup_of(config: ClusterConfig, nodeid: int) -> Setup:
    if config.node(nodeid) is None:
        raise ConfigError([f"the switch says that this is node {nodeid}, which the configuration does not have"])
    high = [n.name for n in config.nodes if n.id > NODEID_MAX]
    if high:
        raise ConfigError([f"nodes {', '.join(high)}: the kernel's DLM knows ids up to {NODEID_MAX} only; give lower ones"])
    # The kernel's TCP transport refuses a host that has several addresses.
    addresses = {n.id: n.addresses if config.dlm.protocol == "sctp" else n.addresses[:1] for n in config.nodes}
    return Setup(config.name, nodeid, addresses, config.dlm.port, config.dlm.protocol, config.dlm.log_debug)


def refusal(path: str, group: str) -> tuple[int, str]:
    """Why vcsd has refused the join of a group: (positive errno, words)."""
    try:
        with Client(path) as client:
            found = client.call("Describe").get("picture", {}).get("refused", {}).get(group)
    except VcsError as error:
        return errno.EIO, f"the join was refused, and vcsd does not say why: {error}"
    return (int(found[0]), str(found[1])) if found else (errno.EIO, "the join was refused")


def refuse_dlm_controld() -> None:
    """Two that feed one DLM would undo each other's work, and ours would stop the other's lockspaces. Raises VcsError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        try:
            s.connect("\0dlmc_sock")
        except OSError:
            return
    raise VcsError("dlm_controld, or another dlm_glue, runs on this machine", "stop it first: systemctl disable --now dlm")


def start_plocks(nodeid: int, run_dir: str) -> tuple[Plocks, asyncio.Future[None]]:
    """Before the first lockspace is answered: without a reader of its device, whoever takes a POSIX lock hangs in the kernel.

    The future ends with what went wrong later. Raises VcsError.
    """
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException) -> None:
        loop.call_soon_threadsafe(failed.set_exception, error)

    log = Log.open(f"{run_dir}/plock.log", boot_id())
    plocks = Plocks(nodeid, KernelDevice.open(), log, lambda group: open_channel(group, f"{run_dir}/vcs.sock", explicit=True), tell)
    plocks.start()
    return plocks, failed


async def own_nodeid(port: Reader, handle: str) -> int:
    """The nodeid that vcsd gave the cluster; waits until it is there."""
    loop = asyncio.get_running_loop()
    hint = asyncio.Event()
    loop.add_reader(port.hints_fd(), hint.set)
    try:
        while True:
            hint.clear()
            port.hints()
            for cluster in port.clusters():
                if cluster.handle == handle:
                    return cluster.nodeid
            logger.info("waiting for cluster %s in the switch", handle)
            await hint.wait()
    finally:
        loop.remove_reader(port.hints_fd())


async def run(args: argparse.Namespace) -> int:
    from vcs.netlink import KernelSwitch

    refuse_dlm_controld()
    config = load(args.config, with_key=False)
    handle = args.handle or config.name
    switch = KernelSwitch()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Bound before anything is read, so that no uevent falls between.
    uevents, kept = uevent_reader(), journal()
    nodeid = await own_nodeid(switch, handle)
    node = config.node(nodeid)
    log = EventLog(f"{args.run_dir}/events.jsonl", node.name if node else str(nodeid), "dlm_glue")
    setup = setup_of(config, nodeid)
    # What the imports have made stays: the collector need not look through it again and again.
    gc.freeze()
    gc.enable()
    if not args.no_realtime:
        for step in realtime.setup():
            if not step.ok:
                logger.warning("%s: %s", step.name, step.detail)
    try:
        connecting.prepare(setup.port)
    except OSError as problem:
        logger.warning("connects to a dead node cannot be ended, dropping it will take seconds: %s", problem)
    ring = LogRing()
    log.subscribe(ring.note)
    tree = LoggedTree(OsTree(), ring)
    applier = Applier(tree, setup, closing=functools.partial(connecting.aborted, port=setup.port))
    configured = frozenset(setup.addresses)
    plocks, plocks_failed = start_plocks(nodeid, args.run_dir)
    glue = Glue(
        handle=handle,
        nodeid=nodeid,
        configured=configured,
        switch=switch,
        tree=tree,
        applier=applier,
        uevents=uevents,
        journal=kept,
        log=log,
        configs={c.name: c.text() for c in config.dlm.lockspaces if c.text()},
        refusal=functools.partial(refusal, f"{args.run_dir}/vcs.sock"),
    )
    glue.watchers.append(plocks.watch)
    seat = Seat(
        lambda: glue.state, tree, applier.paths, lambda: load(args.config, with_key=False), plocks.lines, plocks.without_state
    )
    server = ControldServer(seat, ring, f"{args.run_dir}/vcs.sock")
    glue.watchers.append(server.watch)
    await server.start()
    await glue.start()
    logger.info("feeds the DLM of node %d, cluster %s", nodeid, config.name)
    ending = asyncio.ensure_future(stop.wait())
    await asyncio.wait((ending, glue.failed, plocks_failed), return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    await server.close()
    glue.close()
    plocks.close()
    failed = next((f for f in (glue.failed, plocks_failed) if f.done()), None)
    if failed is not None:
        error = failed.exception()
        logger.critical("cannot go on: %s", error, exc_info=error)
        log.note("glue_failed", error=str(error))
        return 1
    log.note("glue_stopped")
    return 0


def main() -> int:
    args = options()
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO, format="dlm_glue: %(levelname)s: %(message)s")
    try:
        return asyncio.run(run(args))
    except (VcsError, SwitchError) as error:
        logger.critical("%s", error)
        return error.exit_code
    except OSError as error:
        logger.critical("%s", error)
        return 1
