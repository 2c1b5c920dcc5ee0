//! Processes that train one network together: what they exchange, and how what each of them found becomes one sum.

#[cfg(feature = "mpi")]
pub(crate) mod mpi;

use crate::Error;

/// Values that are exchanged at once: bounds the memory beside the gradients.
const BUCKET: usize = 1 << 22;

/// One of the processes that train one network together. All of them ask for the same exchanges in the same order, and each exchange
/// waits for all.
///
/// What an implementation brings is [`Ranks::exchange`], [`Ranks::gather`], [`Ranks::gather_numbers`] and [`Ranks::broadcast`]; sums are
/// made of these in the order of the ranks, so that they have the same bits on every rank, and however messages travel.
pub trait Ranks {
    /// This one, counted from 0. The first one reads and writes the directory of the run.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Gives part `i` of `send` to rank `i`, and receives as much of each rank, in their order. `[size, n]` both.
    ///
    /// # Errors
    /// When a rank is lost.
    fn exchange(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error>;

    /// Receives what each rank sends, in their order: `[n]` becomes `[size, n]`.
    ///
    /// # Errors
    /// When a rank is lost.
    fn gather(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error>;

    /// The same for numbers in double precision.
    ///
    /// # Errors
    /// When a rank is lost.
    fn gather_numbers(&self, send: &[f64], receive: &mut [f64]) -> Result<(), Error>;

    /// Receives the values of the first rank.
    ///
    /// # Errors
    /// When a rank is lost.
    fn broadcast(&self, values: &mut [f32]) -> Result<(), Error>;

    /// Nothing is exchanged any more.
    fn close(&self) {}

    /// Sums of the numbers of all ranks.
    ///
    /// # Errors
    /// When a rank is lost.
    fn sums(&self, numbers: &mut [f64]) -> Result<(), Error> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut all = vec![0.0; numbers.len() * self.size()];
        self.gather_numbers(numbers, &mut all)?;
        let count = numbers.len();
        for (i, number) in numbers.iter_mut().enumerate() {
            *number = all.iter().skip(i).step_by(count).sum();
        }
        Ok(())
    }

    /// Whether any rank says so; waits for all.
    ///
    /// # Errors
    /// When a rank is lost.
    fn any(&self, own: bool) -> Result<bool, Error> {
        let mut count = [f64::from(u8::from(own))];
        self.sums(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// The first rank whose number is not that of rank 0.
    ///
    /// # Errors
    /// When a rank is lost.
    fn differs(&self, own: u64) -> Result<Option<usize>, Error> {
        if self.size() == 1 {
            return Ok(None);
        }
        let mut all = vec![0.0; 2 * self.size()];
        self.gather_numbers(&[f64::from((own >> 32) as u32), f64::from(own as u32)], &mut all)?;
        let (numbers, _) = all.as_chunks::<2>();
        Ok(numbers.iter().position(|number| *number != numbers[0]))
    }

    /// Replaces values by their sums over all ranks, added in the order of the ranks. The parts have the same lengths on every rank.
    ///
    /// Rank `i` sums the `i`-th share of all values and gives the sums to the others: each rank sends and receives twice what there is,
    /// however many they are.
    ///
    /// # Errors
    /// When a rank is lost.
    fn sum(&self, parts: &mut [&mut [f32]]) -> Result<(), Error> {
        let size = self.size();
        if size == 1 {
            return Ok(());
        }
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let (mut send, mut receive) = (Vec::new(), Vec::new());
        for start in (0..total).step_by(BUCKET) {
            let len = BUCKET.min(total - start);
            let share = len.div_ceil(size);
            send.clear();
            send.resize(share * size, 0.0);
            receive.resize(share * size, 0.0);
            along(parts, start, &mut send[..len], |part, sent| sent.copy_from_slice(part));
            self.exchange(&send, &mut receive)?;
            let (sum, others) = receive.split_at_mut(share);
            for other in others.chunks_exact(share) {
                sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
            }
            self.gather(sum, &mut send)?;
            along(parts, start, &mut send[..len], |part, sum| part.copy_from_slice(sum));
        }
        Ok(())
    }

    /// Replaces values by those of the first rank.
    ///
    /// # Errors
    /// When a rank is lost.
    fn spread(&self, parts: &mut [&mut [f32]]) -> Result<(), Error> {
        if self.size() == 1 {
            return Ok(());
        }
        parts.iter_mut().flat_map(|part| part.chunks_mut(BUCKET)).try_for_each(|part| self.broadcast(part))
    }
}

/// Walks over parts, end to end, and a bucket beside them that begins at `start`.
fn along(parts: &mut [&mut [f32]], start: usize, bucket: &mut [f32], mut see: impl FnMut(&mut [f32], &mut [f32])) {
    let mut at = 0;
    for part in parts {
        let (from, to) = (at.max(start), (at + part.len()).min(start + bucket.len()));
        if from < to {
            see(&mut part[from - at..to - at], &mut bucket[from - start..to - start]);
        }
        at += part.len();
    }
}

/// A process that trains alone: nothing is exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        receive.copy_from_slice(send);
        Ok(())
    }

    fn gather(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        self.exchange(send, receive)
    }

    fn gather_numbers(&self, send: &[f64], receive: &mut [f64]) -> Result<(), Error> {
        receive.copy_from_slice(send);
        Ok(())
    }

    fn broadcast(&self, _values: &mut [f32]) -> Result<(), Error> {
        Ok(())
    }
}
