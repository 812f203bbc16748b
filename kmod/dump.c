// SPDX-License-Identifier: GPL-2.0
/*
 * The netlink commands that read; open to everybody. Members are repeated
 * top-level attributes, and lists of them go on over the messages of a dump.
 */
#include "internal.h"

/* Room for one member, and for a message without its members. */
#define MEMBER_SIZE	64
#define HEAD_SIZE	1024

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, VCS_A_PAD);
}

static int put_member(struct sk_buff *skb, int attr, const struct vcs_member *m)
{
	struct nlattr *nest = nla_nest_start(skb, attr);

	if (!nest)
		return -EMSGSIZE;
	if (nla_put_u32(skb, VCS_MEMBER_A_NODEID, m->nodeid) ||
	    nla_put_u32(skb, VCS_MEMBER_A_VOTES, m->votes) ||
	    nla_put_u64_64bit(skb, VCS_MEMBER_A_INCARNATION, m->incarnation, VCS_MEMBER_A_PAD) ||
	    nla_put_u64_64bit(skb, VCS_MEMBER_A_JOIN_ID, m->join_id, VCS_MEMBER_A_PAD)) {
		nla_nest_cancel(skb, nest);
		return -EMSGSIZE;
	}
	nla_nest_end(skb, nest);
	return 0;
}

static int reply(struct genl_info *info, struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
	return genlmsg_reply(skb, info);
}

int vcs_nl_info_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *msg = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *hdr;

	if (!msg)
		return -ENOMEM;
	hdr = genlmsg_put_reply(msg, info, &vcs_genl_family, 0, VCS_CMD_INFO_GET);
	if (!hdr || nla_put_u32(msg, VCS_A_API_VERSION, VCS_API_VERSION) ||
	    put_u64(msg, VCS_A_CAPABILITIES, VCS_CAP_GROUPS | VCS_CAP_FENCE | VCS_CAP_LEASE) ||
	    put_u64(msg, VCS_A_INCARNATION, vcs_incarnation)) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	return reply(info, msg, hdr);
}

/* --- clusters ----------------------------------------------------------------------- */

static int put_cluster(struct sk_buff *skb, struct vcs_cluster *c)
{
	u64 now = ktime_get_boottime_ns();
	u64 remaining = 0;
	int err;

	spin_lock_bh(&c->lock);
	if (c->state == VCS_PROVIDER_ATTACHED)
		remaining = vcs_lease_remaining_ms(&c->lease, now);
	err = nla_put_string(skb, VCS_A_HANDLE, c->handle) ||
	      nla_put_string(skb, VCS_A_NAME, c->name) ||
	      nla_put_u32(skb, VCS_A_NODEID, c->nodeid) ||
	      (c->provider[0] && nla_put_string(skb, VCS_A_PROVIDER, c->provider)) ||
	      nla_put_u32(skb, VCS_A_PROVIDER_STATE, c->state) ||
	      put_u64(skb, VCS_A_CHANGE_SEQ, c->change_seq) ||
	      put_u64(skb, VCS_A_HIGHEST_EVENT, c->highest_event) ||
	      put_u64(skb, VCS_A_GENERATION, vcs_view_locked(c)->generation) ||
	      nla_put_u32(skb, VCS_A_LEASE_MS, div_u64(c->lease.lease_ns, NSEC_PER_MSEC)) ||
	      nla_put_u32(skb, VCS_A_LEASE_REMAINING_MS, remaining) ||
	      nla_put_u32(skb, VCS_A_LEASE_STATE, vcs_lease_next(&c->lease, now)) ||
	      put_u64(skb, VCS_A_STALE_ACKS, c->stale);
	spin_unlock_bh(&c->lock);
	return err ? -EMSGSIZE : 0;
}

static struct vcs_cluster *named_cluster(struct nlattr *handle, struct netlink_ext_ack *extack)
{
	struct vcs_cluster *c;

	if (!handle) {
		NL_SET_ERR_ATTR_MISS(extack, NULL, VCS_A_HANDLE);
		return ERR_PTR(-EINVAL);
	}
	c = vcs_cluster_find(nla_data(handle));
	if (c)
		return c;
	NL_SET_ERR_MSG_ATTR(extack, handle, "no such cluster");
	return ERR_PTR(-ENOENT);
}

int vcs_nl_cluster_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_cluster *c = named_cluster(info->attrs[VCS_A_HANDLE], info->extack);
	struct sk_buff *msg;
	void *hdr;
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	msg = genlmsg_new(HEAD_SIZE, GFP_KERNEL);
	hdr = msg ? genlmsg_put_reply(msg, info, &vcs_genl_family, 0, VCS_CMD_CLUSTER_GET) : NULL;
	err = hdr ? put_cluster(msg, c) : -ENOMEM;
	vcs_cluster_unref(c);
	if (!err)
		return reply(info, msg, hdr);
	nlmsg_free(msg);
	return err;
}

static void *dump_put(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd)
{
	void *hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				&vcs_genl_family, NLM_F_MULTI, cmd);

	if (hdr)
		genl_dump_check_consistent(cb, hdr);
	return hdr;
}

/* What a dump function answers when it could, or could not, put all it wanted. */
static int dump_end(struct sk_buff *skb, bool full)
{
	return full && !skb->len ? -EMSGSIZE : skb->len;
}

/* args[0]: clusters done */
int vcs_nl_cluster_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct vcs_cluster *c;
	bool full = false;
	void *hdr;

	mutex_lock(&vcs_lock);
	cb->seq = vcs_clusters_seq;
	while (!full && (c = vcs_cluster_nth(cb->args[0]))) {
		hdr = dump_put(skb, cb, VCS_CMD_CLUSTER_GET);
		full = !hdr || put_cluster(skb, c);
		if (!full) {
			genlmsg_end(skb, hdr);
			cb->args[0]++;
		} else if (hdr) {
			genlmsg_cancel(skb, hdr);
		}
		vcs_cluster_unref(c);
	}
	mutex_unlock(&vcs_lock);
	return dump_end(skb, full);
}

/* --- the view ------------------------------------------------------------------------ */

/* args[0]: the view, pinned; args[1]: members done; args[2]: a message was put */
int vcs_nl_view_get_start(struct netlink_callback *cb)
{
	struct vcs_cluster *c = named_cluster(vcs_dump_attrs(cb)[VCS_A_HANDLE], cb->extack);

	if (IS_ERR(c))
		return PTR_ERR(c);
	cb->args[0] = (long)vcs_view_get(c);
	vcs_cluster_unref(c);
	return 0;
}

int vcs_nl_view_get_done(struct netlink_callback *cb)
{
	vcs_view_put((struct vcs_view *)cb->args[0]);
	return 0;
}

int vcs_nl_view_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	const struct vcs_view *v = (struct vcs_view *)cb->args[0];
	struct nlattr *handle = vcs_dump_attrs(cb)[VCS_A_HANDLE];
	long first = cb->args[1];
	void *hdr;

	if (cb->args[2] && first == v->nr)
		return 0;
	hdr = dump_put(skb, cb, VCS_CMD_VIEW_GET);
	if (!hdr || nla_put_string(skb, VCS_A_HANDLE, nla_data(handle)) ||
	    put_u64(skb, VCS_A_GENERATION, v->generation) ||
	    put_u64(skb, VCS_A_RING_SEQ, v->ring_seq) ||
	    nla_put_u32(skb, VCS_A_RING_REP, v->ring_rep) ||
	    nla_put_u32(skb, VCS_A_VIEW_FLAGS, v->flags) ||
	    nla_put_u32(skb, VCS_A_NR_MEMBERS, v->nr))
		return -EMSGSIZE;
	while (cb->args[1] < v->nr && !put_member(skb, VCS_A_MEMBER, &v->member[cb->args[1]]))
		cb->args[1]++;
	if (v->nr && cb->args[1] == first)
		return -EMSGSIZE;
	cb->args[2] = 1;
	genlmsg_end(skb, hdr);
	return skb->len;
}

/* --- groups ---------------------------------------------------------------------------- */

static u32 nr_of(const struct vcs_event *e)
{
	return e ? e->nr : 0;
}

static u32 nr_both(const struct vcs_group *g)
{
	return nr_of(g->event) + nr_of(g->finished);
}

static int put_group(struct sk_buff *skb, struct vcs_group *g)
{
	u64 now = ktime_get_boottime_ns();
	u64 orphan = g->orphan_ns ? max(div_u64(now - g->orphan_ns, NSEC_PER_MSEC), 1ULL) : 0;

	if (nla_put_string(skb, VCS_A_HANDLE, g->c->handle) ||
	    nla_put_string(skb, VCS_A_GROUP, g->name) ||
	    nla_put_u32(skb, VCS_A_LEVEL, g->level) ||
	    nla_put_u32(skb, VCS_A_GROUP_FLAGS, g->flags) ||
	    nla_put_u32(skb, VCS_A_GROUP_STATE, g->state) ||
	    put_u64(skb, VCS_A_EVENT, g->event_id) ||
	    nla_put_u32(skb, VCS_A_PHASE, g->phase) ||
	    put_u64(skb, VCS_A_ACKED_EVENT, g->acked_event) ||
	    nla_put_u32(skb, VCS_A_ACKED_PHASE, g->acked_phase) ||
	    put_u64(skb, VCS_A_FINISHED_EVENT, g->finished ? g->finished->id : 0) ||
	    put_u64(skb, VCS_A_GENERATION, g->event ? g->event->view_generation : 0) ||
	    nla_put_string(skb, VCS_A_OWNER, g->owner) ||
	    nla_put_u32(skb, VCS_A_OWNER_EPOCH, g->epoch) ||
	    put_u64(skb, VCS_A_ORPHAN_SINCE_MS, orphan) ||
	    put_u64(skb, VCS_A_AGE_MS, div_u64(now - g->phase_ns, NSEC_PER_MSEC)) ||
	    nla_put_u32(skb, VCS_A_NR_MEMBERS, nr_of(g->event)) ||
	    nla_put_u32(skb, VCS_A_NR_FINISHED_MEMBERS, nr_of(g->finished)))
		return -EMSGSIZE;
	return 0;
}

/* Members from the @pos-th on, those of both events counted through; how far it got. */
static u32 put_members(struct sk_buff *skb, const struct vcs_group *g, u32 pos)
{
	u32 current_nr = nr_of(g->event), all = nr_both(g);
	int err = 0;

	while (pos < all) {
		if (pos < current_nr)
			err = put_member(skb, VCS_A_MEMBER, &g->event->member[pos]);
		else
			err = put_member(skb, VCS_A_FINISHED_MEMBER,
					 &g->finished->member[pos - current_nr]);
		if (err)
			break;
		pos++;
	}
	return pos;
}

int vcs_nl_group_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_cluster *c = named_cluster(info->attrs[VCS_A_HANDLE], info->extack);
	struct nlattr *name = info->attrs[VCS_A_GROUP];
	struct sk_buff *msg = NULL;
	struct vcs_group *g;
	u32 room = 16;
	void *hdr;
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	err = -EINVAL;
	if (GENL_REQ_ATTR_CHECK(info, VCS_A_GROUP))
		goto out;
	/* Rooms first: it may not fit, since the group changes until the lock is held. */
	for (;;) {
		err = -ENOMEM;
		msg = genlmsg_new(HEAD_SIZE + room * MEMBER_SIZE, GFP_KERNEL);
		hdr = msg ? genlmsg_put_reply(msg, info, &vcs_genl_family, 0,
					      VCS_CMD_GROUP_GET) : NULL;
		if (!hdr)
			goto out;
		spin_lock_bh(&c->lock);
		g = vcs_group_find(c, nla_data(name));
		if (!g) {
			spin_unlock_bh(&c->lock);
			NL_SET_ERR_MSG_ATTR(info->extack, name, "no such group");
			err = -ENOENT;
			goto out;
		}
		room = nr_both(g);
		err = put_group(msg, g);
		if (!err && put_members(msg, g, 0) == room) {
			spin_unlock_bh(&c->lock);
			vcs_cluster_unref(c);
			return reply(info, msg, hdr);
		}
		spin_unlock_bh(&c->lock);
		nlmsg_free(msg);
		msg = NULL;
		if (err)
			goto out;
	}
out:
	nlmsg_free(msg);
	vcs_cluster_unref(c);
	return err;
}

/* args[0]: the cluster; args[1]: groups done; args[2]: members done of the next */
int vcs_nl_group_get_start(struct netlink_callback *cb)
{
	struct vcs_cluster *c = named_cluster(vcs_dump_attrs(cb)[VCS_A_HANDLE], cb->extack);
	struct nlattr *name = vcs_dump_attrs(cb)[VCS_A_GROUP];
	bool there;

	if (IS_ERR(c))
		return PTR_ERR(c);
	spin_lock_bh(&c->lock);
	there = !name || vcs_group_find(c, nla_data(name));
	spin_unlock_bh(&c->lock);
	if (!there) {
		vcs_cluster_unref(c);
		NL_SET_ERR_MSG_ATTR(cb->extack, name, "no such group");
		return -ENOENT;
	}
	cb->args[0] = (long)c;
	return 0;
}

int vcs_nl_group_get_done(struct netlink_callback *cb)
{
	vcs_cluster_unref((struct vcs_cluster *)cb->args[0]);
	return 0;
}

/* One message of @g; true when the group is complete with it. */
static bool dump_group(struct sk_buff *skb, struct netlink_callback *cb, struct vcs_group *g)
{
	void *hdr = dump_put(skb, cb, VCS_CMD_GROUP_GET);
	u32 first = cb->args[2];

	if (!hdr)
		return false;
	if (put_group(skb, g))
		goto err_cancel;
	cb->args[2] = put_members(skb, g, first);
	if (cb->args[2] == first && first < nr_both(g))
		goto err_cancel;
	genlmsg_end(skb, hdr);
	return cb->args[2] >= nr_both(g);

err_cancel:
	genlmsg_cancel(skb, hdr);
	return false;
}

int vcs_nl_group_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct vcs_cluster *c = (struct vcs_cluster *)cb->args[0];
	struct nlattr *name = vcs_dump_attrs(cb)[VCS_A_GROUP];
	struct vcs_group *g;
	bool full = false;
	long n = 0;

	spin_lock_bh(&c->lock);
	/* A change between two parts makes NLM_F_DUMP_INTR: read again. */
	cb->seq = (unsigned int)c->change_seq + 1;
	list_for_each_entry(g, &c->groups, node) {
		if (n++ < cb->args[1])
			continue;
		if (!name || !strcmp(g->name, nla_data(name))) {
			full = !dump_group(skb, cb, g);
			if (full)
				break;
			cb->args[2] = 0;
		}
		cb->args[1]++;
	}
	spin_unlock_bh(&c->lock);
	return dump_end(skb, full);
}
