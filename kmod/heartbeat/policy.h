/* SPDX-License-Identifier: GPL-2.0 */
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#ifndef _VCS_HEARTBEAT_POLICY_H
#define _VCS_HEARTBEAT_POLICY_H

#include <net/netlink.h>

#include <uapi/linux/vcs.h>

static const struct nla_policy vcs_heartbeat_node_nl_policy[VCS_HEARTBEAT_NODE_A_MAX + 1] = {
	[VCS_HEARTBEAT_NODE_A_NODEID] = NLA_POLICY_MIN(NLA_U32, 1),
	[VCS_HEARTBEAT_NODE_A_ADDRESS] = NLA_POLICY_RANGE(NLA_BINARY, 4, 16),
	[VCS_HEARTBEAT_NODE_A_PORT] = NLA_POLICY_MIN(NLA_U32, 1),
};

static const struct nla_policy vcs_heartbeat_nl_policy[VCS_HEARTBEAT_A_MAX + 1] = {
	[VCS_HEARTBEAT_A_KEY] = NLA_POLICY_RANGE(NLA_BINARY, 16, 64),
	[VCS_HEARTBEAT_A_INTERVAL_MS] = NLA_POLICY_RANGE(NLA_U32, 20, 10000),
	[VCS_HEARTBEAT_A_NODE] = NLA_POLICY_NESTED(vcs_heartbeat_node_nl_policy),
};

#endif /* _VCS_HEARTBEAT_POLICY_H */
