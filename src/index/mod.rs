//! The catalog database: which block is where.
