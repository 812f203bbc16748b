// SPDX-License-Identifier: GPL-2.0
/* The provider type `heartbeat`: a socket and a thread for each attached cluster. */
#define pr_fmt(fmt) "vcs_heartbeat: " fmt

#include <linux/debugfs.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/seq_file.h>
#include <crypto/algapi.h>
#include <crypto/hash.h>
#include <net/sock.h>

#include "heartbeat.h"

static struct dentry *hb_dir;
static struct crypto_shash *hb_pin;	/* so that no attach has to load the algorithm */

static int make_mac(struct vcs_hb *hb, const struct vcs_hb_packet *packet, u8 *mac)
{
	return crypto_shash_tfm_digest(hb->mac, (const u8 *)packet,
				       offsetof(struct vcs_hb_packet, mac), mac);
}

static void send_one(struct vcs_hb *hb, struct vcs_hb_peer *peer, u32 flags)
{
	struct vcs_hb_packet packet;
	struct kvec vec = { .iov_base = &packet, .iov_len = sizeof(packet) };
	struct msghdr msg = {
		.msg_name = &peer->address,
		.msg_namelen = hb->address_len,
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL,
	};

	vcs_hb_say(&hb->self, peer, flags, &packet);
	if (make_mac(hb, &packet, packet.mac) ||
	    kernel_sendmsg(hb->sock, &msg, &vec, 1, sizeof(packet)) != sizeof(packet))
		hb->unsent++;
}

static void send_all(struct vcs_hb *hb, u32 flags)
{
	u32 i;

	for (i = 0; i < hb->nr; i++)
		if (&hb->peer[i] != hb->me)
			send_one(hb, &hb->peer[i], flags);
}

static enum vcs_hb_verdict judge(struct vcs_hb *hb, const struct vcs_hb_packet *packet, int len)
{
	u64 now = ktime_get_boottime_ns();
	struct vcs_hb_peer *peer;
	u8 mac[VCS_HB_MAC_LEN];

	if (!vcs_hb_sane(packet, len))
		return VCS_HB_MALFORMED;
	if (make_mac(hb, packet, mac) || crypto_memneq(mac, packet->mac, sizeof(mac)))
		return VCS_HB_FORGED;
	if (be32_to_cpu(packet->to) != hb->self.nodeid)
		return VCS_HB_STRANGER;
	for (peer = hb->peer; peer < hb->peer + hb->nr; peer++)
		if (peer != hb->me && peer->nodeid == be32_to_cpu(packet->from))
			return vcs_hb_hear(&hb->self, peer, packet, now);
	return VCS_HB_STRANGER;
}

/* One packet, or until it is time for something else. */
static void receive(struct vcs_hb *hb)
{
	u64 now = ktime_get_boottime_ns();
	u64 wake = vcs_hb_wake(&hb->self, hb->peer, hb->nr, now);
	struct {
		struct vcs_hb_packet packet;
		u8 more;	/* a packet that is too long is not cut to size */
	} buf;
	struct kvec vec = { .iov_base = &buf, .iov_len = sizeof(buf) };
	struct msghdr msg = {};
	int len;

	hb->sock->sk->sk_rcvtimeo = wake > now ? nsecs_to_jiffies(wake - now) + 1 : 1;
	len = kernel_recvmsg(hb->sock, &msg, &vec, 1, sizeof(buf), 0);
	if (len == -EAGAIN)
		return;
	if (len < 0) {
		schedule_timeout_idle(1);
		return;
	}
	guard(mutex)(&hb->lock);
	hb->counts[judge(hb, &buf.packet, len)]++;
}

/* What fails here is tried again with the next beat. */
static void show_view(struct vcs_hb *hb, u64 now)
{
	u32 nr = vcs_hb_members(&hb->self, hb->peer, hb->nr, now, hb->seen);
	struct vcs_view *v;

	if (nr == hb->nr_shown && !memcmp(hb->seen, hb->shown, nr * sizeof(*hb->seen)))
		return;
	v = vcs_view_alloc(nr, GFP_NOWAIT | __GFP_NOWARN);
	if (!v)
		return;
	/* Nobody agreed on it: it is this node's view, and has a name of this node's. */
	v->ring_seq = hb->self.life + hb->views;
	v->ring_rep = hb->self.nodeid;
	v->flags = nr > hb->nr / 2 ? VCS_VIEW_QUORATE : 0;
	memcpy(v->member, hb->seen, nr * sizeof(*hb->seen));
	if (vcs_up_view(hb->c, v))
		return;
	memcpy(hb->shown, hb->seen, nr * sizeof(*hb->seen));
	hb->nr_shown = nr;
	hb->views++;
	pr_info_ratelimited("%s: %u of %u nodes are up\n", hb->handle, nr, hb->nr);
}

static int hb_thread(void *data)
{
	struct vcs_hb *hb = data;
	u64 now;

	/* A late beat looks like a death; so does one that waits for memory. */
	set_user_nice(current, MIN_NICE);
	while (!kthread_should_stop()) {
		scoped_guard(mutex, &hb->lock) {
			now = ktime_get_boottime_ns();
			if (vcs_hb_beat(&hb->self, now))
				send_all(hb, 0);
			show_view(hb, now);
		}
		receive(hb);
		cond_resched();
	}
	/* One more, out of turn: the others need not miss any. */
	guard(mutex)(&hb->lock);
	hb->self.next = 0;
	vcs_hb_beat(&hb->self, ktime_get_boottime_ns());
	send_all(hb, VCS_HB_BYE);
	return 0;
}

/* A line of this node, and one for each other; times are CLOCK_BOOTTIME, ns. */
static int state_show(struct seq_file *m, void *unused)
{
	struct vcs_hb *hb = m->private;
	const struct vcs_hb_peer *p;
	const u64 *n = hb->counts;

	guard(mutex)(&hb->lock);
	seq_printf(m, "nodeid=%u life=%llu seq=%llu unsent=%llu heard=%llu malformed=%llu forged=%llu stranger=%llu interval_differs=%llu replayed=%llu\n",
		   hb->self.nodeid, hb->self.life, hb->self.seq, hb->unsent, n[VCS_HB_HEARD],
		   n[VCS_HB_MALFORMED], n[VCS_HB_FORGED], n[VCS_HB_STRANGER],
		   n[VCS_HB_INTERVAL_DIFFERS], n[VCS_HB_REPLAYED]);
	for (p = hb->peer; p < hb->peer + hb->nr; p++)
		if (p != hb->me)
			seq_printf(m, "nodeid=%u life=%llu seq=%llu lives=%llu heard=%llu echoed=%llu proven=%llu until=%llu\n",
				   p->nodeid, p->life, p->seq, p->lives, p->heard, p->echoed,
				   p->proven, vcs_hb_until(&hb->self, p));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

static int open_socket(struct vcs_hb *hb)
{
	struct sockaddr *own = (struct sockaddr *)&hb->me->address;
	int err;

	err = sock_create_kern(&init_net, own->sa_family, SOCK_DGRAM, IPPROTO_UDP, &hb->sock);
	if (err)
		return err;
	/* Memory may come back only once we have beaten. */
	hb->sock->sk->sk_allocation = GFP_ATOMIC;
	return kernel_bind(hb->sock, own, hb->address_len);
}

static int hb_attach(struct vcs_cluster *c, const struct vcs_attach *how,
		     struct netlink_ext_ack *extack)
{
	struct vcs_hb *hb = vcs_hb_configure(how, extack);
	int err;

	if (IS_ERR(hb))
		return PTR_ERR(hb);
	hb->c = c;
	err = open_socket(hb);
	if (err) {
		NL_SET_ERR_MSG_ATTR(extack, how->config,
				    "this node's address and port cannot be used");
		goto err_free;
	}
	hb->task = kthread_create(hb_thread, hb, "vcs_hb/%s", how->handle);
	if (IS_ERR(hb->task)) {
		err = PTR_ERR(hb->task);
		goto err_free;
	}
	vcs_cluster_set_priv(c, hb);
	hb->file = debugfs_create_file(how->handle, 0444, hb_dir, hb, &state_fops);
	show_view(hb, ktime_get_boottime_ns());
	wake_up_process(hb->task);
	return 0;

err_free:
	vcs_hb_free(hb);
	return err;
}

static void hb_detach(struct vcs_cluster *c)
{
	struct vcs_hb *hb = vcs_cluster_priv(c);

	kernel_sock_shutdown(hb->sock, SHUT_RD);
	kthread_stop(hb->task);
	debugfs_remove(hb->file);
	vcs_hb_free(hb);
}

static const struct vcs_provider_ops hb_ops = {
	.attach = hb_attach,
	.detach = hb_detach,
};

static struct vcs_provider_type hb_type = {
	.name = "heartbeat",
	.owner = THIS_MODULE,
	.caps = VCS_CAP_KERNEL,
	.ops = &hb_ops,
};

static int __init hb_init(void)
{
	int err;

	hb_pin = crypto_alloc_shash("hmac(sha256)", 0, 0);
	if (IS_ERR(hb_pin))
		return PTR_ERR(hb_pin);
	hb_dir = debugfs_create_dir("vcs_heartbeat", NULL);
	err = vcs_provider_register(&hb_type);
	if (err) {
		debugfs_remove(hb_dir);
		crypto_free_shash(hb_pin);
	}
	return err;
}

/* Nothing is attached: each attach pins this module. */
static void __exit hb_exit(void)
{
	vcs_provider_unregister(&hb_type);
	debugfs_remove(hb_dir);
	crypto_free_shash(hb_pin);
}

module_init(hb_init);
module_exit(hb_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: membership by heartbeats");
MODULE_SOFTDEP("pre: hmac sha256");
