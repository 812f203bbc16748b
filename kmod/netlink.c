// SPDX-License-Identifier: GPL-2.0
/*
 * The netlink family: hints, and what all commands have in common. A command
 * itself is vcs_nl_<command>() in the file of what it changes; those that read
 * are in dump.c. No command waits for anybody.
 */
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/sort.h>

#include "internal.h"
#include "trace.h"

/* Room for the longest answer, a claim's. */
#define REPLY_SIZE	(VCS_CLAIM_DATA_MAX + 1024)

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

static int hint_fill(struct sk_buff *skb, u8 cmd, struct vcs_cluster *c,
		     const struct vcs_group *g)
{
	int err = nla_put_string(skb, VCS_A_HANDLE, c->handle);

	switch (cmd) {
	case VCS_CMD_VIEW_HINT:
		return err ?: vcs_put_u64(skb, VCS_A_GENERATION, vcs_view_locked(c)->generation);
	case VCS_CMD_GROUP_HINT:
		return err ?:
		       nla_put_string(skb, VCS_A_GROUP, g->name) ?:
		       vcs_put_u64(skb, VCS_A_GENERATION, vcs_view_locked(c)->generation) ?:
		       vcs_put_u64(skb, VCS_A_EVENT, g->event_id) ?:
		       nla_put_u32(skb, VCS_A_PHASE, g->phase);
	case VCS_CMD_PROVIDER_HINT:
		return err ?: nla_put_u32(skb, VCS_A_PROVIDER_STATE, c->state);
	}
	return err;
}

/*
 * Tell the listeners what has changed; whoever cannot be told is told that it
 * lost something, and reads again. Under c->lock, but for VCS_CMD_CLUSTER_HINT.
 */
void vcs_hint(u8 cmd, struct vcs_cluster *c, const struct vcs_group *g)
{
	struct sk_buff *skb;
	void *hdr;

	if (cmd != VCS_CMD_CLUSTER_HINT) {
		lockdep_assert_held(&c->lock);
		WRITE_ONCE(c->change_seq, c->change_seq + 1);
	}
	if (!genl_has_listeners(&vcs_genl_family, &init_net, VCS_NLGRP_HINTS))
		return;
	skb = genlmsg_new(256, GFP_ATOMIC);
	hdr = skb ? genlmsg_put(skb, 0, 0, &vcs_genl_family, 0, cmd) : NULL;
	if (hdr && !hint_fill(skb, cmd, c, g)) {
		genlmsg_end(skb, hdr);
		if (genlmsg_multicast(&vcs_genl_family, skb, 0, VCS_NLGRP_HINTS,
				      GFP_ATOMIC) != -ENOBUFS)
			return;
	} else {
		nlmsg_free(skb);
		genl_set_err(&vcs_genl_family, &init_net, 0, VCS_NLGRP_HINTS, -ENOBUFS);
	}
	WRITE_ONCE(c->dropped_hints, c->dropped_hints + 1);
	trace_vcs_hint_lost(c);
}

/* --- members in a request -------------------------------------------------------------- */

/* How many; -EINVAL when there are too many. */
int vcs_from_members_count(const struct vcs_from *from)
{
	struct genlmsghdr *hdr = from->info->genlhdr;
	struct nlattr *a;
	int rem, n = 0;

	nla_for_each_attr(a, genlmsg_data(hdr), genlmsg_len(hdr), rem)
		n += nla_type(a) == VCS_A_MEMBER;
	if (n > VCS_MEMBERS_MAX)
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL, "too many members");
	return n;
}

/* Into @m, which has room for vcs_from_members_count(); sorted. */
int vcs_from_members(const struct vcs_from *from, struct vcs_member *m)
{
	struct genlmsghdr *hdr = from->info->genlhdr;
	struct nlattr *a;
	int rem, err, n = 0;

	nla_for_each_attr(a, genlmsg_data(hdr), genlmsg_len(hdr), rem) {
		if (nla_type(a) != VCS_A_MEMBER)
			continue;
		m[n].votes = 1;
		err = vcs_member_parse(a, &m[n++], from->info->extack);
		if (err)
			return err;
	}
	sort(m, n, sizeof(*m), vcs_member_compare, NULL);
	return 0;
}

/* --- commands ----------------------------------------------------------------------------- */

/*
 * Rights, what is missing, whom it is about. The opener of the socket must have
 * the right, too, so that a privileged program cannot be made to write to it.
 */
static int from_check(struct vcs_from *from, struct sk_buff *skb)
{
	const struct vcs_nl_command *command = from->command;
	int attr;

	if (!command->open && !(from->sk && netlink_capable(skb, CAP_SYS_ADMIN)))
		return vcs_refuse(from, 0, -EPERM,
				  "CAP_SYS_ADMIN in the initial user namespace is needed");
	for (attr = 1; attr <= VCS_A_MAX; attr++)
		if ((command->required & BIT_ULL(attr)) &&
		    GENL_REQ_ATTR_CHECK(from->info, attr))
			return vcs_refuse(from, 0, -EINVAL, "an attribute is missing");
	if (command->required & BIT_ULL(VCS_A_SESSION))
		from->session = vcs_from_u64(from, VCS_A_SESSION);
	if (!command->cluster)
		return 0;
	from->c = vcs_cluster_find(vcs_from_text(from, VCS_A_HANDLE, ""));
	return from->c ? 0 : vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
}

/* Whose session is it? Finds the group, too, where one is named. Under c->lock. */
int vcs_from_admit(struct vcs_from *from)
{
	enum vcs_nl_who who = from->command->who;
	int err = who == VCS_NL_SEAT ? vcs_cluster_seated(from->c, from) : 0;

	if (err || !(from->command->required & BIT_ULL(VCS_A_GROUP)))
		return err;
	from->g = vcs_group_find(from->c, vcs_from_text(from, VCS_A_GROUP, ""));
	if (!from->g)
		return vcs_refuse(from, VCS_A_GROUP, -ENOENT, "no such group");
	if (who == VCS_NL_SEAT || (from->g->holder.id && from->g->holder.id == from->session))
		return 0;
	WRITE_ONCE(from->c->stale, from->c->stale + 1);
	return vcs_refuse(from, VCS_A_SESSION, -ESTALE, "the session does not hold the group");
}

static int call_locked(struct vcs_from *from)
{
	int err;

	guard(vcs_cluster)(from->c);
	err = vcs_from_admit(from);
	return err ?: from->command->call(from);
}

/* Every command; the spec says what each needs. */
int vcs_nl_doit(struct sk_buff *skb, struct genl_info *info)
{
	const struct vcs_nl_command *command = &vcs_nl_commands[info->genlhdr->cmd];
	struct vcs_from from = {
		.info = info, .sk = NETLINK_CB(skb).sk, .command = command,
	};
	void *hdr = NULL;
	int err;

	err = from_check(&from, skb);
	if (!err && command->answers) {
		from.reply = genlmsg_new(REPLY_SIZE, GFP_KERNEL);
		if (from.reply)
			hdr = genlmsg_put_reply(from.reply, info, &vcs_genl_family, 0,
						info->genlhdr->cmd);
		err = hdr ? 0 : -ENOMEM;
	}
	if (!err)
		err = command->locked ? call_locked(&from) : command->call(&from);
	if (from.c)
		kobject_put(&from.c->kobj);
	if (err || !hdr) {
		nlmsg_free(from.reply);
		return err;
	}
	genlmsg_end(from.reply, hdr);
	return genlmsg_reply(from.reply, info);
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

static DECLARE_WORK(reap_work, vcs_clusters_reap);

/* Only queues: whose socket it was, the sockets that are held say themselves. */
static int socket_released(struct notifier_block *nb, unsigned long event, void *data)
{
	struct netlink_notify *n = data;

	if (event == NETLINK_URELEASE && n->protocol == NETLINK_GENERIC &&
	    net_eq(n->net, &init_net))
		queue_work(vcs_wq, &reap_work);
	return NOTIFY_DONE;
}

static struct notifier_block release_nb = { .notifier_call = socket_released };

int vcs_netlink_init(void)
{
	int err = netlink_register_notifier(&release_nb) ?:
		  genl_register_family(&vcs_genl_family);

	if (err)
		netlink_unregister_notifier(&release_nb);
	return err;
}

void vcs_netlink_exit(void)
{
	genl_unregister_family(&vcs_genl_family);
	netlink_unregister_notifier(&release_nb);
	cancel_work_sync(&reap_work);
}
