//! The gate: proto to vocab, errors to status.
