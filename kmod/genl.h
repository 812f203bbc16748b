/* SPDX-License-Identifier: GPL-2.0 */
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#ifndef _LINUX_VCS_GEN_H
#define _LINUX_VCS_GEN_H

#include <net/genetlink.h>
#include <net/netlink.h>

#include <linux/vcs.h>

struct vcs_from;

/* Whose session a command carries. */
enum vcs_nl_who {
	VCS_NL_ANYBODY,
	VCS_NL_SEAT,
	VCS_NL_HOLDER,
};

/* What a command needs, and the function that carries it out. */
struct vcs_nl_command {
	int (*call)(struct vcs_from *from);
	u64 required;	/* attributes, as bits */
	bool cluster;	/* the handle names one that is there */
	enum vcs_nl_who who;
	bool locked;	/* called under the cluster's lock, admitted */
	bool answers;
	bool open;	/* to everybody */
};

extern const struct vcs_nl_command vcs_nl_commands[VCS_CMD_MAX + 1];
extern const struct genl_ops vcs_nl_ops[20];
extern const char *const vcs_phase_text[4];
extern const char *const vcs_level_text[5];
extern const char *const vcs_group_state_text[5];
extern const char *const vcs_provider_state_text[4];
extern const char *const vcs_lease_state_text[5];

int vcs_member_put(struct sk_buff *skb, int attr, const struct vcs_member *v);
/* What is absent and may be stays as it is. */
int vcs_member_parse(const struct nlattr *nest, struct vcs_member *v,
		     struct netlink_ext_ack *extack);

int vcs_nl_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_info_get(struct vcs_from *from);
int vcs_nl_cluster_add(struct vcs_from *from);
int vcs_nl_cluster_del(struct vcs_from *from);
int vcs_nl_cluster_get(struct vcs_from *from);
int vcs_nl_cluster_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_provider_attach(struct vcs_from *from);
int vcs_nl_provider_detach(struct vcs_from *from);
int vcs_nl_lease_renew(struct vcs_from *from);
int vcs_nl_view_set(struct vcs_from *from);
int vcs_nl_view_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_view_get_start(struct netlink_callback *cb);
int vcs_nl_view_get_done(struct netlink_callback *cb);
int vcs_nl_group_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_group_get_start(struct netlink_callback *cb);
int vcs_nl_group_get_done(struct netlink_callback *cb);
int vcs_nl_group_stop(struct vcs_from *from);
int vcs_nl_group_start(struct vcs_from *from);
int vcs_nl_group_finish(struct vcs_from *from);
int vcs_nl_group_left(struct vcs_from *from);
int vcs_nl_fenced(struct vcs_from *from);
int vcs_nl_group_join(struct vcs_from *from);
int vcs_nl_group_ack(struct vcs_from *from);
int vcs_nl_group_leave(struct vcs_from *from);
int vcs_nl_claim(struct vcs_from *from);
int vcs_nl_lease_freeze(struct vcs_from *from);

enum {
	VCS_NLGRP_HINTS,
};

#endif /* _LINUX_VCS_GEN_H */
