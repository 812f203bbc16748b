# SPDX-License-Identifier: GPL-2.0-only
"""The durable record (SAFETY S6): the last primary membership, who left, and the obligations. Written before it is relied upon.

Group phases are not in it: after a loss of all daemons they are read from the kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.coordinator.state import (
    LEFT,
    NO_RING,
    Node,
    Obligation,
    State,
    canonical,
    node_from_json,
    node_to_json,
    obligation_from_json,
    obligation_to_json,
)
from vcs.errors import RemoteError
from vcs.model import RingId

RECORD_VERSION: Final = 1


@dataclass(slots=True)
class Record:
    primary: RingId = NO_RING
    version: int = 0
    left: bool = False
    "The writer left cleanly, by an ordered message of the primary configuration ``primary``."
    nodes: dict[int, Node] = field(default_factory=dict)
    obligations: list[Obligation] = field(default_factory=list)
    extra: int = -1
    "Expected votes that no node holds (state.py, Ballot)."
    term: int = 0
    "Of the newest grant of a witness (state.py)."

    @property
    def age(self) -> tuple[int, RingId, int]:
        """The later, the greater."""
        return (self.term, self.primary, self.version)


def durable(state: State, local: int) -> dict[str, Any]:
    """The part of ``state`` that must survive. Two equal ones need no second write (``version`` aside)."""
    node = state.nodes.get(local)
    return {
        "v": RECORD_VERSION, "primary": [state.primary.seq, state.primary.rep],
        "left": node is not None and node.status == LEFT,
        "nodes": [[n, *node_to_json(r)] for n, r in sorted(state.nodes.items())],
        "obligations": [obligation_to_json(o) for _, o in sorted(state.obligations.items())],
        "extra": state.ballot.extra, **({"term": state.term} if state.term else {}),
    }


def encode(state: State, local: int) -> bytes:
    return canonical({**durable(state, local), "version": state.version})


def parse(value: Any) -> Record:
    """Raises RemoteError when ``value`` is no record."""
    try:
        if value["v"] != RECORD_VERSION:
            raise RemoteError(f"record version {value['v']} is not understood")
        return Record(
            RingId(int(value["primary"][0]), int(value["primary"][1])), int(value["version"]), bool(value["left"]),
            {int(r[0]): node_from_json(r[1:]) for r in value["nodes"]}, [obligation_from_json(o) for o in value["obligations"]],
            int(value.get("extra", -1)), int(value.get("term", 0)),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RemoteError(f"not a record: {error!r}") from error


def value(record: bytes) -> dict[str, Any]:
    """The record as JSON values, as an Exchange carries it. Raises RemoteError."""
    try:
        found = json.loads(record.decode("ascii"))
    except ValueError as error:
        raise RemoteError(f"not a record: {error}") from error
    if not isinstance(found, dict):
        raise RemoteError("not a record")
    return found


def decode(record: bytes) -> Record:
    """Raises RemoteError when the bytes are no record."""
    return parse(value(record))
