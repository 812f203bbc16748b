# SPDX-License-Identifier: GPL-2.0-only
"""Every limit and constant of the ring, by name. Nothing that a peer can grow is without one of these."""

from __future__ import annotations

from dataclasses import dataclass

from vcs.config.model import TotemConfig

MEMBERS_MAX = 64
"Members of a ring: obligation sets are 64-bit masks over the old ring's members."
PROCESSORS_MAX = 2 * MEMBERS_MAX
"Processors in one Join's set: a node that restarts in the middle of a gathering appears with both incarnations."
PAYLOAD_MAX = 1320
"""Payload bytes of one frame. With header (40), tag (16) and two message headers (26 each, recovery wraps once) a frame stays
within 1452 bytes: an Ethernet frame of 1500 less the IPv6 and UDP headers."""
MESSAGE_MAX = 1 << 20
"Largest application message in bytes; larger ones than a frame travel as fragments."
QUEUE_MESSAGES_MAX = 8192
"Messages that may wait to be sent at one node."
QUEUE_BYTES_MAX = 16 << 20
STORE_MAX = 4096
"Frames between the oldest one that somebody may still lack and the newest one."
RTR_RANGES_MAX = 48
"Ranges of missing frames in one token."
RANGE_MAX = STORE_MAX
"Frames in one such range."
WINDOW = 64
"Frames that all members together send per rotation."
PER_VISIT = 16
"Frames that one member sends per visit of the token."
FAIL_TO_RECEIVE_VISITS = 500
"Visits during which one member's acknowledgement does not move before the others go on without it."
IDLE_ROTATIONS = 3
"Rotations without news before the representative rests the token."
RING_SEQ_STEP = 4
"Ring sequences from one ring to the next; the transitional configuration between them is named by ``new - 2``."
RING_SEQ_RESERVE = 1024 * RING_SEQ_STEP
"So many sequences are put on the disk ahead of their use: a new ring need not wait for the disk, a restart skips some."
RING_SEQ_MAX = 1 << 42
"A peer that claims more lies: event ids (vcs.model.event_id) leave 43 bits."
REPLAY_WINDOW = 1024
"Frames by which one sender's frames may overtake each other."
RING_SEQ_JUMP_MAX = 1 << 32
"""How far a peer's ring sequence may be ahead of ours. A node without its file catches up with any honest cluster (a thousand million
rings); a faulty member cannot use up the range, which is persisted, with one Join."""
RETIRED_MAX = 64
"Former incarnations remembered per node, so that their late frames are refused."
AEAD_CACHE_MAX = 256
"Derived keys kept."
DATAGRAM_MAX = 65535
SEGMENT_PAYLOAD_MIN = 512
"A path that takes smaller UDP payloads than this is not used: IPv4 asks every host for 576 bytes with headers."
PENDING_FRAMES_MAX = 4
"Frames of one sender whose segments have come in part."
GREET_INTERVAL_NS = 20_000_000
"Shortest time between two greetings of one node."
ROTATION_INTERVAL_NS = 20_000_000
"Evidence of rotation goes upwards at most this often."
LINK_RETURN_NS = 2_000_000_000
"A link that failed must answer for so long before it is preferred again; doubled each time,"
LINK_RETURN_MAX_NS = 60_000_000_000
"and at most this."
LINKS_MAX = 3
"Links of one cluster: the kernel's lock manager takes no more addresses per node."
LEAVE_COPIES = 3
"A Leave is not acknowledged, so it is sent more than once."


@dataclass(frozen=True, slots=True)
class Timing:
    """The timers in nanoseconds."""

    token: int
    consensus: int
    join: int
    retransmit: int
    hold: int
    merge: int

    @classmethod
    def of(cls, config: TotemConfig) -> Timing:
        ms = 1_000_000
        return cls(
            token=config.token_ms * ms,
            consensus=config.consensus_ms * ms,
            join=config.join_ms * ms,
            retransmit=config.token_retransmit_ms * ms,
            # A token that rests longer than a quarter of the loss timeout would be taken for lost after one lost datagram.
            hold=min(config.hold_ms, config.token_ms // 4) * ms,
            merge=config.merge_ms * ms,
        )

    @property
    def heard(self) -> int:
        """How long a node counts as heard after its last frame."""
        return 2 * (self.token + self.consensus)
