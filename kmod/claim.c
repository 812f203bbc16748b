// SPDX-License-Identifier: GPL-2.0
/*
 * Exclusive claims by name, for what exists once per kernel (fs/dlm). A claim
 * lasts as long as its socket; its data outlives it, so that a successor knows
 * what was applied last (SAFETY S2).
 */
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

struct claim {
	struct list_head node;
	char name[VCS_NAME_MAX + 1];
	struct vcs_session holder;	/* sk alone */
	u32 len;
	u8 data[VCS_CLAIM_DATA_MAX];
};

static DEFINE_MUTEX(claims_lock);	/* innermost, sleeps for nobody */
static LIST_HEAD(claims);
static unsigned int nr_claims;

static void claim_release(struct claim *cl)
{
	if (cl->holder.sk)
		sock_put(cl->holder.sk);
	cl->holder.sk = NULL;
}

static struct claim *claim_find(const char *name)
{
	struct claim *cl;

	list_for_each_entry(cl, &claims, node)
		if (!strcmp(cl->name, name))
			return cl;
	return NULL;
}

static struct claim *claim_new(const char *name)
{
	struct claim *cl;

	if (nr_claims >= VCS_CLAIMS_MAX)
		return NULL;
	cl = kzalloc(sizeof(*cl), GFP_KERNEL);
	if (!cl)
		return NULL;
	strscpy(cl->name, name, sizeof(cl->name));
	list_add_tail(&cl->node, &claims);
	nr_claims++;
	return cl;
}

/* Take, or holding it update; what it held before goes into @reply. */
int vcs_claim(const char *name, const struct nlattr *data, struct sk_buff *reply,
	      const struct vcs_from *from)
{
	struct claim *cl;
	int err = 0;

	if (!vcs_name_ok(name))
		return vcs_refuse(from, VCS_A_CLAIM, -EINVAL, "not a name for a claim");
	mutex_lock(&claims_lock);
	cl = claim_find(name);
	if (!cl)
		cl = claim_new(name);
	if (!cl) {
		err = vcs_refuse(from, VCS_A_CLAIM, -ENOSPC, "too many claims");
		goto out;
	}
	if (cl->holder.sk != from->sk && cl->holder.sk &&
	    !vcs_session_dead(&cl->holder)) {
		err = vcs_refuse(from, VCS_A_CLAIM, -EBUSY, "the claim is held");
		goto out;
	}
	if (cl->len && nla_put(reply, VCS_A_CLAIM_DATA, cl->len, cl->data)) {
		err = -EMSGSIZE;
		goto out;
	}
	if (cl->holder.sk != from->sk) {
		claim_release(cl);
		sock_hold(from->sk);
		cl->holder.sk = from->sk;
	}
	if (data) {
		cl->len = nla_len(data);
		memcpy(cl->data, nla_data(data), cl->len);
	}
out:
	mutex_unlock(&claims_lock);
	return err;
}

void vcs_claims_reap(void)
{
	struct claim *cl;

	mutex_lock(&claims_lock);
	list_for_each_entry(cl, &claims, node)
		if (vcs_session_dead(&cl->holder))
			claim_release(cl);
	mutex_unlock(&claims_lock);
}

void vcs_claims_exit(void)
{
	struct claim *cl, *next;

	list_for_each_entry_safe(cl, next, &claims, node) {
		list_del(&cl->node);
		claim_release(cl);
		kfree(cl);
	}
}
