# SPDX-License-Identifier: GPL-2.0-only
"""A running cluster with a prompt on every node.

    PYTHONPATH=qemu python -m harness.shell [--nodes 3] [--kernel 6.12] [--disk MIB] [--setup module:function]

`--setup` names a function of the project that is called with the Cluster before the prompt appears.
Commands are read from standard input; without a terminal they are simply executed in turn, and the exit status is
that of the last one. Each node's serial console has a shell too, for programs that want a terminal.
"""

from __future__ import annotations

import argparse
import importlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.cache import say
from harness.cluster import Cluster
from harness.errors import LabError
from harness.machine import Machine

HELP = """\
  COMMAND          run it on the current node (Ctrl-C ends it)
  use N            make node N the current one
  all: COMMAND     run it on every node
  N: COMMAND       run it on node N
  off N | on N     cut node N's power; boot it
  freeze N | resume N
  isolate N | heal take node N off the network; undo all faults
  timeline         what happened so far on all nodes
  where            where logs and consoles are
  quit"""


def serve_console(machine: Machine, path: Path) -> None:
    """A unix socket that is the machine's serial console, with a shell on it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(4)

    def relay(client: socket.socket) -> None:
        machine.console.taps.append(client)
        while data := client.recv(4096):
            machine.console.type(data)

    def accept() -> None:
        while True:
            client, _ = server.accept()
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    machine.spawn("while :; do setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1; done", log="console-shell")


class Shell:
    """Reads lines, keeps the current node and the last exit status."""

    def __init__(self, cluster: Cluster, consoles: Path) -> None:
        self.cluster = cluster
        self.current = 1
        self.status = 0
        self._jobs = 0
        self._consoles = consoles
        self._actions = {
            "off": lambda n: cluster[n].power_off(),
            "on": lambda n: cluster[n].boot(),
            "freeze": lambda n: cluster[n].freeze(),
            "resume": lambda n: cluster[n].resume(),
            "isolate": cluster.network.isolate,
        }

    def execute(self, node: int, command: str) -> None:
        """One command on one node, its output as it comes."""
        machine = self.cluster[node]
        self._jobs += 1
        job = machine.spawn(command, log=f"shell-{self._jobs}", env={"COLUMNS": "120"})
        try:
            self.status = machine.follow(job, lambda text: print(text, end="", flush=True))
        except KeyboardInterrupt:
            machine.run(f"kill -INT -{job.pid}; sleep 0.3; kill -KILL -{job.pid}")
            self.status = 130
            print()

    def line(self, text: str) -> None:
        """One line of input."""
        word, _, rest = text.strip().partition(" ")
        head, colon, command = text.strip().partition(":")
        if colon and (head == "all" or head.isdigit()):
            for node in range(1, len(self.cluster) + 1) if head == "all" else [int(head)]:
                if head == "all":
                    print(f"--- node{node}", flush=True)
                self.execute(node, command.strip())
        elif word == "use" and rest.strip().isdigit() and 1 <= int(rest) <= len(self.cluster):
            self.current = int(rest)
        elif word in self._actions and rest.strip().isdigit():
            self._actions[word](int(rest))
        elif text.strip() == "heal":
            self.cluster.network.heal()
        elif text.strip() == "timeline":
            print(self.cluster.timeline.render(kernel=False), end="")
        elif text.strip() == "where":
            print(f"logs: {self.cluster.artifacts}\nconsoles: socat -,raw,echo=0 UNIX-CONNECT:{self._consoles}/nodeN")
        elif text.strip() in ("help", "?"):
            print(HELP)
        else:
            self.execute(self.current, text)

    def lines(self) -> Iterator[str]:
        """Standard input until its end or `quit`."""
        terminal = sys.stdin.isatty()
        while True:
            try:
                text = input(f"node{self.current}# ") if terminal else sys.stdin.readline()
            except EOFError:
                return
            except KeyboardInterrupt:
                print()
                continue
            if (not terminal and not text) or text.strip() in ("quit", "exit"):
                return
            if text.strip():
                yield text.rstrip("\n")

    def loop(self) -> int:
        for text in self.lines():
            try:
                self.line(text)
            except (LabError, OSError, KeyError) as error:
                print(error, file=sys.stderr)
                self.status = 70
        return self.status


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.shell")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--disk", type=int, default=512, metavar="MIB")
    parser.add_argument("--memory", type=int, default=768, metavar="MIB")
    parser.add_argument("--setup", metavar="MODULE:FUNCTION")
    options = parser.parse_args()
    setup = None
    if options.setup:
        module, _, function = options.setup.partition(":")
        setup = getattr(importlib.import_module(module), function)
    if sys.stdin.isatty():
        import readline  # noqa: F401  line editing and history for input()

    say(f"booting {options.nodes} machines")
    with tempfile.TemporaryDirectory(prefix="vcs-") as consoles, Cluster(
        options.nodes, options.kernel, shared_disk_mib=options.disk, memory_mib=options.memory
    ) as cluster:
        for machine in cluster:
            serve_console(machine, Path(consoles) / machine.name)
        if setup:
            setup(cluster)
        say(f"ready; logs in {cluster.artifacts}; help lists the commands")
        return Shell(cluster, Path(consoles)).loop()


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main())
