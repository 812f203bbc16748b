// SPDX-License-Identifier: GPL-2.0
/*
 * Exclusive claims by name, for what exists once per kernel (fs/dlm). A claim
 * lasts as long as its socket is open; its data outlives it, so that a successor
 * knows what was applied last (SAFETY S2). Who comes next finds a dead holder, so
 * nobody has to look for them.
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
	struct claim *cl = kzalloc(sizeof(*cl), GFP_KERNEL);

	if (!cl)
		return NULL;
	strscpy(cl->name, name, sizeof(cl->name));
	list_add_tail(&cl->node, &claims);
	nr_claims++;
	return cl;
}

/* Take, or holding it update; the answer has what it held before. */
int vcs_nl_claim(struct vcs_from *from)
{
	const char *name = vcs_from_text(from, VCS_A_CLAIM, "");
	const struct nlattr *data = from->info->attrs[VCS_A_CLAIM_DATA];
	struct claim *cl;

	if (!vcs_name_ok(name))
		return vcs_refuse(from, VCS_A_CLAIM, -EINVAL, "not a name for a claim");
	guard(mutex)(&claims_lock);
	cl = claim_find(name);
	if (!cl && nr_claims >= VCS_CLAIMS_MAX)
		return vcs_refuse(from, VCS_A_CLAIM, -ENOSPC, "too many claims");
	cl = cl ?: claim_new(name);
	if (!cl)
		return -ENOMEM;
	if (cl->holder.sk != from->sk) {
		if (cl->holder.sk && !vcs_session_dead(&cl->holder))
			return vcs_refuse(from, VCS_A_CLAIM, -EBUSY, "the claim is held");
		claim_release(cl);
		vcs_session_take(&cl->holder, from);
	}
	if (nla_put_string(from->reply, VCS_A_CLAIM, name) ||
	    (cl->len && nla_put(from->reply, VCS_A_CLAIM_DATA, cl->len, cl->data)))
		return -EMSGSIZE;
	if (data) {
		cl->len = nla_len(data);
		memcpy(cl->data, nla_data(data), cl->len);
	}
	return 0;
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
