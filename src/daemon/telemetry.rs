//! Log lines on stderr; stdout belongs to reports.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::watch;

/// Logs at `level` (`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,kvtier::cache=debug`). The first
/// call counts.
pub fn init(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // A line that can't be written, as on a full disk, is dropped: to complain of it on the same stderr would panic.
    let log = log.log_internal_errors(false);
    // A second daemon in one process (a test) logs to the first one's subscriber.
    if log.try_init().is_ok() {
        let before = std::panic::take_hook();
        // Who catches a panic is not told where it was.
        std::panic::set_hook(Box::new(move |info| {
            watch::note_panic(info);
            before(info);
        }));
    }
}
