# SPDX-License-Identifier: GPL-2.0-only
"""The contract of the switch, as tests: whatever implements the ports of bridge/switch.py passes every one of these.

The fixture ``backend`` comes from who imports this file: tests/unit/test_switch_contract.py (the userland model) and
tests/kernel/guest_contract.py (the module in a virtual machine). Numbers of rules are those of KERNEL-API (the
switch's rules in docs/architecture.md), S-numbers those of docs/safety.md.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.kernel.contract_world import LOSE_EVENT, Backend, Port, World, refused
from vcs.model import (
    MEMBERS_MAX,
    NAME_MAX,
    GroupFlags,
    GroupState,
    Level,
    Member,
    Phase,
    ProviderState,
    RingId,
)

BAD_INPUT = (errno.EINVAL, errno.ERANGE)
"The netlink policy says ERANGE where a value leaves its range, the code behind it EINVAL."
PERSISTENT = GroupFlags.PERSISTENT
NEEDS_FENCE = GroupFlags.NEEDS_FENCE


@pytest.fixture
def world(backend: Backend) -> World:
    return World(backend)


# --- the switch and its clusters --------------------------------------------------------------------------------


def test_info_is_the_same_for_everybody(backend: Backend) -> None:
    one, two = backend.port().info(), backend.port().info()
    assert one == two
    assert one.api_version == 1
    assert one.incarnation > 0


def test_cluster_is_listed_and_deleted(backend: Backend) -> None:
    world = World(backend, attach=False)
    (info,) = [c for c in world.reader.clusters() if c.handle == world.handle]
    assert (info.name, info.nodeid) == (f"name-of-{world.handle}", 1)
    assert (info.provider_state, info.lease_ms) == (ProviderState.NONE, 0)
    world.provider.cluster_del(world.handle)
    assert world.handle not in {c.handle for c in world.reader.clusters()}
    with refused(errno.ENOENT):
        world.provider.cluster_del(world.handle)


def test_a_handle_exists_once_but_a_cluster_name_may_be_used_again(world: World) -> None:
    """Rule 9: the key is the handle; one kernel can play several nodes of one cluster."""
    with refused(errno.EEXIST):
        world.provider.cluster_add(world.handle, "other", 2)
    world.provider.cluster_add(world.handle + "b", f"name-of-{world.handle}", 2)
    world.provider.cluster_del(world.handle + "b")


def test_a_used_cluster_is_not_deleted(world: World) -> None:
    with refused(errno.EBUSY):
        world.provider.cluster_del(world.handle)
    consumer = world.consumer()
    world.die()
    with refused(errno.EBUSY):
        world.provider.cluster_del(world.handle)
    consumer.leave()
    world.wait_gone()
    world.provider.cluster_del(world.handle)


UNKNOWN: dict[str, Callable[[Port], object]] = {
    "del": lambda p: p.cluster_del("nowhere"),
    "attach": lambda p: p.attach("nowhere", 0),
    "detach": lambda p: p.detach("nowhere", 7),
    "view_set": lambda p: p.view_set("nowhere", 7, RingId(1, 1), True, [Member(1, 1)]),
    "lease_renew": lambda p: p.lease_renew("nowhere", 7, 1),
    "lease_freeze": lambda p: p.lease_freeze("nowhere", 7, 1),
    "stop": lambda p: p.group_stop("nowhere", 7, "g", 1),
    "start": lambda p: p.group_start("nowhere", 7, "g", 1, [Member(1, 1)]),
    "finish": lambda p: p.group_finish("nowhere", 7, "g", 1),
    "left": lambda p: p.group_left("nowhere", 7, "g"),
    "fenced": lambda p: p.fenced("nowhere", 7, 1, 1),
    "join": lambda p: p.join("nowhere", "g", Level.USER, GroupFlags.NONE, "me"),
    "ack": lambda p: p.ack("nowhere", 7, "g", 1, Phase.STOP),
    "leave": lambda p: p.leave("nowhere", 7, "g"),
    "view": lambda p: p.view("nowhere"),
    "groups": lambda p: p.groups("nowhere"),
    "group": lambda p: p.group("nowhere", "g"),
}


@pytest.mark.parametrize("call", UNKNOWN)
def test_unknown_cluster(backend: Backend, call: str) -> None:
    with refused(errno.ENOENT):
        UNKNOWN[call](backend.port())


UNKNOWN_GROUP: dict[str, Callable[[World], object]] = {
    "stop": lambda w: w.stop(10, "none"),
    "start": lambda w: w.start(10, name="none"),
    "finish": lambda w: w.finish(10, "none"),
    "left": lambda w: w.left("none", errno.EPERM),
    "ack": lambda w: w.provider.ack(w.handle, w.session, "none", 10, Phase.STOP),
    "leave": lambda w: w.provider.leave(w.handle, w.session, "none"),
    "group": lambda w: w.group("none"),
}


@pytest.mark.parametrize("call", UNKNOWN_GROUP)
def test_unknown_group(world: World, call: str) -> None:
    world.view()
    with refused(errno.ENOENT):
        UNKNOWN_GROUP[call](world)


BAD: dict[str, Callable[[World], object]] = {
    "handle empty": lambda w: w.provider.cluster_add("", "n", 1),
    "handle too long": lambda w: w.provider.cluster_add("h" * (NAME_MAX + 1), "n", 1),
    "name empty": lambda w: w.provider.cluster_add("bad", "", 1),
    "name too long": lambda w: w.provider.cluster_add("bad", "n" * (NAME_MAX + 1), 1),
    "nodeid zero": lambda w: w.provider.cluster_add("bad", "n", 0),
    "nodeid beyond u32": lambda w: w.provider.cluster_add("bad", "n", 1 << 32),
    "handle with a control character": lambda w: w.provider.cluster_add("b\nd", "n", 1),
    "handle that is not UTF-8": lambda w: w.provider.cluster_add("b\udcff", "n", 1),
    "handle that sysfs has taken": lambda w: w.provider.cluster_add("providers", "n", 1),
    "name with a control character": lambda w: w.provider.cluster_add("bad", "\x1b[2J", 1),
    "group with a control character": lambda w: w.consumer("a\tb"),
    "owner with a control character": lambda w: w.consumer(owner="a\x7f"),
    "handle with a slash": lambda w: w.provider.cluster_add("b/d", "n", 1),
    "group empty": lambda w: w.consumer(""),
    "group too long": lambda w: w.consumer("g" * (NAME_MAX + 1)),
    "group with a slash": lambda w: w.consumer("a/b"),
    "group that is a parent folder": lambda w: w.consumer(".."),
    "owner too long": lambda w: w.consumer(owner="o" * (NAME_MAX + 1)),
    "unknown flag": lambda w: w.consumer(flags=GroupFlags(1 << 30)),
    "unknown level": lambda w: w.reader.join(w.handle, "g", 9, GroupFlags.NONE, "o"),  # type: ignore[arg-type]
    "member nodeid zero": lambda w: w.view(w.me, Member(0, 5)),
    "member incarnation zero": lambda w: w.view(w.me, Member(2, 0)),
    "member twice": lambda w: w.view(w.me, Member(2, 5), Member(2, 6)),
    "too many members": lambda w: w.view(w.me, *(Member(n, 5) for n in range(2, MEMBERS_MAX + 2))),
    "event zero": lambda w: w.stop(0, "here"),
    "fenced nodeid zero": lambda w: w.provider.fenced(w.handle, w.session, 0, 1),
    "claim empty": lambda w: w.provider.claim("", b""),
    "claim too long": lambda w: w.provider.claim("c" * (NAME_MAX + 1), b""),
    "claim data too long": lambda w: w.provider.claim("bad", b"d" * 4097),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(world: World, case: str) -> None:
    world.consumer("here")
    before = world.reader.clusters(), world.reader.view(world.handle), world.reader.groups(world.handle)
    with refused(*BAD_INPUT):
        BAD[case](world)
    after = world.reader.clusters(), world.reader.view(world.handle), world.reader.groups(world.handle)
    assert after == before


def test_names_of_full_length_and_any_alphabet(backend: Backend) -> None:
    world = World(backend)
    long = "ä" * (NAME_MAX // 2)
    world.consumer(long)
    assert world.group(long).name == long
    world.provider.cluster_add("l" * NAME_MAX, "n" * NAME_MAX, 0xFFFF_FFFF)
    (info,) = [c for c in world.reader.clusters() if c.handle == "l" * NAME_MAX]
    assert (info.name, info.nodeid) == ("n" * NAME_MAX, 0xFFFF_FFFF)
    world.provider.cluster_del("l" * NAME_MAX)


# --- rights -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[World, Port], object]] = {
    "cluster_add": lambda w, p: p.cluster_add("mine", "n", 1),
    "cluster_del": lambda w, p: p.cluster_del(w.handle),
    "attach": lambda w, p: p.attach(w.handle, 0),
    "detach": lambda w, p: p.detach(w.handle, w.session),
    "view_set": lambda w, p: p.view_set(w.handle, w.session, RingId(9, 1), True, [w.me]),
    "lease_renew": lambda w, p: p.lease_renew(w.handle, w.session, 1),
    "lease_freeze": lambda w, p: p.lease_freeze(w.handle, w.session, 1),
    "stop": lambda w, p: p.group_stop(w.handle, w.session, "g", 1000),
    "start": lambda w, p: p.group_start(w.handle, w.session, "g", 10, [w.me]),
    "finish": lambda w, p: p.group_finish(w.handle, w.session, "g", 10),
    "left": lambda w, p: p.group_left(w.handle, w.session, "g", 1),
    "fenced": lambda w, p: p.fenced(w.handle, w.session, 2, 5),
    "join": lambda w, p: p.join(w.handle, "h", Level.USER, GroupFlags.NONE, "me"),
    "ack": lambda w, p: p.ack(w.handle, w.session, "g", 10, Phase.STOP),
    "leave": lambda w, p: p.leave(w.handle, w.session, "g"),
    "claim": lambda w, p: p.claim("mine", b""),
}


@pytest.mark.parametrize("call", CHANGES)
def test_changes_need_rights(world: World, call: str) -> None:
    """Rule 8. The session is the right one: knowing it is not a right."""
    world.view()
    world.member(10)
    before = world.group()
    with world.backend.unprivileged() as port, refused(errno.EPERM):
        CHANGES[call](world, port)
    assert world.group() == before


def test_reading_is_open(world: World) -> None:
    world.view()
    world.member(10)
    with world.backend.unprivileged() as port:
        assert port.info().incarnation == world.incarnation
        assert world.handle in {c.handle for c in port.clusters()}
        assert port.view(world.handle).members == (world.me, world.peer)
        assert [g.name for g in port.groups(world.handle)] == ["g"]
        assert port.group(world.handle, "g").state is GroupState.MEMBER


# --- the provider's seat ----------------------------------------------------------------------------------------


def test_the_seat_is_held_by_one(world: World) -> None:
    assert world.provider_state() == "ATTACHED"
    with refused(errno.EBUSY):
        world.backend.port().attach(world.handle, 0)
    with refused(errno.EBUSY):
        world.provider.attach(world.handle, 0)
    old = world.session
    world.provider.detach(world.handle, world.session)
    assert world.provider_state() == "NONE"
    world.attach(port=world.backend.port())
    assert world.session != old


def test_sessions_are_never_used_twice(backend: Backend) -> None:
    world = World(backend)
    seen = {world.session, world.consumer().joined.session}
    for name in ("a", "b", "c"):
        seen.add(world.consumer(name).joined.session)
    seen.add(World(backend).session)
    assert len(seen) == 6
    assert 0 not in seen


def test_orders_need_the_session_of_the_seat(world: World) -> None:
    world.view()
    consumer = world.member(10)
    for wrong in (world.session + 1000, consumer.joined.session):
        with refused(errno.ESTALE):
            world.provider.view_set(world.handle, wrong, RingId(99, 1), True, [world.me])
        with refused(errno.ESTALE):
            world.provider.group_stop(world.handle, wrong, "g", 11)
        with refused(errno.ESTALE):
            world.provider.detach(world.handle, wrong)
        with refused(errno.ESTALE):
            world.provider.fenced(world.handle, wrong, 2, 5)
    assert world.group().event == 10


def test_detach_needs_an_empty_cluster(world: World) -> None:
    consumer = world.consumer()
    with refused(errno.EBUSY):
        world.provider.detach(world.handle, world.session)
    consumer.leave()
    world.left()
    world.wait_gone()
    world.provider.detach(world.handle, world.session)


def test_a_dead_provider_is_an_orphan_and_its_groups_stay(world: World) -> None:
    """S16: the next one goes on with their events and acknowledgements."""
    world.view()
    done = world.member(10, "done")
    world.consumer("joining")
    stopped = world.member(11, "stopped")
    world.stop(12, "stopped")
    old = world.session
    world.die()
    stopped.ack(12, Phase.STOP)
    with refused(errno.ESTALE):
        world.provider.group_stop(world.handle, old, "done", 13)
    world.attach()
    states = {name: world.group(name).state for name in ("done", "joining", "stopped")}
    assert states == {"done": GroupState.MEMBER, "joining": GroupState.JOINING, "stopped": GroupState.MEMBER}
    assert world.group("done").finished_event == 10
    assert world.group("stopped").stopped
    world.view()
    world.start(12, name="stopped")
    stopped.ack(12, Phase.START)
    world.finish(12, "stopped")
    world.cycle(done, 14)


def test_a_lost_provider_takes_all_groups_with_it(world: World) -> None:
    """S15."""
    world.view()
    world.member(10, "done")
    world.consumer("joining")
    world.lose()
    for name in ("done", "joining"):
        world.wait_state(GroupState.LOST, name)
    assert world.group("done").finished_event == 10


def test_the_last_start_is_remembered_while_a_later_event_stops(world: World) -> None:
    """S19: whoever was started may hold locks, and its join id must be told when all daemons died."""
    world.view()
    me = Member(world.me.nodeid, world.me.incarnation, 1, 10)
    consumer = world.consumer()
    world.stop(10)
    assert (world.group().started_event, world.group().started_members) == (0, ())
    consumer.ack(10, Phase.STOP)
    world.start(10, me)
    world.stop(11)
    group = world.group()
    assert (group.started_event, group.started_members, group.members, group.finished_event) == (10, (me,), (), 0)
    world.die()
    world.attach()
    assert world.group().started_members == (me,)


def test_a_lost_group_does_not_start_for_the_next_provider(world: World) -> None:
    """S1, S15: a provider that was started again is no clean newcomer; what was lost stays so until it is left."""
    world.view()
    consumer = world.member(10)
    world.stop(11)
    consumer.ack(11, Phase.STOP)
    old = world.session
    world.lose()
    world.attach()
    world.view()
    with refused(errno.EPROTO):
        world.start(11)
    with refused(errno.ESTALE):
        world.provider.group_stop(world.handle, old, "g", LOSE_EVENT + 12)
    world.stop(LOSE_EVENT + 12)
    consumer.ack(LOSE_EVENT + 12, Phase.STOP)
    with refused(errno.EPROTO):
        world.start(LOSE_EVENT + 12)
    assert world.group().state is GroupState.LOST
    consumer.leave()
    world.wait_gone()
    world.member(LOSE_EVENT + 13)


def test_ids_of_the_next_provider_exceed_all_that_were_seen(world: World) -> None:
    world.view()
    first = world.member(500)
    world.die()
    first.leave()
    world.wait_gone()
    attachment = world.provider.attach(world.handle, 0)
    world.session = attachment.session
    assert attachment.highest_event == 500
    assert attachment.incarnation == world.incarnation
    world.view()
    world.consumer()
    with refused(errno.ESTALE):
        world.stop(500)
    world.stop(501)


def test_nothing_starts_on_the_word_of_a_dead_provider(world: World) -> None:
    """S5: a view is quorate as long as somebody vouches for it."""
    world.view()
    world.die()
    assert not world.reader.view(world.handle).quorate
    world.attach()
    consumer = world.consumer()
    world.stop(10)
    consumer.ack(10, Phase.STOP)
    with refused(errno.EPROTO):
        world.start(10)
    world.view()
    world.start(10)


# --- views ------------------------------------------------------------------------------------------------------


def test_before_the_first_view(world: World) -> None:
    view = world.reader.view(world.handle)
    assert (view.generation, view.quorate, view.members) == (0, False, ())


def test_a_view_is_kept_as_given_with_its_members_sorted(world: World) -> None:
    members = (Member(7, 1 << 63, 3), world.me, Member(2, 5, 0))
    generation = world.provider.view_set(world.handle, world.session, RingId(1 << 40, 7), True, members)
    view = world.reader.view(world.handle)
    assert view.generation == generation > 0
    assert view.ring == RingId(1 << 40, 7)
    assert view.quorate
    assert view.members == tuple(sorted(members))
    world.view(world.peer, quorate=False)
    assert not world.reader.view(world.handle).quorate


def test_a_quorate_view_holds_this_node_as_it_is(world: World) -> None:
    """S1: a view with another boot incarnation of this node is not about this kernel."""
    for members in ((world.peer,), (Member(1, world.incarnation + 1), world.peer)):
        with refused(errno.EPROTO):
            world.view(*members)
    assert world.reader.view(world.handle).generation == 0
    world.view(world.peer, quorate=False)


def test_generations_rise_strictly_also_over_a_new_provider(world: World) -> None:
    generations = [world.view() for _ in range(5)]
    world.die()
    world.attach()
    generations += [world.view(), world.view()]
    assert generations == sorted(set(generations))


def test_a_view_of_the_largest_size(world: World) -> None:
    members = (world.me, *(Member(n, n << 32 | 5) for n in range(2, MEMBERS_MAX + 1)))
    world.view(*members)
    assert world.reader.view(world.handle).members == members


def test_a_dump_is_of_one_view(world: World) -> None:
    """Rule 12, as far as one thread can show it: after every change, the whole of the new one."""
    for round_ in range(1, 4):
        members = (world.me, *(Member(n, round_ << 32 | n) for n in range(2, 1001)))
        generation = world.view(*members)
        view = world.reader.view(world.handle)
        assert (view.generation, view.members) == (generation, members)


def test_several_clusters_do_not_touch_each_other(backend: Backend) -> None:
    one, two = World(backend), World(backend)
    one.view(quorate=True)
    two.view(two.me, quorate=False)
    one.member(10)
    keeper = two.consumer()
    two.stop(5)
    one.die()
    assert two.provider_state() == "ATTACHED"
    assert (two.group().state, two.group().event) == (GroupState.JOINING, 5)
    keeper.ack(5, Phase.STOP)
    assert not two.reader.view(two.handle).quorate
    with refused(errno.ESTALE):
        one.provider.group_stop(one.handle, two.session, "g", 99)


# --- events -----------------------------------------------------------------------------------------------------


def test_an_event_from_stop_to_finish(world: World) -> None:
    generation = world.view()
    consumer = world.consumer(flags=NEEDS_FENCE)
    group = world.group()
    assert (group.state, group.event, group.phase) == (GroupState.JOINING, 0, Phase.NONE)
    assert (group.level, group.flags, group.owner) == (Level.USER, NEEDS_FENCE, "tester")
    world.stop(10)
    group = world.group()
    assert (group.event, group.phase, group.members) == (10, Phase.STOP, ())
    assert group.view_generation == generation
    assert not group.stopped
    consumer.ack(10, Phase.STOP)
    assert world.group().stopped
    members = (Member(1, world.incarnation, join_id=10), Member(2, world.peer.incarnation, join_id=3))
    world.start(10, *reversed(members))
    group = world.group()
    assert (group.phase, group.members, group.finished_event) == (Phase.START, members, 0)
    consumer.ack(10, Phase.START)
    assert (world.group().acked_event, world.group().acked_phase) == (10, Phase.START)
    assert world.group().state is GroupState.JOINING
    world.finish(10)
    group = world.group()
    assert (group.state, group.phase) == (GroupState.MEMBER, Phase.FINISH)
    assert (group.finished_event, group.finished_members) == (10, members)


def test_a_newer_event_replaces_an_unfinished_one(world: World) -> None:
    world.view()
    consumer = world.member(10)
    world.stop(11)
    consumer.ack(11, Phase.STOP)
    world.start(11)
    world.stop(12)
    group = world.group()
    assert (group.event, group.phase, group.members) == (12, Phase.STOP, ())
    assert (group.finished_event, group.finished_members) == (10, (world.me,))
    assert not group.stopped
    with refused(errno.ESTALE):
        consumer.ack(11, Phase.START)
    with refused(errno.EPROTO):
        world.start(12)
    consumer.ack(12, Phase.STOP)
    world.start(12)


def test_event_ids_rise_strictly(world: World) -> None:
    world.view()
    world.member(10)
    for old in (1, 9, 10):
        with refused(errno.ESTALE):
            world.stop(old)
    with refused(errno.ESTALE):
        world.start(9)
    with refused(errno.ESTALE):
        world.finish(9)
    assert (world.group().event, world.group().phase) == (10, Phase.FINISH)
    world.stop((1 << 63) - 1)


def test_a_start_waits_for_the_stop_of_the_same_event(world: World) -> None:
    world.view()
    consumer = world.consumer()
    with refused(errno.EPROTO):
        world.start(10)
    world.stop(10)
    with refused(errno.EPROTO):
        world.start(10)
    with refused(errno.EPROTO):
        world.start(11)
    consumer.ack(10, Phase.STOP)
    with refused(errno.EPROTO):
        world.start(11)
    world.start(10)
    with refused(errno.EPROTO):
        world.start(10)


STRANGERS: dict[str, Callable[[World], tuple[Member, ...]]] = {
    "not in the view": lambda w: (w.me, Member(3, 5)),
    "another incarnation": lambda w: (w.me, Member(2, w.peer.incarnation + 1)),
    "this node in another incarnation": lambda w: (Member(1, w.incarnation + 1),),
    "without this node": lambda w: (w.peer,),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_a_start_names_members_of_the_current_view(world: World, who: str) -> None:
    """S1, S2, S5."""
    world.view()
    consumer = world.consumer()
    world.stop(10)
    consumer.ack(10, Phase.STOP)
    with refused(errno.EPROTO):
        world.start(10, *STRANGERS[who](world))
    assert world.group().phase is Phase.STOP
    world.start(10, world.me, world.peer)


def test_a_start_names_each_member_once_and_anybody(world: World) -> None:
    world.view()
    consumer = world.consumer()
    world.stop(10)
    consumer.ack(10, Phase.STOP)
    with refused(*BAD_INPUT, errno.EPROTO):
        world.provider.group_start(world.handle, world.session, "g", 10, [])
    with refused(*BAD_INPUT):
        world.start(10, world.me, world.me)
    assert world.group().phase is Phase.STOP


def test_a_start_is_judged_by_the_view_of_now(world: World) -> None:
    """S5: the view at the stop does not count."""
    world.view()
    consumer = world.consumer()
    world.stop(10)
    consumer.ack(10, Phase.STOP)
    world.view(world.me)
    with refused(errno.EPROTO):
        world.start(10, world.me, world.peer)
    world.view(world.me, quorate=False)
    with refused(errno.EPROTO):
        world.start(10, world.me)
    generation = world.view(world.me)
    world.start(10, world.me)
    assert world.group().view_generation <= generation


def test_a_finish_waits_for_the_start(world: World) -> None:
    world.view()
    consumer = world.consumer()
    world.stop(10)
    with refused(errno.EPROTO):
        world.finish(10)
    consumer.ack(10, Phase.STOP)
    world.start(10)
    with refused(errno.EPROTO):
        world.finish(10)
    consumer.ack(10, Phase.START)
    with refused(errno.ESTALE):
        world.finish(11)
    world.finish(10)
    with refused(errno.EPROTO):
        world.finish(10)


def test_a_group_of_the_largest_size(world: World) -> None:
    members = tuple(
        Member(n, world.incarnation if n == 1 else n << 40 | 5, join_id=n) for n in range(1, MEMBERS_MAX + 1)
    )
    world.view(*(Member(m.nodeid, m.incarnation) for m in members))
    consumer = world.consumer()
    world.cycle(consumer, 10, *members)
    group = world.group()
    assert group.members == group.finished_members == members
    world.consumer("small")
    assert {g.name: len(g.members) for g in world.reader.groups(world.handle)} == {"g": MEMBERS_MAX, "small": 0}


def test_many_groups_are_dumped_whole(world: World) -> None:
    world.view()
    port = world.backend.port()
    names = {f"group-{n:04}" for n in range(300)}
    for name in sorted(names):
        port.join(world.handle, name, Level.USER, GroupFlags.NONE, "many")
    groups = world.reader.groups(world.handle)
    assert len(groups) == len(names)
    assert {g.name for g in groups} == names


# --- acknowledgements -------------------------------------------------------------------------------------------


def test_acknowledgements_of_another_event_or_session_are_stale(world: World) -> None:
    world.view()
    consumer = world.member(10)
    other = world.consumer("other")
    world.stop(11)
    for event in (10, 12):
        with refused(errno.ESTALE):
            consumer.ack(event, Phase.STOP)
    for session in (other.joined.session, world.session, consumer.joined.session + 1000):
        with refused(errno.ESTALE):
            consumer.ack(11, Phase.STOP, session=session)
    assert not world.group().stopped
    consumer.ack(11, Phase.STOP)


def test_acknowledgements_come_in_order(world: World) -> None:
    world.view()
    consumer = world.consumer()
    with refused(errno.ESTALE):
        consumer.ack(10, Phase.STOP)
    world.stop(10)
    with refused(errno.EPROTO):
        consumer.ack(10, Phase.START)
    for phase in (Phase.NONE, Phase.FINISH):
        with refused(*BAD_INPUT, errno.EPROTO):
            consumer.ack(10, phase)
    consumer.ack(10, Phase.STOP)
    consumer.ack(10, Phase.STOP)
    world.start(10)
    consumer.ack(10, Phase.STOP)
    assert (world.group().acked_event, world.group().acked_phase) == (10, Phase.STOP)
    consumer.ack(10, Phase.START)
    with refused(errno.EPROTO):
        consumer.ack(10, Phase.STOP)
    assert world.group().acked_phase is Phase.START


# --- leaving ----------------------------------------------------------------------------------------------------


def test_a_leave_is_complete_when_the_provider_says_so(world: World) -> None:
    world.view()
    consumer = world.member(10)
    with refused(errno.EPROTO):
        world.left()
    consumer.leave()
    consumer.leave()
    assert world.group().state is GroupState.LEAVING
    world.stop(11)
    consumer.ack(11, Phase.STOP)
    assert world.group().state is GroupState.LEAVING
    world.left()
    world.wait_gone()
    with refused(errno.ENOENT):
        consumer.leave()


def test_a_leave_needs_the_session_of_the_group(world: World) -> None:
    consumer, other = world.consumer(), world.consumer("other")
    with refused(errno.ESTALE):
        consumer.port.leave(world.handle, other.joined.session, "g")
    assert world.group().state is GroupState.JOINING


def test_a_refused_join_disappears(world: World) -> None:
    world.consumer()
    world.left(error=errno.EPERM)
    world.wait_gone()


def test_leaving_a_lost_group_needs_nobody(world: World) -> None:
    """S21."""
    world.view()
    consumer = world.member(10)
    world.lose()
    world.wait_state(GroupState.LOST)
    consumer.leave()
    world.wait_gone()


def test_leaving_is_over_when_the_provider_dies(world: World) -> None:
    """S21: or umount would hang for ever."""
    world.view()
    world.member(10).leave()
    world.die()
    world.wait_gone()


def test_leaving_an_orphan_cluster_needs_nobody(world: World) -> None:
    """S21: nobody can say whether a provider will come."""
    world.view()
    consumer = world.member(10)
    world.die()
    consumer.leave()
    world.wait_gone()


def test_leaving_without_a_provider_needs_nobody(backend: Backend) -> None:
    world = World(backend, attach=False)
    consumer = world.consumer()
    assert world.group().state is GroupState.JOINING
    consumer.leave()
    world.wait_gone()


# --- consumers that die -----------------------------------------------------------------------------------------


def test_a_dead_consumer_leaves_and_its_stop_counts(world: World) -> None:
    world.view()
    consumer = world.member(10)
    world.stop(11)
    consumer.die()
    world.wait_state(GroupState.LEAVING)
    assert world.group().stopped
    assert (world.group().acked_event, world.group().acked_phase) == (11, Phase.STOP)
    world.stop(12)
    assert world.group().stopped, "nobody is left who could acknowledge"
    with refused(errno.EBUSY):
        world.consumer()
    world.left()
    world.wait_gone()
    world.member(13)


def test_a_dead_consumer_acknowledges_no_start(world: World) -> None:
    world.view()
    consumer = world.consumer()
    world.stop(10)
    consumer.ack(10, Phase.STOP)
    world.start(10)
    consumer.die()
    world.wait_state(GroupState.LEAVING)
    assert world.group().acked_phase is Phase.STOP


def test_a_dead_consumer_of_a_lost_group(world: World) -> None:
    world.view()
    consumer = world.member(10)
    world.lose()
    world.wait_state(GroupState.LOST)
    consumer.die()
    world.wait_gone()


def test_a_held_group_is_not_joined_again(world: World) -> None:
    for flags in (GroupFlags.NONE, PERSISTENT):
        name = f"held{int(flags)}"
        holder = world.consumer(name, flags)
        with refused(errno.EBUSY):
            world.consumer(name, flags)
        with refused(errno.EBUSY):
            holder.port.join(world.handle, name, Level.USER, flags, "tester")


def test_a_persistent_group_outlives_its_consumer(world: World) -> None:
    """Rule 7: it waits, it keeps what it knew, and it never acknowledges by itself."""
    world.view()
    consumer = world.member(10, flags=PERSISTENT)
    assert world.group().orphan_since_ms == 0
    consumer.die()
    world.wait("the group to be an orphan", lambda: world.group().orphan_since_ms > 0)
    world.stop(11)
    group = world.group()
    assert (group.state, group.event, group.phase) == (GroupState.MEMBER, 11, Phase.STOP)
    assert not group.stopped
    with refused(errno.EPROTO):
        world.start(11)
    with refused(errno.EBUSY):
        world.consumer(flags=PERSISTENT, owner="somebody else")
    successor = world.consumer(flags=PERSISTENT)
    assert successor.joined.taken_over
    assert successor.joined.owner_epoch == consumer.joined.owner_epoch + 1
    group = world.group()
    assert (group.owner_epoch, group.orphan_since_ms) == (successor.joined.owner_epoch, 0)
    assert (group.event, group.phase, group.finished_event) == (11, Phase.STOP, 10)
    assert group.finished_members == (world.me,)
    with refused(errno.ESTALE):
        successor.ack(11, Phase.STOP, session=consumer.joined.session)
    successor.ack(11, Phase.STOP)
    world.start(11)


def test_a_first_join_takes_nothing_over(world: World) -> None:
    assert not world.consumer(flags=PERSISTENT).joined.taken_over


def test_an_orphan_is_lost_with_its_provider_and_can_still_be_taken_over_and_left(world: World) -> None:
    world.view()
    world.member(10, flags=PERSISTENT).die()
    world.wait("the group to be an orphan", lambda: world.group().orphan_since_ms > 0)
    world.lose()
    world.wait_state(GroupState.LOST)
    successor = world.consumer(flags=PERSISTENT)
    assert successor.joined.taken_over
    assert world.group().state is GroupState.LOST
    successor.leave()
    world.wait_gone()


def test_one_socket_dies_with_all_its_groups(world: World) -> None:
    world.view()
    port = world.backend.port()
    for name in ("a", "b"):
        port.join(world.handle, name, Level.USER, GroupFlags.NONE, "x")
    port.join(world.handle, "p", Level.USER, PERSISTENT, "x")
    port.close()
    world.wait_state(GroupState.LEAVING, "a")
    world.wait_state(GroupState.LEAVING, "b")
    world.wait("p to be an orphan", lambda: world.group("p").orphan_since_ms > 0)


# --- claims -----------------------------------------------------------------------------------------------------


def test_a_claim_is_exclusive_and_its_data_outlives_the_holder(backend: Backend) -> None:
    world = World(backend, attach=False)
    name, first, second = f"claim-{world.handle}", backend.port(), backend.port()
    assert first.claim(name, b"one\0two") == b""
    with refused(errno.EBUSY):
        second.claim(name, b"mine")
    assert first.claim(name) == b"one\0two"
    assert first.claim(name, b"x" * 4096) == b"one\0two"
    second.claim(f"{name}-other")
    first.close()
    # Looking at it would take it: whoever gets it has waited long enough.
    world.provider.cluster_add(f"{world.handle}-x", "x", 1)

    def taken() -> bool:
        try:
            return second.claim(name) == b"x" * 4096
        except Exception as e:
            assert getattr(e, "errno", 0) == errno.EBUSY
            return False

    world.wait("the claim to be free", taken)
    assert second.claim(name, b"") == b"x" * 4096
    assert second.claim(name) == b""
    world.provider.cluster_del(f"{world.handle}-x")


# --- hints ------------------------------------------------------------------------------------------------------


def test_every_change_is_hinted(backend: Backend) -> None:
    world = World(backend)
    seen: set[tuple[str, str, str]] = set()

    def arrives(what: str, group: str = "") -> None:
        key = (what, world.handle, group)

        def there() -> bool:
            seen.update((h.what, h.handle, h.group) for h in world.reader.hints())
            return key in seen

        world.wait(f"the hint {key}", there)
        while world.reader.hints():
            pass
        seen.clear()

    arrives("provider")
    world.view()
    arrives("view")
    consumer = world.consumer()
    arrives("group", "g")
    world.stop(10)
    arrives("group", "g")
    consumer.ack(10, Phase.STOP)
    arrives("group", "g")
    world.start(10)
    arrives("group", "g")
    consumer.ack(10, Phase.START)
    world.finish(10)
    consumer.leave()
    arrives("group", "g")
    world.left()
    arrives("group", "g")
    world.die()
    arrives("provider")
    world.provider.cluster_del(world.handle)
    arrives("cluster")


def test_the_view_hint_has_the_generation(world: World) -> None:
    generation = world.view()
    got: list[int] = []

    def there() -> bool:
        got.extend(h.generation for h in world.reader.hints() if h.what == "view" and h.handle == world.handle)
        return bool(got)

    world.wait("the view's hint", there)
    assert got == [generation]


def test_hints_that_do_not_fit_are_lost_and_said_so(world: World) -> None:
    """Rule 1: whoever loses a hint reads again, and the state is there."""
    tight = world.backend.tight_port()
    tight.hints()
    for _ in range(300):
        world.view()
    got = []
    while more := tight.hints():
        got += more
    assert "lost" in {h.what for h in got}
    assert len(got) < 300
    generation = world.view()
    assert tight.view(world.handle).generation == generation
    again: list[int] = []

    def there() -> bool:
        again.extend(h.generation for h in tight.hints())
        return generation in again

    world.backend.wait("hints to come again", there, tight)


def test_a_closed_port_says_so(backend: Backend) -> None:
    port = backend.port()
    port.hints_fd()
    port.close()
    port.close()
    with refused(errno.EBADF):
        port.info()
    with refused(errno.EBADF):
        port.hints()
