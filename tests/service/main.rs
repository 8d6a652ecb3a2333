//! The daemon seen from outside, through the gate: one file a claim. One program, so that it is linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]
#![expect(clippy::disallowed_methods, reason = "the environment makes a run longer")]

mod a_drive_is_lost;
mod access;
mod bad_input;
mod benches_run;
mod bulk_bodies;
mod disk_troubles;
mod exported;
mod failing_workers;
mod health;
mod host;
mod impatient_readers;
mod indistinct;
mod kill_minus_nine;
mod ledger_heals;
mod limited;
mod live_replay;
mod many_clients;
mod metrics;
mod one_bill;
mod one_block_lives;
mod paused_daemon;
mod planned_stop;
#[path = "../shared/process.rs"]
mod process;
mod python_client;
mod rank;
mod recorded;
mod scrubbed;
mod settled;
mod several_drives;
mod shared_arena;
mod shared_pool;
mod stalled_readers;
mod standard;
mod support;
mod tenants;
mod tickets;
mod tls;
mod watched;
mod worker;
mod worker_goes_on;
