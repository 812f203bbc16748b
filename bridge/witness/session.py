# SPDX-License-Identifier: GPL-2.0-only
"""A node's conversation with the witness: effects of the coordinator to questions, answers to its inputs. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bridge.coordinator.api import AskWitness, WitnessAnswer
from bridge.witness.wire import Answer, Ask, Verdict
from vcs.model import RingId


@dataclass(slots=True)
class Session:
    engine: int
    "Incarnation of this process."
    timeout_ms: int
    witness: int = 0
    "Incarnation of the witness's process, as it said; 0: not heard yet."
    last: AskWitness | None = None
    counters: Counter[str] = field(default_factory=Counter)

    def ask(self, what: AskWitness) -> Ask:
        self.last = what
        self.counters["asked"] += 1
        return Ask(what.number, what.wanted, self.witness, what.ring, what.members, what.others, what.term, self.timeout_ms)

    def hear(self, answer: Answer) -> WitnessAnswer | Ask | None:
        """For the coordinator; or to be sent at once: the question again, to a witness that has just made itself known. None: dropped."""
        if answer.engine != self.engine:
            self.counters["not for this process"] += 1
            return None
        self.counters["answered"] += 1
        if answer.verdict is Verdict.HELLO:
            again = self.last if self.witness != answer.witness else None
            self.witness = answer.witness
            return self.ask(again) if again is not None else None
        if answer.witness != self.witness:
            self.counters["old witness"] += 1
            return None
        holder = str(answer.holder) if answer.holder != RingId(0, 0) else ""
        verdict = answer.verdict.name.lower()
        if answer.verdict is Verdict.TIMEOUT:
            verdict = f"timeout_ms is {answer.timeout_ms} there and {self.timeout_ms} here"
        return WitnessAnswer(answer.number, verdict, answer.term, holder, answer.left_ms)
