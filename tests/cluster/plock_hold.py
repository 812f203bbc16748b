# SPDX-License-Identifier: GPL-2.0-only
"""Runs in a guest: one process with one POSIX lock.

    plock_hold.py FILE hold|share START LENGTH     wait for the lock, say so, keep it until SIGTERM
    plock_hold.py FILE try|tryshare START LENGTH   take it at once or exit with 11 (EAGAIN)
    plock_hold.py FILE get START LENGTH            who holds what stands in the way of a write lock: "pid start length", or "free"
    plock_hold.py FILE interrupt START LENGTH      wait for the lock; SIGUSR1 ends the wait (exit 4, EINTR)

Lines: "asks NS", "granted NS", "freed NS" with CLOCK_BOOTTIME.
"""

import errno
import fcntl
import os
import signal
import struct
import sys
import time

FLOCK = struct.Struct("hhqqi4x")


def say(word: str) -> None:
    print(word, time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)


class Interrupted(Exception):
    pass


def interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def main() -> int:
    path, what, start, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if what == "get":
        found = fcntl.fcntl(fd, fcntl.F_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
        kind, _whence, at, size, pid = FLOCK.unpack(found)
        print("free" if kind == fcntl.F_UNLCK else f"{pid} {at} {size}")
        return 0
    kind = fcntl.LOCK_SH if what in ("share", "tryshare") else fcntl.LOCK_EX
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if what == "interrupt":
        signal.signal(signal.SIGUSR1, interrupt)
    say("asks")
    try:
        fcntl.lockf(fd, kind | (fcntl.LOCK_NB if what.startswith("try") else 0), length, start)
    except Interrupted:
        say("interrupted")
        return errno.EINTR
    except OSError as error:
        print(error, flush=True)
        return error.errno or 1
    say("granted")
    if what.startswith("try"):
        return 0
    signal.sigwait([signal.SIGTERM])
    say("freed")
    fcntl.lockf(fd, fcntl.LOCK_UN, length, start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
