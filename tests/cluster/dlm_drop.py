# SPDX-License-Identifier: GPL-2.0-only
"""Remove lockspaces that nobody uses, through /dev/misc/dlm-control. Runs in a virtual machine.

    dlm_drop.py LOCKSPACE

libdlm's dlm_release_lockspace() closes the lockspace's own device first, and the kernel lets that wait until the lockspace runs again
(dlm_clear_proc_locks). A lockspace that is stopped, on a node without quorum, can so be left only by someone who has not opened it.
"""

from __future__ import annotations

import os
import struct
import sys

VERSION = (6, 0, 2)
"DLM_DEVICE_VERSION_*"
REMOVE_LOCKSPACE = 5
FORCE = 2
"DLM_USER_LSFLG_FORCEFREE"
REQUEST_SIZE = 120
"sizeof(struct dlm_write_request) on 64-bit machines: the kernel takes nothing shorter."


def main(name: str) -> int:
    minor = os.minor(os.stat(f"/dev/misc/dlm_{name}").st_rdev)
    request = struct.pack("=3IBBxxII", *VERSION, REMOVE_LOCKSPACE, 1, FORCE, minor)
    fd = os.open("/dev/misc/dlm-control", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, request.ljust(REQUEST_SIZE, b"\0"))
    os.close(fd)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
