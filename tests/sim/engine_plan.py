# SPDX-License-Identifier: GPL-2.0-only
"""What a seed draws before it runs (swarm testing): most runs lack most faults, so that each gets runs in which it dominates."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from random import Random

from tests.sim.world import MS
from vcs.config.model import TotemConfig

SIZES = {2: 14, 3: 30, 4: 20, 5: 14, 6: 7, 7: 5, 8: 4, 9: 1, 10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1}
"Nodes -> weight."
FAST = TotemConfig(token_ms=240, consensus_ms=160, join_ms=20, token_retransmit_ms=40, detect_ms=80, hold_ms=20, merge_ms=50)
TIMINGS = {"default": TotemConfig(), "fast": FAST}
KINDS = (
    # who hears whom
    "partition", "isolate", "one_way", "pair", "deaf", "dumb", "chain", "flap", "way", "swizzle",
    # what a link does
    "loss", "burst", "segment_loss", "reorder", "duplicate", "corrupt", "drop_large", "rate", "clog", "slow_link", "mute",
    # what happens to a node
    "crash", "die", "leave", "pause", "cpu", "at_persist", "disk", "lose_disk",
)
ALWAYS = ("heal", "restart", "resume", "calm")
PARTIAL = 0.05
"Share of the seeds of 3 to 7 nodes in which something stays cut within the core for ever (L3)."
FROZEN = ("down", "apart", "deaf", "dumb", "paused")
"How a node may stay outside for ever in the liveness phase."


@dataclass(slots=True)
class Plan:
    nodes: int
    ways: int = 1
    "Links of every pair."
    timing: str = "default"
    step_ns: int = 100 * MS
    "Mean time between two faults."
    stability_ns: int = 0
    "A change of who hears whom stays for at least so long."
    weights: dict[str, int] = field(default_factory=dict)
    submit_ns: int = 10 * MS
    safe: float = 0.3
    sizes: tuple[int, ...] = (40,)
    sync: bool = False
    "Every configuration begins with one message of each member, as a consumer's state exchange does (L4)."
    sniper: float = 0.0
    "How often the nodes are cut apart at the very moment when one of them installs a ring."
    together: bool = False
    "Only when that node comes from its old ring together with others: then these hold a promise, and no ring."
    sleeper: bool = False
    "Only while a node of the old ring sleeps: it wakes at that moment, and the token of the one that has installed is lost."
    delay_ns: int = MS // 5
    jitter_ns: int = MS // 10
    inbox_bytes: int = 1 << 20
    skew_ppm: int = 0
    "Clocks differ by up to so much."
    core: float = 1.0
    "Share of the nodes that is made whole for the liveness phase; the others stay outside in a way of FROZEN."
    partial: str = ""
    "What stays cut for ever in the liveness phase: a pair, one direction of one, all but the neighbours in a row, some at random."
    probe: str = ""
    "How one member ends at the very end, to measure how soon the others notice: silent, die, leave."
    events: int = 2800
    "Events of the safety phase at most."

    @classmethod
    def draw(cls, rng: Random, kinds: tuple[str, ...] = KINDS) -> Plan:
        nodes = rng.choices(tuple(SIZES), tuple(SIZES.values()))[0]
        special = rng.random() if kinds == KINDS else 1.0
        if special < 0.13:
            return cls.draw_recovery(rng)
        if special < 0.16:
            return cls.draw_unreceiving(rng)
        if special < 0.20:
            return cls.draw_sleeper(rng)
        chosen = [k for k in kinds if rng.random() < (0.2 if kinds == KINDS else 0.7)] or [rng.choice(kinds)]
        return cls(
            nodes=nodes,
            ways=rng.choice((1, 1, 2)),
            timing=rng.choice(tuple(TIMINGS)),
            step_ns=rng.choice((30 * MS, 100 * MS, 400 * MS)),
            stability_ns=rng.choice((0, 0, 50 * MS, 500 * MS)),
            weights={**{k: rng.randint(1, 10) for k in chosen}, **{k: rng.randint(1, 6) for k in ALWAYS}},
            submit_ns=rng.choice((2 * MS, 10 * MS, 60 * MS)),
            safe=rng.choice((0.0, 0.3, 0.7)),
            sizes=rng.choice(((40,), (40, 1500), (40, 600, 9000), (40, 60000))),
            sync=rng.random() < 0.4,
            sniper=rng.choice((0.0, 0.0, 0.2, 0.5)),
            delay_ns=rng.choice((MS // 5, MS // 5, MS // 20, 2 * MS)),
            jitter_ns=rng.choice((0, MS // 10, MS // 2)),
            inbox_bytes=rng.choice((16 << 10, 256 << 10, 4 << 20)),
            skew_ppm=rng.choice((0, 0, 200, 20_000)),
            core=rng.choice((1.0, 1.0, 0.7, 0.4)),
            partial=rng.choice(("pair", "one_way", "chain", "some")) if 2 < nodes < 8 and rng.random() < PARTIAL else "",
            probe=rng.choice(("", "", "silent", "die", "leave")),
            events=1400 + 300 * nodes,
        )

    @classmethod
    def draw_recovery(cls, rng: Random) -> Plan:
        """Made for recoveries that fail half-way, with messages missing for ever: members fall mute, then silent, then apart."""
        return cls(
            nodes=rng.choice((4, 5)),
            timing="fast",
            step_ns=rng.choice((100 * MS, 200 * MS)),
            weights={"mute": 6, "heal": 6, "restart": 2, "resume": 1},
            submit_ns=2 * MS,
            safe=0.6,
            sizes=rng.choice(((400,), (40, 400))),
            sniper=0.7,
            together=True,
        )

    @classmethod
    def draw_unreceiving(cls, rng: Random) -> Plan:
        """Made for members that get every token and no message, for so long that the others go on without them; also in recovery."""
        return cls(
            nodes=rng.choice((3, 4)),
            timing="fast",
            step_ns=rng.choice((400 * MS, 1500 * MS)),
            weights={"small_only": 6, "crash": 1, "restart": 2, "heal": 1},
            submit_ns=rng.choice((10 * MS, 60 * MS)),
            sizes=(40, 900, 3000),
            delay_ns=MS // 20,
            jitter_ns=0,
            events=12_000,
        )

    @classmethod
    def draw_sleeper(cls, rng: Random) -> Plan:
        """Made for a member that wakes among others which hold a promise that does not name it."""
        return cls(
            nodes=rng.choice((4, 5)),
            step_ns=rng.choice((600 * MS, 900 * MS)),
            weights={"nap": 6, "restart": 6, "heal": 1, "resume": 1},
            submit_ns=rng.choice((2 * MS, 10 * MS)),
            safe=0.6,
            sniper=1.0,
            together=True,
            sleeper=True,
        )

    @property
    def config(self) -> TotemConfig:
        return TIMINGS[self.timing]

    def __str__(self) -> str:
        """One line: what differs from the defaults."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = Plan(self.nodes)
        return ", ".join(f"{k}={v}" for k, v in told.items() if k == "nodes" or v != getattr(plain, k))
