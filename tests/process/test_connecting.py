# SPDX-License-Identifier: GPL-2.0-only
"""A connect to a machine without power is ended at once (dlm_glue/connecting.py): real sockets in a network namespace of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORY = """
import errno, json, socket, subprocess, sys, threading, time
from dlm_glue.connecting import abort, aborted

def run(*words):
    subprocess.run(["ip", *words], check=True)

# Without lo the kernel could not tell itself that an address has no owner, and a connect would last two minutes.
run("link", "set", "lo", "up")
run("link", "add", "a0", "type", "veth", "peer", "name", "a1")
run("link", "set", "a1", "up")
run("address", "add", "10.1.0.1/24", "dev", "a0")
run("address", "add", "fd01::1/64", "dev", "a0", "nodad")
run("link", "set", "a0", "up")

class Connect(threading.Thread):
    def __init__(self, address, port):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.to, self.code = (address, port), 0
        self.begun = time.monotonic()
        self.start()
    def run(self):
        try:
            self.socket.connect(self.to)
        except OSError as error:
            self.code = error.errno
        self.took = time.monotonic() - self.begun

def connecting(n):
    # The kernel's own table of sockets: state 02 is SYN_SENT.
    def lines():
        return sum(line.split()[3] == "02" for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:])
    until = time.monotonic() + 5
    while lines() < n and time.monotonic() < until:
        time.sleep(0.005)

said = {}
four, six, other, port = Connect("10.1.0.2", 21064), Connect("fd01::2", 21064), Connect("10.1.0.3", 21064), Connect("10.1.0.2", 99)
connecting(4)
said["ended"] = abort(["10.1.0.2", "fd01::2"], 21064)
four.join(); six.join()
said["codes"] = [four.code, six.code]
said["others"] = [other.is_alive(), port.is_alive()]
said["none"] = abort(["10.1.0.2"], 21064)
with aborted(["10.1.0.4"], 21064):
    late = Connect("10.1.0.4", 21064)
    late.join()
said["late"] = [late.code, late.took]
said["refused"] = errno.ECONNABORTED
print(json.dumps(said))
"""


def test_a_connect_is_ended() -> None:
    command = ["unshare", "--net", sys.executable, "-c", STORY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ended"] == 2 and said["codes"] == [said["refused"]] * 2
    assert said["others"] == [True, True], "other nodes and other ports are not concerned"
    assert said["none"] == 0
    code, took_s = said["late"]
    assert code == said["refused"]
    assert took_s < 2, "without it, three seconds of address resolution"


