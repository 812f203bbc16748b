# SPDX-License-Identifier: GPL-2.0-only
"""A client of our batch channel, for the comparison: the same words on stdin and stdout as bench/cpg_client.c.

    python -m bench.client --socket PATH --local NODEID
"""

from __future__ import annotations

import argparse
import gc
import select
import sys
import time

from bench.load import Load, gap
from vcs.batch import Event
from vcs.channel import Channel

RECEIVE_EVERY = 56 << 10
"Bytes of a flood between two looks at what was delivered: about a bundle of the channel."


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Client:
    def __init__(self, channel: Channel, local: int) -> None:
        self.channel = channel
        self.load = Load(local, say)

    def take(self, timeout: float | None) -> None:
        """Everything that was delivered; waits for the first one at most ``timeout`` seconds (None: for ever)."""
        got = self.channel.receive(timeout)
        while got is not None:
            now = time.monotonic_ns()
            if isinstance(got, Event):
                say(f"conf {now} {got.event} " + " ".join(str(m) for m in got.members))
            else:
                self.load.take_all(got.sender, got.messages, now)
            got = self.channel.receive(0)

    def end(self) -> None:
        target = self.load.own_ends + 1
        self.channel.send(self.load.end())
        while self.load.own_ends < target:
            self.take(None)

    def one(self, size: int) -> None:
        target = self.load.own_pings + 1
        self.channel.send(self.load.ping(size, time.monotonic_ns()))
        while self.load.own_pings < target:
            self.take(None)

    def flood(self, size: int, seconds: float) -> None:
        payload = self.load.flood(size)
        put, until = self.channel.put, time.monotonic() + seconds
        burst = max(1, RECEIVE_EVERY // len(payload))
        while time.monotonic() < until:
            for _ in range(burst):
                put(payload)
            self.take(0)
        self.end()

    def run(self, words: list[str]) -> bool:
        """One line of stdin. False: it was the last."""
        match words:
            case ["flood", size, seconds]:
                self.flood(int(size), float(seconds))
            case ["ping", count, gap_us, size]:
                for _ in range(int(count)):
                    time.sleep(gap(int(gap_us)))
                    self.one(int(size))
                self.end()
            case ["one", size]:
                self.one(int(size))
                say(f"pong {self.load.last_own}")
            case ["mark"]:
                self.end()
            case _:
                return False
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--local", type=int, required=True)
    args = parser.parse_args()
    channel = Channel.at(args.socket, "bench")
    client = Client(channel, args.local)
    gc.freeze()
    say("ready")
    with open(0, "rb", buffering=0) as stdin:  # without a buffer, so that select() sees every line
        while True:
            readable = select.select([channel.fileno(), stdin.fileno()], [], [])[0]
            if channel.fileno() in readable:
                client.take(0)
            if stdin.fileno() in readable and not client.run(stdin.readline().decode().split()):
                return


if __name__ == "__main__":
    main()
