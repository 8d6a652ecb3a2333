//! One file a subcommand.

pub mod size;
pub mod table;
