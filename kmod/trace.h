/* SPDX-License-Identifier: GPL-2.0 */
/* made from kmod/spec/observe.yaml by `make gen`; do not edit */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vcs

#if !defined(_VCS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VCS_TRACE_H

#include <linux/tracepoint.h>

#include "internal.h"

DECLARE_EVENT_CLASS(vcs_cluster,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__field(u32, nodeid)
		__array(char, provider, VCS_NAME_MAX + 1)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->cluster = (c)->id;
		strscpy(__entry->handle, (c)->handle, VCS_NAME_MAX + 1);
		__entry->nodeid = c->nodeid;
		strscpy(__entry->provider, c->provider, VCS_NAME_MAX + 1);
		__entry->state = c->state;
	),
	TP_printk("cluster=%u %s nodeid=%u provider=%s state=%u",
		  __entry->cluster,
		  __entry->handle,
		  __entry->nodeid,
		  __entry->provider,
		  __entry->state)
);

/* A cluster was added. */
DEFINE_EVENT(vcs_cluster, vcs_cluster_add,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A cluster was deleted. */
DEFINE_EVENT(vcs_cluster, vcs_cluster_del,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A provider took the seat. */
DEFINE_EVENT(vcs_cluster, vcs_provider_attach,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A provider gave the seat back, or its attach failed. */
DEFINE_EVENT(vcs_cluster, vcs_provider_detach,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/*
 * The process in the seat is gone; the groups stay as they are for the next
 * one.
 */
DEFINE_EVENT(vcs_cluster, vcs_provider_orphan,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A provider is gone without a detach; its groups are lost. */
DEFINE_EVENT(vcs_cluster, vcs_provider_lost,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* The lease has run out; with a grace, the provider is lost. */
DEFINE_EVENT(vcs_cluster, vcs_lease_expire,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A dry run leaves out the reset of the machine, here. */
DEFINE_EVENT(vcs_cluster, vcs_lease_reset,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

/* A hint could not be delivered; its listeners are told. */
DEFINE_EVENT(vcs_cluster, vcs_hint_lost,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c)
);

DECLARE_EVENT_CLASS(vcs_view,
	TP_PROTO(const struct vcs_cluster *c, const struct vcs_view *v),
	TP_ARGS(c, v),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__field(u64, generation)
		__field(u64, ring_seq)
		__field(u32, ring_rep)
		__field(u32, flags)
		__field(u32, nr)
	),
	TP_fast_assign(
		__entry->cluster = (c)->id;
		strscpy(__entry->handle, (c)->handle, VCS_NAME_MAX + 1);
		__entry->generation = v->generation;
		__entry->ring_seq = v->ring_seq;
		__entry->ring_rep = v->ring_rep;
		__entry->flags = v->flags;
		__entry->nr = v->nr;
	),
	TP_printk("cluster=%u %s generation=%llu ring=%llu.%u quorate=%u members=%u",
		  __entry->cluster,
		  __entry->handle,
		  __entry->generation,
		  __entry->ring_seq,
		  __entry->ring_rep,
		  !!(__entry->flags & VCS_VIEW_QUORATE),
		  __entry->nr)
);

/* A view is current. */
DEFINE_EVENT(vcs_view, vcs_view_install,
	TP_PROTO(const struct vcs_cluster *c, const struct vcs_view *v),
	TP_ARGS(c, v)
);

/* The view notifier has been called with it. */
DEFINE_EVENT(vcs_view, vcs_view_notified,
	TP_PROTO(const struct vcs_cluster *c, const struct vcs_view *v),
	TP_ARGS(c, v)
);

DECLARE_EVENT_CLASS(vcs_group,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, event)
		__field(u32, phase)
		__field(u64, acked_event)
		__field(u32, acked_phase)
		__field(u32, state)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->cluster = (g->c)->id;
		strscpy(__entry->handle, (g->c)->handle, VCS_NAME_MAX + 1);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->event = g->event_id;
		__entry->phase = g->phase;
		__entry->acked_event = g->acked_event;
		__entry->acked_phase = g->acked_phase;
		__entry->state = g->state;
		__entry->err = g->err;
	),
	TP_printk("cluster=%u %s group=%s event=%llu phase=%u acked=%llu/%u state=%u err=%d",
		  __entry->cluster,
		  __entry->handle,
		  __entry->group,
		  __entry->event,
		  __entry->phase,
		  __entry->acked_event,
		  __entry->acked_phase,
		  __entry->state,
		  __entry->err)
);

/* A consumer asked to join. */
DEFINE_EVENT(vcs_group, vcs_group_join,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* A consumer asked to leave. */
DEFINE_EVENT(vcs_group, vcs_group_leave,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The group is gone, for err. */
DEFINE_EVENT(vcs_group, vcs_group_left,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The provider ordered a stop. */
DEFINE_EVENT(vcs_group, vcs_group_stop,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The provider ordered a start. */
DEFINE_EVENT(vcs_group, vcs_group_start,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The provider ordered a finish. */
DEFINE_EVENT(vcs_group, vcs_group_finish,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The consumer acknowledged a phase. */
DEFINE_EVENT(vcs_group, vcs_group_ack,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The socket of a persistent group is dead. */
DEFINE_EVENT(vcs_group, vcs_group_orphan,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* An orphan has a consumer again. */
DEFINE_EVENT(vcs_group, vcs_group_takeover,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

/* The provider was lost under the group. */
DEFINE_EVENT(vcs_group, vcs_group_lost,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g)
);

DECLARE_EVENT_CLASS(vcs_group_call,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int call),
	TP_ARGS(g, event, call),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, event)
		__field(u32, call)
	),
	TP_fast_assign(
		__entry->cluster = (g->c)->id;
		strscpy(__entry->handle, (g->c)->handle, VCS_NAME_MAX + 1);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->event = event;
		__entry->call = call;
	),
	TP_printk("cluster=%u %s group=%s event=%llu call=%u",
		  __entry->cluster,
		  __entry->handle,
		  __entry->group,
		  __entry->event,
		  __entry->call)
);

/*
 * A callback of a consumer in the kernel begins: 1 stop, 2 start, 3 finish, 4
 * lost, 5 left.
 */
DEFINE_EVENT(vcs_group_call, vcs_group_call_enter,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int call),
	TP_ARGS(g, event, call)
);

/* It has returned. */
DEFINE_EVENT(vcs_group_call, vcs_group_call_exit,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int call),
	TP_ARGS(g, event, call)
);

DECLARE_EVENT_CLASS(vcs_group_ack_stale,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int phase),
	TP_ARGS(g, event, phase),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, current_event)
		__field(u64, event)
		__field(u32, phase)
	),
	TP_fast_assign(
		__entry->cluster = (g->c)->id;
		strscpy(__entry->handle, (g->c)->handle, VCS_NAME_MAX + 1);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->current_event = g->event_id;
		__entry->event = event;
		__entry->phase = phase;
	),
	TP_printk("cluster=%u %s group=%s current=%llu event=%llu phase=%u",
		  __entry->cluster,
		  __entry->handle,
		  __entry->group,
		  __entry->current_event,
		  __entry->event,
		  __entry->phase)
);

/* An answer to, or an order of, an event that is not the current one. */
DEFINE_EVENT(vcs_group_ack_stale, vcs_group_ack_stale,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int phase),
	TP_ARGS(g, event, phase)
);

DECLARE_EVENT_CLASS(vcs_fence_result,
	TP_PROTO(const struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err),
	TP_ARGS(c, nodeid, incarnation, err),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__field(u32, nodeid)
		__field(u64, incarnation)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->cluster = (c)->id;
		strscpy(__entry->handle, (c)->handle, VCS_NAME_MAX + 1);
		__entry->nodeid = nodeid;
		__entry->incarnation = incarnation;
		__entry->err = err;
	),
	TP_printk("cluster=%u %s nodeid=%u incarnation=%llx err=%d",
		  __entry->cluster,
		  __entry->handle,
		  __entry->nodeid,
		  __entry->incarnation,
		  __entry->err)
);

/* The provider reported the result of fencing a node. */
DEFINE_EVENT(vcs_fence_result, vcs_fence_result,
	TP_PROTO(const struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err),
	TP_ARGS(c, nodeid, incarnation, err)
);

DECLARE_EVENT_CLASS(vcs_lease_renew,
	TP_PROTO(const struct vcs_cluster *c, u64 valid_from, u64 slack_ns),
	TP_ARGS(c, valid_from, slack_ns),
	TP_STRUCT__entry(
		__field(u32, cluster)
		__array(char, handle, VCS_NAME_MAX + 1)
		__field(u64, valid_from)
		__field(u64, slack_ns)
	),
	TP_fast_assign(
		__entry->cluster = (c)->id;
		strscpy(__entry->handle, (c)->handle, VCS_NAME_MAX + 1);
		__entry->valid_from = valid_from;
		__entry->slack_ns = slack_ns;
	),
	TP_printk("cluster=%u %s valid_from=%llu slack_ns=%llu",
		  __entry->cluster,
		  __entry->handle,
		  __entry->valid_from,
		  __entry->slack_ns)
);

/*
 * The lease was renewed with evidence of valid_from (CLOCK_BOOTTIME, ns); it
 * lasts for slack_ns more.
 */
DEFINE_EVENT(vcs_lease_renew, vcs_lease_renew,
	TP_PROTO(const struct vcs_cluster *c, u64 valid_from, u64 slack_ns),
	TP_ARGS(c, valid_from, slack_ns)
);

DECLARE_EVENT_CLASS(vcs_refuse,
	TP_PROTO(unsigned int cmd, int err, const char *why),
	TP_ARGS(cmd, err, why),
	TP_STRUCT__entry(
		__field(u32, cmd)
		__field(int, err)
		__array(char, why, 96)
	),
	TP_fast_assign(
		__entry->cmd = cmd;
		__entry->err = err;
		strscpy(__entry->why, why, 96);
	),
	TP_printk("cmd=%u err=%d %s",
		  __entry->cmd,
		  __entry->err,
		  __entry->why)
);

/* A command (0, an upcall) was refused. */
DEFINE_EVENT(vcs_refuse, vcs_refuse,
	TP_PROTO(unsigned int cmd, int err, const char *why),
	TP_ARGS(cmd, err, why)
);

#endif /* _VCS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
