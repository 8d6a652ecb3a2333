//! Engine instances and their processes.
