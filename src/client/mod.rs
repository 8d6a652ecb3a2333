//! What workers and tools use.
