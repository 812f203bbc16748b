# SPDX-License-Identifier: GPL-2.0-only
"""The configuration as values. Every field has its default here and nowhere else; vcs/config/load.py makes them from TOML.

Durations carry their unit in their name. A list of nodes is a complete configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

SELF = "self"
"Name of the device that is none: the node's own lease resets it (SAFETY S10)."


@dataclass(frozen=True, slots=True)
class FenceDevice:
    """Something that a fence agent talks to."""

    name: str
    agent: str
    "Path or name of a standard fence agent."
    options: dict[str, str] = field(default_factory=dict)
    timeout_ms: int = 20000
    "Of one call."
    retries: int = 0
    "How often a failed call is repeated at once, within one attempt."
    delay_ms: int = 0
    "Pause before the first call."
    action: str = "off"
    "off, or reboot."
    unfence: str = "auto"
    """auto, on or off: whether a node that joins has its way to the storage opened by ``on`` (SAFETY S24). auto: when the agent's metadata
    says so (fence_scsi, fence_mpath)."""


@dataclass(frozen=True, slots=True)
class FenceMethod:
    """One way to fence a node: it has succeeded when all of its devices have."""

    devices: tuple[str, ...]
    parallel: bool = False
    "The devices are switched at the same time, not one after the other."
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    "Device -> options of this node; under the empty name those for all of them."

    @property
    def name(self) -> str:
        return "+".join(self.devices)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    id: int
    "Nodeid, 1 to 2^32-1."
    name: str
    addresses: tuple[str, ...]
    "IPv4 or IPv6 literals, one for each link, at most 3. The DLM uses all of them over SCTP, the first one over TCP."
    votes: int = 1
    fence: dict[str, str] = field(default_factory=dict)
    "Options for the fence agent that concern this node, e.g. plug."
    methods: tuple[FenceMethod, ...] = ()
    "By priority; empty: the device of [fencing], if there is one."


@dataclass(frozen=True, slots=True)
class TotemConfig:
    port: int = 5405
    token_ms: int = 600
    "Token loss: no token for so long means that somebody failed (a fallback: detect_ms tells who)."
    consensus_ms: int = 400
    "A node that answers and does not agree for so long is left behind (a fallback)."
    join_ms: int = 50
    "Resend of an unanswered Join."
    token_retransmit_ms: int = 120
    detect_ms: int = 270
    "Silence of a member, with three unanswered asks, after which the others go on without it."
    hold_ms: int = 50
    "An idle ring's token rests so long at the representative. At most lease/5 (SAFETY S9)."
    multicast: tuple[str, ...] = ()
    "A multicast group per link; empty: a frame for all nodes is sent to each of them."
    merge_ms: int = 200
    "How often a ring that others may not know of announces itself."


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """A machine outside of the cluster that decides which half of the votes goes on (docs/decisions/0018-witness.md)."""

    address: str
    "IPv4 or IPv6 literal, where `vcs witness` listens."
    port: int = 5406
    "UDP."
    timeout_ms: int = 3000
    "For so long one grant holds; alike on all nodes and at the witness."


@dataclass(frozen=True, slots=True)
class QuorumConfig:
    wait_for_all: bool = True
    "A cold start waits until all nodes were seen together once (SAFETY S6)."
    expected_votes: int = 0
    "0: the sum of the nodes' votes."
    two_node: bool = False
    "Of two nodes with a vote each, one is enough: the fence decides which (SAFETY S12). Implies wait_for_all."
    fence_delay_ms: int = 2000
    "With two_node: how long one of the two waits before it fences, so that the other wins."
    fence_delay_node: int = 0
    "Nodeid of who waits; 0: the one with the higher id."
    last_man_standing: bool = False
    "A failed node loses its vote once it is known to be dead, so that few can go on after many have failed one after the other."
    last_man_standing_window_ms: int = 10000
    "How long a node must have been missing for that."
    auto_tie_breaker: bool = False
    "Exactly half of the votes are enough with the tie-breaker node among them."
    auto_tie_breaker_node: str = "lowest"
    "lowest, highest, or nodeids in order of preference; a node that has no vote (any more) is passed over."
    witness: WitnessConfig | None = None
    "Exactly half of the votes are enough while the witness grants it to them."


@dataclass(frozen=True, slots=True)
class GroupsConfig:
    """SAFETY S22: nobody waits for ever for a consumer that does not answer."""

    stop_limit_ms: int = 30000
    start_limit_ms: int = 60000
    takeover_limit_ms: int = 120000
    "How long a persistent group may be without its owner."


@dataclass(frozen=True, slots=True)
class FencingConfig:
    agent: str = ""
    "Path or name of a standard fence agent; empty: there is none, and only `vcs fence ack` ends an obligation."
    options: dict[str, str] = field(default_factory=dict)
    "Options for every call; a node's own come on top."
    timeout_ms: int = 20000
    retry_ms: int = 1000
    "Pause before a method is tried again, doubled each time."
    retry_max_ms: int = 30000
    boot_ms: int = 300000
    "Pause before a node is cut off again that has been cut off, by its device's word, and has power: it may be booting."
    return_ms: int = 5000
    "When a quorum is back after there was none: so long a node that is still missing may take to come back, too, before it is fenced."
    tries: int = 2
    "So many failed attempts with one method, each by another node where there is one; then comes the next method, and round again."
    check_interval_s: int = 600
    "How often every node asks every device whether it answers; 0: never."
    standby: bool = True
    "Agents are started before they are needed, and wait."


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    lease_ms: int = 5000
    self_fencing: str = "auto"
    """auto, on or off: whether a node whose lease has run out resets itself. auto: with three nodes and more, or a witness, and no fence
    agent."""
    grace_ms: int = 1000
    "From the end of the lease to the reset."
    margin_ms: int = 2000
    "What the others wait on top: drift of clocks, the reset itself, writes on their way to the disk (SAFETY S10)."


@dataclass(frozen=True, slots=True)
class WatchdogConfig:
    device: str = ""
    "Path of a watchdog device; empty: none is held."
    timeout_ms: int = 10000

    @property
    def seconds(self) -> int:
        """What the device is told, in its own unit; 0: there is none."""
        return -(-self.timeout_ms // 1000) if self.device else 0


@dataclass(frozen=True, slots=True)
class LockspaceConfig:
    """How one lockspace is run; alike on all nodes, as the kernel does not compare it."""

    name: str
    nodir: bool = False
    "No directory: a resource's master is found by a hash of its name."
    weights: dict[int, int] = field(default_factory=dict)
    "By nodeid: shares of the directory (with nodir: of the masters). Who is left out has none; empty: everybody has 1."

    def weight(self, nodeid: int) -> int:
        return self.weights.get(nodeid, 0) if self.weights else 1

    def text(self) -> str:
        """One text for one meaning; empty for the defaults."""
        weights = ",".join(f"{n}:{w}" for n, w in sorted(self.weights.items()))
        return " ".join([*(["nodir=1"] if self.nodir else []), *([f"weights={weights}"] if weights else [])])

    @classmethod
    def parse(cls, text: str) -> LockspaceConfig:
        """The inverse of text(), without the name. Raises ValueError."""
        nodir, weights = False, {}
        for word in text.split():
            key, _, value = word.partition("=")
            if key == "nodir":
                nodir = value == "1"
            elif key == "weights":
                weights = {int(n): int(w) for n, _, w in (pair.partition(":") for pair in value.split(","))}
            else:
                raise ValueError(f"{word!r} is no setting of a lockspace")
        return cls("", nodir, weights)


@dataclass(frozen=True, slots=True)
class RestartConfig:
    planned_ms: int = 15000
    "How long vcsd may be away when it is stopped over live groups (systemctl restart); then the node has failed."
    crashes: int = 3
    "So many deaths of a node's vcsd, without quiet time between them, and it is taken for a failed node at once."
    window_s: int = 600
    "The quiet time."


@dataclass(frozen=True, slots=True)
class DlmConfig:
    port: int = 21064
    protocol: str = "tcp"
    log_debug: bool = False
    lockspaces: tuple[LockspaceConfig, ...] = ()

    def lockspace(self, name: str) -> LockspaceConfig:
        return next((c for c in self.lockspaces if c.name == name), LockspaceConfig(name))

    def agreed(self, name: str) -> str:
        """What all members of a lockspace must have alike, as a text that a person can read."""
        return f"{self.protocol} port={self.port} {self.lockspace(name).text()}".rstrip()


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    listen: str = ""
    "ADDRESS:PORT of Prometheus' scraper at every node; empty: only `vcs metrics`."


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    name: str
    nodes: tuple[NodeConfig, ...]
    key: bytes = b""
    "32 bytes, the first key in ``key_file``, under which we send; empty only for engines that need none."
    more_keys: tuple[bytes, ...] = ()
    "The other keys in ``key_file``: frames under them are taken too, while keys are rotated."
    key_file: str = "/etc/vcs/cluster.key"
    engine: str = "totem"
    totem: TotemConfig = field(default_factory=TotemConfig)
    quorum: QuorumConfig = field(default_factory=QuorumConfig)
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    fencing: FencingConfig = field(default_factory=FencingConfig)
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    restart: RestartConfig = field(default_factory=RestartConfig)
    dlm: DlmConfig = field(default_factory=DlmConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    fence_devices: tuple[FenceDevice, ...] = ()

    def node(self, nodeid: int) -> NodeConfig | None:
        return next((n for n in self.nodes if n.id == nodeid), None)

    def of_group(self, name: str) -> str:
        """What all members of a group must have alike, as a text; empty for groups that the configuration does not speak of."""
        prefix, colon, lockspace = name.partition(":")
        return self.dlm.agreed(lockspace) if (prefix, colon) == ("dlm", ":") else ""

    def fixed(self) -> ClusterConfig:
        """What the coordinator works by: agreed on by all nodes, so it cannot change at one of them while the cluster runs."""
        nodes = tuple(replace(node, addresses=()) for node in self.nodes)
        return replace(self, nodes=nodes, key=b"", more_keys=(), totem=TotemConfig())

    @property
    def self_fencing(self) -> bool:
        """Does a node of this cluster reset itself when its lease has run out? Never where both halves are quorate (SAFETY S12)."""
        if self.quorum.two_node and not self.quorum.auto_tie_breaker:
            return False
        if self.lease.self_fencing == "auto":
            asked = any(m.devices == (SELF,) for n in self.nodes for m in n.methods)
            alone = len(self.nodes) >= 3 or self.quorum.witness is not None
            return asked or (alone and not self.fences)
        return self.lease.self_fencing == "on"

    @property
    def devices(self) -> dict[str, FenceDevice]:
        """Every device by its name; that of [fencing] is called as its agent."""
        found = {d.name: d for d in self.fence_devices}
        simple = self.fencing
        if simple.agent:
            name = simple.agent.rpartition("/")[2]
            action = simple.options.get("action", "off").lower()
            options = {k: v for k, v in simple.options.items() if k != "action"}
            found.setdefault(name, FenceDevice(name, simple.agent, options, simple.timeout_ms, action=action))
        return found

    def fence_methods(self, nodeid: int) -> tuple[FenceMethod, ...]:
        """What can be tried on a node, best first. The wait for its own lease is not among them: it runs beside whatever is tried."""
        node = self.node(nodeid)
        if node is not None and node.methods:
            return tuple(m for m in node.methods if m.devices != (SELF,))
        if node is None or not self.fencing.agent:
            return ()
        return (FenceMethod((self.fencing.agent.rpartition("/")[2],)),)

    @property
    def fences(self) -> bool:
        """Is there any node that a device can fence?"""
        return any(self.fence_methods(n.id) for n in self.nodes)

    @property
    def expected_votes(self) -> int:
        return self.quorum.expected_votes or sum(n.votes for n in self.nodes)
