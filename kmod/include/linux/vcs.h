/* SPDX-License-Identifier: GPL-2.0 */
/**
 * DOC: The Virtual Cluster Switch: what kernel providers and consumers see.
 *
 * Contexts:
 *
 * [P] process context, may sleep, no lock of the switch held, never from a
 * callback of the switch;
 *
 * [N] process context inside memalloc_nofs, may sleep briefly, must not wait
 * for a node, a daemon or a [P] function;
 *
 * [B] process context or softirq.
 */
#ifndef _LINUX_VCS_H
#define _LINUX_VCS_H

#include <linux/notifier.h>
#include <linux/refcount.h>
#include <linux/types.h>

#include <uapi/linux/vcs.h>

struct module;
struct netlink_ext_ack;
struct nlattr;
struct vcs_cluster;
struct vcs_group;

/**
 * struct vcs_member - one member of a view or of a group
 * @nodeid: never 0
 * @votes: of the node
 * @incarnation: boot incarnation of the node, never 0
 * @join_id: of a group's member: the event it joined by
 */
struct vcs_member {
	u32 nodeid;
	u32 votes;
	u64 incarnation;
	u64 join_id;
};

/**
 * struct vcs_view - a membership; immutable once published, kept by RCU or a reference
 * @generation: local, strictly rising; given by the switch
 * @ring_seq: with @ring_rep the identity across nodes
 * @ring_rep: see @ring_seq
 * @flags: enum vcs_view_flags
 * @nr: how many members
 * @member: sorted by nodeid
 */
struct vcs_view {
	/* private: */
	refcount_t ref;
	struct rcu_head rcu;
	struct vcs_view *spare;	/* room to publish it without its quorum */
	/* public: */
	u64 generation;
	u64 ring_seq;
	u32 ring_rep;
	u32 flags;
	u32 nr;
	struct vcs_member member[];
};

/**
 * struct vcs_event - an event of a group; immutable once ordered, refcounted
 * @id: strictly rising within the group; given by the provider
 * @view_generation: of the view it was ordered under; given by the switch
 * @nr: how many members; 0 in stop
 * @member: sorted by nodeid
 */
struct vcs_event {
	/* private: */
	refcount_t ref;
	struct rcu_head rcu;
	/* public: */
	u64 id;
	u64 view_generation;
	u32 nr;
	struct vcs_member member[];
};

/*
 * Views and events are allocated by the caller of an upcall, so that no upcall
 * can fail on memory. alloc returns NULL without memory, and for more than
 * VCS_MEMBERS_MAX members. put(NULL) is allowed.
 */
struct vcs_view *vcs_view_alloc(u32 nr, gfp_t gfp);
void vcs_view_put(const struct vcs_view *v);
struct vcs_event *vcs_event_alloc(u64 id, u32 nr, gfp_t gfp);
void vcs_event_put(const struct vcs_event *e);

/* --- providers ---------------------------------------------------------- */

/**
 * struct vcs_attach - what a provider is told when it takes a seat
 * @handle: of the cluster on this kernel; valid until detach returns
 * @name: of the cluster on the wire; valid until detach returns
 * @nodeid: this node's
 * @incarnation: this node's boot incarnation
 * @config: a nest of attributes for this provider type, which nobody has looked
 *	into, or NULL; valid during the call
 */
struct vcs_attach {
	const char *handle;
	const char *name;
	u32 nodeid;
	u64 incarnation;
	const struct nlattr *config;
};

/**
 * struct vcs_provider_ops - what a provider does for the switch
 *
 * @join, @leave and @acked need VCS_CAP_GROUPS, and only then are allowed.
 */
struct vcs_provider_ops {
	/**
	 * @attach: [N] Take the seat of @c. Upcalls may begin before it returns
	 * (but not vcs_up_lost()). A negative errno refuses the attach.
	 */
	int (*attach)(struct vcs_cluster *c, const struct vcs_attach *how,
		      struct netlink_ext_ack *extack);
	/**
	 * @detach: [N] Exactly once after each successful attach, also after
	 * vcs_up_lost(). Once it returns no upcall may run, and the provider's
	 * module may go.
	 */
	void (*detach)(struct vcs_cluster *c);
	/**
	 * @join: [N] The group wants to join: queue and return; answer with
	 * events. Repeated for every group after a re-attach.
	 */
	int (*join)(struct vcs_group *g);
	/** @leave: [N] The group wants to leave; answer with vcs_up_left(). */
	int (*leave)(struct vcs_group *g);
	/** @acked: [N] This node acknowledged @phase of @event. Newest only. */
	void (*acked)(struct vcs_group *g, u64 event, enum vcs_phase phase);
};

/**
 * struct vcs_provider_type - a kind of provider
 * @name: becomes a directory in sysfs
 * @owner: pinned from attach until detach has returned
 * @caps: enum vcs_capability; must match @ops. Without VCS_CAP_AGREED there are
 *	neither groups nor fencing nor a lease. VCS_CAP_KERNEL: the seat is not
 *	that of the socket which asked for the attach, and outlives it
 * @ops: what it does
 */
struct vcs_provider_type {
	const char *name;
	struct module *owner;
	u64 caps;
	const struct vcs_provider_ops *ops;
	/* private: */
	struct list_head node;
	struct kobject *kobj;
	atomic_t users;
};

int __vcs_provider_register(struct vcs_provider_type *t, u32 api, size_t size);

/**
 * vcs_provider_register() - offer a provider type. [P]
 * @t: stays the caller's; valid until vcs_provider_unregister() returns
 *
 * Return:
 * * 0
 * * %-EINVAL: built for another version of this header, bad name, or caps that
 *   do not match the ops
 * * %-EEXIST: the name is taken
 */
static inline int vcs_provider_register(struct vcs_provider_type *t)
{
	return __vcs_provider_register(t, VCS_API_VERSION, sizeof(*t));
}

void vcs_provider_unregister(struct vcs_provider_type *t);

/* The provider's own data of a cluster; set it in attach. */
void vcs_cluster_set_priv(struct vcs_cluster *c, void *priv);
void *vcs_cluster_priv(struct vcs_cluster *c);

/**
 * DOC: Upcalls
 *
 * [B] They never sleep, allocate, or call back into the provider, and consume
 * their view or event, also on failure. They return 0, or
 *
 * * %-ENOTCONN: no provider is attached
 * * %-EINVAL: members are not sorted, or one is named twice
 * * %-ESTALE: the event is older than one that the group has seen
 * * %-EPROTO: out of order: a start without this node's acknowledgment of its
 *   stop, or of members outside the current quorate view, or of a lost group; a
 *   finish without the start acknowledged here
 */
int vcs_up_view(struct vcs_cluster *c, struct vcs_view *v);
/* @phase: VCS_PHASE_STOP, _START, or _FINISH, where only the id of @e counts */
int vcs_up_order(struct vcs_group *g, struct vcs_event *e, enum vcs_phase phase);
/* The group is left, or (err < 0) its join refused or its membership ended. */
void vcs_up_left(struct vcs_group *g, int err);
void vcs_up_fenced(struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err);
/* The provider is gone: every group is lost. detach follows. */
void vcs_up_lost(struct vcs_cluster *c);

/* --- consumers ---------------------------------------------------------- */

/**
 * struct vcs_group_ops - callbacks of a group
 *
 * [N] Serialised within a group, parallel between groups. They begin work and
 * return; the answer is vcs_group_ack(), from them or later. In @stop and @start
 * the current view is at least as new as the event's.
 */
struct vcs_group_ops {
	/** @stop: Take no new cluster lock; acknowledge VCS_PHASE_STOP when so. */
	void (*stop)(struct vcs_group *g, const struct vcs_event *e);
	/**
	 * @start: Every member has stopped, every failed one that matters is
	 * fenced: recover, then acknowledge VCS_PHASE_START. Skipped when
	 * superseded. @e is valid until the callback returns.
	 */
	void (*start)(struct vcs_group *g, const struct vcs_event *e);
	/** @finish: Every member has recovered: go on. Not acknowledged. */
	void (*finish)(struct vcs_group *g, const struct vcs_event *e);
	/** @lost: Nobody vouches for the membership any more: stop, then leave. */
	void (*lost)(struct vcs_group *g);
	/** @left: The last callback. err: 0, or why the membership ended. */
	void (*left)(struct vcs_group *g, int err);
};

/**
 * vcs_cluster_get() - find a cluster and pin it. [P]
 * @handle: its key on this kernel
 *
 * Return: the cluster, which cannot be deleted (-EBUSY) until vcs_cluster_put();
 * NULL when there is none of this handle.
 */
struct vcs_cluster *vcs_cluster_get(const char *handle);
void vcs_cluster_put(struct vcs_cluster *c);

/**
 * vcs_view_rcu() - the current view. [B], under rcu_read_lock()
 * @c: the cluster
 *
 * Return: the view, never NULL (of generation 0 at first).
 */
const struct vcs_view *vcs_view_rcu(struct vcs_cluster *c);

/**
 * vcs_view_notifier_register() - be called when the view has changed. [P]
 * @c: the cluster
 * @nb: called [N] with the generation (truncated) and the view
 *
 * The notifier may skip generations (newest wins), never nests, and promises
 * nothing relative to the callbacks of groups. After unregister ([P], too) has
 * returned it is not called.
 *
 * Return: 0, or %-EEXIST when @nb is registered already
 */
int vcs_view_notifier_register(struct vcs_cluster *c, struct notifier_block *nb);
int vcs_view_notifier_unregister(struct vcs_cluster *c, struct notifier_block *nb);

/**
 * vcs_group_join() - ask to be a member of a group. [P]
 * @c: a cluster that the caller has pinned
 * @name: of the group
 * @level: enum vcs_level
 * @flags: enum vcs_group_flags; VCS_GROUP_PERSISTENT is for sockets
 * @ops: all of them
 * @priv: for vcs_group_priv()
 *
 * Return: the group with a reference, which the caller gives back with
 * vcs_group_put() after left() was called; or an ERR_PTR:
 *
 * * %-EINVAL: bad name, level, flags or ops
 * * %-EBUSY: somebody on this node holds the group
 * * %-EOPNOTSUPP: the attached provider has no groups
 * * %-ENOSPC: too many groups
 * * %-ENOMEM: no memory
 */
struct vcs_group *vcs_group_join(struct vcs_cluster *c, const char *name, u32 level, u32 flags,
				 const struct vcs_group_ops *ops, void *priv);
void vcs_group_put(struct vcs_group *g);
void *vcs_group_priv(const struct vcs_group *g);
struct vcs_cluster *vcs_group_cluster(const struct vcs_group *g);

/**
 * vcs_group_ack() - acknowledge a phase of the current event. [B]
 * @g: the group
 * @event: its id
 * @phase: VCS_PHASE_STOP or VCS_PHASE_START
 *
 * Return:
 * * 0
 * * %-ESTALE: @event is not the current one
 * * %-EPROTO: @phase was not ordered, or is not the next one
 * * %-EINVAL: @phase is neither stop nor start
 */
int vcs_group_ack(struct vcs_group *g, u64 event, enum vcs_phase phase);

/* [B] Ask to leave. Idempotent; complete when left() is called. */
void vcs_group_leave(struct vcs_group *g);
/* [P] Leave, and wait until left() has returned. */
void vcs_group_leave_sync(struct vcs_group *g);

#endif /* _LINUX_VCS_H */
