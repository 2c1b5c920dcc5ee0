//! How far long work has come: a bar where a terminal shows it, else a line now and then.

use crate::terminal::Terminal;
use indicatif::{ProgressBar, ProgressStyle};
use lowbit::Progress;
use lowbit::train::{Remaining, StepMetrics};
use lowbit_base::text::duration;
use std::time::Instant;

/// Seconds between two lines of progress where no terminal shows a bar.
const EVERY: f64 = 10.0;

/// How far work of unknown length has come.
pub struct Count {
    terminal: Terminal,
    what: &'static str,
    bar: Option<ProgressBar>,
    /// What was done before it began.
    before: u64,
    start: Instant,
    /// Seconds at the last line.
    last: f64,
}

impl Count {
    /// Of work that counts in `what`.
    pub fn new(terminal: &Terminal, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("  {human_pos} {msg}").expect("a valid template");
        let bar = terminal.shows_bars().then(|| ProgressBar::no_length().with_style(style));
        Count { terminal: terminal.clone(), what, bar, before: 0, start: Instant::now(), last: 0.0 }
    }

    /// The same of work of which so many were done by an earlier run.
    pub fn after(mut self, before: u64) -> Self {
        self.before = before;
        self
    }

    /// So many are done.
    pub fn at(&mut self, done: u64) {
        let now = self.start.elapsed().as_secs_f64();
        let rate = done.saturating_sub(self.before) as f64 / now.max(1e-9);
        let rate = format!("{}, {rate:.0} {}/s", self.what, self.what);
        match &self.bar {
            Some(bar) => {
                bar.set_message(rate);
                bar.set_position(done);
            }
            None if now - self.last >= EVERY => {
                self.last = now;
                self.terminal.note(format!("  {done} {rate}"));
            }
            None => {}
        }
    }

    /// The work is done.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.end();
    }
}

impl lowbit_hub::Observer for Count {
    fn arrived(&mut self, megabytes: u64) {
        self.at(megabytes);
    }
}

/// Trainings one after another.
pub struct Bar {
    terminal: Terminal,
    training: Option<Training>,
}

/// A training on its way.
struct Training {
    bar: Option<ProgressBar>,
    remaining: Remaining,
    /// The loss, smoothed over the last updates.
    loss: f64,
}

impl Bar {
    /// Of no training yet.
    pub fn new(terminal: &Terminal) -> Self {
        Bar { terminal: terminal.clone(), training: None }
    }
}

impl Training {
    fn new(terminal: &Terminal, name: &str) -> Self {
        let bar = terminal.shows_bars().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len}, {msg}");
            let style = style.expect("a valid template").progress_chars("=> ");
            ProgressBar::new(0).with_style(style).with_prefix(format!("  {name}"))
        });
        Training { bar, remaining: Remaining::default(), loss: 0.0 }
    }
}

impl Progress for Bar {
    fn note(&mut self, text: &str) {
        match self.training.as_ref().and_then(|training| training.bar.as_ref()) {
            Some(bar) => bar.suspend(|| self.terminal.note(text)),
            None => self.terminal.note(text),
        }
    }

    fn step(&mut self, name: &str, metrics: &StepMetrics, steps: u64) {
        let Training { bar, remaining, loss } =
            self.training.get_or_insert_with(|| Training::new(&self.terminal, name));
        *loss = if *loss == 0.0 { metrics.loss } else { 0.95 * *loss + 0.05 * metrics.loss };
        let left = remaining.seconds(metrics.step, steps);
        let left = left.map_or(String::new(), |seconds| format!(", {} left", duration(seconds)));
        let line = format!("loss {:.4}, {:.0} tokens/s{left}", *loss, metrics.tokens_per_second);
        match bar {
            Some(bar) => {
                bar.set_length(steps);
                bar.set_position(metrics.step);
                bar.set_message(line);
            }
            None if metrics.step == steps || metrics.step.is_multiple_of(steps.div_ceil(5)) => {
                self.terminal.note(format!("  {name}: step {} of {steps}, {line}", metrics.step));
            }
            None => {}
        }
    }

    fn trained(&mut self) {
        if let Some(bar) = self.training.take().and_then(|training| training.bar) {
            bar.finish_and_clear();
        }
    }
}
