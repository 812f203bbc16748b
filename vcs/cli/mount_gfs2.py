#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-only
"""mount.gfs2: what mount(8) calls for ``mount -t gfs2``. Looks before it leaps.

A GFS2 whose lock table names another cluster, or that is mounted without a quorate one, fails late and says little (or waits without
an end). This helper reads the superblock and the switch, refuses with one line that says what and how to mend it, and else hands
back to mount(8). It decides nothing that keeps data safe: the switch does that. Alone in its file, with no import of ours, so that it
starts quickly and can be installed as it is.
"""

import os
import sys
import time

SYSFS = "/sys/kernel/vcs"
DLM = "/sys/kernel/config/dlm/cluster"
DLM_WAIT_S = 30.0
"How long a mount waits for dlm_glue to give the DLM its own address, which is the last step of a node's start."
MAGIC = (0x01161970).to_bytes(4, "big")
"gfs2_ondisk.h: GFS2_MAGIC"
SUPERBLOCK = 64 << 10
"Byte offset: GFS2_SB_ADDR (128) basic blocks of 512 bytes."
TYPE_SB = (1).to_bytes(4, "big")
"GFS2_METATYPE_SB"
LOCKPROTO, LOCKTABLE, NAME_LEN = 96, 160, 64
"Offsets in struct gfs2_sb, and GFS2_LOCKNAME_LEN."

EXIT_USAGE, EXIT_FAILED = 1, 32
"As mount(8) has them."

FLAGS = {"-s", "-f", "-n", "-v"}
WITH_VALUE = {"-o", "-t", "-N"}


class Refused(Exception):
    """One line: what is wrong; how to mend it."""


def parse(arguments: list[str]) -> tuple[str, str, list[str], list[str]]:
    """``DEVICE DIR [-sfnv] [-N namespace] [-o options] [-t type]`` -> device, dir, options, arguments to pass on. Raises ValueError."""
    plain: list[str] = []
    passed: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in WITH_VALUE:
            if not rest:
                raise ValueError(f"{word} needs a value")
            value = rest.pop(0)
            if word == "-o":
                options += [o for o in value.split(",") if o]
            elif word == "-N":
                passed += [word, value]
        elif word.startswith("-") and len(word) > 1 and all(f"-{c}" in FLAGS for c in word[1:]):
            passed.append(word)
        elif word.startswith("-"):
            raise ValueError(f"unknown option {word}")
        else:
            plain.append(word)
    if len(plain) != 2:
        raise ValueError("a device and a directory are needed")
    return plain[0], plain[1], options, passed


def option(options: list[str], name: str) -> str | None:
    """Value of the last ``name=value``."""
    found = [o.partition("=")[2] for o in options if o.startswith(f"{name}=")]
    return found[-1] if found else None


def superblock(device: str) -> tuple[str, str]:
    """(lock protocol, lock table) of the GFS2 on ``device``. Raises Refused."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            block = os.pread(fd, LOCKTABLE + NAME_LEN, SUPERBLOCK)
        finally:
            os.close(fd)
    except OSError as error:
        raise Refused(f"{device} cannot be read: {error.strerror}; is the disk there?") from None
    if len(block) < LOCKTABLE + NAME_LEN or block[:4] != MAGIC or block[4:8] != TYPE_SB:
        raise Refused(f"{device} holds no GFS2 file system; make one with mkfs.gfs2, or name the right device")
    return text(block[LOCKPROTO : LOCKPROTO + NAME_LEN]), text(block[LOCKTABLE : LOCKTABLE + NAME_LEN])


def text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def attribute(root: str, *parts: str) -> str:
    try:
        with open("/".join((root, *parts)), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def clusters(root: str) -> dict[str, str]:
    """Cluster name -> handle, as the switch has them. Raises Refused when there is none."""
    try:
        handles = sorted(os.listdir(root))
    except OSError:
        raise Refused("the kernel module vcs is not loaded; `modprobe vcs`, then start vcsd") from None
    found = {name: handle for handle in handles if (name := attribute(root, handle, "cluster_name"))}
    if not found:
        raise Refused("this node is in no cluster; start vcsd: `systemctl start vcsd`")
    return found


def check(device: str, table: str, root: str) -> None:
    """Raises Refused if a file system with this lock table cannot be mounted now."""
    cluster, colon, name = table.partition(":")
    if not cluster or not colon or not name:
        remedy = f"`tunegfs2 -o locktable=CLUSTER:NAME {device}` while it is mounted nowhere"
        raise Refused(f"{device}: lock table {table!r} names no cluster; {remedy}")
    there = clusters(root)
    if cluster not in there:
        ours = sorted(there)
        raise Refused(
            f"{device} belongs to cluster {cluster!r} and this node is in {', '.join(map(repr, ours))}; mount it there, or give it away "
            f"for good with `tunegfs2 -o locktable={ours[0]}:{name} {device}` while it is mounted nowhere"
        )
    handle = there[cluster]
    state = attribute(root, handle, "provider", "state").lower()
    if state == "lost":
        raise Refused(f"the provider of cluster {cluster!r} is lost and this node waits to be fenced; reboot it, then start vcsd")
    if state != "attached":
        raise Refused(f"vcsd of cluster {cluster!r} is not running; start it: `systemctl start vcsd`")
    if attribute(root, handle, "view", "quorate") not in ("1", "y", "Y", "yes", "true"):
        members = attribute(root, handle, "view", "members") or "none"
        raise Refused(f"cluster {cluster!r} is not quorate (members {members}); start vcsd on more nodes, `vcs why` says what is missing")


def dlm_ready(dlm: str) -> bool:
    """Has the DLM its local address? Without one a join fails (6.1: ENOTCONN; 6.12 has lost a check there)."""
    try:
        nodes = os.listdir(f"{dlm}/comms")
    except OSError:
        return False
    return any(attribute(dlm, "comms", node, "local") == "1" for node in nodes)


def wait_for_dlm(dlm: str, limit_s: float) -> None:
    """A mount right after the node's start: configfs has no notification, so it is looked at until it is ready. Raises Refused."""
    deadline = time.monotonic() + limit_s
    while not dlm_ready(dlm):
        if time.monotonic() >= deadline:
            raise Refused(f"dlm_glue has not set the DLM up ({dlm}/comms has no local node); see vcsd's log, `vcs events`")
        time.sleep(0.1)


def decide(device: str, options: list[str], root: str = SYSFS, dlm: str = DLM, wait_s: float = DLM_WAIT_S) -> None:
    """Raises Refused if this mount must not be tried."""
    if "remount" in options:
        return
    proto, table = superblock(device)
    if (option(options, "lockproto") or proto) == "lock_nolock":
        return
    check(device, option(options, "locktable") or table, root)
    wait_for_dlm(dlm, wait_s)


def main(arguments: list[str] | None = None, root: str = SYSFS, dlm: str = DLM, wait_s: float = DLM_WAIT_S) -> int:
    """Checks, then becomes ``mount -i``. Returns only when the mount was refused."""
    try:
        device, directory, options, passed = parse(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        print(f"mount.gfs2: {error}; usage: mount.gfs2 DEVICE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]", file=sys.stderr)
        return EXIT_USAGE
    try:
        decide(device, options, root, dlm, wait_s)
    except Refused as refusal:
        print(f"mount.gfs2: {refusal}", file=sys.stderr)
        return EXIT_FAILED
    command = ["mount", "-i", "-t", "gfs2", *passed, *(["-o", ",".join(options)] if options else []), "--", device, directory]
    try:
        os.execvp("mount", command)
    except OSError as error:
        print(f"mount.gfs2: mount(8) cannot be run: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
