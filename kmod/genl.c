// SPDX-License-Identifier: GPL-2.0
/* made from kmod/spec/vcs.yaml by `make gen`; do not edit */

#include "genl.h"

static const struct nla_policy vcs_member_nl_policy[VCS_MEMBER_A_MAX + 1] = {
	[VCS_MEMBER_A_NODEID] = NLA_POLICY_MIN(NLA_U32, 1),
	[VCS_MEMBER_A_VOTES] = { .type = NLA_U32, },
	[VCS_MEMBER_A_INCARNATION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_MEMBER_A_JOIN_ID] = { .type = NLA_U64, },
};

int vcs_member_put(struct sk_buff *skb, int attr, const struct vcs_member *v)
{
	struct nlattr *nest = nla_nest_start(skb, attr);

	if (!nest)
		return -EMSGSIZE;
	if (nla_put_u32(skb, VCS_MEMBER_A_NODEID, v->nodeid) ||
	    nla_put_u32(skb, VCS_MEMBER_A_VOTES, v->votes) ||
	    nla_put_u64_64bit(skb, VCS_MEMBER_A_INCARNATION, v->incarnation, VCS_MEMBER_A_PAD) ||
	    nla_put_u64_64bit(skb, VCS_MEMBER_A_JOIN_ID, v->join_id, VCS_MEMBER_A_PAD)) {
		nla_nest_cancel(skb, nest);
		return -EMSGSIZE;
	}
	nla_nest_end(skb, nest);
	return 0;
}

int vcs_member_parse(const struct nlattr *nest, struct vcs_member *v,
		     struct netlink_ext_ack *extack)
{
	struct nlattr *tb[VCS_MEMBER_A_MAX + 1];
	int err = nla_parse_nested(tb, VCS_MEMBER_A_MAX, nest, vcs_member_nl_policy, extack);

	if (err)
		return err;
	if (!tb[VCS_MEMBER_A_NODEID] || !tb[VCS_MEMBER_A_INCARNATION]) {
		NL_SET_ERR_MSG_ATTR(extack, nest, "an attribute of the member is missing");
		return -EINVAL;
	}
	v->nodeid = nla_get_u32(tb[VCS_MEMBER_A_NODEID]);
	if (tb[VCS_MEMBER_A_VOTES])
		v->votes = nla_get_u32(tb[VCS_MEMBER_A_VOTES]);
	v->incarnation = nla_get_u64(tb[VCS_MEMBER_A_INCARNATION]);
	if (tb[VCS_MEMBER_A_JOIN_ID])
		v->join_id = nla_get_u64(tb[VCS_MEMBER_A_JOIN_ID]);
	return 0;
}

const char *const vcs_phase_text[4] = {
	[VCS_PHASE_NONE] = "none",
	[VCS_PHASE_STOP] = "stop",
	[VCS_PHASE_START] = "start",
	[VCS_PHASE_FINISH] = "finish",
};

const char *const vcs_level_text[5] = {
	[VCS_LEVEL_FENCING] = "fencing",
	[VCS_LEVEL_LOCK_MANAGER] = "lock-manager",
	[VCS_LEVEL_FILE_SYSTEM] = "file-system",
	[VCS_LEVEL_USER] = "user",
};

const char *const vcs_group_state_text[5] = {
	[VCS_GROUP_STATE_JOINING] = "joining",
	[VCS_GROUP_STATE_MEMBER] = "member",
	[VCS_GROUP_STATE_LEAVING] = "leaving",
	[VCS_GROUP_STATE_LOST] = "lost",
};

const char *const vcs_provider_state_text[4] = {
	[VCS_PROVIDER_NONE] = "none",
	[VCS_PROVIDER_ATTACHED] = "attached",
	[VCS_PROVIDER_ORPHAN] = "orphan",
	[VCS_PROVIDER_LOST] = "lost",
};

const char *const vcs_lease_state_text[5] = {
	[VCS_LEASE_NONE] = "none",
	[VCS_LEASE_IDLE] = "idle",
	[VCS_LEASE_ARMED] = "armed",
	[VCS_LEASE_EXPIRED] = "expired",
	[VCS_LEASE_RESET] = "reset",
};

const struct vcs_nl_command vcs_nl_commands[VCS_CMD_MAX + 1] = {
	[VCS_CMD_INFO_GET] = {
		.call		= vcs_nl_info_get,
		.answers	= true,
		.open		= true,
	},
	[VCS_CMD_CLUSTER_ADD] = {
		.call		= vcs_nl_cluster_add,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_NAME) |
				  BIT_ULL(VCS_A_NODEID),
	},
	[VCS_CMD_CLUSTER_DEL] = {
		.call		= vcs_nl_cluster_del,
		.required	= BIT_ULL(VCS_A_HANDLE),
		.cluster	= true,
	},
	[VCS_CMD_CLUSTER_GET] = {
		.call		= vcs_nl_cluster_get,
		.required	= BIT_ULL(VCS_A_HANDLE),
		.cluster	= true,
		.answers	= true,
		.open		= true,
	},
	[VCS_CMD_PROVIDER_ATTACH] = {
		.call		= vcs_nl_provider_attach,
		.required	= BIT_ULL(VCS_A_HANDLE),
		.cluster	= true,
		.answers	= true,
	},
	[VCS_CMD_PROVIDER_DETACH] = {
		.call		= vcs_nl_provider_detach,
		.required	= BIT_ULL(VCS_A_HANDLE),
		.cluster	= true,
	},
	[VCS_CMD_LEASE_RENEW] = {
		.call		= vcs_nl_lease_renew,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_VALID_FROM_NS),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
		.locked		= true,
	},
	[VCS_CMD_VIEW_SET] = {
		.call		= vcs_nl_view_set,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_RING_SEQ) |
				  BIT_ULL(VCS_A_RING_REP),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
		.answers	= true,
	},
	[VCS_CMD_GROUP_STOP] = {
		.call		= vcs_nl_group_stop,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP) |
				  BIT_ULL(VCS_A_EVENT),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
	},
	[VCS_CMD_GROUP_START] = {
		.call		= vcs_nl_group_start,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP) |
				  BIT_ULL(VCS_A_EVENT),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
	},
	[VCS_CMD_GROUP_FINISH] = {
		.call		= vcs_nl_group_finish,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP) |
				  BIT_ULL(VCS_A_EVENT),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
	},
	[VCS_CMD_GROUP_LEFT] = {
		.call		= vcs_nl_group_left,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
		.locked		= true,
	},
	[VCS_CMD_FENCED] = {
		.call		= vcs_nl_fenced,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_NODEID) |
				  BIT_ULL(VCS_A_INCARNATION),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
		.locked		= true,
	},
	[VCS_CMD_GROUP_JOIN] = {
		.call		= vcs_nl_group_join,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_GROUP),
		.cluster	= true,
		.answers	= true,
	},
	[VCS_CMD_GROUP_ACK] = {
		.call		= vcs_nl_group_ack,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP) |
				  BIT_ULL(VCS_A_EVENT) |
				  BIT_ULL(VCS_A_PHASE),
		.cluster	= true,
		.who		= VCS_NL_HOLDER,
		.locked		= true,
	},
	[VCS_CMD_GROUP_LEAVE] = {
		.call		= vcs_nl_group_leave,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_GROUP),
		.cluster	= true,
		.who		= VCS_NL_HOLDER,
		.locked		= true,
	},
	[VCS_CMD_CLAIM] = {
		.call		= vcs_nl_claim,
		.required	= BIT_ULL(VCS_A_CLAIM),
		.answers	= true,
	},
	[VCS_CMD_LEASE_FREEZE] = {
		.call		= vcs_nl_lease_freeze,
		.required	= BIT_ULL(VCS_A_HANDLE) |
				  BIT_ULL(VCS_A_SESSION) |
				  BIT_ULL(VCS_A_FREEZE_UNTIL_NS),
		.cluster	= true,
		.who		= VCS_NL_SEAT,
		.locked		= true,
	},
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

static const struct nla_policy vcs_provider_attach_nl_policy[VCS_A_CONFIG + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_PROVIDER] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_LEASE_MS] = { .type = NLA_U32, },
	[VCS_A_GRACE_MS] = { .type = NLA_U32, },
	[VCS_A_CONFIG] = { .type = NLA_NESTED, },
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

static const struct nla_policy vcs_lease_freeze_nl_policy[VCS_A_FREEZE_UNTIL_NS + 1] = {
	[VCS_A_HANDLE] = { .type = NLA_NUL_STRING, .len = 64, },
	[VCS_A_SESSION] = NLA_POLICY_MIN(NLA_U64, 1),
	[VCS_A_FREEZE_UNTIL_NS] = { .type = NLA_U64, },
};

const struct genl_ops vcs_nl_ops[20] = {
	{
		.cmd		= VCS_CMD_INFO_GET,
		.doit		= vcs_nl_doit,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_ADD,
		.doit		= vcs_nl_doit,
		.policy		= vcs_cluster_add_nl_policy,
		.maxattr	= VCS_A_NODEID,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_DEL,
		.doit		= vcs_nl_doit,
		.policy		= vcs_cluster_del_nl_policy,
		.maxattr	= VCS_A_HANDLE,
	},
	{
		.cmd		= VCS_CMD_CLUSTER_GET,
		.doit		= vcs_nl_doit,
		.dumpit		= vcs_nl_cluster_get_dumpit,
		.policy		= vcs_cluster_get_nl_policy,
		.maxattr	= VCS_A_HANDLE,
	},
	{
		.cmd		= VCS_CMD_PROVIDER_ATTACH,
		.doit		= vcs_nl_doit,
		.policy		= vcs_provider_attach_nl_policy,
		.maxattr	= VCS_A_CONFIG,
	},
	{
		.cmd		= VCS_CMD_PROVIDER_DETACH,
		.doit		= vcs_nl_doit,
		.policy		= vcs_provider_detach_nl_policy,
		.maxattr	= VCS_A_SESSION,
	},
	{
		.cmd		= VCS_CMD_LEASE_RENEW,
		.doit		= vcs_nl_doit,
		.policy		= vcs_lease_renew_nl_policy,
		.maxattr	= VCS_A_VALID_FROM_NS,
	},
	{
		.cmd		= VCS_CMD_VIEW_SET,
		.doit		= vcs_nl_doit,
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
		.dumpit		= vcs_nl_group_get_dumpit,
		.start		= vcs_nl_group_get_start,
		.done		= vcs_nl_group_get_done,
		.policy		= vcs_group_get_nl_policy,
		.maxattr	= VCS_A_GROUP,
	},
	{
		.cmd		= VCS_CMD_GROUP_STOP,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_stop_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_START,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_start_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_FINISH,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_finish_nl_policy,
		.maxattr	= VCS_A_EVENT,
	},
	{
		.cmd		= VCS_CMD_GROUP_LEFT,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_left_nl_policy,
		.maxattr	= VCS_A_ERROR,
	},
	{
		.cmd		= VCS_CMD_FENCED,
		.doit		= vcs_nl_doit,
		.policy		= vcs_fenced_nl_policy,
		.maxattr	= VCS_A_ERROR,
	},
	{
		.cmd		= VCS_CMD_GROUP_JOIN,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_join_nl_policy,
		.maxattr	= VCS_A_OWNER,
	},
	{
		.cmd		= VCS_CMD_GROUP_ACK,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_ack_nl_policy,
		.maxattr	= VCS_A_PHASE,
	},
	{
		.cmd		= VCS_CMD_GROUP_LEAVE,
		.doit		= vcs_nl_doit,
		.policy		= vcs_group_leave_nl_policy,
		.maxattr	= VCS_A_GROUP,
	},
	{
		.cmd		= VCS_CMD_CLAIM,
		.doit		= vcs_nl_doit,
		.policy		= vcs_claim_nl_policy,
		.maxattr	= VCS_A_CLAIM_DATA,
	},
	{
		.cmd		= VCS_CMD_LEASE_FREEZE,
		.doit		= vcs_nl_doit,
		.policy		= vcs_lease_freeze_nl_policy,
		.maxattr	= VCS_A_FREEZE_UNTIL_NS,
	},
};
