// SPDX-License-Identifier: GPL-2.0
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#include "genl.h"

const struct nla_policy vcs_member_nl_policy[VCS_MEMBER_A_MAX + 1] = {
	[VCS_MEMBER_A_NODEID] = NLA_POLICY_MIN(NLA_U32, 1),
	[VCS_MEMBER_A_VOTES] = { .type = NLA_U32, },
	[VCS_MEMBER_A_INCARNATION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_MEMBER_A_JOIN_ID] = { .type = NLA_U64, },
};

static const struct nla_policy vcs_cluster_add_nl_policy[VCS_A_NODEID + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_NAME] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_NODEID] = NLA_POLICY_MIN(NLA_U32, 1),
};

static const struct nla_policy vcs_cluster_del_nl_policy[VCS_A_HANDLE + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_cluster_get_nl_policy[VCS_A_HANDLE + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_provider_attach_nl_policy[VCS_A_LEASE_MS + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_PROVIDER] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_LEASE_MS] = { .type = NLA_U32, },
};

static const struct nla_policy vcs_provider_detach_nl_policy[VCS_A_SESSION + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
};

static const struct nla_policy vcs_lease_renew_nl_policy[VCS_A_VALID_FROM_NS + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_VALID_FROM_NS] = NLA_POLICY_MIN(NLA_U64, 1),
};

static const struct nla_policy vcs_view_set_nl_policy[VCS_A_MEMBER + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_RING_SEQ] = { .type = NLA_U64, },
	[VCS_A_RING_REP] = { .type = NLA_U32, },
	[VCS_A_VIEW_FLAGS] = NLA_POLICY_MASK(NLA_U32, 0x1),
	[VCS_A_MEMBER] = NLA_POLICY_NESTED(vcs_member_nl_policy),
};

static const struct nla_policy vcs_view_get_nl_policy[VCS_A_HANDLE + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_group_get_nl_policy[VCS_A_GROUP + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_group_stop_nl_policy[VCS_A_EVENT + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_EVENT] = NLA_POLICY_MIN(NLA_U64, 1),
};

static const struct nla_policy vcs_group_start_nl_policy[VCS_A_EVENT + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_MEMBER] = NLA_POLICY_NESTED(vcs_member_nl_policy),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_EVENT] = NLA_POLICY_MIN(NLA_U64, 1),
};

static const struct nla_policy vcs_group_finish_nl_policy[VCS_A_EVENT + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_EVENT] = NLA_POLICY_MIN(NLA_U64, 1),
};

static const struct nla_policy vcs_group_left_nl_policy[VCS_A_ERROR + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_ERROR] = NLA_POLICY_MAX(NLA_U32, 4095),
};

static const struct nla_policy vcs_fenced_nl_policy[VCS_A_ERROR + 1] = {
	[VCS_A_INCARNATION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_NODEID] = NLA_POLICY_MIN(NLA_U32, 1),
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_ERROR] = NLA_POLICY_MAX(NLA_U32, 4095),
};

static const struct nla_policy vcs_group_join_nl_policy[VCS_A_OWNER + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_LEVEL] = NLA_POLICY_RANGE(NLA_U32, 1, 4),
	[VCS_A_GROUP_FLAGS] = NLA_POLICY_MASK(NLA_U32, 0x3),
	[VCS_A_OWNER] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_group_ack_nl_policy[VCS_A_PHASE + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_EVENT] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_PHASE] = NLA_POLICY_RANGE(NLA_U32, 0, 3),
};

static const struct nla_policy vcs_group_leave_nl_policy[VCS_A_GROUP + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_GROUP] = { .type = NLA_NUL_STRING, .len = 64, },
};

static const struct nla_policy vcs_claim_nl_policy[VCS_A_CLAIM_DATA + 1] = {
	[VCS_A_CLAIM] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_CLAIM_DATA] = { .type = NLA_BINARY, .len = 4096, },
};

const struct genl_ops vcs_nl_ops[19] = {
	{
		.cmd		= VCS_CMD_INFO_GET,
		.doit		= vcs_nl_info_get_doit,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_ADD,
		.doit		= vcs_nl_cluster_add_doit,
		.policy		= vcs_cluster_add_nl_policy,
		.maxattr	= VCS_A_NODEID,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_DEL,
		.doit		= vcs_nl_cluster_del_doit,
		.policy		= vcs_cluster_del_nl_policy,
		.maxattr	= VCS_A_HANDLE,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_GET,
		.doit		= vcs_nl_cluster_get_doit,
		.dumpit		= vcs_nl_cluster_get_dumpit,
		.policy		= vcs_cluster_get_nl_policy,
		.maxattr	= VCS_A_HANDLE,
	},
	{
		.cmd		= VCS_CMD_PROVIDER_ATTACH,
		.doit		= vcs_nl_provider_attach_doit,
		.policy		= vcs_provider_attach_nl_policy,
		.maxattr	= VCS_A_LEASE_MS,
	},
	{
		.cmd		= VCS_CMD_PROVIDER_DETACH,
		.doit		= vcs_nl_provider_detach_doit,
		.policy		= vcs_provider_detach_nl_policy,
		.maxattr	= VCS_A_SESSION,
	},
	{
		.cmd		= VCS_CMD_LEASE_RENEW,
		.doit		= vcs_nl_lease_renew_doit,
		.policy		= vcs_lease_renew_nl_policy,
		.maxattr	= VCS_A_VALID_FROM_NS,
	},
	{
		.cmd		= VCS_CMD_VIEW_SET,
		.doit		= vcs_nl_view_set_doit,
		.policy		= vcs_view_set_nl_policy,
		.maxattr	= VCS_A_MEMBER,
	},
	{
		.cmd		= VCS_CMD_VIEW_GET,
		.dumpit		= vcs_nl_view_get_dumpit,
		.start		= vcs_nl_view_get_start,
		.done		= vcs_nl_view_get_done,
		.policy		= vcs_view_get_nl_policy,
		.maxattr	= VCS_A_HANDLE,
	},
	{
		.cmd		= VCS_CMD_GROUP_GET,
		.doit		= vcs_nl_group_get_doit,
		.dumpit		= vcs_nl_group_get_dumpit,
		.start		= vcs_nl_group_get_start,
		.done		= vcs_nl_group_get_done,
		.policy		= vcs_group_get_nl_policy,
		.maxattr	= VCS_A_GROUP,
	},
	{
		.cmd		= VCS_CMD_GROUP_STOP,
		.doit		= vcs_nl_group_stop_doit,
		.policy		= vcs_group_stop_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_START,
		.doit		= vcs_nl_group_start_doit,
		.policy		= vcs_group_start_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_FINISH,
		.doit		= vcs_nl_group_finish_doit,
		.policy		= vcs_group_finish_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_LEFT,
		.doit		= vcs_nl_group_left_doit,
		.policy		= vcs_group_left_nl_policy,
		.maxattr	= VCS_A_ERROR,
	},
	{
		.cmd		= VCS_CMD_FENCED,
		.doit		= vcs_nl_fenced_doit,
		.policy		= vcs_fenced_nl_policy,
		.maxattr	= VCS_A_ERROR,
	},
	{
		.cmd		= VCS_CMD_GROUP_JOIN,
		.doit		= vcs_nl_group_join_doit,
		.policy		= vcs_group_join_nl_policy,
		.maxattr	= VCS_A_OWNER,
	},
	{
		.cmd		= VCS_CMD_GROUP_ACK,
		.doit		= vcs_nl_group_ack_doit,
		.policy		= vcs_group_ack_nl_policy,
		.maxattr	= VCS_A_PHASE,
	},
	{
		.cmd		= VCS_CMD_GROUP_LEAVE,
		.doit		= vcs_nl_group_leave_doit,
		.policy		= vcs_group_leave_nl_policy,
		.maxattr	= VCS_A_GROUP,
	},
	{
		.cmd		= VCS_CMD_CLAIM,
		.doit		= vcs_nl_claim_doit,
		.policy		= vcs_claim_nl_policy,
		.maxattr	= VCS_A_CLAIM_DATA,
	},
};
