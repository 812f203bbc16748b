# SPDX-License-Identifier: GPL-2.0-only
"""The ordered messages about a witness (witness.py says what they are for); messages.py knows how they travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

OPTIONAL: Final = frozenset({"term"})
"Fields that are left out while they are 0: a cluster without a witness speaks as one that knows of none."


@dataclass(frozen=True, slots=True)
class WitnessPulse:
    """The sender is here: what a grant that was asked for after this counts from, on the sender's own clock."""

    number: int


@dataclass(frozen=True, slots=True)
class WitnessGrant:
    """The witness has granted this configuration the sender's question ``number``."""

    number: int
    term: int
    marks: tuple[int, ...]
    "Nodeid, newest pulse of it that was delivered before the question was asked, one after the other."


@dataclass(frozen=True, slots=True)
class WitnessLost:
    """By the sender's clock that grant, the newest that it knows of, has run out."""

    nodeid: int
    number: int


WitnessWord = WitnessPulse | WitnessGrant | WitnessLost
WITNESS_TYPES: Final[dict[str, type[Any]]] = {
    "witness_pulse": WitnessPulse, "witness_grant": WitnessGrant, "witness_lost": WitnessLost,
}
