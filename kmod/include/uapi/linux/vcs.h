/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#ifndef _UAPI_LINUX_VCS_H
#define _UAPI_LINUX_VCS_H

#define VCS_GENL_NAME	"vcs"
#define VCS_GENL_VERSION	1

#define VCS_API_VERSION	1
#define VCS_NAME_MAX	64
#define VCS_MEMBERS_MAX	1024
#define VCS_CLAIM_DATA_MAX	4096
#define VCS_HEARTBEAT_NODES_MAX	64

/* Phases of a group's event, in order. */
enum vcs_phase {
	VCS_PHASE_NONE,
	VCS_PHASE_STOP,
	VCS_PHASE_START,
	VCS_PHASE_FINISH,
};

/* Recovery order of groups; decided by the provider, stored by the switch. */
enum vcs_level {
	VCS_LEVEL_FENCING = 1,
	VCS_LEVEL_LOCK_MANAGER,
	VCS_LEVEL_FILE_SYSTEM,
	VCS_LEVEL_USER,
};

enum vcs_group_flags {
	/* The group outlives its consumer's socket. */
	VCS_GROUP_PERSISTENT = 1,
	/* A member that fails must be fenced before the group starts again. */
	VCS_GROUP_NEEDS_FENCE = 2,
};

enum vcs_group_state {
	/* Asked for; no event has finished here yet. */
	VCS_GROUP_STATE_JOINING = 1,
	VCS_GROUP_STATE_MEMBER,
	VCS_GROUP_STATE_LEAVING,
	/*
	 * The provider was lost under it; it stays so until it is left or the
	 * machine is reset.
	 */
	VCS_GROUP_STATE_LOST,
};

enum vcs_provider_state {
	VCS_PROVIDER_NONE,
	VCS_PROVIDER_ATTACHED,
	VCS_PROVIDER_ORPHAN,
	VCS_PROVIDER_LOST,
};

enum vcs_lease_state {
	/* No lease was asked for at attach. */
	VCS_LEASE_NONE,
	/* Not armed, since no group that needs fencing has started. */
	VCS_LEASE_IDLE,
	VCS_LEASE_ARMED,
	/*
	 * With a grace, the provider is lost; without one, no group that
	 * needs fencing starts before a renewal.
	 */
	VCS_LEASE_EXPIRED,
	/* The grace is over, too. Seen in a dry run alone. */
	VCS_LEASE_RESET,
};

enum vcs_view_flags {
	VCS_VIEW_QUORATE = 1,
};

/* What the switch, or a provider type, can do. */
enum vcs_capability {
	/* Agreed groups with events. */
	VCS_CAP_GROUPS = 1,
	/* Results of fencing are reported. */
	VCS_CAP_FENCE = 2,
	/* The lease is kept. */
	VCS_CAP_LEASE = 4,
	/* A lease with a grace resets the machine; absent in a dry run. */
	VCS_CAP_RESET = 8,
	/*
	 * All members of a view agree on it. Groups, fencing and the lease
	 * need that.
	 */
	VCS_CAP_AGREED = 16,
	/*
	 * The provider lives in the kernel. No socket holds its seat, and it
	 * is detached without a session.
	 */
	VCS_CAP_KERNEL = 32,
};

enum vcs_member_attrs {
	VCS_MEMBER_A_PAD = 1,
	VCS_MEMBER_A_NODEID,
	/* Votes of the node; 1 when absent. */
	VCS_MEMBER_A_VOTES,
	/* Boot incarnation of the node. */
	VCS_MEMBER_A_INCARNATION,
	/*
	 * Of a group's member, the event by which this incarnation joined; 0
	 * or absent in a view.
	 */
	VCS_MEMBER_A_JOIN_ID,

	__VCS_MEMBER_A_MAX,
	VCS_MEMBER_A_MAX = (__VCS_MEMBER_A_MAX - 1)
};

enum vcs_attrs {
	VCS_A_PAD = 1,
	VCS_A_API_VERSION,
	VCS_A_CAPABILITIES,
	/*
	 * Boot incarnation, drawn when the module was loaded (or of the
	 * fenced node in fenced).
	 */
	VCS_A_INCARNATION,
	/* Key of the cluster on this kernel. */
	VCS_A_HANDLE,
	/* Name of the cluster on the wire. */
	VCS_A_NAME,
	VCS_A_NODEID,
	/* Provider type; "user" when absent in a request. */
	VCS_A_PROVIDER,
	VCS_A_PROVIDER_STATE,
	/*
	 * What attach or join gave; every later command of that provider or
	 * consumer carries it.
	 */
	VCS_A_SESSION,
	/* Rises with every change of the cluster's state. */
	VCS_A_CHANGE_SEQ,
	/*
	 * The highest event id that the cluster has seen; a provider must
	 * exceed it.
	 */
	VCS_A_HIGHEST_EVENT,
	VCS_A_LEASE_MS,
	VCS_A_LEASE_REMAINING_MS,
	VCS_A_LEASE_STATE,
	/*
	 * CLOCK_BOOTTIME in ns at which the evidence of quorum was begun to
	 * be gathered (SAFETY S9).
	 */
	VCS_A_VALID_FROM_NS,
	/* Generation of the view, given by the switch. */
	VCS_A_GENERATION,
	VCS_A_RING_SEQ,
	VCS_A_RING_REP,
	VCS_A_VIEW_FLAGS,
	/* How many members the whole list has, over all messages. */
	VCS_A_NR_MEMBERS,
	/* A member of the view, or of the current event; repeated. */
	VCS_A_MEMBER,
	/* A member of the last finished event; repeated. */
	VCS_A_FINISHED_MEMBER,
	VCS_A_NR_FINISHED_MEMBERS,
	VCS_A_GROUP,
	VCS_A_LEVEL,
	VCS_A_GROUP_FLAGS,
	VCS_A_GROUP_STATE,
	VCS_A_EVENT,
	VCS_A_PHASE,
	VCS_A_ACKED_EVENT,
	VCS_A_ACKED_PHASE,
	/* The last event that finished here. */
	VCS_A_FINISHED_EVENT,
	/* Owner tag; who gives the same one may take over an orphaned group. */
	VCS_A_OWNER,
	/* Rises with every take-over. */
	VCS_A_OWNER_EPOCH,
	/*
	 * For how long (ms, at least 1) a persistent group has had no
	 * consumer; 0 while it has one.
	 */
	VCS_A_ORPHAN_SINCE_MS,
	/* Age of the current phase. */
	VCS_A_AGE_MS,
	/* 1 when an orphan was taken over. */
	VCS_A_TAKEN_OVER,
	/* Positive errno; 0 or absent means success. */
	VCS_A_ERROR,
	VCS_A_CLAIM,
	VCS_A_CLAIM_DATA,
	/*
	 * Acknowledgements and events of this cluster that were refused as
	 * stale.
	 */
	VCS_A_STALE_ACKS,
	/*
	 * From the end of the lease to the reset of the machine; 0 or absent
	 * - it resets nothing.
	 */
	VCS_A_GRACE_MS,
	/*
	 * CLOCK_BOOTTIME in ns until which the lease does not end, at most a
	 * day ahead; one that is past ends it.
	 */
	VCS_A_FREEZE_UNTIL_NS,
	/*
	 * The last event whose START was ordered here; also while a later one
	 * stops the group.
	 */
	VCS_A_STARTED_EVENT,
	/* A member of the last started event; repeated. */
	VCS_A_STARTED_MEMBER,
	VCS_A_NR_STARTED_MEMBERS,
	/*
	 * What a provider type in the kernel has to know. The type reads it
	 * by rules of its own, the switch hands it on unread.
	 */
	VCS_A_CONFIG,

	__VCS_A_MAX,
	VCS_A_MAX = (__VCS_A_MAX - 1)
};

enum vcs_heartbeat_attrs {
	/* Shared by all nodes of the cluster. Never shown. */
	VCS_HEARTBEAT_A_KEY = 1,
	/*
	 * From beat to beat, alike on all nodes; 200 when absent. A node is
	 * down when three were missed.
	 */
	VCS_HEARTBEAT_A_INTERVAL_MS,
	/*
	 * A node of the cluster; repeated. The one with the cluster's nodeid
	 * is this node.
	 */
	VCS_HEARTBEAT_A_NODE,

	__VCS_HEARTBEAT_A_MAX,
	VCS_HEARTBEAT_A_MAX = (__VCS_HEARTBEAT_A_MAX - 1)
};

enum vcs_heartbeat_node_attrs {
	VCS_HEARTBEAT_NODE_A_NODEID = 1,
	/*
	 * Of IPv4 (4 bytes) or IPv6 (16 bytes), in network order; all nodes
	 * are of one family.
	 */
	VCS_HEARTBEAT_NODE_A_ADDRESS,
	/* UDP port, 1 to 65535. */
	VCS_HEARTBEAT_NODE_A_PORT,

	__VCS_HEARTBEAT_NODE_A_MAX,
	VCS_HEARTBEAT_NODE_A_MAX = (__VCS_HEARTBEAT_NODE_A_MAX - 1)
};

enum {
	/* What this switch is. */
	VCS_CMD_INFO_GET = 1,
	/* Create a cluster. EEXIST when the handle is taken. */
	VCS_CMD_CLUSTER_ADD,
	/*
	 * Delete a cluster. EBUSY while it has groups, pins of kernel
	 * consumers or an attached provider.
	 */
	VCS_CMD_CLUSTER_DEL,
	/* One cluster (do) or all of them (dump). */
	VCS_CMD_CLUSTER_GET,
	/*
	 * Take the provider's seat of a cluster. EBUSY while another live
	 * socket holds it, or, with a grace, while another cluster's lease
	 * may reset this machine; ENOENT for an unknown type; ESTALE when a
	 * lease with a grace has run out. An armed lease goes on as it was
	 * until it is renewed. The seat is an orphan when the socket ends:
	 * the groups stay as they are, and the next provider goes on with
	 * them. A type that lives in the kernel has no session and outlives
	 * the socket; EOPNOTSUPP while the cluster has groups, and the type
	 * none.
	 */
	VCS_CMD_PROVIDER_ATTACH,
	/*
	 * Give the seat back; without a session, that of a type that lives in
	 * the kernel. EBUSY while the cluster has groups.
	 */
	VCS_CMD_PROVIDER_DETACH,
	/*
	 * Renew the lease with evidence. ESTALE when older than the current
	 * evidence or already run out, or when a lease with a grace has;
	 * EINVAL when in the future.
	 */
	VCS_CMD_LEASE_RENEW,
	/* Install a view. A quorate view holds this node. */
	VCS_CMD_VIEW_SET,
	/*
	 * The current view; every message repeats the head, the members go on
	 * over the messages. All are of one view.
	 */
	VCS_CMD_VIEW_GET,
	/*
	 * All groups of a cluster, or the one that is named; a group whose
	 * members do not fit goes on in the next message, with the same head.
	 * NLM_F_DUMP_INTR when something changed meanwhile: read again.
	 */
	VCS_CMD_GROUP_GET,
	/*
	 * Provider; order STOP of a new event, which replaces an unfinished
	 * one. ESTALE unless the id rises.
	 */
	VCS_CMD_GROUP_STOP,
	/*
	 * Provider; order START of the event that was stopped. EPROTO unless
	 * its STOP was acknowledged here and all members (this node among
	 * them) are in the current quorate view with the same incarnations.
	 */
	VCS_CMD_GROUP_START,
	/*
	 * Provider; order FINISH. EPROTO unless the START was acknowledged
	 * here.
	 */
	VCS_CMD_GROUP_FINISH,
	/*
	 * Provider; the group is left, or (error > 0) its join refused or its
	 * membership ended.
	 */
	VCS_CMD_GROUP_LEFT,
	/* Provider; the result of fencing a node. */
	VCS_CMD_FENCED,
	/*
	 * Consumer; join a group, or take over an orphaned persistent one of
	 * the same owner tag. EBUSY when it is held.
	 */
	VCS_CMD_GROUP_JOIN,
	/*
	 * Consumer; acknowledge a phase of the current event. ESTALE for
	 * another event or session, EPROTO for a phase not ordered.
	 */
	VCS_CMD_GROUP_ACK,
	/*
	 * Consumer; ask to leave. Complete when the group is gone; at once
	 * when the provider is lost or absent.
	 */
	VCS_CMD_GROUP_LEAVE,
	/*
	 * Take (or, holding it, update) an exclusive claim; the answer has
	 * the data that it held before. The data outlives the holder. EBUSY
	 * while another live socket holds it.
	 */
	VCS_CMD_CLAIM,
	/* A cluster was added or deleted. */
	VCS_CMD_CLUSTER_HINT,
	/* A view was installed. */
	VCS_CMD_VIEW_HINT,
	/* A group changed (phase none - it is gone). */
	VCS_CMD_GROUP_HINT,
	/*
	 * The provider of a cluster changed, or its lease, or it reported a
	 * fence.
	 */
	VCS_CMD_PROVIDER_HINT,
	/*
	 * Freeze the lease for maintenance: it does not end, and so resets
	 * nothing, before then. ERANGE for more than a day ahead; ESTALE when
	 * a lease with a grace has run out.
	 */
	VCS_CMD_LEASE_FREEZE,

	__VCS_CMD_MAX,
	VCS_CMD_MAX = (__VCS_CMD_MAX - 1)
};

#define VCS_MCGRP_HINTS	"hints"

#endif /* _UAPI_LINUX_VCS_H */
