//! Ranks that are threads of a test.

use lowbit_train::{Error, Kind, Ranks};
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a rank waits for the others.
const PATIENCE: Duration = Duration::from_millis(500);

/// What all ranks see: the values of each, as bits, and who is there.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    values: Vec<Vec<u64>>,
    here: usize,
    turn: u64,
}

/// One rank.
pub struct Thread {
    rank: usize,
    board: Arc<Board>,
    /// Exchanges until the rank is lost.
    left: Cell<Option<u64>>,
}

impl Thread {
    /// So many ranks; each is given to a thread of its own, and what they return comes in their order.
    pub fn all<T: Send>(size: usize, work: impl Fn(Thread) -> T + Sync) -> Vec<T> {
        let state = State { values: vec![Vec::new(); size], here: 0, turn: 0 };
        let board = Arc::new(Board { state: Mutex::new(state), changed: Condvar::new() });
        std::thread::scope(|scope| {
            let start = |rank| {
                let (board, work) = (board.clone(), &work);
                scope.spawn(move || work(Thread { rank, board, left: Cell::new(None) }))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// The same rank, which is lost after so many exchanges.
    pub fn lost_after(self, exchanges: u64) -> Self {
        self.left.set(Some(exchanges));
        self
    }

    /// Shows values to all, and reads those of all once they are there.
    fn meet(&self, own: Vec<u64>, mut read: impl FnMut(&[Vec<u64>])) -> Result<(), Error> {
        let lost = || Error::new(Kind::Internal, "a rank is lost");
        if self.left.get() == Some(0) {
            return Err(lost());
        }
        self.left.set(self.left.get().map(|left| left - 1));
        self.board.state.lock().unwrap().values[self.rank] = own;
        self.wait().map_err(|()| lost())?;
        read(&self.board.state.lock().unwrap().values);
        self.wait().map_err(|()| lost())
    }

    /// Waits until all ranks are here.
    fn wait(&self) -> Result<(), ()> {
        let mut state = self.board.state.lock().unwrap();
        state.here += 1;
        if state.here == state.values.len() {
            (state.here, state.turn) = (0, state.turn + 1);
            self.board.changed.notify_all();
            return Ok(());
        }
        let turn = state.turn;
        let here = self.board.changed.wait_timeout_while(state, PATIENCE, |state| state.turn == turn).unwrap();
        if here.1.timed_out() { Err(()) } else { Ok(()) }
    }
}

fn bits(values: &[f32]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits().into()).collect()
}

fn take(values: &mut [f32], bits: &[u64]) {
    assert_eq!(values.len(), bits.len(), "all ranks exchange as much");
    values.iter_mut().zip(bits).for_each(|(value, bits)| *value = f32::from_bits(*bits as u32));
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.board.state.lock().unwrap().values.len()
    }

    fn exchange(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        let part = send.len() / self.size();
        self.meet(bits(send), |all| {
            for (receive, sent) in receive.chunks_exact_mut(part).zip(all) {
                take(receive, &sent[self.rank * part..(self.rank + 1) * part]);
            }
        })
    }

    fn gather(&self, send: &[f32], receive: &mut [f32]) -> Result<(), Error> {
        self.meet(bits(send), |all| take(receive, &all.concat()))
    }

    fn gather_numbers(&self, send: &[f64], receive: &mut [f64]) -> Result<(), Error> {
        let own = send.iter().map(|number| number.to_bits()).collect();
        self.meet(own, |all| {
            let all = all.concat();
            assert_eq!(receive.len(), all.len(), "all ranks exchange as much");
            receive.iter_mut().zip(all).for_each(|(number, bits)| *number = f64::from_bits(bits));
        })
    }

    fn broadcast(&self, values: &mut [f32]) -> Result<(), Error> {
        self.meet(bits(values), |all| take(values, &all[0]))
    }
}
