//! Verify and inspect a stopped data folder.
