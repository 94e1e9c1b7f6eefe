//! How far long work is: a bar with bytes, rate and time left on a terminal, a line now and then without one.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::clock;
use crate::plan::space::human;

/// Without a terminal, how often to say something.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// Shows how much of something is done.
pub(super) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            // A template that does not parse is a mistake that a test finds; the usual bar is no disaster.
            if let Ok(style) =
                ProgressStyle::with_template("{msg} [{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.to_owned());
            bar
        });
        Self { what: what.to_owned(), bar, said: clock::monotonic() }
    }

    /// The same of something else, once that comes.
    pub(super) fn set_of(&mut self, what: &str, done: u64, all: u64) {
        if !what.is_empty() && self.what != what {
            what.clone_into(&mut self.what);
            if let Some(bar) = &self.bar {
                bar.reset();
                bar.set_message(self.what.clone());
            }
        }
        self.set(done, all);
    }

    pub(super) fn set(&mut self, done: u64, all: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done.min(all));
        } else if self.said.elapsed() >= NOW_AND_THEN {
            self.said = clock::monotonic();
            let so_much = if all == 0 { String::new() } else { format!(": {} of {}", human(done), human(all)) };
            output::talk(&format!("quorate: {}{so_much}\n", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
