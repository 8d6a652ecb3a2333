//! The process around a daemon: signals, and the end that is not planned.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::Config;
use super::run::{Daemon, StartError};
use crate::media::end_process;
use crate::vocab::limits::FAILURE_TOLD;
use crate::watch::{Health, Watch};

/// Exit status of a daemon of which a part has ended on its own: `EX_SOFTWARE` of sysexits.h.
pub const FAILED: u8 = 70;

/// SIGXFSZ: a file would have become longer than it may.
const XFSZ: i32 = 25;

/// What asks the process to stop.
struct Signals {
    term: Signal,
    interrupt: Signal,
    /// Heard, a limit on the size of files (`ulimit -f`) is an error of the write, as a full disk is, and not the end.
    _too_large: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let _too_large = signal(SignalKind::from_raw(XFSZ))?;
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, _too_large })
    }

    /// The next one's name, and the exit status of a process that it ends at once: 128 and its number, as of a shell.
    async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.term.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends that at once, and so does the first one before the daemon
/// serves. When a vital part ends on its own, health says so and the process ends with status [`FAILED`].
///
/// `watch` is the default one, unless a test wants something to go wrong at SIGUSR1.
///
/// # Errors
/// See [`StartError`].
pub async fn run_until_signal(config: Config, watch: Watch) -> Result<(), StartError> {
    let refused = |error: io::Error| StartError::Listen { address: "signals".into(), why: error.to_string() };
    let mut signals = Signals::new().map_err(refused)?;
    let health = Health::default();
    end_with_a_part(&watch, &health).map_err(refused)?;
    if let Some(part) = watch.fault() {
        tracing::warn!(part, "a test of kvtier wants this to go wrong at SIGUSR1");
        let (mut armed, watch) = (signal(SignalKind::user_defined1()).map_err(refused)?, watch.clone());
        tokio::spawn(async move {
            armed.recv().await;
            watch.arm();
        });
    }
    let daemon = tokio::select! {
        daemon = Daemon::start_with(config, watch, health) => daemon?,
        (signal, _) = signals.next() => {
            tracing::info!(signal, "stopped before it served");
            // What is being opened can't be called off. It is left as by a kill, which a start expects.
            end_process(0)
        }
    };
    let (tcp, metrics, socket) = (daemon.tcp(), daemon.metrics(), daemon.socket().map(Path::display));
    tracing::info!(?tcp, ?metrics, socket = socket.map(tracing::field::display), "ready");
    let (signal, _) = signals.next().await;
    tracing::info!(signal, "draining");
    tokio::select! {
        () = daemon.stop() => Ok(()),
        (signal, status) = signals.next() => {
            tracing::warn!(signal, "a second signal: stopped at once, and what only RAM has is not written");
            end_process(status)
        }
    }
}

/// Ends the process when a vital part has ended. On a thread of its own, which needs nobody: the runtime may be what stands
/// still.
fn end_with_a_part(watch: &Watch, health: &Health) -> io::Result<()> {
    let (watch, health, runtime) = (watch.clone(), health.clone(), tokio::runtime::Handle::current());
    let end = move || {
        let failure = runtime.block_on(watch.failed());
        health.stop(&failure.to_string());
        std::thread::sleep(FAILURE_TOLD);
        let (part, why) = (failure.part, failure.why);
        tracing::error!(
            part,
            why,
            "the daemon ends: it can't go on without this part. The drives and the ledger are as after a kill"
        );
        end_process(FAILED)
    };
    std::thread::Builder::new().name("watch".into()).spawn(end).map(drop)
}

/// So short that a supervisor sees a failed daemon end within a second.
const _: () = assert!(FAILURE_TOLD.as_millis() < Duration::from_secs(1).as_millis() / 2);
