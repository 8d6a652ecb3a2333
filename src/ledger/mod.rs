//! The ledger database: what was delivered and settled.
