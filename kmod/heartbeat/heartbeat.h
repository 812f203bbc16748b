/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inside of vcs_heartbeat.ko: a provider of views, and of nothing else.
 *
 * Every node sends every other one a beat in each interval. A beat says who its
 * sender is and which beat it is, and it echoes the newest beat that the sender
 * has heard of the receiver. One attach of a node is a life; beats are numbered
 * within it. A peer is up while its beats come, and while what they echo are
 * recent beats of ours: this proves that the peer lives now (a replay echoes
 * what is past) and that the link works in both directions. When the peer's life
 * ends without a word it is down after VCS_HB_MISSED beats did not come; when
 * only our beats get lost it sees that so, and we see by its echoes one interval
 * later.
 *
 * peer.c decides; it is pure: time and packets are arguments. config.c reads what
 * an attach brings. main.c has the sockets, the threads and the clock.
 */
#ifndef _VCS_HEARTBEAT_H
#define _VCS_HEARTBEAT_H

#include <linux/mutex.h>
#include <linux/socket.h>

#include <linux/vcs.h>

struct crypto_shash;
struct dentry;
struct socket;
struct task_struct;

#define VCS_HB_INTERVAL_MS	200	/* when the attach does not say */
#define VCS_HB_MISSED		3
#define VCS_HB_RECENT		8	/* our beats whose echo may count */
#define VCS_HB_MAGIC		0x76637362
#define VCS_HB_VERSION		1
#define VCS_HB_MAC_LEN		32

/* In a beat: its sender ends this life, in order. */
#define VCS_HB_BYE		BIT(0)

struct vcs_hb_packet {
	__be32 magic;
	__be32 version;
	__be32 from;
	__be32 to;
	__be64 boot;		/* boot incarnation of the sender */
	__be64 life;		/* what follows: of the sender */
	__be64 seq;
	__be64 echo_life;	/* of the receiver, as last heard; 0: never */
	__be64 echo_seq;
	__be32 interval_ms;
	__be32 flags;
	u8 mac[VCS_HB_MAC_LEN];	/* of all before */
};

/* What becomes of a packet. */
enum vcs_hb_verdict {
	VCS_HB_HEARD,
	VCS_HB_MALFORMED,
	VCS_HB_FORGED,
	VCS_HB_STRANGER,	/* not from a node of the list, or not to this one */
	VCS_HB_INTERVAL_DIFFERS,
	VCS_HB_REPLAYED,	/* older than what was heard, or of a life that it does not prove */

	VCS_HB_VERDICTS
};

/* This node. Points in time are CLOCK_BOOTTIME, ns. */
struct vcs_hb_self {
	u32 nodeid;
	u32 interval_ms;
	u64 boot;
	u64 life;		/* higher than that of any earlier attach, if the clock is right */
	u64 seq;		/* of the last beat; 0 before the first */
	u64 next;		/* when the next one is due */
	u64 sent[VCS_HB_RECENT];
};

struct vcs_hb_peer {
	u32 nodeid;
	struct sockaddr_storage address;
	u64 boot;		/* of the newest beat that was heard */
	u64 life;		/* 0: none was */
	u64 seq;
	u64 heard;		/* when */
	u64 echoed;		/* our newest beat that it has proved to have heard */
	u64 proven;		/* when we sent that; 0: there is none, or it said bye */
	u64 lives;
};

/* One attached cluster. */
struct vcs_hb {
	struct vcs_cluster *c;
	const char *handle;
	struct crypto_shash *mac;
	struct socket *sock;
	int address_len;
	struct task_struct *task;
	struct dentry *file;

	struct mutex lock;	/* what follows: the thread, and who reads the file */
	struct vcs_hb_self self;
	u64 counts[VCS_HB_VERDICTS];
	u64 unsent;
	u64 views;
	struct vcs_member seen[VCS_HEARTBEAT_NODES_MAX];
	struct vcs_member shown[VCS_HEARTBEAT_NODES_MAX];	/* the view that the switch has */
	u32 nr_shown;
	u32 nr;
	struct vcs_hb_peer *me;
	struct vcs_hb_peer peer[VCS_HEARTBEAT_NODES_MAX];	/* by nodeid, with this node */
};

/* peer.c */
bool vcs_hb_beat(struct vcs_hb_self *self, u64 now);
void vcs_hb_say(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 flags,
		struct vcs_hb_packet *packet);
bool vcs_hb_sane(const struct vcs_hb_packet *packet, size_t len);
enum vcs_hb_verdict vcs_hb_hear(const struct vcs_hb_self *self, struct vcs_hb_peer *peer,
				const struct vcs_hb_packet *packet, u64 now);
u64 vcs_hb_until(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer);
u64 vcs_hb_wake(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 nr, u64 now);
u32 vcs_hb_members(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 nr,
		   u64 now, struct vcs_member *members);

/* config.c */
struct vcs_hb *vcs_hb_configure(const struct vcs_attach *how, struct netlink_ext_ack *extack);
void vcs_hb_free(struct vcs_hb *hb);

#endif /* _VCS_HEARTBEAT_H */
