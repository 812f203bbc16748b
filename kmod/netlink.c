// SPDX-License-Identifier: GPL-2.0
/*
 * The netlink family: who may command, hints, and the commands that change
 * something. Those that read are in dump.c. No command waits for anybody.
 */
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/sort.h>

#include "internal.h"
#include "trace.h"

static bool registered;

int __vcs_refuse(const struct vcs_from *from, int attr, int err, const char *msg)
{
	trace_vcs_refuse(from ? from->info->genlhdr->cmd : 0, err, msg);
	if (from && from->info->extack) {
		from->info->extack->_msg = msg;
		if (attr)
			NL_SET_BAD_ATTR(from->info->extack, from->info->attrs[attr]);
	}
	return err;
}

/* --- hints -------------------------------------------------------------------------- */

static struct sk_buff *hint_new(u8 cmd, void **hdr, struct vcs_cluster *c)
{
	struct sk_buff *skb;

	if (!registered || !genl_has_listeners(&vcs_genl_family, &init_net, VCS_NLGRP_HINTS))
		return NULL;
	skb = genlmsg_new(256, GFP_ATOMIC);
	if (!skb)
		goto err_lost;
	*hdr = genlmsg_put(skb, 0, 0, &vcs_genl_family, 0, cmd);
	if (*hdr && !nla_put_string(skb, VCS_A_HANDLE, c->handle))
		return skb;
	nlmsg_free(skb);
err_lost:
	/* Listeners are told that they lost something, and read again. */
	genl_set_err(&vcs_genl_family, &init_net, 0, VCS_NLGRP_HINTS, -ENOBUFS);
	WRITE_ONCE(c->dropped_hints, c->dropped_hints + 1);
	trace_vcs_hint_lost(c);
	return NULL;
}

static void hint_send(struct sk_buff *skb, void *hdr, struct vcs_cluster *c)
{
	genlmsg_end(skb, hdr);
	if (genlmsg_multicast(&vcs_genl_family, skb, 0, VCS_NLGRP_HINTS, GFP_ATOMIC) == -ENOBUFS) {
		WRITE_ONCE(c->dropped_hints, c->dropped_hints + 1);
		trace_vcs_hint_lost(c);
	}
}

static void changed(struct vcs_cluster *c)
{
	lockdep_assert_held(&c->lock);
	WRITE_ONCE(c->change_seq, c->change_seq + 1);
}

void vcs_hint_cluster(struct vcs_cluster *c)
{
	void *hdr;
	struct sk_buff *skb = hint_new(VCS_CMD_CLUSTER_HINT, &hdr, c);

	if (skb)
		hint_send(skb, hdr, c);
}

void vcs_hint_view(struct vcs_cluster *c, u64 generation)
{
	struct sk_buff *skb;
	void *hdr;

	changed(c);
	skb = hint_new(VCS_CMD_VIEW_HINT, &hdr, c);
	if (!skb)
		return;
	nla_put_u64_64bit(skb, VCS_A_GENERATION, generation, VCS_A_PAD);
	hint_send(skb, hdr, c);
}

void vcs_hint_group(struct vcs_group *g)
{
	struct vcs_cluster *c = g->c;
	struct sk_buff *skb;
	void *hdr;

	changed(c);
	skb = hint_new(VCS_CMD_GROUP_HINT, &hdr, c);
	if (!skb)
		return;
	nla_put_string(skb, VCS_A_GROUP, g->name);
	nla_put_u64_64bit(skb, VCS_A_GENERATION, vcs_view_locked(c)->generation, VCS_A_PAD);
	nla_put_u64_64bit(skb, VCS_A_EVENT, g->event_id, VCS_A_PAD);
	nla_put_u32(skb, VCS_A_PHASE, g->phase);
	hint_send(skb, hdr, c);
}

void vcs_hint_provider(struct vcs_cluster *c)
{
	struct sk_buff *skb;
	void *hdr;

	changed(c);
	skb = hint_new(VCS_CMD_PROVIDER_HINT, &hdr, c);
	if (!skb)
		return;
	nla_put_u32(skb, VCS_A_PROVIDER_STATE, c->state);
	hint_send(skb, hdr, c);
}

/* --- the parts of a request --------------------------------------------------------- */

static bool missing(const struct vcs_from *from, int attr)
{
	if (!GENL_REQ_ATTR_CHECK(from->info, attr))
		return false;
	vcs_refuse(from, 0, -EINVAL, "an attribute is missing");
	return true;
}

/*
 * Who commands, and may they? The opener of the socket must have the right, too,
 * so that a privileged program cannot be made to write to it.
 */
static int from_init(struct vcs_from *from, struct sk_buff *skb, struct genl_info *info)
{
	*from = (struct vcs_from) { .info = info, .sk = NETLINK_CB(skb).sk };
	if (!from->sk || !netlink_capable(skb, CAP_SYS_ADMIN))
		return vcs_refuse(from, 0, -EPERM,
				  "CAP_SYS_ADMIN in the initial user namespace is needed");
	return 0;
}

/* The cluster that is named, with a reference; an ERR_PTR when refused. */
static struct vcs_cluster *from_cluster(struct vcs_from *from, struct sk_buff *skb,
					struct genl_info *info)
{
	struct vcs_cluster *c;
	int err = from_init(from, skb, info);

	if (err)
		return ERR_PTR(err);
	if (missing(from, VCS_A_HANDLE))
		return ERR_PTR(-EINVAL);
	c = vcs_cluster_find(nla_data(info->attrs[VCS_A_HANDLE]));
	if (!c)
		return ERR_PTR(vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster"));
	return c;
}

/* As from_cluster(), with the session. */
static struct vcs_cluster *from_session(struct vcs_from *from, struct sk_buff *skb,
					struct genl_info *info)
{
	struct vcs_cluster *c = from_cluster(from, skb, info);

	if (IS_ERR(c))
		return c;
	if (missing(from, VCS_A_SESSION)) {
		vcs_cluster_unref(c);
		return ERR_PTR(-EINVAL);
	}
	from->session = nla_get_u64(info->attrs[VCS_A_SESSION]);
	return c;
}

/* Under c->lock. */
static struct vcs_group *from_group(const struct vcs_from *from, struct vcs_cluster *c)
{
	struct vcs_group *g = vcs_group_find(c, nla_data(from->info->attrs[VCS_A_GROUP]));

	if (!g)
		vcs_refuse(from, VCS_A_GROUP, -ENOENT, "no such group");
	return g;
}

#define for_each_member_attr(a, info, rem)						\
	nla_for_each_attr(a, genlmsg_data((info)->genlhdr),			\
			  genlmsg_len((info)->genlhdr), rem)			\
		if (nla_type(a) == VCS_A_MEMBER)

/* How many; -EINVAL when there are too many. */
static int members_count(const struct vcs_from *from)
{
	struct nlattr *a;
	int rem, n = 0;

	for_each_member_attr(a, from->info, rem)
		n++;
	if (n > VCS_MEMBERS_MAX)
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL, "too many members");
	return n;
}

static int by_nodeid(const void *a, const void *b)
{
	u32 x = ((const struct vcs_member *)a)->nodeid;
	u32 y = ((const struct vcs_member *)b)->nodeid;

	return x < y ? -1 : x > y;
}

/* Into @m, which has room for members_count(); sorted. */
static int members_parse(const struct vcs_from *from, struct vcs_member *m)
{
	struct nlattr *tb[VCS_MEMBER_A_MAX + 1], *a;
	int rem, err, n = 0;

	for_each_member_attr(a, from->info, rem) {
		err = nla_parse_nested(tb, VCS_MEMBER_A_MAX, a, vcs_member_nl_policy,
				       from->info->extack);
		if (err)
			return err;
		if (!tb[VCS_MEMBER_A_NODEID] || !tb[VCS_MEMBER_A_INCARNATION])
			return vcs_refuse(from, VCS_A_MEMBER, -EINVAL,
					  "a member without nodeid or incarnation");
		m[n].nodeid = nla_get_u32(tb[VCS_MEMBER_A_NODEID]);
		m[n].incarnation = nla_get_u64(tb[VCS_MEMBER_A_INCARNATION]);
		m[n].votes = 1;
		if (tb[VCS_MEMBER_A_VOTES])
			m[n].votes = nla_get_u32(tb[VCS_MEMBER_A_VOTES]);
		if (tb[VCS_MEMBER_A_JOIN_ID])
			m[n].join_id = nla_get_u64(tb[VCS_MEMBER_A_JOIN_ID]);
		n++;
	}
	sort(m, n, sizeof(*m), by_nodeid, NULL);
	return 0;
}

static struct sk_buff *reply_new(struct genl_info *info, size_t size, void **hdr)
{
	struct sk_buff *skb = genlmsg_new(size, GFP_KERNEL);

	if (!skb)
		return NULL;
	*hdr = genlmsg_put_reply(skb, info, &vcs_genl_family, 0, info->genlhdr->cmd);
	if (*hdr)
		return skb;
	nlmsg_free(skb);
	return NULL;
}

static int reply_send(struct sk_buff *skb, void *hdr, struct genl_info *info)
{
	genlmsg_end(skb, hdr);
	return genlmsg_reply(skb, info);
}

static u32 get_u32(struct genl_info *info, int attr, u32 otherwise)
{
	return info->attrs[attr] ? nla_get_u32(info->attrs[attr]) : otherwise;
}

/* --- clusters and the provider's seat ------------------------------------------------- */

int vcs_nl_cluster_add_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	int err = from_init(&from, skb, info);

	if (err)
		return err;
	if (missing(&from, VCS_A_HANDLE) || missing(&from, VCS_A_NAME) ||
	    missing(&from, VCS_A_NODEID))
		return -EINVAL;
	return vcs_cluster_add(nla_data(info->attrs[VCS_A_HANDLE]),
			       nla_data(info->attrs[VCS_A_NAME]),
			       nla_get_u32(info->attrs[VCS_A_NODEID]), &from);
}

int vcs_nl_cluster_del_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	int err = from_init(&from, skb, info);

	if (err)
		return err;
	if (missing(&from, VCS_A_HANDLE))
		return -EINVAL;
	return vcs_cluster_del(nla_data(info->attrs[VCS_A_HANDLE]), &from);
}

int vcs_nl_provider_attach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *type = info->attrs[VCS_A_PROVIDER];
	struct sk_buff *reply = NULL;
	u64 generation, highest;
	struct vcs_cluster *c;
	struct vcs_from from;
	void *hdr;
	int err;

	c = from_cluster(&from, skb, info);
	if (IS_ERR(c))
		return PTR_ERR(c);
	err = -ENOMEM;
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &hdr);
	if (!reply)
		goto out;
	from.session = vcs_random_id();
	err = vcs_cluster_attach(c, type ? nla_data(type) : "user",
				 get_u32(info, VCS_A_LEASE_MS, 0), &from, &generation, &highest);
	if (err) {
		nlmsg_free(reply);
		goto out;
	}
	nla_put_u64_64bit(reply, VCS_A_SESSION, from.session, VCS_A_PAD);
	nla_put_u64_64bit(reply, VCS_A_INCARNATION, vcs_incarnation, VCS_A_PAD);
	nla_put_u64_64bit(reply, VCS_A_HIGHEST_EVENT, highest, VCS_A_PAD);
	nla_put_u64_64bit(reply, VCS_A_GENERATION, generation, VCS_A_PAD);
	err = reply_send(reply, hdr, info);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_provider_detach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	err = vcs_cluster_detach(c, &from);
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_lease_renew_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	int err = -EINVAL;

	if (IS_ERR(c))
		return PTR_ERR(c);
	if (missing(&from, VCS_A_VALID_FROM_NS))
		goto out;
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, &from);
	if (!err)
		err = vcs_lease_renew(c, nla_get_u64(info->attrs[VCS_A_VALID_FROM_NS]), &from);
	spin_unlock_bh(&c->lock);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_view_set_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply = NULL;
	struct vcs_view *v = NULL;
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	void *hdr;
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	err = -EINVAL;
	if (missing(&from, VCS_A_RING_SEQ) || missing(&from, VCS_A_RING_REP))
		goto out;
	err = members_count(&from);
	if (err < 0)
		goto out;
	v = vcs_view_alloc(err, GFP_KERNEL);
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &hdr);
	err = v && reply ? members_parse(&from, v->member) : -ENOMEM;
	if (err)
		goto out;
	v->ring_seq = nla_get_u64(info->attrs[VCS_A_RING_SEQ]);
	v->ring_rep = nla_get_u32(info->attrs[VCS_A_RING_REP]);
	v->flags = get_u32(info, VCS_A_VIEW_FLAGS, 0);
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, &from);
	if (!err) {
		err = vcs_view_install(c, v, &from);
		if (!err)
			nla_put_u64_64bit(reply, VCS_A_GENERATION, v->generation, VCS_A_PAD);
		v = NULL;
	}
	spin_unlock_bh(&c->lock);
	if (!err) {
		err = reply_send(reply, hdr, info);
		reply = NULL;
	}
out:
	nlmsg_free(reply);
	vcs_view_put(v);
	vcs_cluster_unref(c);
	return err;
}

/* --- the provider's orders -------------------------------------------------------------- */

static int order(struct sk_buff *skb, struct genl_info *info, enum vcs_phase phase)
{
	struct vcs_event *e = NULL;
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	struct vcs_group *g;
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	err = -EINVAL;
	if (missing(&from, VCS_A_GROUP) || missing(&from, VCS_A_EVENT))
		goto out;
	err = phase == VCS_PHASE_START ? members_count(&from) : 0;
	if (err < 0)
		goto out;
	e = vcs_event_alloc(nla_get_u64(info->attrs[VCS_A_EVENT]), err, GFP_KERNEL);
	err = e ? 0 : -ENOMEM;
	if (!err && phase == VCS_PHASE_START)
		err = members_parse(&from, e->member);
	if (err)
		goto out;
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, &from);
	if (!err) {
		g = from_group(&from, c);
		err = g ? vcs_group_order(g, e, phase, &from) : -ENOENT;
		if (g)
			e = NULL;
	}
	spin_unlock_bh(&c->lock);
out:
	vcs_event_put(e);
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_group_stop_doit(struct sk_buff *skb, struct genl_info *info)
{
	return order(skb, info, VCS_PHASE_STOP);
}

int vcs_nl_group_start_doit(struct sk_buff *skb, struct genl_info *info)
{
	return order(skb, info, VCS_PHASE_START);
}

int vcs_nl_group_finish_doit(struct sk_buff *skb, struct genl_info *info)
{
	return order(skb, info, VCS_PHASE_FINISH);
}

int vcs_nl_group_left_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	int error = get_u32(info, VCS_A_ERROR, 0);
	struct vcs_group *g;
	int err = -EINVAL;

	if (IS_ERR(c))
		return PTR_ERR(c);
	if (missing(&from, VCS_A_GROUP))
		goto out;
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, &from);
	if (!err) {
		g = from_group(&from, c);
		if (!g)
			err = -ENOENT;
		else if (!error && g->state != VCS_GROUP_STATE_LEAVING)
			err = vcs_refuse(&from, VCS_A_GROUP, -EPROTO, "the group does not leave");
		else
			vcs_group_left(g, -error);
	}
	spin_unlock_bh(&c->lock);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_fenced_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	int err = -EINVAL;

	if (IS_ERR(c))
		return PTR_ERR(c);
	if (missing(&from, VCS_A_NODEID) || missing(&from, VCS_A_INCARNATION))
		goto out;
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, &from);
	if (!err)
		vcs_cluster_fenced(c, nla_get_u32(info->attrs[VCS_A_NODEID]),
				   nla_get_u64(info->attrs[VCS_A_INCARNATION]),
				   -(int)get_u32(info, VCS_A_ERROR, 0));
	spin_unlock_bh(&c->lock);
out:
	vcs_cluster_unref(c);
	return err;
}

/* --- consumers ------------------------------------------------------------------------------ */

int vcs_nl_group_join_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *owner = info->attrs[VCS_A_OWNER];
	struct sk_buff *reply = NULL;
	struct vcs_from from;
	struct vcs_cluster *c = from_cluster(&from, skb, info);
	struct vcs_group *g;
	void *hdr;
	int err;

	if (IS_ERR(c))
		return PTR_ERR(c);
	err = -EINVAL;
	if (missing(&from, VCS_A_GROUP))
		goto out;
	err = -ENOMEM;
	reply = reply_new(info, NLMSG_DEFAULT_SIZE, &hdr);
	if (!reply)
		goto out;
	from.session = vcs_random_id();
	g = vcs_group_create(c, nla_data(info->attrs[VCS_A_GROUP]),
			     get_u32(info, VCS_A_LEVEL, VCS_LEVEL_USER),
			     get_u32(info, VCS_A_GROUP_FLAGS, 0),
			     owner ? nla_data(owner) : "", NULL, NULL, &from);
	if (IS_ERR(g)) {
		nlmsg_free(reply);
		err = PTR_ERR(g);
		goto out;
	}
	nla_put_u64_64bit(reply, VCS_A_SESSION, from.session, VCS_A_PAD);
	nla_put_u32(reply, VCS_A_OWNER_EPOCH, READ_ONCE(g->epoch));
	nla_put_u32(reply, VCS_A_TAKEN_OVER, READ_ONCE(g->epoch) > 1);
	vcs_group_put(g);
	err = reply_send(reply, hdr, info);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_group_ack_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	struct vcs_group *g;
	int err = -EINVAL;

	if (IS_ERR(c))
		return PTR_ERR(c);
	if (missing(&from, VCS_A_GROUP) || missing(&from, VCS_A_EVENT) ||
	    missing(&from, VCS_A_PHASE))
		goto out;
	spin_lock_bh(&c->lock);
	g = from_group(&from, c);
	err = g ? vcs_group_held(g, &from) : -ENOENT;
	if (!err)
		err = vcs_group_acked(g, nla_get_u64(info->attrs[VCS_A_EVENT]),
				      nla_get_u32(info->attrs[VCS_A_PHASE]), &from);
	spin_unlock_bh(&c->lock);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_group_leave_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct vcs_cluster *c = from_session(&from, skb, info);
	struct vcs_group *g;
	int err = -EINVAL;

	if (IS_ERR(c))
		return PTR_ERR(c);
	if (missing(&from, VCS_A_GROUP))
		goto out;
	spin_lock_bh(&c->lock);
	g = from_group(&from, c);
	err = g ? vcs_group_held(g, &from) : -ENOENT;
	if (!err)
		vcs_group_want_leave(g);
	spin_unlock_bh(&c->lock);
out:
	vcs_cluster_unref(c);
	return err;
}

int vcs_nl_claim_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vcs_from from;
	struct sk_buff *reply;
	void *hdr;
	int err;

	err = from_init(&from, skb, info);
	if (err)
		return err;
	if (missing(&from, VCS_A_CLAIM))
		return -EINVAL;
	if (!vcs_name_ok(nla_data(info->attrs[VCS_A_CLAIM])))
		return vcs_refuse(&from, VCS_A_CLAIM, -EINVAL, "not a name for a claim");
	reply = reply_new(info, VCS_CLAIM_DATA_MAX + 256, &hdr);
	if (!reply)
		return -ENOMEM;
	nla_put_string(reply, VCS_A_CLAIM, nla_data(info->attrs[VCS_A_CLAIM]));
	err = vcs_claim(nla_data(info->attrs[VCS_A_CLAIM]), info->attrs[VCS_A_CLAIM_DATA],
			reply, &from);
	if (err) {
		nlmsg_free(reply);
		return err;
	}
	return reply_send(reply, hdr, info);
}

/* --- the family ------------------------------------------------------------------------------- */

static const struct genl_multicast_group mcgrps[] = {
	[VCS_NLGRP_HINTS] = { .name = VCS_MCGRP_HINTS, },
};

struct genl_family vcs_genl_family __ro_after_init = {
	.name = VCS_GENL_NAME,
	.version = VCS_GENL_VERSION,
	.parallel_ops = true,
	.module = THIS_MODULE,
	.ops = vcs_nl_ops,
	.n_ops = ARRAY_SIZE(vcs_nl_ops),
	.resv_start_op = VCS_CMD_INFO_GET,
	.mcgrps = mcgrps,
	.n_mcgrps = ARRAY_SIZE(mcgrps),
};

static void reap_all(struct work_struct *work)
{
	vcs_clusters_reap();
	vcs_claims_reap();
}

static DECLARE_WORK(reap_all_work, reap_all);

/* Only queues: whose socket it was, the sockets that are held say themselves. */
static int socket_released(struct notifier_block *nb, unsigned long event, void *data)
{
	struct netlink_notify *n = data;

	if (event == NETLINK_URELEASE && n->protocol == NETLINK_GENERIC &&
	    net_eq(n->net, &init_net))
		queue_work(vcs_wq, &reap_all_work);
	return NOTIFY_DONE;
}

static struct notifier_block release_nb = { .notifier_call = socket_released };

int vcs_netlink_init(void)
{
	int err = netlink_register_notifier(&release_nb);

	if (err)
		return err;
	err = genl_register_family(&vcs_genl_family);
	if (err)
		netlink_unregister_notifier(&release_nb);
	registered = !err;
	return err;
}

void vcs_netlink_exit(void)
{
	genl_unregister_family(&vcs_genl_family);
	registered = false;
	netlink_unregister_notifier(&release_nb);
	cancel_work_sync(&reap_all_work);
}
