// SPDX-License-Identifier: GPL-2.0
/*
 * What the heartbeat decides: which packets count, who is up, for how long. Pure:
 * no clock, no socket, no lock, nothing allocated, nothing printed.
 */
#include <linux/minmax.h>
#include <linux/time64.h>
#include <asm/byteorder.h>

#include "heartbeat.h"

static u64 interval(const struct vcs_hb_self *self)
{
	return (u64)self->interval_ms * NSEC_PER_MSEC;
}

/* Is a beat due? If so it is counted, and its time kept for the echo. */
bool vcs_hb_beat(struct vcs_hb_self *self, u64 now)
{
	if (now < self->next)
		return false;
	/* On a fixed grid; what was overslept is not made up for. */
	self->next += interval(self);
	if (self->next <= now)
		self->next = now + interval(self);
	self->seq++;
	self->sent[self->seq % VCS_HB_RECENT] = now;
	return true;
}

/* The last beat, for @peer; all but the MAC. */
void vcs_hb_say(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 flags,
		struct vcs_hb_packet *packet)
{
	*packet = (struct vcs_hb_packet){
		.magic = cpu_to_be32(VCS_HB_MAGIC),
		.version = cpu_to_be32(VCS_HB_VERSION),
		.from = cpu_to_be32(self->nodeid),
		.to = cpu_to_be32(peer->nodeid),
		.boot = cpu_to_be64(self->boot),
		.life = cpu_to_be64(self->life),
		.seq = cpu_to_be64(self->seq),
		.echo_life = cpu_to_be64(peer->life),
		.echo_seq = cpu_to_be64(peer->seq),
		.interval_ms = cpu_to_be32(self->interval_ms),
		.flags = cpu_to_be32(flags),
	};
}

/* May this be a packet of ours at all? Its MAC has not been looked at. */
bool vcs_hb_sane(const struct vcs_hb_packet *packet, size_t len)
{
	return len == sizeof(*packet) && packet->magic == cpu_to_be32(VCS_HB_MAGIC) &&
	       packet->version == cpu_to_be32(VCS_HB_VERSION) &&
	       packet->boot && packet->life && packet->seq;
}

/* Does the packet echo a beat of this life of ours, and a recent one? */
static bool fresh(const struct vcs_hb_self *self, const struct vcs_hb_packet *packet)
{
	u64 echo = be64_to_cpu(packet->echo_seq);

	return be64_to_cpu(packet->echo_life) == self->life && echo && echo <= self->seq &&
	       self->seq - echo < VCS_HB_RECENT;
}

/*
 * Within a life numbers rise. Another life is believed when it echoes a beat that
 * nobody has echoed before, as only who lives now can. Without that proof it is but
 * one to be echoed, so that it can give it, and that only while the peer is down: a
 * later one at once, an earlier one (a clock was set back) when the later is silent.
 */
static bool replayed(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer,
		     const struct vcs_hb_packet *packet, u64 now)
{
	u64 life = be64_to_cpu(packet->life);

	if (life == peer->life)
		return be64_to_cpu(packet->seq) <= peer->seq;
	if (fresh(self, packet) && be64_to_cpu(packet->echo_seq) > peer->echoed)
		return false;
	return vcs_hb_until(self, peer) > now ||
	       (life < peer->life && now < peer->heard + VCS_HB_MISSED * interval(self));
}

/* A packet of @peer whose MAC is right. */
enum vcs_hb_verdict vcs_hb_hear(const struct vcs_hb_self *self, struct vcs_hb_peer *peer,
				const struct vcs_hb_packet *packet, u64 now)
{
	u64 life = be64_to_cpu(packet->life), echo = be64_to_cpu(packet->echo_seq);

	if (be32_to_cpu(packet->interval_ms) != self->interval_ms)
		return VCS_HB_INTERVAL_DIFFERS;
	if (replayed(self, peer, packet, now))
		return VCS_HB_REPLAYED;
	peer->lives += life != peer->life;
	/* Who went down comes up by a new proof alone. */
	if (life != peer->life || vcs_hb_until(self, peer) <= now)
		peer->proven = 0;
	peer->boot = be64_to_cpu(packet->boot);
	peer->life = life;
	peer->seq = be64_to_cpu(packet->seq);
	peer->heard = now;
	if (be32_to_cpu(packet->flags) & VCS_HB_BYE) {
		peer->proven = 0;
	} else if (fresh(self, packet) && echo > peer->echoed) {
		peer->echoed = echo;
		peer->proven = self->sent[echo % VCS_HB_RECENT];
	}
	return VCS_HB_HEARD;
}

/*
 * Until when is @peer up, if nothing more is heard? 0: it is down. VCS_HB_MISSED
 * beats may be missed; the proof is older than the beat which brought it by up to
 * one interval.
 */
u64 vcs_hb_until(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer)
{
	if (!peer->proven)
		return 0;
	return min(peer->heard + VCS_HB_MISSED * interval(self),
		   peer->proven + (VCS_HB_MISSED + 1) * interval(self));
}

/* When is there something to do next, packets apart? */
u64 vcs_hb_wake(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 nr, u64 now)
{
	u64 wake = self->next, until;
	u32 i;

	for (i = 0; i < nr; i++) {
		until = vcs_hb_until(self, &peer[i]);
		if (until > now)
			wake = min(wake, until);
	}
	return wake;
}

/* Those who are up, with this node, into @members, which has room for @nr. */
u32 vcs_hb_members(const struct vcs_hb_self *self, const struct vcs_hb_peer *peer, u32 nr,
		   u64 now, struct vcs_member *members)
{
	u32 i, up = 0;
	bool me;

	for (i = 0; i < nr; i++) {
		me = peer[i].nodeid == self->nodeid;
		if (!me && vcs_hb_until(self, &peer[i]) <= now)
			continue;
		members[up++] = (struct vcs_member){
			.nodeid = peer[i].nodeid,
			.votes = 1,
			.incarnation = me ? self->boot : peer[i].boot,
		};
	}
	return up;
}
