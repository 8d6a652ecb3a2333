//! The mind: events in, commands out.
