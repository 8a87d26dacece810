//! The conformance suite, on every engine present.

mod conformance_suite;

use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::hypervisor::EngineError;

/// The suite's cases on one engine; `None` says why it is not present.
macro_rules! suite {
    ($module:ident, $engine:expr, [$($case:ident)*]) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $case() {
                    let engine: Result<TableEngine, EngineError> = $engine;
                    match engine {
                        Ok(engine) => conformance_suite::on(&engine, conformance_suite::$case),
                        Err(reason) => println!("skipped: {reason}"),
                    }
                }
            )*
        }
    };
}

macro_rules! every_engine {
    ($cases:tt) => {
        #[cfg(feature = "softhv")]
        suite!(soft, Ok(TableEngine::software()), $cases);
        // The software engine without what the framework lacks.
        #[cfg(feature = "softhv")]
        suite!(
            soft_without_log,
            Ok(TableEngine::new(hvf::sys::Api {
                dirty: None,
                ..softhv::api()
            })),
            $cases
        );
        suite!(framework, TableEngine::system(), $cases);
    };
}

every_engine!([
    capabilities_are_plausible
    device_accesses_have_every_width
    firmware_calls_work_by_either_instruction
    hidden_registers_read_as_zero
    kicks_latch_and_interrupt_every_kind_of_guest
    accesses_no_device_can_serve_are_faults
    protected_memory_faults_until_it_is_given_back
    mappings_neither_overlap_nor_vanish_twice
    memory_is_taken_away_under_running_vcpus
    interrupts_wake_a_waiting_guest
    the_virtual_timer_wakes_a_waiting_guest
    private_interrupts_come_before_the_next_user_instruction
    private_interrupts_wake_a_waiting_guest
    secondary_vcpus_run_on_their_own_threads
    a_saved_vcpu_goes_on_in_a_new_machine
    a_vcpu_of_another_processor_is_refused
    machines_follow_each_other_and_are_one_at_a_time
    stores_of_every_kind_are_followed
    pages_only_read_count_as_unwritten
    taking_the_written_pages_starts_over
    writes_of_all_vcpus_are_followed
    replaced_code_is_executed_anew
    a_vcpu_that_ran_is_brought_back
    a_controller_in_use_gets_exactly_the_saved_state
]);
