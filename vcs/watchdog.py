# SPDX-License-Identifier: GPL-2.0-only
"""The keeper of the hardware watchdog, a process of its own (SAFETY S14): ``python3 -I -S watchdog.py DEVICE SECONDS [SYSFS]``.

It pings the device while no cluster of this kernel has a lease that is armed to reset the machine and has run out. It imports nothing
of ours, needs no daemon and reads only sysfs, so a crash of vcsd leaves it alone, and a kernel whose own timer failed is still reset:
at most SECONDS after the end of the lease. If it dies itself the device counts on; whoever starts it again in time goes on pinging.

SIGTERM lets go of the device (with the magic close, so that it stops counting), but not while a lease is armed: then it ends later,
when the last group has been left. Exit codes: 0 released, 1 the device cannot be used.
"""

import ctypes
import fcntl
import os
import signal
import struct
import sys

WDIOC_SETTIMEOUT = 0xC0045706
PERIOD_MAX_S = 1.0
MCL_CURRENT_AND_FUTURE = 3
PRIORITY = 60
"Above whatever else asks for real time here: a late ping is a reset."


def lease(folder: str) -> tuple[bool, bool]:
    """(armed to reset this machine, run out) of the cluster whose lease is shown in ``folder``.

    Raises OSError when that cannot be told; a cluster that is gone is not armed."""
    said = {}
    for name in ("dry_run", "reset_armed", "state"):  # in this order: armed between the reads only makes it "run out" for one round
        try:
            with open(f"{folder}/{name}", encoding="ascii") as file:
                said[name] = file.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return False, False  # it is gone, or no cluster at all
    armed = said["reset_armed"] == "1" and said["dry_run"] == "0"
    return armed, armed and said["state"] != "armed"


def look(root: str) -> tuple[bool, bool]:
    """(a lease is armed, one of them has run out), over all clusters below ``root``. What cannot be read counts as both."""
    try:
        folders = [f"{root}/{name}/lease" for name in os.listdir(root)]
    except FileNotFoundError:
        return False, False  # the module is not loaded
    except OSError:
        return True, True
    armed = over = False
    for folder in folders:
        try:
            found = lease(folder)
        except OSError:
            found = (True, True)
        armed, over = armed or found[0], over or found[1]
    return armed, over


def steady() -> None:
    """Nothing may hold this process up: memory locked, real time, the last to be killed. Best effort: unprivileged in tests."""
    ctypes.CDLL(None).mlockall(MCL_CURRENT_AND_FUTURE)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-1000")
    except OSError as error:
        print(f"watchdog: not at real time: {error}", file=sys.stderr)


def open_device(path: str, seconds: int) -> int:
    """The open device, counting from ``seconds``. Raises OSError; then it has been let go again."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        (held,) = struct.unpack("i", fcntl.ioctl(fd, WDIOC_SETTIMEOUT, struct.pack("i", seconds)))
        if held > seconds:
            raise OSError(f"{path} counts {held} s at least: set [watchdog] timeout_ms to {held * 1000}")
    except BaseException:
        os.write(fd, b"V")
        os.close(fd)
        raise
    return fd


def keep(fd: int, seconds: int, root: str, stop: set[signal.Signals]) -> None:
    """Ping until one of the signals ``stop`` (blocked) is there and nothing is armed."""
    period_s = min(PERIOD_MAX_S, seconds / 4)
    stopping = silent = False
    while True:
        armed, over = look(root)
        if stopping and not armed:
            return
        if over != silent:
            silent = over
            print(f"watchdog: {'the lease has run out: no more pings' if over else 'pings again'}", file=sys.stderr, flush=True)
        if not over:
            os.write(fd, b"\0")
        came = signal.sigtimedwait(stop, period_s)
        if came is not None and not stopping:
            stopping = True
            if armed:
                print("watchdog: a lease is armed: the device is held until it is not", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    path, seconds, root = arguments[0], int(arguments[1]), (*arguments[2:], "/sys/kernel/vcs")[0]
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    steady()
    try:
        fd = open_device(path, seconds)
    except OSError as error:
        print(f"watchdog: {error}", file=sys.stderr)
        return 1
    keep(fd, seconds, root, stop)
    os.write(fd, b"V")
    os.close(fd)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
