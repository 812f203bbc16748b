# SPDX-License-Identifier: GPL-2.0-only
"""Contention for one lock, with a witness of each time it was held. Runs in a virtual machine.

    python3 -m tests.cluster.dlm_contend LOCKSPACE RESOURCE TIMES

TIMES times: take EX, read the number in the value block, hold for a moment, write the number plus one, go back to NL. Each turn prints a
line of JSON: {"from": T, "to": T, "number": N}, CLOCK_BOOTTIME in ns. ``from`` is taken after the grant and ``to`` before the release is
asked for, so the interval is inside the true one: two intervals of different nodes that overlap are two holders at once. At the end it
keeps NL (the value lives as long as anybody has the resource) until stdin ends or SIGTERM.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import time

from tests.cluster.dlm_lock import (
    LKF_CONVERT,
    LKF_VALBLK,
    LKM_EXMODE,
    LKM_NLMODE,
    LVB_LEN,
    LVB_LOST,
    SBF_VALNOTVALID,
    Lksb,
    Lockspace,
    now,
)

HOLD_S = 0.002
"Long enough for another node to come in between, if it could."


def main(lockspace: str, resource: str, times: int) -> int:
    block = ctypes.create_string_buffer(LVB_LEN)
    lksb = Lksb(lvb=ctypes.addressof(block))
    ls = Lockspace(lockspace)
    ls.lock(resource, LKM_NLMODE, LKF_VALBLK, lksb)
    for _ in range(times):
        ls.lock(resource, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, lksb)
        begin = now()
        if ord(lksb.flags) & SBF_VALNOTVALID:
            print("the value block was lost", file=sys.stderr)
            return LVB_LOST
        number = struct.unpack_from("<Q", block)[0] + 1
        time.sleep(HOLD_S)
        struct.pack_into("<Q", block, 0, number)
        end = now()
        ls.lock(resource, LKM_NLMODE, LKF_CONVERT | LKF_VALBLK, lksb)
        print(json.dumps({"from": begin, "to": end, "number": number}), flush=True)
    print("done", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))
    try:
        while os.read(0, 1):
            pass
    except OSError:
        pass
    ls.unlock(lksb)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
