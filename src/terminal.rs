//! Standard error of this process, where a progress bar may be redrawn on the last line of a terminal. All other output
//! to it goes through [`Stderr`] or [`above`], so that it appears above that line and is not overwritten.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// The active bars, by number; the last one is visible.
static BARS: Mutex<Vec<(u64, ProgressBar)>> = Mutex::new(Vec::new());
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn bars() -> MutexGuard<'static, Vec<(u64, ProgressBar)>> {
    BARS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Columns that stay free: an echoed `^C` would otherwise wrap to the next line and leave the bar behind.
const FREE: u16 = 4;

/// The terminal of standard error, a little narrower than it is.
#[derive(Debug)]
struct Narrower(Term);

impl TermLike for Narrower {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(FREE)
    }
    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }
    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }
    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }
    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A bar that is shown until this is dropped.
#[derive(Debug)]
pub struct Drawn {
    number: u64,
    bar: ProgressBar,
}

impl Drawn {
    /// Shows a bar in this style from now on.
    #[must_use]
    pub fn new(style: ProgressStyle) -> Self {
        let target = ProgressDrawTarget::term_like(Box::new(Narrower(Term::buffered_stderr())));
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        bars().push((number, bar.clone()));
        Self { number, bar }
    }

    #[must_use]
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        bars().retain(|(number, _)| *number != self.number);
        self.bar.finish_and_clear();
    }
}

/// Calls `write`, which writes to standard error, while no bar is drawn.
pub fn above<T>(write: impl FnOnce() -> T) -> T {
    let last = bars().last().cloned();
    match last {
        Some((_, bar)) => bar.suspend(write),
        None => write(),
    }
}

/// Removes all bars: the process is about to end.
pub fn clear() {
    for (_, bar) in bars().drain(..) {
        bar.finish_and_clear();
        // The work may continue for a moment, and would draw again.
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Standard error, above the progress bar.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        above(|| io::stderr().write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
