# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the kernel switch, each with the tests that would fail without it, and what no test shows yet, with the reason.

test_rules.py checks that every test named here is there. A name is `file:test`; the file is contract, module, rules,
stress, heartbeat (tests/kernel/guest_*.py and contract.py), or as in test_rules.py.
"""

from __future__ import annotations

from typing import Final

RULES: Final[dict[str, tuple[str, ...]]] = {
    "1 an event is state: a newer one replaces an unfinished one": ("contract:test_a_newer_event_replaces_an_unfinished_one",),
    "1 a hint is only a hint: group, generation, phase": ("rules:test_a_hint_says_what_changed_and_nothing_more",),
    "1 every change is hinted": ("contract:test_every_change_is_hinted", "contract:test_the_view_hint_has_the_generation"),
    "1 a lost hint is said, and the state is there to be read": ("contract:test_hints_that_do_not_fit_are_lost_and_said_so",),
    "2 one group's stop delays no other group": ("rules:test_a_stop_that_hangs_holds_neither_a_healthy_group_nor_a_command",),
    "2 callbacks begin work and return; the answer may come later": (
        "module:test_a_kernel_consumer_acknowledges_later_from_elsewhere",
        "module:test_a_slow_kernel_consumer_holds_the_start_and_is_superseded",
    ),
    "2 callbacks run inside memalloc_nofs, one at a time": ("module:test_a_kernel_consumer_goes_through_an_event",),
    "2 leave() is asynchronous and legal inside callbacks": ("module:test_a_kernel_consumer_may_leave_from_within_a_callback",),
    "2 leave_sync() on a switch worker warns and returns": (
        "rules:test_to_wait_for_the_end_within_a_callback_warns_and_returns",
    ),
    "3 the view is at least as new as the event": ("module:test_a_kernel_consumer_goes_through_an_event",),
    "3 the view notifier: newest wins, never nests": ("module:test_a_kernel_consumer_is_notified_of_views",),
    "4 generations rise strictly": ("contract:test_generations_rise_strictly_also_over_a_new_provider",),
    "4 event ids rise strictly": ("contract:test_event_ids_rise_strictly",),
    "4 attach returns the highest id, the provider exceeds it": (
        "contract:test_ids_of_the_next_provider_exceed_all_that_were_seen",
    ),
    "4 what is stale is refused, counted and traced": (
        "contract:test_acknowledgements_of_another_event_or_session_are_stale",
        "rules:test_what_is_stale_is_counted_and_traced",
    ),
    "4 a start names members of the current quorate view": (
        "contract:test_a_start_names_members_of_the_current_view",
        "contract:test_a_start_is_judged_by_the_view_of_now",
        "contract:test_nothing_starts_on_the_word_of_a_dead_provider",
    ),
    "4 a start waits for this node's stop of the same event": ("contract:test_a_start_waits_for_the_stop_of_the_same_event",),
    "5 no command waits for a consumer": (
        "rules:test_a_stop_that_hangs_holds_neither_a_healthy_group_nor_a_command",
        "rules:test_a_name_is_free_while_its_last_consumer_hangs",
    ),
    "5 an unknown provider type is ENOENT": ("rules:test_an_unknown_provider_type_is_not_loaded_for_the_caller",),
    "6 a portid that is used again is nobody": ("rules:test_a_portid_that_is_used_again_is_not_its_last_owner",),
    "6 an inherited descriptor keeps a socket alive": ("rules:test_a_descriptor_that_was_handed_on_keeps_the_seat",),
    "6 later commands carry the session": (
        "contract:test_orders_need_the_session_of_the_seat",
        "contract:test_a_leave_needs_the_session_of_the_group",
        "contract:test_sessions_are_never_used_twice",
    ),
    "6 a killed process is noticed at once": ("contract:test_a_killed_provider_is_noticed_at_once",),
    "6 descriptors are close-on-exec": ("rules:test_descriptors_are_closed_on_exec",),
    "7 only an orphan is taken over, with its owner tag": (
        "contract:test_a_held_group_is_not_joined_again",
        "contract:test_a_persistent_group_outlives_its_consumer",
        "module:test_a_kernel_consumer_does_not_take_a_held_group",
    ),
    "7 an orphan never acknowledges by itself, and can always be ended": (
        "contract:test_a_persistent_group_outlives_its_consumer",
        "contract:test_an_orphan_is_lost_with_its_provider_and_can_still_be_taken_over_and_left",
    ),
    "8 every change needs CAP_SYS_ADMIN in the initial user namespace": (
        "contract:test_changes_need_rights",
        "contract:test_root_of_a_container_has_no_rights",
        "contract:test_a_socket_opened_without_rights_stays_without",
    ),
    "8 init_net only": ("contract:test_another_network_namespace_has_no_switch",),
    "8 keys are never dumped": ("heartbeat:test_the_key_is_not_shown",),
    "8 dumps are open": ("contract:test_reading_is_open",),
    "8 multicast carries no payload": ("rules:test_a_hint_says_what_changed_and_nothing_more",),
    "9 the key is the handle": ("contract:test_a_handle_exists_once_but_a_cluster_name_may_be_used_again",),
    "9 clusters do not touch each other": (
        "contract:test_several_clusters_do_not_touch_each_other",
        "heartbeat:test_three_clusters_at_once",
    ),
    "9 one kernel can play several nodes of one cluster": ("heartbeat:test_eight_instances_of_one_cluster",),
    "9 what exists once is claimed exclusively": (
        "contract:test_a_claim_is_exclusive_and_its_data_outlives_the_holder",
    ),
    "10 a provider's module is pinned from attach until detach": (
        "rules:test_a_provider_type_is_judged_and_pinned_while_it_is_attached",
        "heartbeat:test_loading_and_unloading_while_others_beat",
    ),
    "10 vcs.ko is pinned by every cluster": ("module:test_the_module_is_not_unloaded_under_anybody",),
    "10 a consumer pins its cluster": ("module:test_a_kernel_consumer_pins_its_cluster_and_the_module",),
    "10 left is the last callback": ("module:test_a_kernel_consumer_may_leave_from_within_a_callback",),
    "10 nothing is left behind": (
        "module:test_loading_and_unloading_again_and_again",
        "stress:test_everybody_at_once_and_killed",
    ),
    "11 a registration is checked: version, size, name, caps against ops": (
        "rules:test_a_provider_type_is_judged_and_pinned_while_it_is_attached",
    ),
    "12 members over the messages of a dump, of one view": (
        "contract:test_a_view_of_the_largest_size",
        "contract:test_a_dump_is_of_one_view",
        "contract:test_a_view_is_never_torn",
    ),
    "12 a dump of 10,000 nodes": ("rules:test_a_dump_of_ten_thousand_nodes_is_whole",),
    "12 a group dump that was interrupted is read again": (
        "contract:test_groups_are_read_whole_while_they_change",
        "contract:test_many_groups_are_dumped_whole",
    ),
    "12 more than 1,024 members are refused": ("contract:test_bad_input_is_refused_and_changes_nothing",),
    "13 unknown bits and attributes are refused": (
        "contract:test_bad_input_is_refused_and_changes_nothing",
        "contract:test_malformed_requests_are_refused",
    ),
    "13 append-only: a list per release": (
        "release:test_what_a_release_promised_holds",
        "release:test_a_change_is_seen",
    ),
    "13 extack names the attribute": ("contract:test_a_missing_attribute_is_named",),
    "14 the kernel's cli.py decodes the same bytes": (
        "ynl:test_clusters_are_the_same",
        "ynl:test_groups_are_the_same",
        "ynl:test_a_view_over_several_messages_is_the_same",
        "ynl:test_what_it_writes_the_kernel_takes",
    ),
    "14 one YAML, nothing parses it at run time": ("tidy:test_libraries_are_known_to_one_file",),
    "15 valid_from, not now; older and future values are refused": (
        "contract:test_old_and_future_evidence_is_refused",
        "contract:test_a_lease_runs_from_its_evidence",
    ),
    "15 a lease with a grace that runs out loses the provider": (
        "contract:test_a_lease_with_a_grace_that_runs_out_loses_the_provider",
    ),
    "15 a lease without one loses nobody": ("contract:test_a_lease_without_a_grace_loses_nobody",),
    "15 an absolute deadline, past which whoever comes is refused and resets": (
        "contract:test_the_end_of_the_grace_resets_the_machine",
    ),
    "15 neither death nor take-over of a provider moves it": (
        "contract:test_an_armed_lease_outlives_its_provider",
        "contract:test_a_successor_renews_with_evidence",
        "contract:test_a_grace_that_a_successor_brings_holds_at_once",
    ),
    "15 one reset-armed cluster per kernel": ("contract:test_one_cluster_resets_the_machine",),
    "15 maintenance freezes it, for a limited time": (
        "contract:test_maintenance_freezes_the_lease_for_a_limited_time",
        "contract:test_a_freeze_that_is_over_leaves_the_evidence",
    ),
    "15 who was declared fenced is reset": ("contract:test_who_was_declared_fenced_is_reset",),
    "15 armed only while a group that needs fencing is started": (
        "contract:test_a_lease_is_not_armed_by_a_group_that_needs_no_fence",
        "contract:test_a_lease_stays_armed_while_the_group_is_stopped",
        "contract:test_to_leave_disarms_the_reset",
    ),
    "16 a process of its own pings the watchdog while the lease is valid or not armed": (
        "watchdog:test_what_a_lease_means",
        "watchdog:test_it_pings_until_the_lease_has_run_out",
        "watchdog:test_it_lets_go_only_when_nothing_is_armed",
        "watchdog:test_it_needs_nothing_of_ours",
    ),
    "15 suspend is refused while armed": ("rules:test_suspend_is_refused_while_a_lease_is_armed",),
}
"Rule (its number, and what of it) -> tests."

OPEN: Final[dict[str, str]] = {
    "2 no upcall can fail on memory": "holds by construction (the caller allocates); failslab comes with the debug kernel",
    "4 stale ids over all daemons' deaths": "the persisted ring sequence is the engine's, tested there",
    "10 the order of exit": "shown only by a run without a splat; the debug kernel is to watch it",
}
"What of the rules no test shows -> why."
