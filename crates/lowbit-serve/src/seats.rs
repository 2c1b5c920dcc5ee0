//! The connections there are: a limited number, of which one that waits for a request makes room for a new one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long a connection may wait for its request before a new one may take its place.
const GRACE: Duration = Duration::from_millis(250);

/// One connection.
pub(crate) struct Seat {
    /// Whether a whole request came whose answer is under way.
    busy: AtomicBool,
    /// Since when it is not busy.
    idle_since: Mutex<Instant>,
}

impl Seat {
    /// Keeps the connection until the answer ends.
    pub fn take(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }

    /// The answer ended.
    pub fn release(&self) {
        *lock(&self.idle_since) = Instant::now();
        self.busy.store(false, Ordering::Relaxed);
    }
}

/// What a new connection finds.
pub(crate) enum Room {
    /// There is room, or another connection made it.
    Free,
    /// One will have to make room when it has waited this much longer.
    Later(Duration),
    /// Answers are under way on all.
    None,
}

/// The number of the next connection, and those there are.
type Taken = (u64, BTreeMap<u64, (Arc<Seat>, AbortHandle)>);

/// All connections.
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

impl Seats {
    /// None taken, of so many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Seats { most: most.max(1), taken: Mutex::new((0, BTreeMap::new())) })
    }

    /// Connections there are.
    pub fn count(&self) -> usize {
        lock(&self.taken).1.len()
    }

    /// Makes room for one more if all seats are taken, or if that is asked for.
    pub fn make_room(&self, even_so: bool) -> Room {
        let mut taken = lock(&self.taken);
        if taken.1.len() < self.most && !even_so {
            return Room::Free;
        }
        let idle = taken.1.iter().filter(|(_, (seat, _))| !seat.busy.load(Ordering::Relaxed));
        let Some((since, id)) = idle.map(|(id, (seat, _))| (*lock(&seat.idle_since), *id)).min() else {
            return Room::None;
        };
        let waited = since.elapsed();
        if waited < GRACE {
            return Room::Later(GRACE - waited);
        }
        if let Some((_, connection)) = taken.1.remove(&id) {
            connection.abort();
        }
        Room::Free
    }

    /// Seats a connection, which `spawn` begins; it stands up by [`Seats::leave`].
    pub fn seat(self: &Arc<Self>, spawn: impl FnOnce(Arc<Seat>, u64) -> AbortHandle) {
        let seat = Arc::new(Seat { busy: AtomicBool::new(false), idle_since: Mutex::new(Instant::now()) });
        let mut taken = lock(&self.taken);
        let id = taken.0;
        taken.0 += 1;
        let connection = spawn(seat.clone(), id);
        taken.1.insert(id, (seat, connection));
    }

    /// A connection ended.
    pub fn leave(&self, id: u64) {
        lock(&self.taken).1.remove(&id);
    }

    /// Ends all connections.
    pub fn clear(&self) {
        let taken = std::mem::take(&mut lock(&self.taken).1);
        taken.into_values().for_each(|(_, connection)| connection.abort());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
