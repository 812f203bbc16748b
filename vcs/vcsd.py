# SPDX-License-Identifier: GPL-2.0-only
"""The daemon: one node of one cluster, with dlm_glue as its child and the control socket as its door.

How it ends. SIGTERM and SIGINT: when no group is live here, the node leaves the cluster cleanly and the exit code is 0. When groups are
live, vcsd tells the others that it will be back, names the groups and ends with code 3; dlm_glue and the groups stay as they are. A vcsd
that is started within [restart] planned_ms goes on with them; without one the node has failed. `vcs leave` does the same as the
first and refuses the second. When the bridge cannot go on (its disk, its
seat in the switch), the code is 1. A wrong configuration or fence agent: 78.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcs import log as vcs_log
from vcs.child import OutlivingChild, journal_file, uevent_socket
from vcs.component import LockFile, own_node, sd_notify
from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import ConfigError, VcsError
from vcs.events import EventLog
from vcs.mounts import holders

if TYPE_CHECKING:
    from bridge.component import Component
    from bridge.switch import ProviderPort

EXIT_LIVE = 3
THREAD_STACK = 512 << 10
"Bytes."
GLUE = "dlm_glue"
WATCHDOG = str(Path(__file__).with_name("watchdog.py"))
STOP_LEAVE_S = 8.0
"How long a clean leave may take at SIGTERM, when nobody is there to be told of it otherwise."

logger = logging.getLogger("vcsd")


@dataclass(frozen=True, slots=True)
class Options:
    config_path: str
    config: ClusterConfig
    node: NodeConfig
    handle: str
    state_dir: str
    run_dir: str
    glue: bool
    realtime: bool
    switch: str
    "module:factory of the port to the switch."


def load_object(name: str) -> Callable[[], ProviderPort]:
    """``module:attribute``. Raises ConfigError."""
    module, _, attribute = name.partition(":")
    try:
        found: Callable[[], ProviderPort] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"{name}: {error}"]) from None
    return found


class Daemon:
    """What runs between ``run()``'s begin and end; everything is undone in reverse order."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.events = EventLog(f"{options.run_dir}/events.jsonl", options.node.name, "vcsd")
        self._stop = asyncio.Event()
        self._signals = 0
        self._reload: asyncio.Task[None] | None = None
        self._component: Component | None = None
        self._glue: OutlivingChild | None = None
        self._watchdog: OutlivingChild | None = None

    async def run(self) -> int:
        """The exit code. Raises VcsError if it could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.set_exception_handler(self._on_loop_error)
        async with contextlib.AsyncExitStack() as stack:
            lock = LockFile(f"{self.options.run_dir}/vcsd-{self.options.handle}.lock")
            stack.callback(lock.close)
            stack.callback(self.events.close)
            component = await self._start(stack)
            sd_notify("READY=1")
            logger.info(
                "node %s (%d) of cluster %s runs, handle %s",
                self.options.node.name,
                self.options.node.id,
                self.options.config.name,
                self.options.handle,
            )
            await self._until_end(component)
            sd_notify("STOPPING=1")
            return await self._end(component)
        raise AssertionError("unreachable")

    async def _start(self, stack: contextlib.AsyncExitStack) -> Component:
        # Everything is imported before memory is locked: a page fault on a Python file later could wait for the disk (SAFETY S20).
        from bridge.backend import ComponentBackend
        from bridge.component import Component
        from membership.registry import factory
        from vcs.control import ControlServer
        from vcs.metrics import MetricsServer

        o = self.options
        port = load_object(o.switch)()
        engine = factory(o.config.engine)
        # What is here now stays: the collector need not look through it again and again. It does not even once: of what the imports
        # left, a few hundred objects are garbage, and to find them takes a seventh of the whole start.
        gc.freeze()
        gc.enable()
        if o.realtime:
            from vcs import realtime

            # Children (fence agents; dlm_glue asks for itself) start with ordinary priority.
            for step in realtime.setup(reset_on_fork=True):
                if not step.ok:
                    logger.warning("%s: %s", step.name, step.detail)
        component = Component(
            o.config, o.node.id, port, engine=engine, handle=o.handle, state_dir=o.state_dir, log=self.events
        )
        self._component = component
        stack.push_async_callback(component.stop)
        await component.start()
        backend = ComponentBackend(component, self._stop.set)
        control = ControlServer(f"{o.run_dir}/vcs.sock", backend)
        await control.start()
        stack.push_async_callback(control.close)
        if o.config.metrics.listen:
            metrics = MetricsServer(o.config.metrics.listen, backend.exposition)
            await metrics.start()
            stack.push_async_callback(metrics.close)
        if o.glue:
            self._glue = self._make_glue()
            await self._glue.start()
            stack.push_async_callback(self._glue.abandon)
        if o.config.watchdog.device:
            self._watchdog = self._make_watchdog()
            await self._watchdog.start()
            stack.push_async_callback(self._watchdog.abandon)
        component.before_departure = self._end_children
        return component

    async def _end_children(self) -> None:
        """In a clean leave. The watchdog's keeper goes last, and by itself only when no lease is armed."""
        for child in (self._glue, self._watchdog):
            if child is not None:
                await child.stop()

    def _make_watchdog(self) -> OutlivingChild:
        o = self.options
        argv = [sys.executable, "-I", "-S", WATCHDOG, o.config.watchdog.device, str(o.config.watchdog.seconds)]
        return OutlivingChild("watchdog", argv, f"{o.run_dir}/watchdog.pid", {}, self.events)

    def _make_glue(self) -> OutlivingChild:
        o = self.options
        site = ["-S"] if sys.flags.no_site else []
        argv = [sys.executable, *site, "-m", GLUE, "--config", o.config_path, "--handle", o.handle, "--run-dir", o.run_dir]
        if not o.realtime:
            argv.append("--no-realtime")
        return OutlivingChild(
            "dlm_glue",
            argv,
            f"{o.run_dir}/dlm_glue.pid",
            {"VCS_UEVENT_FD": uevent_socket, "VCS_JOURNAL_FD": journal_file(o.run_dir)},
            self.events,
        )

    async def _until_end(self, component: Component) -> None:
        stop = asyncio.create_task(self._stop.wait())
        left = asyncio.create_task(component.left.wait())
        await asyncio.wait((stop, left, component.failed), return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, left):
            task.cancel()

    async def _end(self, component: Component) -> int:
        """Leave cleanly if that can be done; the exit code says what happened."""
        if component.failed.done():
            error = component.failed.exception()
            logger.critical("the bridge cannot go on: %s", error, exc_info=None if isinstance(error, VcsError) else error)
            return 1
        if not component.left.is_set():
            live = component.live_groups()
            if live:
                told = await component.announce_restart()
                seconds = self.options.config.restart.planned_ms / 1000
                logger.warning(
                    "stopped while groups are live here: %s. %s or the other nodes treat this node as failed",
                    ", ".join(holders(live)),
                    f"Start vcsd again within {seconds:g} s," if told else "Nobody could be told; start vcsd again at once,",
                )
                self.events.note("stopped_live", groups=live, announced=told)
                return EXIT_LIVE
            leaving = asyncio.create_task(component.leave(STOP_LEAVE_S))
            impatient = asyncio.create_task(self._second_signal())
            await asyncio.wait((leaving, impatient), return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
            if not leaving.done():
                leaving.cancel()
                logger.error("stopped before the clean leave was done")
                return 1
            error = leaving.exception()
            if error is not None:
                logger.error("no clean leave: %s", error)
                return error.exit_code if isinstance(error, VcsError) else 1
        logger.info("left the cluster cleanly")
        return 0

    async def _second_signal(self) -> None:
        self._stop.clear()
        await self._stop.wait()

    def _on_stop_signal(self, name: str) -> None:
        self._signals += 1
        logger.info("%s: stopping", name)
        self._stop.set()

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback. The loop would only print it, and a deaf engine would live on; elsewhere it is only told."""
        error = context.get("exception")
        logger.error("%s", context.get("message"), exc_info=error)
        callback = getattr(context.get("handle"), "_callback", None)
        owner = getattr(callback, "__self__", None)
        if self._component is not None and error is not None and self._component.owns(owner):
            self._component.fail(error)

    def _on_hangup(self) -> None:
        self._reload = asyncio.get_running_loop().create_task(self._read_again())

    async def _read_again(self) -> None:
        """SIGHUP: keys, addresses of peers and timing can change under a running cluster; the rest says that it needs a restart."""
        from vcs.config.load import load

        try:
            config = await asyncio.to_thread(load, self.options.config_path)
            if self._component is None:
                raise VcsError("the bridge does not run", "try again when it does")
            self._component.reconfigure(replace(config, engine=self.options.config.engine))
        except VcsError as error:
            logger.error("SIGHUP: %s; the former configuration stays in force", error)
        else:
            logger.info("SIGHUP: %s was read again and is in force", self.options.config_path)


async def _run(options: Options) -> int:
    return await Daemon(options).run()


def prepare(options: Options) -> None:
    """Make the folders. Raises VcsError for a place that cannot be used."""
    from bridge.storage import refuse_cluster_file_system

    for path, what, mode in ((options.run_dir, "run folder", 0o755), (options.state_dir, "state folder", 0o700)):
        refuse_cluster_file_system(path, what)
        try:
            Path(path).mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError([f"{what} {path}: {error.strerror}; run this as root, or give another folder"]) from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_path", default="/etc/vcs/cluster.toml", show_default=True, help="The configuration.")
@click.option("--node", default="", help="Name or id of this node.  [default: by host name, then by address]")
@click.option("--handle", default="", help="Handle of the cluster in this kernel.  [default: the cluster's name]")
@click.option("--state-dir", default="/var/lib/vcs", show_default=True, help="What must survive a power cut.")
@click.option("--run-dir", default="/run/vcs", show_default=True, help="Sockets, locks and the event log (a tmpfs).")
@click.option("--engine", default="", help="Membership engine, instead of the configuration's.")
@click.option("--no-glue", is_flag=True, help="Do not start dlm_glue.")
@click.option("--no-realtime", is_flag=True, help="Do not lock memory or ask for real-time priority (for tests).")
@click.option("--switch", default="vcs.netlink:KernelSwitch", hidden=True, help="Port to the switch (for tests).")
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
def main(
    config_path: str,
    node: str,
    handle: str,
    state_dir: str,
    run_dir: str,
    engine: str,
    no_glue: bool,
    no_realtime: bool,
    switch: str,
    verbose: bool,
) -> None:
    """Run one node of a cluster, as /etc/vcs/cluster.toml says."""
    gc.disable()  # until everything is imported: see Daemon._start
    # Before the first thread: a stack is locked as a whole later, and the default would be 8 MiB each.
    threading.stack_size(THREAD_STACK)
    running = vcs_log.start(logging.DEBUG if verbose else logging.INFO)
    try:
        from vcs.config.load import load

        config = load(config_path)
        if engine:
            config = replace(config, engine=engine)
        options = Options(
            os.path.abspath(config_path),
            config,
            own_node(config, node),
            handle or config.name,
            state_dir,
            run_dir,
            glue=not no_glue,
            realtime=not no_realtime,
            switch=switch,
        )
        prepare(options)
        code = asyncio.run(_run(options))
    except ConfigError as error:
        for problem in error.problems:
            logger.error("%s", problem)
        code = error.exit_code
    except VcsError as error:
        logger.error("%s", error)
        code = error.exit_code
    except OSError as error:
        logger.error("%s", error)
        code = 1
    running.stop()
    # A fence agent's thread must not hold a daemon that is done: no interpreter shutdown that joins threads.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(prog_name="vcsd")
