//! A progress bar on stderr, seen only where stderr is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Drawn this often a second at most.
const DRAWS_PER_SECOND: u8 = 10;

/// A bar of `total` steps, counted in `unit`. It is wiped when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(total: u64, unit: &str) -> Self {
        Self::with(total, &format!("{{bar:32}} {{human_pos}} of {{human_len}} {unit}, {{eta}} left {{msg}}"))
    }

    /// Of requests that come at their times: how long it takes is not told by how many there were.
    pub(super) fn of_a_schedule(requests: u64) -> Self {
        Self::with(requests, "{bar:32} {human_pos} of {human_len} requests, {msg}")
    }

    fn with(total: u64, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        Self(bar)
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
