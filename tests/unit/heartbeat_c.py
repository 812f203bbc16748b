# SPDX-License-Identifier: GPL-2.0-only
"""kmod/heartbeat/peer.c on this machine: what it decides is pure, so a compiler and some words of the kernel are all that it needs."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import POINTER, Structure, byref, c_bool, c_char, c_int, c_size_t, c_uint32, c_uint64
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KMOD = ROOT / "kmod"
RECENT = 8
EMPTY = ("linux/minmax.h", "linux/time64.h", "linux/mutex.h", "linux/socket.h", "linux/notifier.h", "linux/refcount.h",
         "linux/types.h", "asm/byteorder.h")  # fmt: skip
SHIM = """
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
typedef uint8_t u8;
typedef uint32_t u32, __be32;
typedef uint64_t u64, __be64;
typedef int refcount_t, atomic_t, gfp_t;
struct mutex { int unused; };
struct rcu_head { void *unused; };
struct list_head { void *unused; };
struct notifier_block;
#define BIT(n) (1UL << (n))
#define NSEC_PER_MSEC 1000000ULL
#define min(a, b) ((a) < (b) ? (a) : (b))
#define cpu_to_be32 htobe32
#define cpu_to_be64 htobe64
#define be32_to_cpu be32toh
#define be64_to_cpu be64toh
"""
SIZES = """
const size_t sizes[] = { sizeof(struct vcs_hb_self), sizeof(struct vcs_hb_peer), sizeof(struct vcs_hb_packet),
	VCS_HB_RECENT, VCS_HB_MISSED };
"""


class Self(Structure):
    _fields_ = [
        ("nodeid", c_uint32), ("interval_ms", c_uint32), ("boot", c_uint64), ("life", c_uint64), ("seq", c_uint64), ("next", c_uint64),
        ("sent", c_uint64 * RECENT),
    ]  # fmt: skip


class Peer(Structure):
    _fields_ = [
        ("nodeid", c_uint32), ("_pad", c_uint32), ("address", c_char * 128), ("boot", c_uint64), ("life", c_uint64), ("seq", c_uint64),
        ("heard", c_uint64), ("echoed", c_uint64), ("proven", c_uint64), ("lives", c_uint64),
    ]  # fmt: skip


class Member(Structure):
    _fields_ = [("nodeid", c_uint32), ("votes", c_uint32), ("incarnation", c_uint64), ("join_id", c_uint64)]


class Packet(Structure):
    _fields_ = [("bytes", c_char * 96)]


class HeartbeatC:
    """The functions of peer.c. Times are ns."""

    def __init__(self, folder: Path) -> None:
        for name in EMPTY:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("")
        (folder / "shim.h").write_text(SHIM)
        (folder / "all.c").write_text(f'#include "{KMOD}/heartbeat/peer.c"\n{SIZES}')
        library = folder / "peer.so"
        flags = ["-std=gnu11", "-Wall", "-Werror", "-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
        subprocess.run(
            ["cc", *flags, "-shared", "-fPIC", f"-I{folder}", f"-I{KMOD}/include", "-include", "shim.h", "-o", library, folder / "all.c"],
            check=True, timeout=60,
        )  # fmt: skip
        self._c: Any = ctypes.CDLL(str(library))
        self._c.vcs_hb_beat.restype = c_bool
        self._c.vcs_hb_sane.restype = c_bool
        self._c.vcs_hb_until.restype = self._c.vcs_hb_wake.restype = c_uint64
        self._c.vcs_hb_members.restype = c_uint32
        self._c.vcs_hb_beat.argtypes = [POINTER(Self), c_uint64]
        self._c.vcs_hb_say.argtypes = [POINTER(Self), POINTER(Peer), c_uint32, POINTER(Packet)]
        self._c.vcs_hb_sane.argtypes = [POINTER(Packet), c_size_t]
        self._c.vcs_hb_hear.argtypes = [POINTER(Self), POINTER(Peer), POINTER(Packet), c_uint64]
        self._c.vcs_hb_until.argtypes = [POINTER(Self), POINTER(Peer)]
        self._c.vcs_hb_wake.argtypes = [POINTER(Self), POINTER(Peer), c_uint32, c_uint64]
        self._c.vcs_hb_members.argtypes = [POINTER(Self), POINTER(Peer), c_uint32, c_uint64, POINTER(Member)]
        self._c.vcs_hb_hear.restype = c_int

    def sizes(self) -> list[int]:
        return list((c_size_t * 5).in_dll(self._c, "sizes"))

    def beat(self, me: Self, now: int) -> bool:
        return bool(self._c.vcs_hb_beat(byref(me), now))

    def say(self, me: Self, peer: Peer, flags: int = 0) -> bytes:
        packet = Packet()
        self._c.vcs_hb_say(byref(me), byref(peer), flags, byref(packet))
        return bytes(packet)

    def sane(self, data: bytes) -> bool:
        return bool(self._c.vcs_hb_sane(byref(Packet.from_buffer_copy(data[:96].ljust(96, b"\0"))), len(data)))

    def hear(self, me: Self, peer: Peer, data: bytes, now: int) -> int:
        return int(self._c.vcs_hb_hear(byref(me), byref(peer), byref(Packet.from_buffer_copy(data)), now))

    def until(self, me: Self, peer: Peer) -> int:
        return int(self._c.vcs_hb_until(byref(me), byref(peer)))

    def wake(self, me: Self, peers: list[Peer], now: int) -> int:
        return int(self._c.vcs_hb_wake(byref(me), (Peer * len(peers))(*peers), len(peers), now))

    def members(self, me: Self, peers: list[Peer], now: int) -> list[tuple[int, int, int]]:
        """(nodeid, votes, incarnation) of who is up."""
        room = (Member * len(peers))()
        up = self._c.vcs_hb_members(byref(me), (Peer * len(peers))(*peers), len(peers), now, room)
        return [(m.nodeid, m.votes, m.incarnation) for m in room[:up]]
