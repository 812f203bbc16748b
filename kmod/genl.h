/* SPDX-License-Identifier: GPL-2.0 */
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#ifndef _LINUX_VCS_GEN_H
#define _LINUX_VCS_GEN_H

#include <net/genetlink.h>
#include <net/netlink.h>

#include <uapi/linux/vcs.h>

extern const struct nla_policy vcs_member_nl_policy[VCS_MEMBER_A_MAX + 1];

extern const struct genl_ops vcs_nl_ops[19];

int vcs_nl_info_get_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_cluster_add_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_cluster_del_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_cluster_get_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_cluster_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_provider_attach_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_provider_detach_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_lease_renew_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_view_set_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_view_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_view_get_start(struct netlink_callback *cb);
int vcs_nl_view_get_done(struct netlink_callback *cb);
int vcs_nl_group_get_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int vcs_nl_group_get_start(struct netlink_callback *cb);
int vcs_nl_group_get_done(struct netlink_callback *cb);
int vcs_nl_group_stop_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_start_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_finish_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_left_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_fenced_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_join_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_ack_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_group_leave_doit(struct sk_buff *skb, struct genl_info *info);
int vcs_nl_claim_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	VCS_NLGRP_HINTS,
};

#endif /* _LINUX_VCS_GEN_H */
