# SPDX-License-Identifier: GPL-2.0-only
"""A lab of network namespaces: one per node, veth pairs of MTU 1500, and a bridge in a namespace of its own as the switch.

Each node also has a private mount namespace, so that programs with fixed paths (corosync) run side by side. Every name carries the
prefix and the process id of its maker: whatever a crashed run left is found and removed by the next one. Nothing of the host's own
network is touched. Needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PREFIX = "vcsb"
MTU = 1500
NETWORK = "10.77"
SERIAL = itertools.count(1)
"Labs of one process are told apart, so that several can be there at once."


def run(*argv: str, check: bool = True) -> str:
    """Run a command to its end. Raises CalledProcessError, with what it said on stderr as a note."""
    got = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and got.returncode:
        error = subprocess.CalledProcessError(got.returncode, argv)
        error.add_note(got.stderr.strip())
        raise error
    return got.stdout


def now_ns() -> int:
    """The clock of all time stamps: one for all processes of the machine."""
    return time.monotonic_ns()


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def remove_stale() -> None:
    """Remove the namespaces of runs whose process is gone."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        part = name.split("-")
        if part[0] == PREFIX and len(part) == 4 and not _alive(int(part[1])):
            _remove(name)


def _remove(namespace: str) -> None:
    """End every process of a namespace (they are all ours), and the namespace."""
    for _ in range(50):
        pids = [int(p) for p in run("ip", "netns", "pids", namespace, check=False).split()]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # a killed process leaves the list when the kernel has taken it apart: there is no event to wait for
    run("ip", "netns", "delete", namespace, check=False)


class Machine:
    """One node's place: a network namespace and a mount namespace that a holder process keeps."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab = lab
        self.number = number
        self.address = f"{NETWORK}.0.{number}"
        self.namespace = f"{lab.name}-{number}"
        self.port = f"p{number}"
        "The name of its port at the switch."
        self.folder = lab.folder / str(number)
        self.folder.mkdir()
        self._holder: subprocess.Popen[bytes] | None = None

    def plug(self) -> None:
        run("ip", "netns", "add", self.namespace)
        hub = self.lab.hub
        run("ip", "-n", hub, "link", "add", self.port, "mtu", str(MTU), "type", "veth",
            "peer", "name", "eth0", "mtu", str(MTU), "netns", self.namespace)
        run("ip", "-n", hub, "link", "set", self.port, "master", "br0", "up")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.namespace, "address", "add", f"{self.address}/16", "dev", "eth0")
        run("ip", "-n", self.namespace, "link", "set", "eth0", "up")

    def hold(self, binds: Mapping[str, str]) -> None:
        """Make the mount namespace: fresh /run and /dev/shm, and each of ``binds`` (target path -> folder of ours) on top."""
        script = ["mount -t tmpfs none /run", "mount -t tmpfs none /dev/shm"]
        script += [f"mkdir -p '{target}' && mount --bind '{source}' '{target}'" for target, source in binds.items()]
        script += ["echo ready", "exec sleep infinity"]
        self._holder = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL",
             "sh", "-e", "-c", "\n".join(script)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self.namespace}: the mount namespace could not be made")

    def command(self, argv: Sequence[str]) -> list[str]:
        """``argv`` so that it runs on this machine; the process that is started becomes the program itself (no parent in between)."""
        assert self._holder is not None
        return ["nsenter", f"--net=/run/netns/{self.namespace}", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *argv]

    def cut(self) -> int:
        """Take the machine off the switch without a sign: its carrier stays up. Returns the time just before (ns)."""
        began = now_ns()
        run("ip", "-n", self.lab.hub, "link", "set", self.port, "nomaster")
        return began

    def mend(self) -> None:
        run("ip", "-n", self.lab.hub, "link", "set", self.port, "master", "br0")

    def counters(self) -> tuple[int, int]:
        """(packets, bytes) that the machine has sent, on the wire."""
        base = ["ip", "netns", "exec", self.namespace, "cat"]
        folder = "/sys/class/net/eth0/statistics"
        packets, octets = run(*base, f"{folder}/tx_packets", f"{folder}/tx_bytes").split()
        return int(packets), int(octets)

    def unplug(self) -> None:
        _remove(self.namespace)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            if self._holder.stdout is not None:
                self._holder.stdout.close()
            self._holder = None


class Lab:
    """``with Lab(3) as lab:`` gives three machines on one switch; ``lab.machines`` by number from 1."""

    def __init__(self, nodes: int) -> None:
        if os.geteuid() != 0:
            raise PermissionError("the lab needs root: it makes network namespaces")
        remove_stale()
        self.name = f"{PREFIX}-{os.getpid()}-{next(SERIAL)}"
        self.hub = f"{self.name}-hub"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        self.machines: dict[int, Machine] = {}
        try:
            run("ip", "netns", "add", self.hub)
            # A switch that learns nothing new about time: forwarding at once, and no multicast snooping that drops what it does not know.
            run("ip", "-n", self.hub, "link", "add", "br0", "mtu", str(MTU), "type", "bridge",
                "forward_delay", "0", "stp_state", "0", "mcast_snooping", "0")
            run("ip", "-n", self.hub, "link", "set", "br0", "up")
            for number in range(1, nodes + 1):
                self.machines[number] = Machine(self, number)
                self.machines[number].plug()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        for machine in self.machines.values():
            machine.unplug()
        _remove(self.hub)
        shutil.rmtree(self.folder, ignore_errors=True)
