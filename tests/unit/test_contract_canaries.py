# SPDX-License-Identifier: GPL-2.0-only
"""Switches with one rule broken on purpose: the contract must notice each, or it would not notice a kernel's bug."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.switch import FakeSwitch
from tests.fakes.switch_port import FakePort
from tests.fakes.switch_state import FakeCluster, FakeGroup
from tests.kernel import contract, contract_lease
from tests.kernel.contract_world import World
from tests.unit.test_switch_contract import FakeBackend
from vcs.errors import SwitchError
from vcs.model import GroupFlags, GroupState, Phase, ProviderState, View


class StartsBeforeTheStop(FakeSwitch):
    def group_start(self, handle: str, session: int, name: str, event: int, members: Any) -> None:
        self.group(handle, name)
        self._clusters[handle].groups[name].acknowledge(Phase.STOP)
        super().group_start(handle, session, name, event, members)


class TrustsAnyMember(FakeSwitch):
    def group_start(self, handle: str, session: int, name: str, event: int, members: Any) -> None:
        cluster = self._clusters[handle]
        kept, cluster.view = cluster.view, View(cluster.view.generation, cluster.view.ring, True, tuple(members))
        try:
            super().group_start(handle, session, name, event, members)
        finally:
            cluster.view = kept


class KeepsTheQuorumOfTheDead(FakeSwitch):
    def _vacate(self, cluster: FakeCluster, state: ProviderState) -> None:
        cluster.provider_state, cluster.provider_port, cluster.session = state, None, 0


class ForgetsThatItWasLost(FakeSwitch):
    def attach(self, port: FakePort, handle: str, lease_ms: int, grace_ms: int = 0) -> Any:
        for group in self._clusters[handle].groups.values():
            group.state = GroupState.MEMBER
        return super().attach(port, handle, lease_ms, grace_ms)


class IgnoresTheDeath(FakeSwitch):
    def socket_died(self, port: FakePort) -> None:
        self._ports = [p for p in self._ports if p is not port]


class LosesWithTheSocket(FakeSwitch):
    def _orphan(self, cluster: FakeCluster) -> None:
        self._lose(cluster)


class ForgetsTheStart(FakeSwitch):
    def group_stop(self, handle: str, session: int, name: str, event: int) -> None:
        super().group_stop(handle, session, name, event)
        self._clusters[handle].groups[name].started_members = ()


class AcceptsStaleAcks(FakeSwitch):
    def ack(self, handle: str, session: int, name: str, event: int, phase: Phase) -> None:
        group = self._clusters[handle].groups[name]
        super().ack(handle, group.session, name, group.event, phase)


class AcceptsOldEvents(FakeSwitch):
    def group_stop(self, handle: str, session: int, name: str, event: int) -> None:
        cluster = self._clusters[handle]
        cluster.event_floor = cluster.groups[name].event = 0
        super().group_stop(handle, session, name, event)


class AnswersForOrphans(FakeSwitch):
    def group_stop(self, handle: str, session: int, name: str, event: int) -> None:
        super().group_stop(handle, session, name, event)
        group = self._clusters[handle].groups[name]
        if group.owner_port is None:
            group.acknowledge(Phase.STOP)


class WaitsForTheDead(FakeSwitch):
    def _consumer_died(self, cluster: FakeCluster, group: FakeGroup) -> None:
        group.owner_port = None
        if GroupFlags.PERSISTENT not in group.flags:
            self._leave(cluster, group)


class LeavesOnlyWithTheProvider(FakeSwitch):
    def _leave(self, cluster: FakeCluster, group: FakeGroup) -> None:
        group.state = GroupState.LEAVING


class LeaseFromNow(FakeSwitch):
    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None:
        super().lease_renew(handle, session, valid_from_ns)
        self._clusters[handle].lease.prolong(self._now())


class LeaseNeverRunsOut(FakeSwitch):
    def tick(self) -> None: ...


class TakesOverWithAFreshLease(FakeSwitch):
    def _attach_lease(self, cluster: FakeCluster, lease_ms: int, grace_ms: int) -> None:
        super()._attach_lease(cluster, lease_ms, grace_ms)
        cluster.lease.prolong(self._now())


class DisarmsWithItsProvider(FakeSwitch):
    def _vacate(self, cluster: FakeCluster, state: ProviderState) -> None:
        super()._vacate(cluster, state)
        cluster.lease.end_ns = cluster.lease.reset_ns = 0


class RenewsWhatHasRunOut(FakeSwitch):
    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None:
        self._clusters[handle].lease.prolong(valid_from_ns)


class AttachesAfterTheEnd(FakeSwitch):
    def _attach_lease(self, cluster: FakeCluster, lease_ms: int, grace_ms: int) -> None:
        cluster.lease.end_ns = 0
        super()._attach_lease(cluster, lease_ms, grace_ms)


class ArmedAtBoot(FakeSwitch):
    def tick(self) -> None:
        for cluster in self._clusters.values():
            for group in cluster.groups.values():
                group.started = True
                group.flags |= GroupFlags.NEEDS_FENCE
        super().tick()


class NeverDisarmed(FakeSwitch):
    def _remove(self, cluster: FakeCluster, group: FakeGroup) -> None:
        super()._remove(cluster, group)
        cluster.groups["hidden"] = FakeGroup("hidden", group.level, group.flags, "", None, 0, started=True)


class FrozenForEver(FakeSwitch):
    def lease_freeze(self, handle: str, session: int, until_ns: int) -> None:
        super().lease_freeze(handle, session, until_ns)
        self._clusters[handle].lease.prolong(until_ns + (1 << 60))


class ShrugsOffItsFence(FakeSwitch):
    def fenced(self, handle: str, session: int, nodeid: int, incarnation: int, error: int) -> None: ...


class SharesClaims(FakeSwitch):
    def claim(self, port: FakePort, name: str, data: bytes | None) -> bytes:
        _, before = self._claims.get(name, (None, b""))
        self._claims[name] = (port, before if data is None else data)
        return before


class ForgetsClaims(FakeSwitch):
    def socket_died(self, port: FakePort) -> None:
        self._claims = {n: (p, d) for n, (p, d) in self._claims.items() if p is not port}
        super().socket_died(port)


class UsesASessionTwice(FakeSwitch):
    def _new_session(self) -> int:
        return 4711


class GenerationsStandStill(FakeSwitch):
    def view_set(self, handle: str, session: int, ring: Any, quorate: bool, members: Any) -> int:
        super().view_set(handle, session, ring, quorate, members)
        view = self._clusters[handle].view
        self._clusters[handle].view = View(1, view.ring, view.quorate, view.members)
        return 1


class LosesHintsSilently(FakeSwitch):
    def provider(self, hints_max: int = 256, privileged: bool = True) -> FakePort:
        port = super().provider(hints_max, privileged)
        deliver = port.deliver
        port.deliver = lambda hint: deliver(hint) if len(port._hints) < hints_max else None  # type: ignore[method-assign]
        return port


class AsksForNoRights(FakeSwitch):
    def provider(self, hints_max: int = 256, privileged: bool = True) -> FakePort:
        return super().provider(hints_max, True)


CANARIES: list[tuple[type[FakeSwitch], Callable[..., None]]] = [
    (StartsBeforeTheStop, contract.test_a_start_waits_for_the_stop_of_the_same_event),
    (TrustsAnyMember, contract.test_a_start_is_judged_by_the_view_of_now),
    (TrustsAnyMember, contract.test_a_start_names_members_of_the_current_view),
    (KeepsTheQuorumOfTheDead, contract.test_nothing_starts_on_the_word_of_a_dead_provider),
    (ForgetsThatItWasLost, contract.test_a_lost_group_does_not_start_for_the_next_provider),
    (IgnoresTheDeath, contract.test_a_dead_provider_is_an_orphan_and_its_groups_stay),
    (LosesWithTheSocket, contract.test_a_dead_provider_is_an_orphan_and_its_groups_stay),
    (ForgetsTheStart, contract.test_the_last_start_is_remembered_while_a_later_event_stops),
    (IgnoresTheDeath, contract.test_a_persistent_group_outlives_its_consumer),
    (AcceptsStaleAcks, contract.test_acknowledgements_of_another_event_or_session_are_stale),
    (AcceptsStaleAcks, contract.test_a_newer_event_replaces_an_unfinished_one),
    (AcceptsOldEvents, contract.test_event_ids_rise_strictly),
    (AcceptsOldEvents, contract.test_ids_of_the_next_provider_exceed_all_that_were_seen),
    (AnswersForOrphans, contract.test_a_persistent_group_outlives_its_consumer),
    (WaitsForTheDead, contract.test_a_dead_consumer_leaves_and_its_stop_counts),
    (LeavesOnlyWithTheProvider, contract.test_leaving_a_lost_group_needs_nobody),
    (LeavesOnlyWithTheProvider, contract.test_leaving_without_a_provider_needs_nobody),
    (LeaseFromNow, contract_lease.test_a_lease_runs_from_its_evidence),
    (LeaseNeverRunsOut, contract_lease.test_a_lease_with_a_grace_that_runs_out_loses_the_provider),
    (LeaseNeverRunsOut, contract_lease.test_the_end_of_the_grace_resets_the_machine),
    (TakesOverWithAFreshLease, contract_lease.test_an_armed_lease_outlives_its_provider),
    (DisarmsWithItsProvider, contract_lease.test_an_armed_lease_outlives_its_provider),
    (RenewsWhatHasRunOut, contract_lease.test_old_and_future_evidence_is_refused),
    (AttachesAfterTheEnd, contract_lease.test_the_end_of_the_grace_resets_the_machine),
    (ArmedAtBoot, contract_lease.test_a_lease_is_not_armed_by_a_group_that_needs_no_fence),
    (NeverDisarmed, contract_lease.test_to_leave_disarms_the_reset),
    (FrozenForEver, contract_lease.test_maintenance_freezes_the_lease_for_a_limited_time),
    (ShrugsOffItsFence, contract_lease.test_who_was_declared_fenced_is_reset),
    (SharesClaims, contract.test_a_claim_is_exclusive_and_its_data_outlives_the_holder),
    (ForgetsClaims, contract.test_a_claim_is_exclusive_and_its_data_outlives_the_holder),
    (UsesASessionTwice, contract.test_sessions_are_never_used_twice),
    (GenerationsStandStill, contract.test_generations_rise_strictly_also_over_a_new_provider),
    (LosesHintsSilently, contract.test_hints_that_do_not_fit_are_lost_and_said_so),
    (AsksForNoRights, contract.test_changes_need_rights),
]
ARGUMENTS = {"who": "another incarnation", "call": "join"}
"For a parametrised test: the case that its canary is about."


def run(switch: type[FakeSwitch], test: Callable[..., None]) -> None:
    backend = FakeBackend()
    backend.switch = switch(backend.switch.incarnation, backend.now_ns)
    arguments: dict[str, Any] = {}
    for name in inspect.signature(test).parameters:
        if name == "backend":
            arguments[name] = backend
        elif name == "world":
            arguments[name] = World(backend)
        else:
            arguments[name] = ARGUMENTS[name]
    test(**arguments)


@pytest.mark.parametrize(
    ("switch", "test"), CANARIES, ids=[f"{s.__name__}-{t.__name__.removeprefix('test_')}" for s, t in CANARIES]
)
def test_a_broken_switch_is_noticed(switch: type[FakeSwitch], test: Callable[..., None]) -> None:
    run(FakeSwitch, test)
    try:
        run(switch, test)
    except (AssertionError, pytest.fail.Exception):
        return
    except SwitchError as e:
        # The broken switch let something happen that made a later, right call fail.
        assert e.errno != errno.EBADF
        return
    pytest.fail(f"{test.__name__} passed with {switch.__name__}")
