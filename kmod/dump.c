// SPDX-License-Identifier: GPL-2.0
/*
 * The netlink commands that read; open to everybody. Members are repeated
 * top-level attributes, and lists of them go on over the messages of a dump.
 */
#include "internal.h"

int vcs_nl_info_get(struct vcs_from *from)
{
	return nla_put_u32(from->reply, VCS_A_API_VERSION, VCS_API_VERSION) ?:
	       vcs_put_u64(from->reply, VCS_A_CAPABILITIES,
			   VCS_CAP_GROUPS | VCS_CAP_FENCE | VCS_CAP_LEASE |
			   (vcs_dry_run ? 0 : VCS_CAP_RESET)) ?:
	       vcs_put_u64(from->reply, VCS_A_INCARNATION, vcs_incarnation);
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

/* The cluster that a dump is of, with a reference. */
static struct vcs_cluster *dump_cluster(struct netlink_callback *cb)
{
	struct nlattr *handle = vcs_dump_attrs(cb)[VCS_A_HANDLE];
	struct vcs_cluster *c;

	if (!handle) {
		NL_SET_ERR_ATTR_MISS(cb->extack, NULL, VCS_A_HANDLE);
		return ERR_PTR(-EINVAL);
	}
	c = vcs_cluster_find(nla_data(handle));
	if (c)
		return c;
	NL_SET_ERR_MSG_ATTR(cb->extack, handle, "no such cluster");
	return ERR_PTR(-ENOENT);
}

/* --- clusters ----------------------------------------------------------------------- */

static int put_cluster(struct sk_buff *skb, struct vcs_cluster *c)
{
	u64 now = ktime_get_boottime_ns();

	guard(vcs_cluster)(c);
	return nla_put_string(skb, VCS_A_HANDLE, c->handle) ?:
	       nla_put_string(skb, VCS_A_NAME, c->name) ?:
	       nla_put_u32(skb, VCS_A_NODEID, c->nodeid) ?:
	       (*c->provider ? nla_put_string(skb, VCS_A_PROVIDER, c->provider) : 0) ?:
	       nla_put_u32(skb, VCS_A_PROVIDER_STATE, c->state) ?:
	       vcs_put_u64(skb, VCS_A_CHANGE_SEQ, c->change_seq) ?:
	       vcs_put_u64(skb, VCS_A_HIGHEST_EVENT, c->highest_event) ?:
	       vcs_put_u64(skb, VCS_A_GENERATION, vcs_view_locked(c)->generation) ?:
	       nla_put_u32(skb, VCS_A_LEASE_MS, div_u64(c->lease.lease_ns, NSEC_PER_MSEC)) ?:
	       nla_put_u32(skb, VCS_A_LEASE_REMAINING_MS, vcs_lease_remaining_ms(c, now)) ?:
	       nla_put_u32(skb, VCS_A_LEASE_STATE, vcs_lease_next(&c->lease, now)) ?:
	       nla_put_u32(skb, VCS_A_GRACE_MS, div_u64(c->lease.grace_ns, NSEC_PER_MSEC)) ?:
	       vcs_put_u64(skb, VCS_A_STALE_ACKS, c->stale);
}

int vcs_nl_cluster_get(struct vcs_from *from)
{
	return put_cluster(from->reply, from->c);
}

/* args[0]: clusters done */
int vcs_nl_cluster_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct vcs_cluster *c;
	long n = 0;
	void *hdr;

	guard(mutex)(&vcs_lock);
	cb->seq = vcs_clusters_seq;
	list_for_each_entry(c, &vcs_clusters, node) {
		if (READ_ONCE(c->dead) || n++ < cb->args[0])
			continue;
		hdr = dump_put(skb, cb, VCS_CMD_CLUSTER_GET);
		if (!hdr || put_cluster(skb, c)) {
			genlmsg_cancel(skb, hdr);
			return dump_end(skb, true);
		}
		genlmsg_end(skb, hdr);
		cb->args[0]++;
	}
	return dump_end(skb, false);
}

/* --- the view ------------------------------------------------------------------------ */

/* args[0]: the view, pinned; args[1]: members done; args[2]: a message was put */
int vcs_nl_view_get_start(struct netlink_callback *cb)
{
	struct vcs_cluster *c = dump_cluster(cb);

	if (IS_ERR(c))
		return PTR_ERR(c);
	cb->args[0] = (long)vcs_view_get(c);
	kobject_put(&c->kobj);
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
	    vcs_put_u64(skb, VCS_A_GENERATION, v->generation) ||
	    vcs_put_u64(skb, VCS_A_RING_SEQ, v->ring_seq) ||
	    nla_put_u32(skb, VCS_A_RING_REP, v->ring_rep) ||
	    nla_put_u32(skb, VCS_A_VIEW_FLAGS, v->flags) ||
	    nla_put_u32(skb, VCS_A_NR_MEMBERS, v->nr))
		return -EMSGSIZE;
	while (cb->args[1] < v->nr && !vcs_member_put(skb, VCS_A_MEMBER, &v->member[cb->args[1]]))
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

static int put_group(struct sk_buff *skb, const struct vcs_group *g)
{
	u64 now = ktime_get_boottime_ns();
	u64 orphan = g->orphan_ns ? max(div_u64(now - g->orphan_ns, NSEC_PER_MSEC), 1ULL) : 0;

	return nla_put_string(skb, VCS_A_HANDLE, g->c->handle) ?:
	       nla_put_string(skb, VCS_A_GROUP, g->name) ?:
	       nla_put_u32(skb, VCS_A_LEVEL, g->level) ?:
	       nla_put_u32(skb, VCS_A_GROUP_FLAGS, g->flags) ?:
	       nla_put_u32(skb, VCS_A_GROUP_STATE, g->state) ?:
	       vcs_put_u64(skb, VCS_A_EVENT, g->event_id) ?:
	       nla_put_u32(skb, VCS_A_PHASE, g->phase) ?:
	       vcs_put_u64(skb, VCS_A_ACKED_EVENT, g->acked_event) ?:
	       nla_put_u32(skb, VCS_A_ACKED_PHASE, g->acked_phase) ?:
	       vcs_put_u64(skb, VCS_A_FINISHED_EVENT, g->finished ? g->finished->id : 0) ?:
	       vcs_put_u64(skb, VCS_A_GENERATION, g->event ? g->event->view_generation : 0) ?:
	       nla_put_string(skb, VCS_A_OWNER, g->owner) ?:
	       nla_put_u32(skb, VCS_A_OWNER_EPOCH, g->epoch) ?:
	       vcs_put_u64(skb, VCS_A_ORPHAN_SINCE_MS, orphan) ?:
	       vcs_put_u64(skb, VCS_A_AGE_MS, div_u64(now - g->phase_ns, NSEC_PER_MSEC)) ?:
	       nla_put_u32(skb, VCS_A_NR_MEMBERS, nr_of(g->event)) ?:
	       nla_put_u32(skb, VCS_A_NR_FINISHED_MEMBERS, nr_of(g->finished)) ?:
	       vcs_put_u64(skb, VCS_A_STARTED_EVENT, g->ran ? g->ran->id : 0) ?:
	       nla_put_u32(skb, VCS_A_NR_STARTED_MEMBERS, nr_of(g->ran));
}

/* The @pos-th member, those of all three events counted through. */
static int put_nth_member(struct sk_buff *skb, const struct vcs_group *g, u32 pos)
{
	if (pos < nr_of(g->event))
		return vcs_member_put(skb, VCS_A_MEMBER, &g->event->member[pos]);
	pos -= nr_of(g->event);
	if (pos < nr_of(g->finished))
		return vcs_member_put(skb, VCS_A_FINISHED_MEMBER, &g->finished->member[pos]);
	pos -= nr_of(g->finished);
	return vcs_member_put(skb, VCS_A_STARTED_MEMBER, &g->ran->member[pos]);
}

/* args[0]: the cluster; args[1]: groups done; args[2]: members done of the next */
int vcs_nl_group_get_start(struct netlink_callback *cb)
{
	struct nlattr *name = vcs_dump_attrs(cb)[VCS_A_GROUP];
	struct vcs_cluster *c = dump_cluster(cb);

	if (IS_ERR(c))
		return PTR_ERR(c);
	scoped_guard(vcs_cluster, c)
		if (!name || vcs_group_find(c, nla_data(name))) {
			cb->args[0] = (long)c;
			return 0;
		}
	kobject_put(&c->kobj);
	NL_SET_ERR_MSG_ATTR(cb->extack, name, "no such group");
	return -ENOENT;
}

int vcs_nl_group_get_done(struct netlink_callback *cb)
{
	kobject_put(&((struct vcs_cluster *)cb->args[0])->kobj);
	return 0;
}

/* One message of @g; true when the group is complete with it. */
static bool dump_group(struct sk_buff *skb, struct netlink_callback *cb, const struct vcs_group *g)
{
	void *hdr = dump_put(skb, cb, VCS_CMD_GROUP_GET);
	u32 all = nr_of(g->event) + nr_of(g->finished) + nr_of(g->ran);
	u32 first = cb->args[2], pos = first;

	if (!hdr || put_group(skb, g))
		goto err_cancel;
	while (pos < all && !put_nth_member(skb, g, pos))
		pos++;
	if (pos == first && first < all)
		goto err_cancel;
	cb->args[2] = pos;
	genlmsg_end(skb, hdr);
	return pos >= all;

err_cancel:
	genlmsg_cancel(skb, hdr);
	return false;
}

int vcs_nl_group_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct vcs_cluster *c = (struct vcs_cluster *)cb->args[0];
	struct nlattr *name = vcs_dump_attrs(cb)[VCS_A_GROUP];
	struct vcs_group *g;
	long n = 0;

	guard(vcs_cluster)(c);
	/* A change between two parts makes NLM_F_DUMP_INTR: read again. */
	cb->seq = (unsigned int)c->change_seq + 1;
	list_for_each_entry(g, &c->groups, node) {
		if (n++ < cb->args[1])
			continue;
		if (!name || !strcmp(g->name, nla_data(name))) {
			if (!dump_group(skb, cb, g))
				return dump_end(skb, true);
			cb->args[2] = 0;
		}
		cb->args[1]++;
	}
	return dump_end(skb, false);
}
