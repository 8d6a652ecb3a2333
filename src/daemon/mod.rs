//! Wiring: configuration, telemetry, run, shutdown.
