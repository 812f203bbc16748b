# SPDX-License-Identifier: GPL-2.0-only
"""A user of the kernel's DLM, through libdlm: what the tests lock with. Runs in a virtual machine and needs nothing but Python.

    dlm_lock.py LOCKSPACE create            make (join) the lockspace; returns when it is joined, or fails with its errno
    dlm_lock.py LOCKSPACE release           leave and remove it
    dlm_lock.py LOCKSPACE hold RES          take EX, print "granted T", hold until stdin ends or SIGTERM, release, print "released T"
    dlm_lock.py LOCKSPACE try RES           take EX without waiting: prints "granted" or "busy" (exit code 11)
    dlm_lock.py LOCKSPACE count RES N       N times: take EX, add 1 to a number in the lock's value block, release; prints the last number

All times are CLOCK_BOOTTIME in ns. ``count`` is the test of exclusion: it reads, waits a moment and writes, so if two ever hold EX at
once, an increment is lost and the sum over all nodes is short. The number must only be trusted if no holder died: then the
value block may be marked invalid, which is said with exit code 12.

Every thread that waits in libdlm hangs unless its reader thread was started (dlm_ls_pthread_init), so that comes first everywhere.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import struct
import sys
import time

LKM_NLMODE, LKM_EXMODE = 0, 5
LKF_NOQUEUE, LKF_CONVERT, LKF_VALBLK = 0x1, 0x4, 0x8
SBF_VALNOTVALID = 0x2
LVB_LEN = 32
BUSY, LVB_LOST = 11, 12
SWITCH_S = 0.002
"How long ``count`` keeps others from running between reading and writing."


class Lksb(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int),
        ("lkid", ctypes.c_uint32),
        ("flags", ctypes.c_char),
        ("lvb", ctypes.c_void_p),
    )


def load() -> ctypes.CDLL:
    lib = ctypes.CDLL("libdlm.so.3", use_errno=True)
    for name in ("dlm_create_lockspace", "dlm_open_lockspace"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.dlm_create_lockspace.argtypes = [ctypes.c_char_p, ctypes.c_uint]
    lib.dlm_open_lockspace.argtypes = [ctypes.c_char_p]
    lib.dlm_ls_pthread_init.argtypes = [ctypes.c_void_p]
    lib.dlm_close_lockspace.argtypes = [ctypes.c_void_p]
    lib.dlm_release_lockspace.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
    lib.dlm_ls_lock_wait.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(Lksb), ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint32,
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    lib.dlm_ls_unlock_wait.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(Lksb)]
    return lib


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def fail(what: str, code: int | None = None) -> OSError:
    number = ctypes.get_errno() if code is None else code
    return OSError(number, f"{what}: {os.strerror(number)}")


class Lockspace:
    """An open lockspace. Raises OSError."""

    def __init__(self, name: str, create: bool = False) -> None:
        self._lib = load()
        self._name = name.encode()
        self._ls = self._lib.dlm_create_lockspace(self._name, 0o600) if create else self._lib.dlm_open_lockspace(self._name)
        if not self._ls:
            raise fail(f"lockspace {name}")
        if not create and self._lib.dlm_ls_pthread_init(self._ls) != 0:
            raise fail("dlm_ls_pthread_init")

    def release(self) -> None:
        if self._lib.dlm_release_lockspace(self._name, self._ls, 2) != 0:
            raise fail("dlm_release_lockspace")

    def lock(self, resource: str, mode: int, flags: int, lksb: Lksb) -> bool:
        """Wait for the lock; False if it was refused because of NOQUEUE."""
        raw = resource.encode()
        result = self._lib.dlm_ls_lock_wait(self._ls, mode, ctypes.byref(lksb), flags, raw, len(raw), 0, None, None, None)
        if result != 0:
            raise fail(f"lock {resource}")
        if lksb.status == errno.EAGAIN:
            return False
        if lksb.status != 0:
            raise fail(f"lock {resource}", lksb.status)
        return True

    def unlock(self, lksb: Lksb) -> None:
        if self._lib.dlm_ls_unlock_wait(self._ls, lksb.lkid, 0, ctypes.byref(lksb)) != 0:
            raise fail("unlock")


def hold(ls: Lockspace, resource: str) -> int:
    lksb = Lksb()
    ls.lock(resource, LKM_EXMODE, 0, lksb)
    print(f"granted {now()}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))
    try:
        while os.read(0, 1):
            pass
    except OSError:
        pass
    ls.unlock(lksb)
    print(f"released {now()}", flush=True)
    return 0


def attempt(ls: Lockspace, resource: str) -> int:
    lksb = Lksb()
    if not ls.lock(resource, LKM_EXMODE, LKF_NOQUEUE, lksb):
        print(f"busy {now()}")
        return BUSY
    print(f"granted {now()}")
    ls.unlock(lksb)
    return 0


def count(ls: Lockspace, resource: str, times: int) -> int:
    block = ctypes.create_string_buffer(LVB_LEN)
    lksb = Lksb(lvb=ctypes.addressof(block))
    ls.lock(resource, LKM_NLMODE, LKF_VALBLK, lksb)
    number = 0
    for _ in range(times):
        ls.lock(resource, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, lksb)
        if ord(lksb.flags) & SBF_VALNOTVALID:
            print("value block lost", flush=True)
            return LVB_LOST
        number = struct.unpack_from("<Q", block)[0] + 1
        time.sleep(SWITCH_S)
        struct.pack_into("<Q", block, 0, number)
        ls.lock(resource, LKM_NLMODE, LKF_CONVERT | LKF_VALBLK, lksb)
    # The resource forgets its value with its last lock; it is printed, and whoever counts last has the sum.
    print(f"count {number}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))
    try:
        while os.read(0, 1):
            pass
    except OSError:
        pass
    ls.unlock(lksb)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("lockspace")
    sub = parser.add_subparsers(dest="command", required=True)
    sub.add_parser("create")
    sub.add_parser("release")
    for name in ("hold", "try", "count"):
        sub.add_parser(name).add_argument("resource")
    sub.choices["count"].add_argument("times", type=int)
    args = parser.parse_args()
    try:
        ls = Lockspace(args.lockspace, create=args.command == "create")
        match args.command:
            case "release":
                ls.release()
            case "hold":
                return hold(ls, args.resource)
            case "try":
                return attempt(ls, args.resource)
            case "count":
                return count(ls, args.resource, args.times)
    except OSError as error:
        print(f"dlm_lock: {error} ({errno.errorcode.get(error.errno or 0, error.errno)})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
