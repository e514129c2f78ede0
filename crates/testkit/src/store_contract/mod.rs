//! What every store has to do, whatever it is made of.
//!
//! Each contract is a function that takes a [`Lab`] with a fresh store. A backend calls
//! [`store_contract_tests!`](crate::store_contract_tests) in its own tests, which makes one named test of each.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a contract that is broken ends the test that runs it"
)]

pub mod agent;
pub mod artifact;
pub mod claim;
pub mod environment;
pub mod event;
pub mod finish;
pub mod lease;
pub mod log;
pub mod pack;
pub mod process;
pub mod recovery;
pub mod schedule;
pub mod seed;
pub mod sensor;

use std::sync::Arc;

use async_trait::async_trait;
use attune_store::{HubStore, SensorStore, WorkerStore};

/// A store for all roles.
pub trait Store: WorkerStore + SensorStore + HubStore {}

impl<T: WorkerStore + SensorStore + HubStore> Store for T {}

/// A fresh store, and the way around it: what operators and other services do to its tables.
#[async_trait]
pub trait Lab: Send + Sync {
    /// The store under test.
    fn store(&self) -> Arc<dyn Store>;

    /// Runs a statement that every backend understands.
    async fn execute(&self, sql: &str);

    /// The number that a query yields.
    async fn number(&self, sql: &str) -> i64;
}

/// Makes a test of each contract. The argument is an async function that makes a [`Lab`] with an empty store.
#[macro_export]
macro_rules! store_contract_tests {
    ($lab:ident) => {
        $crate::store_contract_tests! { $lab;
            agent: a_worker_that_comes_back_keeps_its_row,
                a_worker_that_comes_back_stays_cordoned,
                a_name_of_the_other_role_is_a_conflict,
                a_heartbeat_carries_the_status_and_the_time_of_the_store,
                a_heartbeat_of_a_removed_worker_says_so,
                status_and_capabilities_are_written_alone,
                runtimes_come_by_ref_and_versions_by_runtime,
                a_detected_runtime_is_added_once,
                verified_versions_are_marked_and_dated;
            claim: of_twenty_claims_at_once_one_is_granted,
                a_claim_brings_all_that_the_run_needs,
                keys_come_in_the_order_in_which_they_override,
                a_claim_of_a_canceling_execution_cancels_it,
                a_claim_of_anything_else_is_not_ours,
                an_action_that_came_back_is_found_by_its_ref,
                a_claim_is_granted_even_when_the_action_is_gone,
                a_message_of_an_earlier_attempt_claims_nothing,
                the_start_is_read_back_exactly_as_the_fence_has_it;
            finish: an_end_is_written_once,
                only_the_claim_that_runs_may_end_the_run,
                an_end_after_somebody_elses_end_is_dropped,
                a_run_that_is_being_cancelled_ends_as_cancelled,
                secrets_are_written_with_the_end_or_not_at_all,
                a_status_that_is_no_end_is_refused,
                an_earlier_life_left_what_was_running_or_canceling,
                what_was_scheduled_is_told_again_oldest_first,
                ended_executions_of_a_worker_are_told_from_others;
            environment: a_new_environment_is_pending_and_has_one_row,
                base_and_versions_have_rows_of_their_own,
                a_changed_manifest_or_path_makes_it_outdated,
                a_live_claim_is_left_alone_by_a_changed_manifest,
                of_twenty_builders_at_once_one_gets_the_claim,
                an_expired_claim_is_taken_over_and_its_owner_has_lost_it,
                a_claim_is_renewed_by_its_owner_only,
                a_failed_build_may_be_tried_by_another_worker,
                a_broken_environment_is_built_again;
            log: versions_count_from_one_and_name_their_file,
                versions_asked_for_at_once_differ,
                the_oldest_versions_beyond_the_limit_go_with_their_files,
                retention_by_time_removes_nothing_here,
                a_size_of_zero_removes_the_version,
                logs_that_ended_together_are_filed_together,
                logs_that_have_versions_already_are_found_by_their_execution,
                files_that_actions_registered_are_found_until_they_have_a_size,
                files_of_sensors_are_found_by_their_owners;
            artifact: an_artifact_is_made_once_and_found_by_id_and_ref,
                of_twenty_makers_at_once_one_makes_it,
                a_change_of_an_artifact_leaves_the_rest,
                no_entry_of_progress_is_lost,
                a_version_holds_what_was_given,
                versions_added_at_once_differ,
                versions_beyond_the_limit_go_and_name_their_files,
                a_removed_artifact_names_its_files,
                an_execution_is_asked_for_its_artifacts;
            sensor: desired_sensors_come_by_ref_with_all_that_decides,
                only_enabled_sensors_and_rules_are_desired,
                the_digest_of_desired_sensors_changes_when_they_do_and_not_otherwise,
                the_stamp_of_a_pack_changes_when_it_does_and_not_otherwise,
                an_alert_needs_its_trigger;
            process: a_process_runs_fails_and_is_stopped,
                failures_are_counted_by_the_caller_and_reset_on_request,
                the_rule_count_stays_when_it_is_unknown,
                another_number_of_rules_changes_nothing_else,
                a_sensor_that_is_gone_is_no_error,
                nothing_of_an_earlier_life_is_alive,
                many_changes_are_written_together_and_in_order;
            lease: a_sensor_is_held_by_one_host,
                what_is_given_back_does_not_run,
                of_twenty_hosts_at_once_one_gets_the_sensor,
                a_session_that_is_not_renewed_ends_and_its_sensors_are_free,
                a_renewal_is_a_heartbeat_and_says_when_the_host_is_cordoned,
                the_row_of_a_host_that_died_while_it_waited_is_corrected_with_the_next_take,
                rows_of_dead_hosts_are_corrected_also_when_nobody_takes_anything,
                rows_that_a_later_process_has_taken_over_are_not_those_of_the_earlier_one,
                a_later_life_ends_the_session_and_waits_for_its_time,
                a_later_life_takes_what_an_earlier_one_left_when_its_time_is_over,
                a_host_that_registers_again_and_again_keeps_no_sensor_from_others,
                a_host_that_begins_again_and_again_keeps_no_sensor_from_others,
                who_renews_after_another_life_has_registered_holds_on,
                a_living_host_without_leases_counts_as_holding,
                a_lease_survives_every_change_of_the_process,
                many_sensors_are_taken_and_given_back_at_once;
            pack: a_pack_is_read_back_as_it_was_loaded,
                refs_are_resolved_when_a_pack_is_loaded,
                loading_the_same_pack_again_writes_nothing,
                a_changed_component_keeps_its_id,
                what_vanished_from_the_files_is_removed,
                what_refers_to_nothing_is_left_out_with_the_reason,
                a_trigger_has_one_sensor,
                a_trigger_moves_to_another_sensor_of_its_pack,
                a_ref_of_another_pack_is_a_conflict_and_nothing_is_written,
                rules_find_their_trigger_and_action_again,
                what_people_made_by_hand_stays,
                a_runtime_that_others_use_cannot_be_removed,
                a_removed_pack_leaves_its_executions,
                packs_come_with_their_actions;
            event: an_event_leads_to_executions_in_one_unit,
                who_decides_sees_the_event_and_its_rules,
                an_unknown_trigger_or_event_stores_nothing,
                an_event_is_enforced_once_per_rule,
                only_enabled_rules_of_enabled_triggers_are_reached,
                an_event_for_one_rule_reaches_no_other,
                secrets_of_an_enforcement_reach_the_worker,
                a_failure_half_way_leaves_nothing;
            schedule: of_twenty_schedulers_one_gets_the_execution,
                a_scheduler_that_died_is_replaced_after_a_while,
                a_guard_holds_for_one_step,
                an_execution_is_ended_from_the_state_that_was_seen,
                a_cancel_does_what_the_status_asks_for,
                workers_come_with_their_load,
                lists_come_in_pages,
                keys_are_replaced_by_ref,
                identities_are_made_once;
            recovery: what_nobody_schedules_is_found,
                scheduled_executions_come_in_portions_with_their_action,
                what_its_worker_did_not_start_is_overdue,
                executions_of_lost_workers_are_orphans,
                silent_workers_become_inactive_once;
        }
    };
    ($lab:ident; $($part:ident: $($contract:ident),+;)+) => {
        $(mod $part {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $contract() {
                let lab = super::$lab().await;
                $crate::store_contract::$part::$contract(&lab).await;
            })+
        })+
    };
}

#[cfg(test)]
mod tests {
    /// A contract that nobody runs would be a promise that nothing keeps.
    #[test]
    fn every_contract_is_in_the_list() {
        let list = include_str!("mod.rs");
        let parts = [
            ("agent", include_str!("agent.rs")),
            ("artifact", include_str!("artifact.rs")),
            ("claim", include_str!("claim.rs")),
            ("environment", include_str!("environment.rs")),
            ("event", include_str!("event.rs")),
            ("finish", include_str!("finish.rs")),
            ("lease", include_str!("lease.rs")),
            ("log", include_str!("log.rs")),
            ("pack", include_str!("pack.rs")),
            ("process", include_str!("process.rs")),
            ("recovery", include_str!("recovery.rs")),
            ("schedule", include_str!("schedule.rs")),
            ("sensor", include_str!("sensor.rs")),
        ];
        for (part, source) in parts {
            for line in source.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap();
                let listed = list.lines().any(|line| {
                    let line = line.trim().trim_start_matches(&format!("{part}: "));
                    line.trim_end_matches([',', ';']) == name
                });
                assert!(listed, "{part}::{name}");
            }
        }
    }
}
