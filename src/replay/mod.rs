//! Traces, simulation and live replay.
