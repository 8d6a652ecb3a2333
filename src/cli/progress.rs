//! A progress bar on stderr, seen only where stderr is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::replay::{Requests, Watch};

/// Drawn this often a second at most.
const DRAWS_PER_SECOND: u8 = 10;

/// Requests between two looks at the bar.
pub(super) const STEP: u64 = 64;

/// A bar of `total` steps, counted in `unit`. It is wiped when it is dropped.
pub(super) struct Bar(ProgressBar, Watch);

impl Bar {
    pub(super) fn new(total: u64, unit: &str) -> Self {
        let template = format!("{{bar:32}} {{human_pos}} of {{human_len}} {unit}, {{eta}} left {{msg}}");
        Self::with(Some(total), &template, Watch::default())
    }

    /// Of requests that come at their times: how long it takes is not told by how many there were.
    pub(super) fn of_a_schedule(requests: u64) -> Self {
        Self::with(Some(requests), "{bar:32} {human_pos} of {human_len} requests, {msg}", Watch::default())
    }

    /// By the bytes that were read: how many requests there are is not known before the end.
    pub(super) fn of_trace(requests: &Requests) -> Self {
        let watch = requests.watch();
        let template = match watch.total() {
            Some(_) => "{bar:32} {binary_bytes} of {binary_total_bytes}, {eta} left {msg}",
            None => "{spinner} {binary_bytes} {msg}",
        };
        Self::with(watch.total(), template, watch)
    }

    fn with(total: Option<u64>, template: &str, watch: Watch) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Self(bar, watch)
    }

    /// A request more of a trace is done.
    pub(super) fn step(&self, done: u64) {
        if done.is_multiple_of(STEP) {
            self.at(self.1.read());
        }
    }

    pub(super) fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    pub(super) fn of(&self, total: u64) {
        self.0.set_length(total);
    }

    pub(super) fn say(&self, message: String) {
        if !self.0.is_hidden() {
            self.0.set_message(message);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
