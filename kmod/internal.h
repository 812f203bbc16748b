/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inside of vcs.ko. Locks, outer to inner: vcs_lock (types, the list of
 * clusters) > a cluster's config > a cluster's lock. Nothing waits for a node,
 * a daemon or a consumer under any of them; sysfs' show functions take none.
 */
#ifndef _VCS_INTERNAL_H
#define _VCS_INTERNAL_H

#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/sock.h>

#include <linux/vcs.h>

#include "compat.h"
#include "genl.h"

#define VCS_CLUSTERS_MAX	64
#define VCS_GROUPS_MAX		1024	/* per cluster */
#define VCS_CLAIMS_MAX		64
#define VCS_LEASE_MS_MAX	(3600 * 1000)
#define VCS_LEASE_FREEZE_MAX_NS	(24 * 3600 * NSEC_PER_SEC)

/*
 * Somebody who holds a seat over netlink. The portid is free for reuse before
 * the release notifier runs, so the socket itself is held: it is dead when it
 * says so.
 */
struct vcs_session {
	u64 id;			/* 0: nobody, or a provider in the kernel */
	struct sock *sk;
};

/* One command over netlink, and who gave it; NULL is a caller in the kernel. */
struct vcs_from {
	struct genl_info *info;
	struct sock *sk;
	const struct vcs_nl_command *command;
	struct vcs_cluster *c;	/* with a reference, where one is named */
	struct vcs_group *g;	/* once admitted, where one is named; under c->lock */
	u64 session;		/* given, or to be given */
	struct sk_buff *reply;	/* where there is one */
};

/* Points in time are CLOCK_BOOTTIME, ns. */
struct vcs_lease {
	u64 lease_ns;		/* 0: no lease */
	u64 grace_ns;		/* 0: resets nothing */
	u64 valid_from;
	u64 freeze;		/* maintenance: it ends no earlier */
	u64 end;		/* 0: no lease */
	u64 reset;		/* 0: none */
	bool armed;
	bool told;		/* its end */
	u64 renewals;
	u64 late;		/* renewals refused: too old, or run out */
	u64 resets;		/* in a dry run */
};

struct vcs_cluster {
	struct kobject kobj;
	struct kobject *groups_dir;
	struct list_head node;		/* vcs_lock */
	u32 id;
	u32 nodeid;
	char handle[VCS_NAME_MAX + 1];
	char name[VCS_NAME_MAX + 1];

	/* attach, detach, join, delete; calls into the provider */
	struct mutex config;

	spinlock_t lock;		/* all of the following; bh */
	struct vcs_view __rcu *view;	/* readers: RCU */
	u64 change_seq;
	bool dead;
	unsigned int pins;
	unsigned int nr_groups;
	struct list_head groups;
	struct list_head dying;		/* left, but still in sysfs */

	enum vcs_provider_state state;
	char provider[VCS_NAME_MAX + 1];
	u64 caps;			/* of the attached or last type */
	struct vcs_provider_type *type;	/* attached */
	struct vcs_provider_type *gone;	/* lost, its detach is due */
	struct vcs_session seat;
	void *priv;
	u64 attached_ns;
	u64 highest_event;
	u64 event_floor;		/* highest_event at attach */
	u64 upcalls;
	u64 stale;
	u64 dropped_hints;

	struct vcs_lease lease;
	struct hrtimer lease_timer;
	struct hrtimer reset_timer;
	struct work_struct reap_work;

	struct blocking_notifier_head view_chain;
	struct work_struct view_work;
};

/* What the provider has not been told of a group yet. */
#define VCS_TELL_JOIN	BIT(0)
#define VCS_TELL_LEAVE	BIT(1)
#define VCS_TELL_ACK	BIT(2)

struct vcs_group {
	struct kobject kobj;
	struct vcs_cluster *c;		/* a reference */
	struct list_head node;		/* c->lock */
	char name[VCS_NAME_MAX + 1];
	char owner[VCS_NAME_MAX + 1];
	u32 level;
	u32 flags;

	/* c->lock */
	enum vcs_group_state state;
	bool dead;
	bool started;			/* once; a stop is no fence */
	int err;
	struct vcs_event *event;	/* current; NULL before the first */
	u64 event_id;			/* of event, for sysfs */
	u32 nr_members;
	struct vcs_event *finished;	/* the last that did */
	struct vcs_event *ran;		/* the last that started */
	enum vcs_phase phase;
	u64 phase_ns;
	u64 acked_event;
	enum vcs_phase acked_phase;
	u32 epoch;
	u64 orphan_ns;			/* 0: it has a consumer */
	struct vcs_session holder;	/* of a consumer on a socket */
	unsigned int tell;

	/* of a consumer in the kernel */
	const struct vcs_group_ops *ops;
	void *priv;
	u64 told_event;			/* c->lock */
	enum vcs_phase told_phase;
	bool told_lost;
	bool told_left;

	struct work_struct work;
	unsigned long hidden;		/* bit 0 */
	struct completion hidden_done;
	struct completion left_done;
};

/* Sparse calls no clean-up function: for it a guarded function is balanced. */
static inline void vcs_cluster_lock(struct vcs_cluster *c)
{
	spin_lock_bh(&c->lock);
	__release(&c->lock);
}

static inline void vcs_cluster_unlock(struct vcs_cluster *c)
{
	__acquire(&c->lock);
	spin_unlock_bh(&c->lock);
}

DEFINE_GUARD(vcs_cluster, struct vcs_cluster *, vcs_cluster_lock(_T), vcs_cluster_unlock(_T))
/* What it allocates must not wait for a file system that waits for the cluster. */
DEFINE_CLASS(vcs_nofs, unsigned int, memalloc_nofs_restore(_T), memalloc_nofs_save(), void)
DEFINE_FREE(vcs_view, struct vcs_view *, vcs_view_put(_T))
DEFINE_FREE(vcs_event, struct vcs_event *, vcs_event_put(_T))
DEFINE_FREE(vcs_sock, struct sock *, _T ? sock_put(_T) : (void)0)

/* main.c */
extern struct workqueue_struct *vcs_wq;
extern u64 vcs_incarnation;
u64 vcs_random_id(void);

/* switch.c */
extern struct mutex vcs_lock;
struct vcs_provider_type *vcs_type_get(const char *name);
void vcs_type_put(struct vcs_provider_type *t);
DEFINE_FREE(vcs_type, struct vcs_provider_type *, _T ? vcs_type_put(_T) : (void)0)
bool vcs_text_ok(const char *text);
bool vcs_name_ok(const char *name);

/* cluster.c */
extern struct list_head vcs_clusters;
extern u32 vcs_clusters_seq;
struct vcs_cluster *vcs_cluster_find(const char *handle);
int vcs_cluster_seated(struct vcs_cluster *c, const struct vcs_from *from);
void vcs_cluster_reap(struct vcs_cluster *c);
void vcs_clusters_reap(struct work_struct *work);

/* view.c */
int vcs_members_check(const struct vcs_member *m, u32 nr);
int vcs_member_compare(const void *a, const void *b);
const struct vcs_member *vcs_member_find(const struct vcs_member *m, u32 nr, u32 nodeid);
struct vcs_view *vcs_view_get(struct vcs_cluster *c);
struct vcs_view *vcs_view_locked(struct vcs_cluster *c);
void vcs_view_unquorate(struct vcs_cluster *c);
void vcs_view_work(struct work_struct *work);

/* group.c */
struct vcs_group *vcs_group_find(struct vcs_cluster *c, const char *name);
void vcs_group_lose(struct vcs_group *g, bool lost);
void vcs_group_abandon(struct vcs_group *g);
void vcs_group_tell(struct vcs_group *g, unsigned int what);
void vcs_group_changed(struct vcs_group *g);

/* event.c */
void vcs_group_acknowledge(struct vcs_group *g, enum vcs_phase phase);

/* lease.c */
extern bool vcs_dry_run;
enum vcs_lease_state vcs_lease_next(const struct vcs_lease *l, u64 now);
bool vcs_lease_covers(const struct vcs_lease *l, u64 now);
bool vcs_lease_over(const struct vcs_lease *l, u64 now);
void vcs_lease_init(struct vcs_cluster *c);
void vcs_lease_exit(struct vcs_cluster *c);
int vcs_lease_attach(struct vcs_cluster *c, u64 caps, const struct vcs_from *from);
void vcs_lease_fenced(struct vcs_cluster *c);
void vcs_lease_update(struct vcs_cluster *c);
u64 vcs_lease_remaining_ms(const struct vcs_cluster *c, u64 now);
extern struct notifier_block vcs_lease_pm;

/* user.c */
extern struct vcs_provider_type vcs_user_type;

/* claim.c */
void vcs_claims_exit(void);

/* netlink.c */
extern struct genl_family vcs_genl_family;
int vcs_netlink_init(void);
void vcs_netlink_exit(void);
void vcs_hint(u8 cmd, struct vcs_cluster *c, const struct vcs_group *g);
int vcs_from_admit(struct vcs_from *from);
int vcs_from_members_count(const struct vcs_from *from);
int vcs_from_members(const struct vcs_from *from, struct vcs_member *m);
int __vcs_refuse(const struct vcs_from *from, int attr, int err, const char *msg);

/* Refuse, and say why: text and attribute to the caller, a trace for everybody. */
#define vcs_refuse(from, attr, err, msg)				\
({									\
	static const char __why[] = msg;				\
									\
	__vcs_refuse(from, attr, err, __why);				\
})

static inline u32 vcs_from_u32(const struct vcs_from *from, int attr, u32 absent)
{
	return from->info->attrs[attr] ? nla_get_u32(from->info->attrs[attr]) : absent;
}

static inline u64 vcs_from_u64(const struct vcs_from *from, int attr)
{
	return nla_get_u64(from->info->attrs[attr]);
}

static inline const char *vcs_from_text(const struct vcs_from *from, int attr,
					const char *absent)
{
	return from->info->attrs[attr] ? nla_data(from->info->attrs[attr]) : absent;
}

static inline int vcs_put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, VCS_A_PAD);
}

static inline void vcs_session_take(struct vcs_session *s, const struct vcs_from *from)
{
	sock_hold(from->sk);
	s->sk = from->sk;
	s->id = from->session;
}

static inline bool vcs_session_dead(const struct vcs_session *s)
{
	return s->sk && sock_flag(s->sk, SOCK_DEAD);
}

/* sysfs.c */
extern const struct kobj_type vcs_cluster_ktype;
extern const struct kobj_type vcs_group_ktype;
int vcs_sysfs_init(void);
void vcs_sysfs_exit(void);
int vcs_sysfs_type_add(struct vcs_provider_type *t);
void vcs_sysfs_type_del(struct vcs_provider_type *t);
int vcs_sysfs_cluster_add(struct vcs_cluster *c);
void vcs_sysfs_cluster_del(struct vcs_cluster *c);

#endif /* _VCS_INTERNAL_H */
