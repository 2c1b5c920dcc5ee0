//! How long a training still takes.

use std::time::Instant;

/// The time left, by the updates of this process alone: those before a resume took other time.
pub struct Remaining {
    clock: Instant,
    /// The first update seen here, and the second it ended in.
    first: Option<(u64, f64)>,
}

impl Default for Remaining {
    fn default() -> Self {
        Remaining { clock: Instant::now(), first: None }
    }
}

impl Remaining {
    /// Seconds left after an update of `steps`, from the second update on.
    pub fn seconds(&mut self, step: u64, steps: u64) -> Option<f64> {
        let now = self.clock.elapsed().as_secs_f64();
        self.seconds_at(step, steps, now)
    }

    fn seconds_at(&mut self, step: u64, steps: u64, now: f64) -> Option<f64> {
        let (first, begin) = *self.first.get_or_insert((step, now));
        (step > first).then(|| (now - begin) / (step - first) as f64 * (steps - step) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Remaining;

    #[test]
    fn time_left_counts_the_updates_of_this_process() {
        // Resumed after update 900 of 1,000; each update takes two seconds.
        let mut left = Remaining::default();
        assert_eq!(left.seconds_at(901, 1000, 5.0), None);
        assert_eq!(left.seconds_at(902, 1000, 7.0), Some(2.0 * 98.0));
        assert_eq!(left.seconds_at(1000, 1000, 203.0), Some(0.0));
    }
}
