# SPDX-License-Identifier: GPL-2.0-only
"""The lab's agent in the guest: does what the harness asks over one virtio-serial port, streams logs over another.

Frames on both: u32 header length, u32 blob length (little endian), a JSON header, the blob. Requests carry `id`
and are answered in any order: each runs in a thread of its own, so a command that hangs blocks nobody.
Nothing here polls: threads sleep in read, inotify or a netlink socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import threading
import time

TYPE_CHECKING = False  # typing takes 0.1 s to import under emulation
if TYPE_CHECKING:
    from typing import Any, BinaryIO

LOGS = "/run/lab/log"  # what spawned processes print
WATCHED = {LOGS: (".log",), "/run/vcs": (".jsonl",)}
CHUNK = 256 * 1024


def now() -> dict[str, int]:
    """Both clocks, in ns."""
    return {
        "boottime": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "realtime": time.clock_gettime_ns(time.CLOCK_REALTIME),
    }


class Port:
    """A virtio-serial port that carries frames."""

    def __init__(self, name: str) -> None:
        self.fd = os.open(f"/dev/virtio-ports/{name}", os.O_RDWR | os.O_CLOEXEC)
        self.lock = threading.Lock()
        self.buffer = bytearray()  # a port gives a page at a time: bytes would be copied whole for each

    def send(self, header: dict[str, Any], blob: bytes = b"") -> None:
        text = json.dumps(header).encode()
        data = memoryview(struct.pack("<II", len(text), len(blob)) + text + blob)
        with self.lock:
            while data:
                data = data[os.write(self.fd, data[:CHUNK]) :]

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            part = os.read(self.fd, CHUNK)
            if not part:
                time.sleep(0.2)  # the host has not opened its end: read does not wait for that
            self.buffer += part
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def receive(self) -> tuple[dict[str, Any], bytes]:
        header, blob = struct.unpack("<II", self._exactly(8))
        return json.loads(self._exactly(header)), self._exactly(blob)


def environment(request: dict[str, Any]) -> dict[str, str]:
    return {**os.environ, **request.get("env", {})}


def argv_of(request: dict[str, Any]) -> list[str]:
    """A string is a shell command, a list is executed as it is."""
    command = request["command"]
    # the agent is safe from the OOM killer, what it starts must not be
    return ["/bin/sh", "-c", f"echo 0 >/proc/self/oom_score_adj; {command}"] if isinstance(command, str) else command


def unprotect(process: subprocess.Popen[bytes]) -> None:
    """As in argv_of, for lists."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w", encoding="ascii") as score:
        score.write("0")


def do_run(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Run to the end or to the time limit; a command out of time is killed with its whole session."""
    process = subprocess.Popen(
        argv_of(request),
        stdin=subprocess.PIPE if blob else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(request),
        cwd=request.get("cwd"),
        start_new_session=True,
    )
    unprotect(process)
    timed_out = False
    try:
        out, err = process.communicate(blob or None, timeout=request.get("timeout"))
    except subprocess.TimeoutExpired as late:
        timed_out = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:  # in uninterruptible sleep: say so with what there is
            out, err = late.stdout or b"", (late.stderr or b"") + b"\n[lab: cannot be killed: D state]\n"
    return {"rc": process.returncode, "timed_out": timed_out, "out": len(out)}, out + err


def do_spawn(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Start in the background, in a session of its own; output goes to a log file that is streamed."""
    del blob
    path = f"{LOGS}/{request['log']}.log"
    with open(path, "ab") as log:
        process = subprocess.Popen(
            argv_of(request),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(request),
            cwd=request.get("cwd"),
            start_new_session=True,
        )
    unprotect(process)

    def reap() -> None:
        rc = process.wait()
        FOLLOWER.flush(LOGS, f"{request['log']}.log")  # whoever sees the end has the whole output
        STREAM.send({"exit": request["log"], "pid": process.pid, "rc": rc, **now()})

    threading.Thread(target=reap, daemon=True).start()
    return {"pid": process.pid, "log": path}, b""


def do_read(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    del blob
    with open(request["path"], "rb", buffering=0) as file:
        return {}, file.read()


def do_write(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    flags = os.O_WRONLY | os.O_CLOEXEC
    if not request["path"].startswith(("/sys/", "/proc/", "/dev/")):
        os.makedirs(os.path.dirname(request["path"]), exist_ok=True)
        flags |= os.O_CREAT | (os.O_APPEND if request.get("append") else os.O_TRUNC)
    fd = os.open(request["path"], flags, request.get("mode", 0o644))
    try:
        data = memoryview(blob)
        while data:  # files of sysfs and configfs take theirs in one write
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    return {}, b""


OPERATIONS = {"run": do_run, "spawn": do_spawn, "read": do_read, "write": do_write}


def answer(request: dict[str, Any], blob: bytes) -> None:
    try:
        reply, data = OPERATIONS[request["op"]](request, blob)
    except OSError as error:
        reply, data = {"error": str(error), "errno": error.errno or 0}, b""
    except Exception as error:
        reply, data = {"error": f"{type(error).__name__}: {error}", "errno": 0}, b""
    RPC.send({"id": request["id"], **reply}, data)


class Workers:
    """Threads that answer requests; one more is started whenever none is idle, so a hanging command blocks nobody."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
        self.idle = threading.Semaphore(0)

    def submit(self, request: dict[str, Any], blob: bytes) -> None:
        if not self.idle.acquire(blocking=False):
            threading.Thread(target=self.work, daemon=True).start()
        self.jobs.put((request, blob))

    def work(self) -> None:
        while True:
            answer(*self.jobs.get())
            self.idle.release()


def stream_kmsg() -> None:
    """Kernel messages as they come; the first frame ties printk's clock to CLOCK_BOOTTIME."""
    reader = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open("/dev/kmsg", "w", encoding="ascii") as kmsg:
        mark = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        kmsg.write(f"<6>lab: boottime {mark}\n")
    records: list[bytes] = []
    while True:
        try:
            records.append(os.read(reader, 8192))
        except BrokenPipeError:  # the ring buffer has overtaken us
            records.append(b"4,0,0,-;lab: kernel messages were lost\n")
        except BlockingIOError:  # that was all: send them together
            if records:
                STREAM.send({"kmsg": len(records)}, b"\0".join(records))
                records = []
            select.select([reader], [], [])


class Follower:
    """Streams what is appended to the watched folders' files."""

    IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_CLOEXEC)
        self.folders: dict[int, str] = {}
        self.offsets: dict[str, tuple[int, int]] = {}
        self.lock = threading.Lock()
        for folder in WATCHED:
            os.makedirs(folder, exist_ok=True)
            mask = self.IN_MODIFY | self.IN_MOVED_TO | self.IN_CREATE
            self.folders[self.libc.inotify_add_watch(self.fd, folder.encode(), mask)] = folder
            for name in os.listdir(folder):
                self.flush(folder, name)

    def flush(self, folder: str, name: str) -> None:
        if not name.endswith(WATCHED[folder]):
            return
        with self.lock, contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            old, offset = self.offsets.get(f"{folder}/{name}", (inode, 0))
            file.seek(offset if old == inode else 0)
            while data := file.read(CHUNK):
                STREAM.send({"file": f"{folder}/{name}"}, data)
            self.offsets[f"{folder}/{name}"] = (inode, file.tell())

    def run(self) -> None:
        while True:
            events, at = os.read(self.fd, 65536), 0
            dirty: dict[tuple[str, str], None] = {}
            while at < len(events):
                watch, _mask, _cookie, size = struct.unpack_from("iIII", events, at)
                name = events[at + 16 : at + 16 + size].rstrip(b"\0").decode(errors="replace")
                dirty[self.folders.get(watch, LOGS), name] = None
                at += 16 + size
            for folder, name in dirty:
                self.flush(folder, name)


def link_misc(device: str) -> None:
    """libdlm and dlm_controld look in /dev/misc; devtmpfs puts the nodes into /dev."""
    link = f"/dev/misc/{device}"
    if os.path.exists(f"/dev/{device}"):
        if not os.path.islink(link):
            os.symlink(f"../{device}", link)
    elif os.path.islink(link):
        os.unlink(link)


def follow_uevents() -> None:
    """What udev would do for DLM's devices."""
    group_kernel = 1
    uevents = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 15)
    uevents.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    uevents.bind((0, group_kernel))
    for name in os.listdir("/dev"):
        if name.startswith("dlm"):
            link_misc(name)
    while True:
        try:
            fields = dict(f.split("=", 1) for f in uevents.recv(16384).decode(errors="replace").split("\0") if "=" in f)
        except OSError:
            continue
        if fields.get("SUBSYSTEM") == "misc" and fields.get("DEVNAME", "").startswith("dlm"):
            link_misc(fields["DEVNAME"])


class FenceProxy:
    """Passes the fence agents' questions (one JSON line each on a unix socket) to the harness, and its answers back."""

    def __init__(self) -> None:
        self.port = Port("vcs.fence")
        self.waiting: dict[int, socket.socket] = {}
        self.next = 0
        self.lock = threading.Lock()

    def serve(self) -> None:
        path = "/run/fence_lab.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        server.bind(path)
        server.listen(16)
        threading.Thread(target=self.answers, daemon=True).start()
        while True:
            client, _ = server.accept()
            threading.Thread(target=self.ask, args=(client,), daemon=True).start()

    def ask(self, client: socket.socket) -> None:
        file: BinaryIO = client.makefile("rb")
        line = file.readline()
        with self.lock:
            self.next += 1
            self.waiting[self.next] = client
            number = self.next
        self.port.send({"id": number, "boottime": now()["boottime"]}, line)

    def answers(self) -> None:
        while True:
            header, blob = self.port.receive()
            client = self.waiting.pop(header["id"], None)
            if client is not None:
                with contextlib.suppress(OSError), client:
                    client.sendall(blob)


RPC: Port
STREAM: Port
FOLLOWER: Follower


def main() -> None:
    for target in (stream_kmsg, FOLLOWER.run, follow_uevents, FenceProxy().serve):
        threading.Thread(target=target, daemon=True).start()
    STREAM.send({"ready": 1, "pid": os.getpid(), **now()})
    workers = Workers()
    while True:
        request, blob = RPC.receive()
        if request["op"] == "clock":  # its answer measures the way: no detour through a thread
            RPC.send({"id": request["id"], **now()})
        else:
            workers.submit(request, blob)


def start() -> None:
    """Called by init."""
    global RPC, STREAM, FOLLOWER
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("-1000")
    RPC, STREAM = Port("vcs.rpc"), Port("vcs.stream")
    FOLLOWER = Follower()
    main()
