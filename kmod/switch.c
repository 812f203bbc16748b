// SPDX-License-Identifier: GPL-2.0
/* The registry of provider types: as many as there are modules for, so a list and one mutex. */
#include <linux/module.h>
#include <linux/nls.h>
#include <linux/string.h>

#include "internal.h"

/* The outermost: provider types, and the list of clusters. */
DEFINE_MUTEX(vcs_lock);
static LIST_HEAD(vcs_types);		/* vcs_lock */

/* Valid UTF-8 of at most VCS_NAME_MAX bytes, without control characters. */
bool vcs_text_ok(const char *text)
{
	size_t len = strnlen(text, VCS_NAME_MAX + 1);
	unicode_t u;
	int n;

	if (len > VCS_NAME_MAX)
		return false;
	for (; len; text += n, len -= n) {
		n = utf8_to_utf32((const u8 *)text, len, &u);
		if (n <= 0 || u < 0x20 || u == 0x7f)
			return false;
	}
	return true;
}

/* Names become directories in sysfs. */
bool vcs_name_ok(const char *name)
{
	return *name && vcs_text_ok(name) && !strchr(name, '/') &&
	       strcmp(name, ".") && strcmp(name, "..");
}

static struct vcs_provider_type *type_find(const char *name)
{
	struct vcs_provider_type *t;

	lockdep_assert_held(&vcs_lock);
	list_for_each_entry(t, &vcs_types, node)
		if (!strcmp(t->name, name))
			return t;
	return NULL;
}

/* Pins the type's module. */
struct vcs_provider_type *vcs_type_get(const char *name)
{
	struct vcs_provider_type *t;

	guard(mutex)(&vcs_lock);
	t = type_find(name);
	if (!t || !try_module_get(t->owner))
		return NULL;
	atomic_inc(&t->users);
	return t;
}

void vcs_type_put(struct vcs_provider_type *t)
{
	atomic_dec(&t->users);
	module_put(t->owner);
}

/* What only a provider can do whose views are agreed upon. */
#define AGREED_CAPS	(VCS_CAP_GROUPS | VCS_CAP_FENCE | VCS_CAP_LEASE)

/* A missing op is a missing capability, and the other way round. */
static bool caps_ok(const struct vcs_provider_type *t)
{
	const struct vcs_provider_ops *ops = t->ops;
	bool groups = t->caps & VCS_CAP_GROUPS;

	if (!ops || !ops->attach || !ops->detach)
		return false;
	if (t->caps & ~(u64)(VCS_CAP_AGREED | VCS_CAP_KERNEL | AGREED_CAPS))
		return false;
	if ((t->caps & AGREED_CAPS) && !(t->caps & VCS_CAP_AGREED))
		return false;
	return !!ops->join == groups && !!ops->leave == groups &&
	       !!ops->acked == groups;
}

int __vcs_provider_register(struct vcs_provider_type *t, u32 api, size_t size)
{
	int err;

	if (api != VCS_API_VERSION || size != sizeof(*t))
		return -EINVAL;
	if (!t->name || !vcs_name_ok(t->name) || !caps_ok(t))
		return -EINVAL;
	guard(mutex)(&vcs_lock);
	if (type_find(t->name))
		return -EEXIST;
	err = vcs_sysfs_type_add(t);
	if (err)
		return err;
	atomic_set(&t->users, 0);
	list_add_tail(&t->node, &vcs_types);
	return 0;
}
EXPORT_SYMBOL_GPL(__vcs_provider_register);

/* No cluster uses it: each attach pins the owner, and this is its exit. */
void vcs_provider_unregister(struct vcs_provider_type *t)
{
	scoped_guard(mutex, &vcs_lock)
		list_del(&t->node);
	vcs_sysfs_type_del(t);
}
EXPORT_SYMBOL_GPL(vcs_provider_unregister);
