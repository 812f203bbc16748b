/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints. Names are fixed arrays: usable as BPF keys, the same on every kernel. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vcs

#if !defined(_VCS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VCS_TRACE_H

#include <linux/tracepoint.h>

#include "internal.h"

#define VCS_TRACE_CLUSTER						\
	__field(u32, cluster)						\
	__array(char, handle, VCS_NAME_MAX + 1)
#define VCS_TRACE_CLUSTER_ASSIGN(c)					\
	do {								\
		__entry->cluster = (c)->id;				\
		strscpy(__entry->handle, (c)->handle, VCS_NAME_MAX + 1);\
	} while (0)

DECLARE_EVENT_CLASS(vcs_cluster,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__field(u32, nodeid)
		__field(u32, state)
		__array(char, provider, VCS_NAME_MAX + 1)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(c);
		__entry->nodeid = c->nodeid;
		__entry->state = c->state;
		strscpy(__entry->provider, c->provider, VCS_NAME_MAX + 1);
	),
	TP_printk("cluster=%u %s nodeid=%u provider=%s state=%u", __entry->cluster,
		  __entry->handle, __entry->nodeid, __entry->provider, __entry->state)
);

#define VCS_CLUSTER_EVENT(name)						\
	DEFINE_EVENT(vcs_cluster, name,					\
		TP_PROTO(const struct vcs_cluster *c), TP_ARGS(c))
VCS_CLUSTER_EVENT(vcs_cluster_add);
VCS_CLUSTER_EVENT(vcs_cluster_del);
VCS_CLUSTER_EVENT(vcs_provider_attach);
VCS_CLUSTER_EVENT(vcs_provider_detach);
VCS_CLUSTER_EVENT(vcs_provider_lost);
VCS_CLUSTER_EVENT(vcs_lease_expire);

DECLARE_EVENT_CLASS(vcs_view,
	TP_PROTO(const struct vcs_cluster *c, const struct vcs_view *v),
	TP_ARGS(c, v),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__field(u64, generation)
		__field(u64, ring_seq)
		__field(u32, ring_rep)
		__field(u32, flags)
		__field(u32, nr)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(c);
		__entry->generation = v->generation;
		__entry->ring_seq = v->ring_seq;
		__entry->ring_rep = v->ring_rep;
		__entry->flags = v->flags;
		__entry->nr = v->nr;
	),
	TP_printk("cluster=%u %s generation=%llu ring=%llu.%u quorate=%u members=%u",
		  __entry->cluster, __entry->handle, __entry->generation,
		  __entry->ring_seq, __entry->ring_rep,
		  !!(__entry->flags & VCS_VIEW_QUORATE), __entry->nr)
);

#define VCS_VIEW_EVENT(name)						\
	DEFINE_EVENT(vcs_view, name,					\
		TP_PROTO(const struct vcs_cluster *c, const struct vcs_view *v),\
		TP_ARGS(c, v))
VCS_VIEW_EVENT(vcs_view_install);
VCS_VIEW_EVENT(vcs_view_notified);

DECLARE_EVENT_CLASS(vcs_group,
	TP_PROTO(const struct vcs_group *g),
	TP_ARGS(g),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, event)
		__field(u32, phase)
		__field(u64, acked_event)
		__field(u32, acked_phase)
		__field(u32, state)
		__field(int, err)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(g->c);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->event = g->event_id;
		__entry->phase = g->phase;
		__entry->acked_event = g->acked_event;
		__entry->acked_phase = g->acked_phase;
		__entry->state = g->state;
		__entry->err = g->err;
	),
	TP_printk("cluster=%u %s group=%s event=%llu phase=%u acked=%llu/%u state=%u err=%d",
		  __entry->cluster, __entry->handle, __entry->group, __entry->event,
		  __entry->phase, __entry->acked_event, __entry->acked_phase,
		  __entry->state, __entry->err)
);

#define VCS_GROUP_EVENT(name)						\
	DEFINE_EVENT(vcs_group, name,					\
		TP_PROTO(const struct vcs_group *g), TP_ARGS(g))
VCS_GROUP_EVENT(vcs_group_join);
VCS_GROUP_EVENT(vcs_group_leave);
VCS_GROUP_EVENT(vcs_group_left);
VCS_GROUP_EVENT(vcs_group_stop);
VCS_GROUP_EVENT(vcs_group_start);
VCS_GROUP_EVENT(vcs_group_finish);
VCS_GROUP_EVENT(vcs_group_ack);
VCS_GROUP_EVENT(vcs_group_orphan);
VCS_GROUP_EVENT(vcs_group_takeover);
VCS_GROUP_EVENT(vcs_group_lost);

DECLARE_EVENT_CLASS(vcs_group_call,
	TP_PROTO(const struct vcs_group *g, unsigned int call),
	TP_ARGS(g, call),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, event)
		__field(u32, call)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(g->c);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->event = g->told_event;
		__entry->call = call;
	),
	TP_printk("cluster=%u %s group=%s event=%llu call=%s", __entry->cluster,
		  __entry->handle, __entry->group, __entry->event,
		  __print_symbolic(__entry->call, { 1, "stop" }, { 2, "start" },
				   { 3, "finish" }, { 4, "lost" }, { 5, "left" }))
);

#define VCS_GROUP_CALL_EVENT(name)					\
	DEFINE_EVENT(vcs_group_call, name,				\
		TP_PROTO(const struct vcs_group *g, unsigned int call),	\
		TP_ARGS(g, call))
VCS_GROUP_CALL_EVENT(vcs_group_call_enter);
VCS_GROUP_CALL_EVENT(vcs_group_call_exit);

/* An acknowledgement, or an order, of an event that is not the current one. */
TRACE_EVENT(vcs_group_ack_stale,
	TP_PROTO(const struct vcs_group *g, u64 event, unsigned int phase),
	TP_ARGS(g, event, phase),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__array(char, group, VCS_NAME_MAX + 1)
		__field(u64, current_event)
		__field(u64, event)
		__field(u32, phase)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(g->c);
		strscpy(__entry->group, g->name, VCS_NAME_MAX + 1);
		__entry->current_event = g->event_id;
		__entry->event = event;
		__entry->phase = phase;
	),
	TP_printk("cluster=%u %s group=%s current=%llu event=%llu phase=%u",
		  __entry->cluster, __entry->handle, __entry->group,
		  __entry->current_event, __entry->event, __entry->phase)
);

TRACE_EVENT(vcs_fence_result,
	TP_PROTO(const struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err),
	TP_ARGS(c, nodeid, incarnation, err),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__field(u32, nodeid)
		__field(u64, incarnation)
		__field(int, err)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(c);
		__entry->nodeid = nodeid;
		__entry->incarnation = incarnation;
		__entry->err = err;
	),
	TP_printk("cluster=%u %s nodeid=%u incarnation=%llx err=%d", __entry->cluster,
		  __entry->handle, __entry->nodeid, __entry->incarnation, __entry->err)
);

TRACE_EVENT(vcs_lease_renew,
	TP_PROTO(const struct vcs_cluster *c, u64 valid_from, u64 slack_ns),
	TP_ARGS(c, valid_from, slack_ns),
	TP_STRUCT__entry(
		VCS_TRACE_CLUSTER
		__field(u64, valid_from)
		__field(u64, slack_ns)
	),
	TP_fast_assign(
		VCS_TRACE_CLUSTER_ASSIGN(c);
		__entry->valid_from = valid_from;
		__entry->slack_ns = slack_ns;
	),
	TP_printk("cluster=%u %s valid_from=%llu slack_ns=%llu", __entry->cluster,
		  __entry->handle, __entry->valid_from, __entry->slack_ns)
);

TRACE_EVENT(vcs_hint_lost,
	TP_PROTO(const struct vcs_cluster *c),
	TP_ARGS(c),
	TP_STRUCT__entry(VCS_TRACE_CLUSTER),
	TP_fast_assign(VCS_TRACE_CLUSTER_ASSIGN(c)),
	TP_printk("cluster=%u %s", __entry->cluster, __entry->handle)
);

TRACE_EVENT(vcs_refuse,
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
	TP_printk("cmd=%u err=%d %s", __entry->cmd, __entry->err, __entry->why)
);

#endif /* _VCS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
