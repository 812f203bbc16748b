# SPDX-License-Identifier: GPL-2.0-only
"""The provider `heartbeat`: several nodes of several clusters in one kernel, with real sockets. Runs as root inside a virtual machine
(tests/kernel/test_heartbeat.py starts it)."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.contract_world import World, refused
from tests.kernel.guest_contract import SYSFS, KernelBackend
from tests.kernel.guest_module import CONSUMER, STATE, load, unload
from tests.kernel.heartbeat_wire import LOCAL, Wire, own_key
from tests.kernel.heartbeat_world import (
    BEAT_S,
    DEBUG,
    INTERVAL_MS,
    KEY,
    LATE_S,
    Instance,
    direct,
    free_port,
    more_beats,
    wired,
)
from vcs.heartbeat import MISSED, MODULE, TYPE, Heartbeat, Node
from vcs.model import Member, RingId
from vcs.netlink import KernelSwitch

pytest_plugins = ("tests.kernel.heartbeat_world",)

# --- live and die -------------------------------------------------------------------------------------------------


def test_two_nodes_see_each_other_live_and_leave(backend: KernelBackend) -> None:
    two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
    assert two[1].quorate() and two[2].quorate()
    boot = KernelSwitch().info().incarnation
    assert {m.incarnation for m in two[1].reader.view(two[1].handle).members} == {boot}
    began = time.monotonic()
    two[2].detach()
    two[1].sees(1)
    assert time.monotonic() - began < BEAT_S + LATE_S, "who says goodbye is not waited for"
    assert not two[1].quorate()
    two[2].attach()
    two[1].sees(1, 2)
    two[2].sees(1, 2)
    assert two[1].quorate()


def gone_after(one: Instance, since: float, *members: int) -> float:
    """Seconds from ``since`` until the view has these members."""
    one.sees(*members)
    return time.monotonic() - since


def test_who_falls_silent_is_down_after_three_beats(
    backend: KernelBackend, wire: Wire, record_property: Callable[..., None]
) -> None:
    two = wired(backend, wire)
    waited = []
    for repeat in range(3):
        wire.cut((1, 2), (2, 1))
        last = wire.seen[2, 1][-1].at
        silent_s = gone_after(two[1], last, 1)
        record_property(f"silent_to_view_ms_{repeat}", round(silent_s * 1000))
        assert silent_s < MISSED * BEAT_S + LATE_S
        waited.append(silent_s)
        two[2].sees(2)
        assert not two[1].quorate() and not two[2].quorate()
        wire.heal()
        two[1].sees(1, 2)
        two[2].sees(1, 2)
    # A busy host makes beats late before any is lost, now and then; not each time.
    assert max(waited) > (MISSED - 1) * BEAT_S


def test_a_one_way_link_is_seen_by_both_sides(
    backend: KernelBackend, wire: Wire, record_property: Callable[..., None]
) -> None:
    two = wired(backend, wire)
    for sender, to in ((1, 2), (2, 1)):
        since = wire.cut((sender, to))
        deaf_s = gone_after(two[to], since, to)
        mute_s = gone_after(two[sender], since, sender)
        record_property(f"one_way_{sender}_{to}_deaf_ms", round(deaf_s * 1000))
        record_property(f"one_way_{sender}_{to}_mute_ms", round(mute_s * 1000))
        assert deaf_s < MISSED * BEAT_S + LATE_S
        assert mute_s < (MISSED + 1) * BEAT_S + LATE_S
        assert two[sender].line(to)["heard"] > two[sender].line(to)["proven"], "it goes on hearing the deaf one"
        generations = [two[n].generation() for n in (1, 2)]
        more_beats(backend, wire, to, sender)
        assert [two[n].generation() for n in (1, 2)] == generations, "neither comes back before the link does"
        wire.heal()
        two[1].sees(1, 2)
        two[2].sees(1, 2)


def test_one_lost_link_of_three_leaves_a_majority_to_all(backend: KernelBackend, wire: Wire) -> None:
    """Views are not agreed upon: everybody has his own, and the switch says so."""
    three = wired(backend, wire, 3)
    wire.cut((1, 2), (2, 1))
    three[1].sees(1, 3)
    three[2].sees(2, 3)
    three[3].sees(1, 2, 3)
    assert all(n.quorate() for n in three.values())
    for n in three.values():
        assert (SYSFS / n.handle / "view" / "agreed").read_text() == "0\n"


# --- eight of them -------------------------------------------------------------------------------------------------


def test_eight_instances_of_one_cluster(backend: KernelBackend) -> None:
    eight = direct(backend, {n: f"127.0.0.{n}" for n in range(1, 9)})
    for gone in (8, 7, 6):
        eight[gone].detach()
    for n in range(1, 6):
        eight[n].sees(1, 2, 3, 4, 5)
        assert eight[n].quorate()
    eight[5].detach()
    for n in range(1, 5):
        eight[n].sees(1, 2, 3, 4)
        assert not eight[n].quorate(), "half is no majority"


def test_clusters_with_one_key_do_not_meet(backend: KernelBackend) -> None:
    """The same nodeids and the same key, but a name each; the second one's node 2 sends to the first one's node 1."""
    ports = {n: free_port() for n in (1, 2)}
    first = [Node(n, LOCAL, port) for n, port in ports.items()]
    pair = {n: Instance(backend, "first", n, first) for n in (1, 2)}
    other = Instance(backend, "second", 2, [Node(1, LOCAL, ports[1]), Node(2, LOCAL, free_port())])
    for one in (*pair.values(), other):
        one.attach()
    pair[1].sees(1, 2)
    pair[1].wait_count("forged", 2)
    other.sees(2)
    assert other.line(1)["heard"] == 0
    pair[2].detach()
    pair[1].wait_count("forged", 4)
    pair[1].sees(1)
    assert other.members() == [2]


def test_three_clusters_at_once(backend: KernelBackend) -> None:
    """Eight instances of three clusters: what befalls one is not seen by the others."""
    clusters = [direct(backend, {n: f"127.0.{c}.{n}" for n in range(1, size + 1)}) for c, size in ((1, 3), (2, 3), (3, 2))]
    first, second, third = clusters
    untouched = {one.handle: one.generation() for one in (*second.values(), *third.values())}
    first[1].detach()
    first[2].sees(2, 3)
    first[3].sees(2, 3)
    first[2].detach()
    first[3].sees(3)
    assert not first[3].quorate()
    assert {one.handle: one.generation() for one in (*second.values(), *third.values())} == untouched
    assert all(one.quorate() for one in (*second.values(), *third.values()))


def test_ipv6(backend: KernelBackend) -> None:
    ports = {n: free_port("::1") for n in (1, 2)}
    nodes = [Node(n, "::1", port) for n, port in ports.items()]
    two = {n: Instance(backend, "six", n, nodes) for n in (1, 2)}
    for one in two.values():
        one.attach()
    two[1].sees(1, 2)
    two[2].sees(1, 2)


# --- the seat --------------------------------------------------------------------------------------------------------


def test_a_view_consumer_is_moved_from_user_to_heartbeat(backend: KernelBackend) -> None:
    """The same module, loaded once, and not a line of it changed: what feeds the switch is none of its business."""
    world = World(backend)
    load(CONSUMER, f"cluster={world.handle}", "group=")

    def seen() -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in STATE.read_text().splitlines())}

    generation = world.view()
    world.wait("the daemon's view", lambda: seen()["view_generation"] == generation and seen()["view_members"] == 2)
    world.provider.detach(world.handle, world.session)
    port, other = free_port(), free_port()
    nodes = (Node(1, LOCAL, port), Node(2, LOCAL, other))
    switch = backend.port()
    switch.attach_kernel(world.handle, TYPE, Heartbeat(KEY, nodes, INTERVAL_MS).attributes())
    world.wait("this node alone", lambda: seen()["view_members"] == 1)
    peer = Instance(backend, f"name-of-{world.handle}", 2, nodes)
    peer.attach()
    world.wait("the heartbeat's view", lambda: seen()["view_members"] == 2)
    assert world.reader.view(world.handle).quorate
    peer.detach()
    world.wait("the other's end", lambda: seen()["view_members"] == 1)
    assert seen()["nested"] == seen()["view_older"] == 0
    assert seen()["view_generation"] == world.reader.view(world.handle).generation > generation
    switch.detach_kernel(world.handle)
    world.attach()
    generation = world.view()
    world.wait("the daemon's view again", lambda: seen()["view_generation"] == generation)
    assert unload(CONSUMER) == ""


def test_the_seat_outlives_the_socket_and_takes_no_orders(backend: KernelBackend) -> None:
    two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
    one = two[1]
    one.switch.close()
    one.switch = backend.port()
    stranger = backend.port()
    # The seat's own session is 0, which nobody can name.
    for session, code in ((0, errno.ERANGE), (7, errno.ESTALE)):
        with refused(code, attribute="session"):
            stranger.detach(one.handle, session)
        with refused(code, attribute="session"):
            stranger.view_set(one.handle, session, RingId(9, 1), True, [Member(1, 5)])
        with refused(code, attribute="session"):
            stranger.fenced(one.handle, session, 2, 5)
    with refused(errno.EBUSY):
        stranger.attach(one.handle, 0)
    with refused(errno.EBUSY):
        stranger.cluster_del(one.handle)
    assert (SYSFS / one.handle / "provider" / "state").read_text() == "attached\n"
    one.sees(1, 2)
    one.detach()
    assert (SYSFS / one.handle / "provider" / "state").read_text() == "none\n"
    assert not one.quorate(), "nobody vouches for it any more"
    with refused(errno.ESTALE):
        one.switch.detach_kernel(one.handle)
    seated = World(backend)
    with refused(errno.ESTALE):
        stranger.detach_kernel(seated.handle)
    assert seated.provider_state() == "ATTACHED"


def test_what_needs_agreement_is_refused(backend: KernelBackend) -> None:
    world = World(backend)
    consumer = world.consumer()
    config = Heartbeat(KEY, (Node(1, LOCAL, free_port()),), INTERVAL_MS).attributes()
    world.die()
    with refused(errno.EOPNOTSUPP, attribute="provider"):
        KernelSwitch().attach_kernel(world.handle, TYPE, config)
    consumer.leave()
    world.wait_gone()
    with refused(errno.EOPNOTSUPP, attribute="lease-ms"):
        KernelSwitch()._do("provider-attach", handle=world.handle, provider=TYPE, lease_ms=1000, config=[config])
    KernelSwitch().attach_kernel(world.handle, TYPE, config)
    with refused(errno.EOPNOTSUPP, attribute="handle"):
        world.consumer("late")
    assert world.reader.view(world.handle).quorate, "the only one of the list is a majority of it"


NODES = [{"nodeid": n, "address": bytes((127, 0, 0, n)), "port": 5999} for n in (1, 2)]
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "no key": (errno.EINVAL, {"node": NODES}),
    "a short key": (errno.ERANGE, {"key": b"x" * 15, "node": NODES}),
    "a long key": (errno.ERANGE, {"key": b"x" * 65, "node": NODES}),
    "no nodes": (errno.EINVAL, {"key": KEY}),
    "others alone": (errno.EINVAL, {"key": KEY, "node": NODES[1:]}),
    "a nodeid twice": (errno.EINVAL, {"key": KEY, "node": [NODES[0], NODES[0]]}),
    "not in order": (errno.EINVAL, {"key": KEY, "node": NODES[::-1]}),
    "nodeid 0": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "nodeid": 0}]}),
    "no address": (errno.EINVAL, {"key": KEY, "node": [{"nodeid": 1, "port": 1}]}),
    "5 bytes of address": (errno.EINVAL, {"key": KEY, "node": [{**NODES[0], "address": b"x" * 5}]}),
    "17 bytes of address": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "address": b"x" * 17}]}),
    "two families": (errno.EINVAL, {"key": KEY, "node": [NODES[0], {**NODES[1], "address": bytes(15) + b"\1"}]}),
    "port 0": (errno.ERANGE, {"key": KEY, "node": [{**NODES[0], "port": 0}]}),
    "port 65536": (errno.EINVAL, {"key": KEY, "node": [{**NODES[0], "port": 65536}]}),
    "too quick": (errno.ERANGE, {"key": KEY, "interval-ms": 19, "node": NODES}),
    "too slow": (errno.ERANGE, {"key": KEY, "interval-ms": 10001, "node": NODES}),
    "65 nodes": (errno.EINVAL, {"key": KEY, "node": [{**NODES[0], "nodeid": n} for n in range(1, 66)]}),
    "not our address": (errno.EADDRNOTAVAIL, {"key": KEY, "node": [{**NODES[0], "address": bytes((192, 0, 2, 1))}]}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_refused_and_leaves_nothing(backend: KernelBackend, case: str) -> None:
    world = World(backend, attach=False)
    code, config = BAD[case]
    with refused(code):
        KernelSwitch().attach_kernel(world.handle, TYPE, config)
    assert world.provider_state() == "NONE"
    assert (SYSFS / "providers" / TYPE / "refcount").read_text() == "0\n"
    world.attach()


def test_other_refusals_of_an_attach(backend: KernelBackend) -> None:
    world = World(backend, attach=False)
    config = Heartbeat(KEY, (Node(1, LOCAL, free_port()),)).attributes()
    with refused(errno.EINVAL):
        KernelSwitch()._do("provider-attach", handle=world.handle, provider=TYPE)
    with refused(errno.EINVAL, attribute="config"):
        KernelSwitch().attach_kernel(world.handle, "user", config)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind((LOCAL, 0))
        taken = Heartbeat(KEY, (Node(1, LOCAL, squatter.getsockname()[1]),)).attributes()
        with refused(errno.EADDRINUSE, attribute="config"):
            KernelSwitch().attach_kernel(world.handle, TYPE, taken)
    with backend.unprivileged() as port, refused(errno.EPERM):
        port.attach_kernel(world.handle, TYPE, config)
    KernelSwitch().attach_kernel(world.handle, TYPE, config)
    with backend.unprivileged() as port, refused(errno.EPERM):
        port.detach_kernel(world.handle)


def test_64_nodes(backend: KernelBackend) -> None:
    """The largest list: 63 beats each time, to nobody."""
    nodes = [Node(n, "127.0.0.1", 6000 + n) for n in range(1, 65)]
    one = Instance(backend, "large", 64, nodes, interval_ms=200)
    one.attach()
    one.backend.wait("some beats", lambda: one.line()["seq"] > 5, one.reader)
    assert one.members() == [64]
    assert not one.quorate()


def test_the_key_is_not_shown(backend: KernelBackend) -> None:
    one = direct(backend, {1: "127.0.0.1"})[1]
    shown = [str(one.switch._dump("cluster-get")), one.said(), *(p.read_text() for p in SYSFS.rglob("*") if p.is_file())]
    assert one.handle in shown[0]
    own = own_key(KEY, one.name)
    for secret in (KEY.decode(), KEY.hex(), own.hex(), repr(own)[2:-1]):
        assert not [text for text in shown if secret in text]


# --- the module ------------------------------------------------------------------------------------------------------


def test_loading_and_unloading_while_others_beat(backend: KernelBackend) -> None:
    assert (SYSFS / "providers" / TYPE / "caps").read_text() == "0x20\n"
    for _ in range(3):
        two = direct(backend, {1: "127.0.0.1", 2: "127.0.0.2"})
        assert "in use" in unload(MODULE)
        assert "in use" in unload()
        two[1].sees(1, 2)
        for one in two.values():
            one.close()
        assert unload(MODULE) == ""
        assert not (SYSFS / "providers" / TYPE).exists()
        assert not DEBUG.exists()
        world = World(backend, attach=False)
        with refused(errno.ENOENT, attribute="provider"):
            KernelSwitch().attach_kernel(world.handle, TYPE, Heartbeat(KEY, (Node(1, LOCAL, 1),)).attributes())
        load(MODULE)


def test_attached_and_detached_again_and_again(backend: KernelBackend) -> None:
    """A beat every 20 ms, and an end at any moment of it."""
    ports = {n: free_port() for n in (1, 2)}
    two = {n: Instance(backend, "again", n, [Node(i, LOCAL, p) for i, p in ports.items()], interval_ms=20) for n in (1, 2)}
    for n in range(60):
        one = two[n % 2 + 1]
        if one.attached:
            one.detach()
        one.attach()
    for one in two.values():
        one.sees(1, 2)
    assert re.search(r"lives=[1-9]", two[1].said())


# --- the command -------------------------------------------------------------------------------------------------------

TOML = '[cluster]\nname = "cli"\nkey_file = "key"\n' + "".join(
    f'[[node]]\nid = {n}\nname = "{name}"\naddress = "127.0.0.{n}"\n' for n, name in ((1, "one"), (2, "two"))
)


def vcs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["python3", "-m", "vcs.cli.main", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.timeout(180)
def test_the_command_starts_and_stops_it(backend: KernelBackend, tmp_path: Path) -> None:
    config = tmp_path / "cluster.toml"
    config.write_text(TOML)
    assert vcs("keygen", str(tmp_path / "key")).returncode == 0
    for name in ("one", "two"):
        done = vcs("heartbeat", "start", "--config", str(config), "--node", name, "--handle", f"cli-{name}", "--interval-ms", "300")
        assert done.returncode == 0, done.stderr
    reader = backend.port()
    backend.wait("both", lambda: len(reader.view("cli-one").members) == len(reader.view("cli-two").members) == 2, reader)
    said = vcs("status", "--handle", "cli-one")
    assert "heartbeat" in said.stdout and "quorate" in said.stdout, said
    again = vcs("heartbeat", "start", "--config", str(config), "--node", "one", "--handle", "cli-one")
    assert again.returncode != 0 and "has a provider already" in again.stderr
    for name in ("one", "two"):
        assert vcs("heartbeat", "stop", f"cli-{name}").returncode == 0
    assert not {"cli-one", "cli-two"} & {c.handle for c in reader.clusters()}
    done = vcs("heartbeat", "stop", "cli-one")
    assert done.returncode == 69 and "no such cluster" in done.stderr
