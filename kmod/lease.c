// SPDX-License-Identifier: GPL-2.0
/*
 * The lease (SAFETY S9 to S13): evidence of quorum that runs out. It is armed
 * while a group that needs fencing has started and was not left, whoever holds
 * the provider's seat. With a grace the end of the lease means a lost provider,
 * and the end of the grace a reset of the machine, by two absolute deadlines that
 * a renewal fixes; without one nothing starts until it is renewed, no more.
 */
#include <linux/moduleparam.h>
#include <linux/reboot.h>
#include <linux/suspend.h>

#include "internal.h"
#include "trace.h"

bool vcs_dry_run;
module_param_named(dry_run, vcs_dry_run, bool, 0444);
MODULE_PARM_DESC(dry_run, "count the resets of an expired lease, and do without them");

/* The one cluster of this kernel whose lease may reset it; compared and exchanged. */
static struct vcs_cluster *vcs_resetter;

/* The decision, pure: what the lease is at @now (CLOCK_BOOTTIME, ns). */
enum vcs_lease_state vcs_lease_next(const struct vcs_lease *l, u64 now)
{
	u64 end = READ_ONCE(l->end), reset = READ_ONCE(l->reset);

	if (!end)
		return VCS_LEASE_NONE;
	if (!READ_ONCE(l->armed))
		return VCS_LEASE_IDLE;
	if (now < end)
		return VCS_LEASE_ARMED;
	return reset && now >= reset ? VCS_LEASE_RESET : VCS_LEASE_EXPIRED;
}

/* May a group that needs fencing start at @now? Pure. */
bool vcs_lease_covers(const struct vcs_lease *l, u64 now)
{
	return !l->end || now < l->end;
}

/* It ended, and is to reset the machine: nothing but leaving stops that. Pure. */
bool vcs_lease_over(const struct vcs_lease *l, u64 now)
{
	return l->reset && vcs_lease_next(l, now) >= VCS_LEASE_EXPIRED;
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
	return vcs_lease_over(l, now) ? -ESTALE : 0;
}

/* Fix both deadlines. */
static void prolong(struct vcs_lease *l, u64 valid_from)
{
	u64 end = l->lease_ns ? max(valid_from + l->lease_ns, l->freeze) : 0;

	WRITE_ONCE(l->valid_from, valid_from);
	WRITE_ONCE(l->end, end);
	WRITE_ONCE(l->reset, l->grace_ns ? end + l->grace_ns : 0);
	l->told = false;
}

/* Also without the lock, for sysfs. */
u64 vcs_lease_remaining_ms(const struct vcs_cluster *c, u64 now)
{
	u64 end = READ_ONCE(c->lease.end);

	if (READ_ONCE(c->state) != VCS_PROVIDER_ATTACHED && !READ_ONCE(c->lease.armed))
		return 0;
	return end > now ? div_u64(end - now, NSEC_PER_MSEC) : 0;
}

/* The end. Any context; nothing is printed, locked or allocated. */
static void reset(struct vcs_cluster *c)
{
	if (!vcs_dry_run)
		emergency_restart();
	WRITE_ONCE(c->lease.resets, c->lease.resets + 1);
	trace_vcs_lease_reset(c);
}

/* By the timer, or by whom was refused: its timer may be late (SAFETY S11). */
static void reset_if_due(struct vcs_cluster *c, u64 now)
{
	if (vcs_lease_next(&c->lease, now) == VCS_LEASE_RESET)
		reset(c);
}

static enum hrtimer_restart reset_fire(struct hrtimer *timer)
{
	reset_if_due(container_of(timer, struct vcs_cluster, reset_timer),
		     ktime_get_boottime_ns());
	return HRTIMER_NORESTART;
}

/*
 * This very boot was declared fenced: others do without it, and took its locks.
 * Under c->lock.
 */
void vcs_lease_fenced(struct vcs_cluster *c)
{
	struct vcs_group *g;

	lockdep_assert_held(&c->lock);
	if (!c->lease.grace_ns)
		return;
	list_for_each_entry(g, &c->groups, node)
		if ((g->flags & VCS_GROUP_NEEDS_FENCE) && g->event_id) {
			reset(c);
			return;
		}
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
	hrtimer_init(&c->reset_timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS_HARD);
	c->reset_timer.function = reset_fire;
}

void vcs_lease_exit(struct vcs_cluster *c)
{
	hrtimer_cancel(&c->lease_timer);
	hrtimer_cancel(&c->reset_timer);
	cmpxchg(&vcs_resetter, c, NULL);
}

static void set_timer(struct hrtimer *timer, u64 at)
{
	if (at)
		hrtimer_start(timer, ns_to_ktime(at), HRTIMER_MODE_ABS_HARD);
	else
		hrtimer_try_to_cancel(timer);
}

/* Arm or disarm after a change. Under c->lock. */
void vcs_lease_update(struct vcs_cluster *c)
{
	struct vcs_lease *l = &c->lease;
	struct vcs_group *g;
	bool armed = false;

	lockdep_assert_held(&c->lock);
	if (l->end)
		list_for_each_entry(g, &c->groups, node)
			armed |= g->started && (g->flags & VCS_GROUP_NEEDS_FENCE);
	WRITE_ONCE(l->armed, armed);
	if (!armed && c->state != VCS_PROVIDER_ATTACHED)
		cmpxchg(&vcs_resetter, c, NULL);
	set_timer(&c->lease_timer, armed ? l->end : 0);
	set_timer(&c->reset_timer, armed ? l->reset : 0);
}

/*
 * A provider takes the seat. While the lease is armed its deadlines stay: to take
 * over is no evidence (SAFETY S9). Otherwise the first lease runs from now, but
 * nothing is armed by it: that takes a start in a quorate view.
 */
int vcs_lease_attach(struct vcs_cluster *c, u64 caps, const struct vcs_from *from)
{
	u32 lease_ms = vcs_from_u32(from, VCS_A_LEASE_MS, 0);
	u32 grace_ms = vcs_from_u32(from, VCS_A_GRACE_MS, 0);
	struct vcs_lease *l = &c->lease;
	u64 now = ktime_get_boottime_ns();
	struct vcs_cluster *other;

	lockdep_assert_held(&c->lock);
	if (lease_ms > VCS_LEASE_MS_MAX)
		return vcs_refuse(from, VCS_A_LEASE_MS, -EINVAL, "a lease of over an hour");
	if (grace_ms > VCS_LEASE_MS_MAX)
		return vcs_refuse(from, VCS_A_GRACE_MS, -EINVAL, "a grace of over an hour");
	if (lease_ms && !(caps & VCS_CAP_LEASE))
		return vcs_refuse(from, VCS_A_LEASE_MS, -EOPNOTSUPP,
				  "the provider type has no lease");
	if (grace_ms && !lease_ms)
		return vcs_refuse(from, VCS_A_GRACE_MS, -EINVAL, "a grace without a lease");
	if (vcs_lease_over(l, now)) {
		reset_if_due(c, now);
		return vcs_refuse(from, VCS_A_HANDLE, -ESTALE,
				  "the lease has run out: this machine is about to be reset");
	}
	other = grace_ms ? cmpxchg(&vcs_resetter, NULL, c) : NULL;
	if (other && other != c)
		return vcs_refuse(from, VCS_A_GRACE_MS, -EBUSY,
				  "the lease of another cluster resets this machine");
	l->lease_ns = (u64)lease_ms * NSEC_PER_MSEC;
	l->grace_ns = (u64)grace_ms * NSEC_PER_MSEC;
	l->renewals = 0;
	l->late = 0;
	if (!l->armed) {
		l->freeze = 0;
		prolong(l, now);
	} else if (grace_ms && !l->reset) {
		/* It is announced from now on, so it must hold before a renewal, too. */
		WRITE_ONCE(l->reset, max(l->end, now) + l->grace_ns);
		set_timer(&c->reset_timer, l->reset);
	}
	return 0;
}

int vcs_nl_lease_renew(struct vcs_from *from)
{
	u64 valid_from = vcs_from_u64(from, VCS_A_VALID_FROM_NS), now = ktime_get_boottime_ns();
	struct vcs_cluster *c = from->c;
	struct vcs_lease *l = &c->lease;
	int err = renew_next(l, valid_from, now);

	if (err == -EINVAL)
		return vcs_refuse(from, VCS_A_VALID_FROM_NS, err,
				  "no lease, or the evidence lies in the future");
	if (err) {
		WRITE_ONCE(l->late, l->late + 1);
		reset_if_due(c, now);
		return vcs_refuse(from, VCS_A_VALID_FROM_NS, err,
				  "the evidence is older than the last, or has run out");
	}
	prolong(l, valid_from);
	WRITE_ONCE(l->renewals, l->renewals + 1);
	trace_vcs_lease_renew(c, valid_from, l->end - now);
	if (l->armed)
		vcs_lease_update(c);
	return 0;
}

/* Maintenance: the lease lasts until then at least. Over, it falls back to its evidence. */
int vcs_nl_lease_freeze(struct vcs_from *from)
{
	u64 until = vcs_from_u64(from, VCS_A_FREEZE_UNTIL_NS), now = ktime_get_boottime_ns();
	struct vcs_lease *l = &from->c->lease;

	if (!l->lease_ns)
		return vcs_refuse(from, VCS_A_HANDLE, -EINVAL, "no lease");
	if (until > now + VCS_LEASE_FREEZE_MAX_NS)
		return vcs_refuse(from, VCS_A_FREEZE_UNTIL_NS, -ERANGE, "frozen for over a day");
	if (vcs_lease_over(l, now))
		return vcs_refuse(from, VCS_A_HANDLE, -ESTALE, "the lease has run out");
	WRITE_ONCE(l->freeze, until);
	prolong(l, l->valid_from);
	vcs_lease_update(from->c);
	return 0;
}

static int lease_pm(struct notifier_block *nb, unsigned long event, void *data)
{
	struct vcs_cluster *c;

	if (event != PM_SUSPEND_PREPARE && event != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	guard(mutex)(&vcs_lock);
	list_for_each_entry(c, &vcs_clusters, node)
		if (READ_ONCE(c->lease.armed)) {
			pr_warn("vcs: suspend refused, the lease of %s is armed\n", c->handle);
			return notifier_from_errno(-EBUSY);
		}
	return NOTIFY_DONE;
}

struct notifier_block vcs_lease_pm = { .notifier_call = lease_pm };
