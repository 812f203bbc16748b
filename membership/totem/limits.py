# SPDX-License-Identifier: GPL-2.0-only
"""Every limit and constant of the ring, by name. Nothing that a peer can grow is without one of these."""

from __future__ import annotations

from dataclasses import dataclass

from vcs.config.model import TotemConfig

MEMBERS_MAX = 64
"Members of a ring: obligation sets are 64-bit masks over the old ring's members."
PROCESSORS_MAX = 2 * MEMBERS_MAX
"Processors in one Join's set: a node that restarts in the middle of a gathering appears with both incarnations."
SEGMENT = 1400
"Bytes of a datagram on a path of 1500; larger sealed frames travel in several. Also the unit of flow control."
PAYLOAD_MAX = 61_440
"""Content bytes of one frame at most, so that 60 000 bytes of one message need one frame. With two headers of 26 (recovery wraps once),
header (40) and tag (16) it stays below the 65 507 bytes of a UDP datagram, cut into segments or not."""
PIECE_MAX = 1280
"Bytes of a frame's body in one piece: with header, seal and a segment's header it is at most one SEGMENT."
PAYLOAD_MIN = PIECE_MAX - 2 * 26
"What a frame's content falls to when large frames get lost: one piece, also when recovery wraps it."
MESSAGES_PER_FRAME = 4096
MESSAGE_MAX = 1 << 20
"Largest application message in bytes; larger ones than a frame travel as fragments."
QUEUE_MESSAGES_MAX = 8192
"Messages that may wait to be sent at one node."
QUEUE_BYTES_MAX = 16 << 20
STORE_MAX = 2048
"Frames between the oldest one that somebody may still lack and the newest one."
STORE_BYTES_MAX = 8 << 20
"Bytes of stored frames from which on a member sends no new ones; twice as many are stored at most (and always the next one)."
PIECED_MAX = 8
"Frames that are put together from pieces at the same time."
RTR_RANGES_MAX = 64
"Ranges of missing frames in one token."
RANGE_MAX = STORE_MAX
"Frames in one such range."
WINDOW = 2048
"""Units of SEGMENT bytes that all members together send per rotation. Two rotations' worth must fit into a receive buffer: a driver
tells the core what its buffers take (Core.window)."""
PER_VISIT = 1024
"Units that one member sends per visit of the token."
AHEAD = 1024
"Units of them that it may send after the token, which is then on its way already (the accelerated ring); 0: the classic ring."
ASK_AGAIN_NS = 1_000_000
"A frame that did not come after two requests is asked for again after so long, then after twice as long, and so on..."
ASK_AGAIN_MAX_NS = 64_000_000
"... up to this."
TRIES_MAX = 200
"Up to which requests for one frame are counted; then from 1 again."
STALL_MIN_NS = 250_000
"A token that goes round without moving anything rests for so long, then for twice as long, and so on..."
STALL_MAX_NS = 16_000_000
"... up to this: a member that cannot be repaired must not make the ring spin."
FAIL_TO_RECEIVE_VISITS = 50
FAIL_TO_RECEIVE_NS = 2_000_000_000
"For so many visits and so long one member's acknowledgement may stand still before the others go on without it."
IDLE_ROTATIONS = 1
"Rotations without news, after the one that brought everybody the news, before the token rests: then everybody knows it safe."
LOSS_SAMPLE = 16
"Frames over which the share of repairs is judged before the size of frames is changed."
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
SMALL_SEGMENT = 1232
"""Payload bytes of a segment that every IPv6 path and nearly every IPv4 path takes. Whatever is not the first sending of an ordered
frame goes in segments of this size, so what repairs and what forms rings passes where large ones vanish unseen."""
STEPS_DOWN = (1452, SMALL_SEGMENT, 972, SEGMENT_PAYLOAD_MIN)
"Sizes that are tried on a path where large segments vanish and nobody says so."
LOST_SAMPLE = 8
"Frames that a peer missed before it is asked whether nearly all of them are lost."
REMEASURE_S = 60.0
"How often the size of every path is asked for again, and a path that was stepped down is tried with larger segments."
PENDING_FRAMES_MAX = 4
"Frames of one sender whose segments have come in part."
GREET_INTERVAL_NS = 20_000_000
"Shortest time between two greetings of one node."
CLAIM_NS = 2_000_000_000
"A node's seat that nobody claims for so long is not contested any more: the next claim begins anew, with a question."
ROTATION_INTERVAL_NS = 20_000_000
"Evidence of rotation goes upwards at most this often."
LINK_RETURN_NS = 2_000_000_000
"A link that failed must answer for so long before it is preferred again; doubled each time,"
LINK_RETURN_MAX_NS = 60_000_000_000
"and at most this."
LINK_CHECK_NS = 500_000_000
"How often links that carry nothing are tried."
NEWS_MAX = 256
"Changes of links that wait to be told to people."
LINKS_MAX = 3
"Links of one cluster: the kernel's lock manager takes no more addresses per node."
RTO_MIN_NS = 10_000_000
"Shortest time before a token that nobody acknowledged is sent again,"
RTO_MEMBER_NS = 250_000
"and this much more for each member: on a busy ring its return is the acknowledgement."
ASKS_MIN = 3
"Unanswered asks before a verdict."
REFUSED_NS = 15_000_000
"Silence that is enough when the kernel says that nobody listens there,"
REFUSED_MIN = 2
"and said so as often as this."
DOUBT_MAX = 4
"A node that was late so often waits three times as long for others;"
DOUBT_DECAY_NS = 2_000_000_000
"and forgets one such time in so long."
HOLD_MIN_NS = 200_000_000
"How long answers must be steady before a claim is taken back; doubled each time the node comes back and fails again,"
HOLD_MAX_NS = 30_000_000_000
"up to this;"
FORGIVE_NS = 60_000_000_000
"forgotten when it was well for so long."
HOLD_PROBE_MIN_NS = 100_000_000
"Pause between probes of a node with whom we claim to have no round trip: while it answers,"
HOLD_PROBE_MAX_NS = 2_000_000_000
"and at most, while it does not."
LINKS_QUERY_NS = 1_000_000_000
"Shortest time between two questions to members what they claim."
JOIN_SPACING_NS = 3_000_000
"Shortest time between the first two Joins of a gathering, doubled with each: what becomes known meanwhile goes out together."
JOIN_AGAIN_NS = 20_000_000
"First pause before a Join is sent again to who does not agree; doubled up to ``join_ms``."
LISTS_MAX = 256
"Decoded lists of processors that are remembered."
SETTLE_NS = 400_000_000
"Claims between two rings must have stood still for so long before the rings try to meet in spite of them."
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
    detect: int

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
            detect=config.detect_ms * ms,
        )

    @property
    def alarm(self) -> int:
        """Silence after which the others are told."""
        return self.detect // 2

    @property
    def confirm(self) -> int:
        """Silence that is enough when somebody else claims the same."""
        return self.detect * 2 // 5

    @property
    def probe(self) -> int:
        """Pause between probes of somebody who owes an answer."""
        return self.detect // 8

    @property
    def late(self) -> int:
        """Being called so much too late is worth noticing."""
        return self.detect // 8

    @property
    def heard(self) -> int:
        """How long a node counts as heard after its last frame."""
        return 2 * (self.token + self.consensus)
