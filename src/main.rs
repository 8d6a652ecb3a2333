//! The `kvtier` program: everything is in the library, so that tests and benches drive the same code.

fn main() {}
