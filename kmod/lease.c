// SPDX-License-Identifier: GPL-2.0
/*
 * The lease (SAFETY S9 to S13), in its first form: an expired lease is a lost
 * provider; the machine is not reset. It is armed while a group that needs
 * fencing has started, and counts from the evidence, never from now.
 */
#include <linux/suspend.h>

#include "internal.h"
#include "trace.h"

/* Clusters whose lease is armed: no suspend while there are any. */
static atomic_t vcs_armed = ATOMIC_INIT(0);

static u64 deadline(const struct vcs_lease *l)
{
	return l->valid_from + l->lease_ns;
}

/* The decision, pure: what the lease is at @now (CLOCK_BOOTTIME, ns). */
enum vcs_lease_state vcs_lease_next(const struct vcs_lease *l, u64 now)
{
	if (!l->lease_ns)
		return VCS_LEASE_NONE;
	if (!l->armed)
		return VCS_LEASE_IDLE;
	return now >= deadline(l) ? VCS_LEASE_EXPIRED : VCS_LEASE_ARMED;
}

/* May a group that needs fencing start at @now? Pure. */
bool vcs_lease_covers(const struct vcs_lease *l, u64 now)
{
	return !l->lease_ns || now < deadline(l);
}

/*
 * May the evidence of @valid_from renew it at @now? Pure.
 * -EINVAL: no lease, or the future; -ESTALE: older than what is known, or run out
 */
static int renew_next(const struct vcs_lease *l, u64 valid_from, u64 now)
{
	if (!l->lease_ns || valid_from > now)
		return -EINVAL;
	if (valid_from < l->valid_from || now - valid_from >= l->lease_ns)
		return -ESTALE;
	if (vcs_lease_next(l, now) == VCS_LEASE_EXPIRED)
		return -ESTALE;
	return 0;
}

/* Of an attached provider. Also without the lock, for sysfs. */
u64 vcs_lease_remaining_ms(const struct vcs_cluster *c, u64 now)
{
	u64 lease_ns = READ_ONCE(c->lease.lease_ns);
	u64 end = lease_ns ? READ_ONCE(c->lease.valid_from) + lease_ns : 0;

	if (READ_ONCE(c->state) != VCS_PROVIDER_ATTACHED || end <= now)
		return 0;
	return div_u64(end - now, NSEC_PER_MSEC);
}

/* Interrupt context: only queues; the work item decides again. */
static enum hrtimer_restart lease_fire(struct hrtimer *timer)
{
	struct vcs_cluster *c = container_of(timer, struct vcs_cluster, lease_timer);

	queue_work(vcs_wq, &c->reap_work);
	return HRTIMER_NORESTART;
}

void vcs_lease_init(struct vcs_cluster *c)
{
	hrtimer_init(&c->lease_timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS_HARD);
	c->lease_timer.function = lease_fire;
}

static void arm(struct vcs_cluster *c)
{
	hrtimer_start(&c->lease_timer, ns_to_ktime(deadline(&c->lease)), HRTIMER_MODE_ABS_HARD);
}

/* Arm or disarm after a change. Under c->lock. */
void vcs_lease_update(struct vcs_cluster *c)
{
	struct vcs_lease *l = &c->lease;
	struct vcs_group *g;
	bool armed = false;

	lockdep_assert_held(&c->lock);
	if (l->lease_ns && c->state == VCS_PROVIDER_ATTACHED)
		list_for_each_entry(g, &c->groups, node)
			armed |= g->started && g->state != VCS_GROUP_STATE_LOST &&
				 (g->flags & VCS_GROUP_NEEDS_FENCE);
	if (armed != l->armed)
		atomic_add(armed ? 1 : -1, &vcs_armed);
	WRITE_ONCE(l->armed, armed);
	if (armed)
		arm(c);
	else
		hrtimer_try_to_cancel(&c->lease_timer);
}

static int renew(struct vcs_cluster *c, u64 valid_from, const struct vcs_from *from)
{
	struct vcs_lease *l = &c->lease;
	u64 now = ktime_get_boottime_ns();
	int err = renew_next(l, valid_from, now);

	if (err == -EINVAL)
		return vcs_refuse(from, VCS_A_VALID_FROM_NS, err,
				  "no lease, or the evidence lies in the future");
	if (err) {
		WRITE_ONCE(l->late, l->late + 1);
		return vcs_refuse(from, VCS_A_VALID_FROM_NS, err,
				  "the evidence is older than the last, or has run out");
	}
	WRITE_ONCE(l->valid_from, valid_from);
	WRITE_ONCE(l->renewals, l->renewals + 1);
	trace_vcs_lease_renew(c, valid_from, deadline(l) - now);
	if (l->armed)
		arm(c);
	return 0;
}

int vcs_nl_lease_renew(struct vcs_from *from)
{
	int err;

	guard(vcs_cluster)(from->c);
	err = vcs_cluster_seated(from->c, from);
	return err ?: renew(from->c, vcs_from_u64(from, VCS_A_VALID_FROM_NS), from);
}

static int lease_pm(struct notifier_block *nb, unsigned long event, void *data)
{
	if (event != PM_SUSPEND_PREPARE && event != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	if (!atomic_read(&vcs_armed))
		return NOTIFY_DONE;
	pr_warn("vcs: suspend refused, a lease is armed\n");
	return notifier_from_errno(-EBUSY);
}

struct notifier_block vcs_lease_pm = { .notifier_call = lease_pm };
