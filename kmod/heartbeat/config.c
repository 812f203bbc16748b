// SPDX-License-Identifier: GPL-2.0
/* The configuration that an attach brings: key, interval, the list of nodes. */
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <crypto/hash.h>
#include <net/netlink.h>

#include "heartbeat.h"
#include "policy.h"

/* Milliseconds above, chance below: no life comes twice, and a later one is higher. */
#define LIFE_CHANCE_BITS	20

#define refuse(extack, attr, msg)				\
({								\
	NL_SET_ERR_MSG_ATTR(extack, attr, msg);			\
	-EINVAL;						\
})

/* The length of the address; a negative errno. */
static int read_address(const struct nlattr *a, u16 port, struct sockaddr_storage *to,
			struct netlink_ext_ack *extack)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
	struct sockaddr_in *in = (struct sockaddr_in *)to;

	if (nla_len(a) == sizeof(in->sin_addr)) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		nla_memcpy(&in->sin_addr, a, sizeof(in->sin_addr));
		return sizeof(*in);
	}
	if (nla_len(a) != sizeof(in6->sin6_addr))
		return refuse(extack, a, "an address has 4 or 16 bytes");
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	nla_memcpy(&in6->sin6_addr, a, sizeof(in6->sin6_addr));
	return sizeof(*in6);
}

static int read_node(const struct nlattr *nest, struct vcs_hb_peer *peer,
		     struct netlink_ext_ack *extack)
{
	struct nlattr *tb[VCS_HEARTBEAT_NODE_A_MAX + 1];
	int err = nla_parse_nested(tb, VCS_HEARTBEAT_NODE_A_MAX, nest,
				   vcs_heartbeat_node_nl_policy, extack);
	u32 port;

	if (err)
		return err;
	if (!tb[VCS_HEARTBEAT_NODE_A_NODEID] || !tb[VCS_HEARTBEAT_NODE_A_ADDRESS] ||
	    !tb[VCS_HEARTBEAT_NODE_A_PORT])
		return refuse(extack, nest, "a node has a nodeid, an address and a port");
	peer->nodeid = nla_get_u32(tb[VCS_HEARTBEAT_NODE_A_NODEID]);
	port = nla_get_u32(tb[VCS_HEARTBEAT_NODE_A_PORT]);
	if (port > U16_MAX)
		return refuse(extack, tb[VCS_HEARTBEAT_NODE_A_PORT], "a port has 16 bits");
	return read_address(tb[VCS_HEARTBEAT_NODE_A_ADDRESS], port, &peer->address, extack);
}

static int read_nodes(struct vcs_hb *hb, const struct nlattr *config,
		      struct netlink_ext_ack *extack)
{
	struct vcs_hb_peer *peer = hb->peer;
	struct nlattr *a;
	int rem, len;

	nla_for_each_nested(a, config, rem) {
		if (nla_type(a) != VCS_HEARTBEAT_A_NODE)
			continue;
		if (hb->nr == VCS_HEARTBEAT_NODES_MAX)
			return refuse(extack, a, "too many nodes");
		len = read_node(a, peer, extack);
		if (len < 0)
			return len;
		if (hb->nr && peer->nodeid <= peer[-1].nodeid)
			return refuse(extack, a, "the nodes are not in the order of their nodeids");
		if (hb->nr && hb->address_len != len)
			return refuse(extack, a, "addresses of IPv4 and of IPv6");
		if (peer->nodeid == hb->self.nodeid)
			hb->me = peer;
		hb->address_len = len;
		hb->nr++;
		peer++;
	}
	return hb->me ? 0 : refuse(extack, config, "this node is not in the list");
}

/* MACs are made with a key of this cluster's name, so that clusters may share one. */
static int set_key(struct vcs_hb *hb, const struct nlattr *key, const char *name)
{
	u8 own[VCS_HB_MAC_LEN];
	int err;

	hb->mac = crypto_alloc_shash("hmac(sha256)", 0, 0);
	if (IS_ERR(hb->mac)) {
		err = PTR_ERR(hb->mac);
		hb->mac = NULL;
		return err;
	}
	err = crypto_shash_setkey(hb->mac, nla_data(key), nla_len(key)) ?:
	      crypto_shash_tfm_digest(hb->mac, name, strlen(name), own) ?:
	      crypto_shash_setkey(hb->mac, own, sizeof(own));
	memzero_explicit(own, sizeof(own));
	return err;
}

struct vcs_hb *vcs_hb_configure(const struct vcs_attach *how, struct netlink_ext_ack *extack)
{
	struct nlattr *tb[VCS_HEARTBEAT_A_MAX + 1], *interval;
	struct vcs_hb *hb;
	int err;

	if (!how->config) {
		NL_SET_ERR_MSG(extack, "the type heartbeat needs a configuration");
		return ERR_PTR(-EINVAL);
	}
	err = nla_parse_nested(tb, VCS_HEARTBEAT_A_MAX, how->config, vcs_heartbeat_nl_policy,
			       extack);
	if (err)
		return ERR_PTR(err);
	if (!tb[VCS_HEARTBEAT_A_KEY])
		return ERR_PTR(refuse(extack, how->config, "the key is missing"));
	hb = kvzalloc(sizeof(*hb), GFP_KERNEL);
	if (!hb)
		return ERR_PTR(-ENOMEM);
	interval = tb[VCS_HEARTBEAT_A_INTERVAL_MS];
	mutex_init(&hb->lock);
	hb->handle = how->handle;
	hb->self.nodeid = how->nodeid;
	hb->self.boot = how->incarnation;
	hb->self.interval_ms = interval ? nla_get_u32(interval) : VCS_HB_INTERVAL_MS;
	hb->self.life = ktime_get_real_ns() >> LIFE_CHANCE_BITS << LIFE_CHANCE_BITS |
			get_random_u32() >> (32 - LIFE_CHANCE_BITS);
	err = read_nodes(hb, how->config, extack) ?:
	      set_key(hb, tb[VCS_HEARTBEAT_A_KEY], how->name);
	if (!err)
		return hb;
	vcs_hb_free(hb);
	return ERR_PTR(err);
}

void vcs_hb_free(struct vcs_hb *hb)
{
	if (hb->sock)
		sock_release(hb->sock);
	if (hb->mac)
		crypto_free_shash(hb->mac);
	kvfree(hb);
}
