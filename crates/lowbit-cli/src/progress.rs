//! How far long work has come: a bar where a terminal shows it, else a line now and then.

use crate::terminal::Terminal;
use indicatif::{ProgressBar, ProgressStyle};
use lowbit::Progress;
use lowbit::train::StepMetrics;
use lowbit_base::text::duration;
use std::time::Instant;

/// Seconds between two lines of progress where no terminal shows a bar.
const EVERY: f64 = 10.0;

/// How far work of unknown length has come.
pub struct Count {
    terminal: Terminal,
    what: &'static str,
    bar: Option<ProgressBar>,
    start: Instant,
    /// Seconds at the last line.
    last: f64,
}

impl Count {
    /// Of work that counts in `what`.
    pub fn new(terminal: &Terminal, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("  {human_pos} {msg}").expect("a valid template");
        let bar = terminal.shows_bars().then(|| ProgressBar::no_length().with_style(style));
        Count { terminal: terminal.clone(), what, bar, start: Instant::now(), last: 0.0 }
    }

    /// So many are done.
    pub fn at(&mut self, done: u64) {
        let now = self.start.elapsed().as_secs_f64();
        let rate = format!("{}, {:.0} {}/s", self.what, done as f64 / now.max(1e-9), self.what);
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

/// How long a run still takes, by the updates of this process alone.
struct Left {
    clock: Instant,
    /// The first update seen here, and the second it ended in.
    first: Option<(u64, f64)>,
}

impl Left {
    fn new() -> Self {
        Left { clock: Instant::now(), first: None }
    }

    /// In words, from the second update on.
    fn in_words(&mut self, step: u64, steps: u64) -> String {
        let now = self.clock.elapsed().as_secs_f64();
        self.seconds(step, steps, now).map_or(String::new(), |left| format!(", {} left", duration(left)))
    }

    fn seconds(&mut self, step: u64, steps: u64, now: f64) -> Option<f64> {
        let (first, begin) = *self.first.get_or_insert((step, now));
        (step > first).then(|| (now - begin) / (step - first) as f64 * (steps - step) as f64)
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
    left: Left,
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
        Training { bar, left: Left::new(), loss: 0.0 }
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
        let Training { bar, left, loss } = self.training.get_or_insert_with(|| Training::new(&self.terminal, name));
        *loss = if *loss == 0.0 { metrics.loss } else { 0.95 * *loss + 0.05 * metrics.loss };
        let left = left.in_words(metrics.step, steps);
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

#[cfg(test)]
mod tests {
    use super::Left;

    #[test]
    fn time_left_counts_the_updates_of_this_process() {
        // Resumed after update 900 of 1,000; each update takes two seconds.
        let mut left = Left::new();
        assert_eq!(left.seconds(901, 1000, 5.0), None);
        assert_eq!(left.seconds(902, 1000, 7.0), Some(2.0 * 98.0));
        assert_eq!(left.seconds(1000, 1000, 203.0), Some(0.0));
    }
}
