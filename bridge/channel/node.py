# SPDX-License-Identifier: GPL-2.0-only
"""One engine with its channels and nothing else: ``python -m bridge.channel.node``. For measurements, and for work on engines.

It needs no kernel module and no other daemon, decides nothing about quorum or fencing, and ends at SIGTERM, after leaving its ring.
Ready when its socket is there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import signal
import sys

from bridge.channel.engine import EngineChannels
from membership.api import Configuration, Engine, EngineContext, EngineEvent, Health, Processor
from membership.registry import factory
from vcs.config.load import load
from vcs.errors import VcsError
from vcs.events import boottime_ns


def _say(name: str, fields: dict[str, object]) -> None:
    """One JSON object a line on standard output, with CLOCK_BOOTTIME in nanoseconds."""
    print(json.dumps({"t": boottime_ns(), "event": name, **fields}, default=str), flush=True)


async def run(options: argparse.Namespace) -> None:
    config = load(options.config)
    if config.node(options.node) is None:
        raise VcsError(f"node {options.node} is not in {options.config}")
    local = Processor(options.node, secrets.randbits(63) | 1, secrets.randbits(63) | 1)
    os.makedirs(options.state_dir, exist_ok=True)
    engine: Engine | None = None

    def submit(payload: bytes) -> None:
        assert engine is not None
        engine.submit(payload)

    channels = EngineChannels(options.node, submit, _say)

    def sink(event: EngineEvent) -> None:
        channels.sink(event)
        if isinstance(event, Configuration):
            _say("configuration", {"kind": event.kind.name, "ring": str(event.ring), "members": [m.nodeid for m in event.members]})
        elif isinstance(event, Health):
            _say("health", {"nodeid": event.nodeid, "what": event.what, "detail": event.detail})

    engine = factory(options.engine or config.engine)(EngineContext(config, local, options.state_dir, sink, _say))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await engine.start()
    channels.listen(options.socket)
    gc.collect()
    gc.freeze()
    await stop.wait()
    await engine.leave()
    channels.close()
    _say("status", engine.status())


def main() -> None:
    parser = argparse.ArgumentParser(description="one engine with its batch channels, without coordinator and switch")
    parser.add_argument("--config", required=True, help="cluster.toml")
    parser.add_argument("--node", required=True, type=int, help="id of this node")
    parser.add_argument("--state-dir", required=True, help="folder of the engine")
    parser.add_argument("--socket", required=True, help="where programs connect")
    parser.add_argument("--engine", default="", help="instead of the configuration's")
    try:
        asyncio.run(run(parser.parse_args()))
    except VcsError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
