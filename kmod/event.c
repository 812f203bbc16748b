// SPDX-License-Identifier: GPL-2.0
/*
 * The current event of a group: ordered by the provider in phases, answered by
 * the consumer's acknowledgements. All of it under the cluster's lock.
 */
#include <linux/module.h>

#include "internal.h"
#include "trace.h"

static bool acked(const struct vcs_group *g, enum vcs_phase phase)
{
	return g->acked_event == g->event_id && g->acked_phase == phase;
}

static int start_check(struct vcs_group *g, const struct vcs_event *e,
		       const struct vcs_from *from)
{
	struct vcs_cluster *c = g->c;
	const struct vcs_view *v = vcs_view_locked(c);
	const struct vcs_member *m;
	u32 i;

	if (g->state == VCS_GROUP_STATE_LOST)
		return vcs_refuse(from, VCS_A_GROUP, -EPROTO,
				  "the group is lost: it starts no more until it was left");
	if (e->id != g->event_id || g->phase != VCS_PHASE_STOP || !acked(g, VCS_PHASE_STOP))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "this node did not acknowledge the stop of the event");
	if (!e->nr || vcs_members_check(e->member, e->nr))
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL,
				  "no members, or a nodeid is named twice");
	if (!(v->flags & VCS_VIEW_QUORATE))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO, "the current view is not quorate");
	for (i = 0; i < e->nr; i++) {
		m = vcs_member_find(v->member, v->nr, e->member[i].nodeid);
		if (!m || m->incarnation != e->member[i].incarnation)
			return vcs_refuse(from, VCS_A_MEMBER, -EPROTO,
					  "a member is not in the current view");
	}
	if (!vcs_member_find(e->member, e->nr, c->nodeid))
		return vcs_refuse(from, VCS_A_MEMBER, -EPROTO, "a start names this node");
	if ((g->flags & VCS_GROUP_NEEDS_FENCE) &&
	    !vcs_lease_covers(&c->lease, ktime_get_boottime_ns()))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "the lease has run out: renew it first");
	return 0;
}

static int finish_check(const struct vcs_group *g, const struct vcs_from *from)
{
	if (g->state != VCS_GROUP_STATE_LOST && g->phase == VCS_PHASE_START &&
	    acked(g, VCS_PHASE_START))
		return 0;
	return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
			  "this node did not acknowledge the start of the event");
}

static int stale(struct vcs_group *g, u64 event, enum vcs_phase phase,
		 const struct vcs_from *from)
{
	WRITE_ONCE(g->c->stale, g->c->stale + 1);
	trace_vcs_group_ack_stale(g, event, phase);
	return vcs_refuse(from, VCS_A_EVENT, -ESTALE,
			  "the event is not the current one, or not newer");
}

static int order_check(struct vcs_group *g, const struct vcs_event *e, enum vcs_phase phase,
		       const struct vcs_from *from)
{
	switch (phase) {
	case VCS_PHASE_STOP:
		if (e->id <= g->event_id || e->id <= g->c->event_floor)
			return stale(g, e->id, phase, from);
		return 0;
	case VCS_PHASE_START:
		if (e->id < g->event_id)
			return stale(g, e->id, phase, from);
		return start_check(g, e, from);
	default:
		if (e->id != g->event_id)
			return stale(g, e->id, phase, from);
		return finish_check(g, from);
	}
}

void vcs_group_acknowledge(struct vcs_group *g, enum vcs_phase phase)
{
	WRITE_ONCE(g->acked_event, g->event_id);
	g->acked_phase = phase;
	trace_vcs_group_ack(g);
	vcs_group_tell(g, VCS_TELL_ACK);
}

static void stopped(struct vcs_group *g)
{
	trace_vcs_group_stop(g);
	/* Its consumer died and nobody can take it over: nothing goes on. */
	if (!g->ops && !g->holder.id && !(g->flags & VCS_GROUP_PERSISTENT))
		vcs_group_acknowledge(g, VCS_PHASE_STOP);
}

static void started(struct vcs_group *g)
{
	trace_vcs_group_start(g);
	g->started = true;
	vcs_event_put(g->ran);
	g->ran = g->event;
	refcount_inc(&g->ran->ref);
	vcs_lease_update(g->c);
}

static void finished(struct vcs_group *g)
{
	trace_vcs_group_finish(g);
	vcs_event_put(g->finished);
	g->finished = g->event;
	refcount_inc(&g->finished->ref);
	if (g->state == VCS_GROUP_STATE_JOINING)
		WRITE_ONCE(g->state, VCS_GROUP_STATE_MEMBER);
}

/* Consumes @e, of which only the id counts with VCS_PHASE_FINISH. */
static int order(struct vcs_group *g, struct vcs_event *e, enum vcs_phase phase,
		 const struct vcs_from *from)
{
	struct vcs_event *old __free(vcs_event) = e;
	struct vcs_cluster *c = g->c;
	int err;

	lockdep_assert_held(&c->lock);
	WRITE_ONCE(c->upcalls, c->upcalls + 1);
	err = order_check(g, e, phase, from);
	if (err)
		return err;
	if (phase != VCS_PHASE_FINISH) {
		e->view_generation = vcs_view_locked(c)->generation;
		swap(g->event, old);
		WRITE_ONCE(g->event_id, e->id);
		WRITE_ONCE(g->nr_members, e->nr);
		c->highest_event = max(c->highest_event, e->id);
	}
	WRITE_ONCE(g->phase, phase);
	WRITE_ONCE(g->phase_ns, ktime_get_boottime_ns());
	if (phase == VCS_PHASE_STOP)
		stopped(g);
	else if (phase == VCS_PHASE_START)
		started(g);
	else
		finished(g);
	vcs_group_changed(g);
	return 0;
}

int vcs_up_order(struct vcs_group *g, struct vcs_event *e, enum vcs_phase phase)
{
	guard(vcs_cluster)(g->c);
	if (g->c->state == VCS_PROVIDER_ATTACHED && !g->dead)
		return order(g, e, phase, NULL);
	vcs_event_put(e);
	return -ENOTCONN;
}
EXPORT_SYMBOL_GPL(vcs_up_order);

static int order_from(struct vcs_from *from, enum vcs_phase phase)
{
	int nr = phase == VCS_PHASE_START ? vcs_from_members_count(from) : 0;
	struct vcs_event *e __free(vcs_event) = NULL;
	int err;

	if (nr < 0)
		return nr;
	e = vcs_event_alloc(vcs_from_u64(from, VCS_A_EVENT), nr, GFP_KERNEL);
	if (!e)
		return -ENOMEM;
	err = vcs_from_members(from, e->member);
	if (err)
		return err;
	guard(vcs_cluster)(from->c);
	err = vcs_from_admit(from);
	return err ?: order(from->g, no_free_ptr(e), phase, from);
}

int vcs_nl_group_stop(struct vcs_from *from)
{
	return order_from(from, VCS_PHASE_STOP);
}

int vcs_nl_group_start(struct vcs_from *from)
{
	return order_from(from, VCS_PHASE_START);
}

int vcs_nl_group_finish(struct vcs_from *from)
{
	return order_from(from, VCS_PHASE_FINISH);
}

static int answer(struct vcs_group *g, u64 event, enum vcs_phase phase,
		  const struct vcs_from *from)
{
	enum vcs_phase last = g->acked_event == event ? g->acked_phase : VCS_PHASE_NONE;

	if (phase != VCS_PHASE_STOP && phase != VCS_PHASE_START)
		return vcs_refuse(from, VCS_A_PHASE, -EINVAL, "the phase is not acknowledged");
	if (g->dead || event != g->event_id)
		return stale(g, event, phase, from);
	if (phase > g->phase || phase < last || phase > last + 1)
		return vcs_refuse(from, VCS_A_PHASE, -EPROTO,
				  "the phase is not what is waited for");
	if (phase != last) {
		vcs_group_acknowledge(g, phase);
		vcs_group_changed(g);
	}
	return 0;
}

int vcs_group_ack(struct vcs_group *g, u64 event, enum vcs_phase phase)
{
	guard(vcs_cluster)(g->c);
	return answer(g, event, phase, NULL);
}
EXPORT_SYMBOL_GPL(vcs_group_ack);

int vcs_nl_group_ack(struct vcs_from *from)
{
	return answer(from->g, vcs_from_u64(from, VCS_A_EVENT),
		      vcs_from_u32(from, VCS_A_PHASE, VCS_PHASE_NONE), from);
}
