//! The daemon seen from outside, through the gate: one file a claim. One program, so that it is linked once.

mod bad_input;
mod benches_run;
mod kill_minus_nine;
mod live_replay;
mod many_clients;
mod one_block_lives;
mod support;
