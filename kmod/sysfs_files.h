/* SPDX-License-Identifier: GPL-2.0 */
/* made from kmod/spec/observe.yaml by `make gen`; do not edit */

static ssize_t show_top_api_version(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", VCS_API_VERSION);
}

static struct kobj_attribute attr_top_api_version = {
	.attr = { .name = "api_version", .mode = 0444 }, .show = show_top_api_version,
};

static struct attribute *top_attrs[] = {
	&attr_top_api_version.attr,
	NULL
};

static const struct attribute_group top_dir = {
	.attrs = top_attrs,
};

static ssize_t show_type_caps(struct kobject *kobj,
			      struct kobj_attribute *attr, char *buf)
{
	struct type_kobj *k = container_of(kobj, struct type_kobj, kobj);

	return sysfs_emit(buf, "0x%llx\n", k->type->caps);
}

static struct kobj_attribute attr_type_caps = {
	.attr = { .name = "caps", .mode = 0444 }, .show = show_type_caps,
};

static ssize_t show_type_refcount(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	struct type_kobj *k = container_of(kobj, struct type_kobj, kobj);

	return sysfs_emit(buf, "%d\n", atomic_read(&k->type->users));
}

static struct kobj_attribute attr_type_refcount = {
	.attr = { .name = "refcount", .mode = 0444 }, .show = show_type_refcount,
};

static struct attribute *type_attrs[] = {
	&attr_type_caps.attr,
	&attr_type_refcount.attr,
	NULL
};

static const struct attribute_group type_dir = {
	.attrs = type_attrs,
};

static ssize_t show_cluster_cluster_name(struct kobject *kobj,
					 struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%s\n", c->name);
}

static struct kobj_attribute attr_cluster_cluster_name = {
	.attr = { .name = "cluster_name", .mode = 0444 }, .show = show_cluster_cluster_name,
};

static ssize_t show_cluster_nodeid(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%u\n", c->nodeid);
}

static struct kobj_attribute attr_cluster_nodeid = {
	.attr = { .name = "nodeid", .mode = 0444 }, .show = show_cluster_nodeid,
};

static ssize_t show_cluster_incarnation(struct kobject *kobj,
					struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", vcs_incarnation);
}

static struct kobj_attribute attr_cluster_incarnation = {
	.attr = { .name = "incarnation", .mode = 0444 }, .show = show_cluster_incarnation,
};

static ssize_t show_cluster_change_seq(struct kobject *kobj,
				       struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->change_seq));
}

static struct kobj_attribute attr_cluster_change_seq = {
	.attr = { .name = "change_seq", .mode = 0444 }, .show = show_cluster_change_seq,
};

static struct attribute *cluster_attrs[] = {
	&attr_cluster_cluster_name.attr,
	&attr_cluster_nodeid.attr,
	&attr_cluster_incarnation.attr,
	&attr_cluster_change_seq.attr,
	NULL
};

static const struct attribute_group cluster_dir = {
	.attrs = cluster_attrs,
};

static ssize_t show_provider_type(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%s\n", c->provider);
}

static struct kobj_attribute attr_provider_type = {
	.attr = { .name = "type", .mode = 0444 }, .show = show_provider_type,
};

static ssize_t show_provider_state(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%s\n",
			  vcs_provider_state_text[READ_ONCE(c->state)]);
}

static struct kobj_attribute attr_provider_state = {
	.attr = { .name = "state", .mode = 0444 }, .show = show_provider_state,
};

static ssize_t show_provider_session_age_ms(struct kobject *kobj,
					    struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n",
			  attached(c) ? ms_since(READ_ONCE(c->attached_ns)) : 0ULL);
}

static struct kobj_attribute attr_provider_session_age_ms = {
	.attr = { .name = "session_age_ms", .mode = 0444 }, .show = show_provider_session_age_ms,
};

static ssize_t show_provider_upcalls(struct kobject *kobj,
				     struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->upcalls));
}

static struct kobj_attribute attr_provider_upcalls = {
	.attr = { .name = "upcalls", .mode = 0444 }, .show = show_provider_upcalls,
};

static ssize_t show_provider_stale_acks(struct kobject *kobj,
					struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->stale));
}

static struct kobj_attribute attr_provider_stale_acks = {
	.attr = { .name = "stale_acks", .mode = 0444 }, .show = show_provider_stale_acks,
};

static ssize_t show_provider_dropped_hints(struct kobject *kobj,
					   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->dropped_hints));
}

static struct kobj_attribute attr_provider_dropped_hints = {
	.attr = { .name = "dropped_hints", .mode = 0444 }, .show = show_provider_dropped_hints,
};

static struct attribute *provider_attrs[] = {
	&attr_provider_type.attr,
	&attr_provider_state.attr,
	&attr_provider_session_age_ms.attr,
	&attr_provider_upcalls.attr,
	&attr_provider_stale_acks.attr,
	&attr_provider_dropped_hints.attr,
	NULL
};

static const struct attribute_group provider_dir = {
	.name = "provider",
	.attrs = provider_attrs,
};

static ssize_t show_view_generation(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = sysfs_emit(buf, "%llu\n", v->generation);
	rcu_read_unlock();
	return n;
}

static struct kobj_attribute attr_view_generation = {
	.attr = { .name = "generation", .mode = 0444 }, .show = show_view_generation,
};

static ssize_t show_view_ring(struct kobject *kobj,
			      struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = sysfs_emit(buf, "%llu.%u\n", v->ring_seq, v->ring_rep);
	rcu_read_unlock();
	return n;
}

static struct kobj_attribute attr_view_ring = {
	.attr = { .name = "ring", .mode = 0444 }, .show = show_view_ring,
};

static ssize_t show_view_quorate(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = sysfs_emit(buf, "%u\n", !!(v->flags & VCS_VIEW_QUORATE));
	rcu_read_unlock();
	return n;
}

static struct kobj_attribute attr_view_quorate = {
	.attr = { .name = "quorate", .mode = 0444 }, .show = show_view_quorate,
};

static ssize_t show_view_agreed(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%u\n",
			  attached(c) && (READ_ONCE(c->caps) & VCS_CAP_AGREED));
}

static struct kobj_attribute attr_view_agreed = {
	.attr = { .name = "agreed", .mode = 0444 }, .show = show_view_agreed,
};

static ssize_t show_view_nr_members(struct kobject *kobj,
				    struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = sysfs_emit(buf, "%u\n", v->nr);
	rcu_read_unlock();
	return n;
}

static struct kobj_attribute attr_view_nr_members = {
	.attr = { .name = "nr_members", .mode = 0444 }, .show = show_view_nr_members,
};

static ssize_t show_view_members(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = show_members(v, buf);
	rcu_read_unlock();
	return n;
}

static struct kobj_attribute attr_view_members = {
	.attr = { .name = "members", .mode = 0444 }, .show = show_view_members,
};

static struct attribute *view_attrs[] = {
	&attr_view_generation.attr,
	&attr_view_ring.attr,
	&attr_view_quorate.attr,
	&attr_view_agreed.attr,
	&attr_view_nr_members.attr,
	&attr_view_members.attr,
	NULL
};

static const struct attribute_group view_dir = {
	.name = "view",
	.attrs = view_attrs,
};

static ssize_t show_lease_state(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%s\n",
			  vcs_lease_state_text[vcs_lease_next(&c->lease, ktime_get_boottime_ns())]);
}

static struct kobj_attribute attr_lease_state = {
	.attr = { .name = "state", .mode = 0444 }, .show = show_lease_state,
};

static ssize_t show_lease_lease_ms(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n",
			  div_u64(READ_ONCE(c->lease.lease_ns), NSEC_PER_MSEC));
}

static struct kobj_attribute attr_lease_lease_ms = {
	.attr = { .name = "lease_ms", .mode = 0444 }, .show = show_lease_lease_ms,
};

static ssize_t show_lease_grace_ms(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n",
			  div_u64(READ_ONCE(c->lease.grace_ns), NSEC_PER_MSEC));
}

static struct kobj_attribute attr_lease_grace_ms = {
	.attr = { .name = "grace_ms", .mode = 0444 }, .show = show_lease_grace_ms,
};

static ssize_t show_lease_remaining_ms(struct kobject *kobj,
				       struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n",
			  vcs_lease_remaining_ms(c, ktime_get_boottime_ns()));
}

static struct kobj_attribute attr_lease_remaining_ms = {
	.attr = { .name = "remaining_ms", .mode = 0444 }, .show = show_lease_remaining_ms,
};

static ssize_t show_lease_renewals(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->lease.renewals));
}

static struct kobj_attribute attr_lease_renewals = {
	.attr = { .name = "renewals", .mode = 0444 }, .show = show_lease_renewals,
};

static ssize_t show_lease_late_renewals(struct kobject *kobj,
					struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->lease.late));
}

static struct kobj_attribute attr_lease_late_renewals = {
	.attr = { .name = "late_renewals", .mode = 0444 }, .show = show_lease_late_renewals,
};

static ssize_t show_lease_reset_armed(struct kobject *kobj,
				      struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%u\n",
			  READ_ONCE(c->lease.armed) && READ_ONCE(c->lease.reset));
}

static struct kobj_attribute attr_lease_reset_armed = {
	.attr = { .name = "reset_armed", .mode = 0444 }, .show = show_lease_reset_armed,
};

static ssize_t show_lease_dry_run(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", vcs_dry_run);
}

static struct kobj_attribute attr_lease_dry_run = {
	.attr = { .name = "dry_run", .mode = 0444 }, .show = show_lease_dry_run,
};

static ssize_t show_lease_resets(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->lease.resets));
}

static struct kobj_attribute attr_lease_resets = {
	.attr = { .name = "resets", .mode = 0444 }, .show = show_lease_resets,
};

static ssize_t show_lease_freeze_until_ns(struct kobject *kobj,
					  struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(c->lease.freeze));
}

static struct kobj_attribute attr_lease_freeze_until_ns = {
	.attr = { .name = "freeze_until_ns", .mode = 0444 }, .show = show_lease_freeze_until_ns,
};

static struct attribute *lease_attrs[] = {
	&attr_lease_state.attr,
	&attr_lease_lease_ms.attr,
	&attr_lease_grace_ms.attr,
	&attr_lease_remaining_ms.attr,
	&attr_lease_renewals.attr,
	&attr_lease_late_renewals.attr,
	&attr_lease_reset_armed.attr,
	&attr_lease_dry_run.attr,
	&attr_lease_resets.attr,
	&attr_lease_freeze_until_ns.attr,
	NULL
};

static const struct attribute_group lease_dir = {
	.name = "lease",
	.attrs = lease_attrs,
};

static ssize_t show_group_level(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%s\n",
			  vcs_level_text[g->level]);
}

static struct kobj_attribute attr_group_level = {
	.attr = { .name = "level", .mode = 0444 }, .show = show_group_level,
};

static ssize_t show_group_flags(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return show_flags(g, buf);
}

static struct kobj_attribute attr_group_flags = {
	.attr = { .name = "flags", .mode = 0444 }, .show = show_group_flags,
};

static ssize_t show_group_state(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%s\n",
			  vcs_group_state_text[READ_ONCE(g->state)]);
}

static struct kobj_attribute attr_group_state = {
	.attr = { .name = "state", .mode = 0444 }, .show = show_group_state,
};

static ssize_t show_group_event(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(g->event_id));
}

static struct kobj_attribute attr_group_event = {
	.attr = { .name = "event", .mode = 0444 }, .show = show_group_event,
};

static ssize_t show_group_phase(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%s\n",
			  vcs_phase_text[READ_ONCE(g->phase)]);
}

static struct kobj_attribute attr_group_phase = {
	.attr = { .name = "phase", .mode = 0444 }, .show = show_group_phase,
};

static ssize_t show_group_acked_event(struct kobject *kobj,
				      struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(g->acked_event));
}

static struct kobj_attribute attr_group_acked_event = {
	.attr = { .name = "acked_event", .mode = 0444 }, .show = show_group_acked_event,
};

static ssize_t show_group_nr_members(struct kobject *kobj,
				     struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%u\n", READ_ONCE(g->nr_members));
}

static struct kobj_attribute attr_group_nr_members = {
	.attr = { .name = "nr_members", .mode = 0444 }, .show = show_group_nr_members,
};

static ssize_t show_group_owner(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%s\n", g->owner);
}

static struct kobj_attribute attr_group_owner = {
	.attr = { .name = "owner", .mode = 0444 }, .show = show_group_owner,
};

static ssize_t show_group_orphan_since_ms(struct kobject *kobj,
					  struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%llu\n", ms_since(READ_ONCE(g->orphan_ns)));
}

static struct kobj_attribute attr_group_orphan_since_ms = {
	.attr = { .name = "orphan_since_ms", .mode = 0444 }, .show = show_group_orphan_since_ms,
};

static ssize_t show_group_age_ms(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	return sysfs_emit(buf, "%llu\n", ms_since(READ_ONCE(g->phase_ns)));
}

static struct kobj_attribute attr_group_age_ms = {
	.attr = { .name = "age_ms", .mode = 0444 }, .show = show_group_age_ms,
};

static struct attribute *group_attrs[] = {
	&attr_group_level.attr,
	&attr_group_flags.attr,
	&attr_group_state.attr,
	&attr_group_event.attr,
	&attr_group_phase.attr,
	&attr_group_acked_event.attr,
	&attr_group_nr_members.attr,
	&attr_group_owner.attr,
	&attr_group_orphan_since_ms.attr,
	&attr_group_age_ms.attr,
	NULL
};

static const struct attribute_group group_dir = {
	.attrs = group_attrs,
};
