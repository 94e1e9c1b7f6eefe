//! Progress of long operations: a bar with bytes, rate and remaining time on a terminal, otherwise a line from time to
//! time.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;

use crate::cli::output;
use crate::clock;
use crate::terminal::Drawn;
use crate::text::format_bytes;

/// The interval of lines without a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The redraw interval of a bar.
const REDRAW: Duration = Duration::from_millis(250);
/// Maximum width of the label, so that the line fits 80 columns.
const MAX_NAME_COLUMNS: usize = 30;
/// The style with a known total.
const MEASURED: &str = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
/// The style without a known total.
const UNMEASURED: &str = "{msg} …";

/// Shows the progress of an operation.
pub(super) struct Progress {
    what: String,
    drawn: Option<Drawn>,
    is_measured: bool,
    said: Instant,
}

/// A test ensures that the template parses; otherwise use the default bar.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        let drawn = (std::io::stderr().is_terminal() && !output::is_quiet()).then(|| {
            let drawn = Drawn::new(style(UNMEASURED));
            drawn.bar().set_message(output::truncate(what, MAX_NAME_COLUMNS));
            // Updates between two drawings are not lost.
            drawn.bar().enable_steady_tick(REDRAW);
            drawn
        });
        Self { what: what.to_owned(), drawn, is_measured: false, said: clock::monotonic() }
    }

    /// Continues with another operation.
    pub(super) fn set_of(&mut self, what: &str, done: u64, all: u64) {
        if !what.is_empty() && self.what != what {
            what.clone_into(&mut self.what);
            if let Some(drawn) = &self.drawn {
                drawn.bar().reset();
                drawn.bar().set_message(output::truncate(what, MAX_NAME_COLUMNS));
            }
        }
        self.set(done, all);
    }

    pub(super) fn set(&mut self, done: u64, all: u64) {
        if let Some(drawn) = &self.drawn {
            let bar = drawn.bar();
            if self.is_measured != (all > 0) {
                self.is_measured = all > 0;
                bar.set_style(style(if self.is_measured { MEASURED } else { UNMEASURED }));
            }
            if all > 0 {
                bar.set_length(all);
                bar.set_position(done.min(all));
            } else {
                bar.tick();
            }
        } else if self.said.elapsed() >= LOG_INTERVAL {
            self.said = clock::monotonic();
            let amount =
                if all == 0 { String::new() } else { format!(": {} of {}", format_bytes(done), format_bytes(all)) };
            output::note(&format!("quorate: {}{amount}\n", self.what));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal of 80 columns that records the output.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The last line that is drawn.
    fn drawn(template: &str, what: &str, done: u64, all: Option<u64>) -> String {
        let screen = Screen::default();
        let bar = ProgressBar::hidden().with_style(style(template));
        bar.set_message(output::truncate(what, MAX_NAME_COLUMNS));
        if let Some(all) = all {
            bar.set_length(all);
        } else {
            bar.unset_length();
        }
        bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        bar.set_position(done);
        bar.tick();
        let text = screen.0.lock().unwrap().clone();
        text.trim_end().to_owned()
    }

    #[test]
    fn a_bar_fits_80_columns_in_one_line() {
        let what = "verifying a-snapshot-with-quite-a-long-name-1795602850";
        for (done, all) in [(1, 2), (500 << 20, 999 << 20), (1023 << 30, 1023 << 30), (0, 1 << 40)] {
            let line = drawn(MEASURED, what, done, Some(all));
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.chars().count() <= 80 && line.contains("left"), "{line}");
        }
    }

    #[test]
    fn nothing_looks_done_before_it_is_known_how_much_there_is() {
        assert_eq!(drawn(UNMEASURED, "saving", 0, None), "saving …");
    }
}
