# SPDX-License-Identifier: GPL-2.0-only
"""A process that outlives the engine's by a moment: it tells the peers that the engine's process has died.

Run by guardian.py as ``python -I -S last_gasp.py FD``; imports nothing of ours, so that it is small. FD is a socket to the engine's
process. What comes over it (JSON, with a UDP socket per link attached) is what to send: a sealed frame, which is the same at
any time and useless to anybody else while the engine lives. When the socket ends without a goodbye, the process is gone, however it
ended, and the frame goes to every peer over every link, more than once, because nothing acknowledges it.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time

COPIES = 3
PAUSE_S = 0.004
"Between the copies: a burst of loss may take one, hardly all."
MESSAGE_MAX = 65536
SOCKETS_MAX = 16


def main(control: socket.socket) -> None:
    # Whoever stops the service by signals means the engine; this process ends with it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # on a machine that is busy, too
    frame = b""
    targets: list[tuple[socket.socket, tuple[str | int, ...]]] = []
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(control, MESSAGE_MAX, SOCKETS_MAX)
        if not message:
            break
        told = json.loads(message)
        if not told:
            return  # a goodbye: the engine has left by itself
        for sock in {sock for sock, _ in targets}:
            sock.close()
        sockets = [socket.socket(fileno=fd) for fd in descriptors]
        frame = bytes.fromhex(told["frame"])
        targets = [(sockets[index], tuple(address)) for index, address in told["targets"]]
    for i in range(COPIES):
        if i:
            time.sleep(PAUSE_S)
        for sock, address in targets:
            with contextlib.suppress(OSError):
                sock.sendto(frame, address)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
