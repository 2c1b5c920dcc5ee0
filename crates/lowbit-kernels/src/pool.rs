//! A small thread pool: workers spin briefly, then park. Work is split into tasks that do not depend on the number of
//! threads, so results do not either. Each thread begins with a range of its own, so that it reads memory in order and, job
//! after job, the same part of it; one that is done takes over tasks of others.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

/// How long an idle worker spins before it parks, in turns of [`std::hint::spin_loop`].
const SPINS: u32 = 20_000;

type Job = &'static (dyn Fn(usize) + Sync);

/// Workers inside a job are counted in the low bits of [`Shared::state`], jobs opened and closed above them.
const STEP: usize = 1 << 16;

/// One line that moves between threads, and what they rarely touch on another.
#[repr(align(128))]
struct Shared {
    /// `STEP * (jobs opened + jobs closed) + workers inside`: a job is open while the quotient is odd.
    state: AtomicUsize,
    /// The two words of a [`Job`].
    job: [AtomicUsize; 2],
    tasks: AtomicUsize,
    rare: Rare,
    /// One per thread, the calling one first.
    shares: Vec<Share>,
}

/// How many tasks of a thread's range are taken, below the job they belong to.
#[repr(align(128))]
struct Share(AtomicU64);

impl Share {
    /// Takes the next task of a range of `tasks`; what an earlier job left counts as nothing.
    fn take(&self, job: u32, tasks: usize) -> Option<usize> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let (epoch, taken) = ((seen >> 32) as u32, seen as u32);
            let taken = if epoch == job { taken } else { 0 };
            if taken as usize >= tasks {
                return None;
            }
            let next = u64::from(job) << 32 | u64::from(taken + 1);
            match self.0.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken as usize),
                Err(now) => seen = now,
            }
        }
    }
}

#[repr(align(128))]
struct Rare {
    /// Workers that are parked, or about to be.
    asleep: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// Threads that run the tasks of one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held while a job runs; a second job (nested or from another thread) runs inline.
    gate: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Shared {
    /// Runs the tasks of one thread's range, then those that others have left.
    fn work(&self, job: Job, number: u32, thread: usize, tasks: usize) {
        let threads = self.shares.len();
        for owner in (thread..threads).chain(0..thread) {
            let range = owner * tasks / threads..(owner + 1) * tasks / threads;
            while let Some(i) = self.shares[owner].take(number, range.len()) {
                if catch_unwind(AssertUnwindSafe(|| job(range.start + i))).is_err() {
                    self.rare.panicked.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Waits for a job that is open and was not seen before; none when the pool ends.
    fn wait(&self, seen: usize) -> Option<usize> {
        let new = |state: usize| (state / STEP) % 2 == 1 && state / STEP != seen;
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if new(state) {
                return Some(state);
            }
            if self.rare.stop.load(Ordering::Relaxed) {
                return None;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            // Either this thread sees the new job, or the calling thread sees that it is asleep.
            self.rare.asleep.fetch_add(1, Ordering::SeqCst);
            if !new(self.state.load(Ordering::SeqCst)) && !self.rare.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.rare.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn worker(&self, thread: usize) {
        let mut seen = 0;
        while let Some(state) = self.wait(seen) {
            if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = state / STEP;
            let words = [self.job[0].load(Ordering::Relaxed), self.job[1].load(Ordering::Relaxed)];
            // SAFETY: the words of the job that `Pool::run` published before it opened this state; it keeps the job alive,
            // and publishes no other, until the state counts no worker inside.
            let job: Job = unsafe { std::mem::transmute::<[usize; 2], Job>(words) };
            self.work(job, seen as u32, thread, self.tasks.load(Ordering::Relaxed));
            self.state.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the calling one included.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(0),
            job: [const { AtomicUsize::new(0) }; 2],
            tasks: AtomicUsize::new(0),
            rare: Rare { asleep: AtomicUsize::new(0), panicked: AtomicBool::new(false), stop: AtomicBool::new(false) },
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
        });
        let workers: Vec<_> = (1..threads)
            .map(|i| {
                let shared = shared.clone();
                let name = format!("lowbit-{i}");
                let work = move || shared.worker(i);
                std::thread::Builder::new().name(name).spawn(work).expect("a thread can be started")
            })
            .collect();
        let handles = workers.iter().map(|w| w.thread().clone()).collect();
        Pool { shared, gate: Mutex::new(()), workers, handles }
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for each `i` in `0..tasks`, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// When a task panicked.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let gate = self.gate.try_lock();
        if tasks <= 1 || self.workers.is_empty() || gate.is_err() {
            return (0..tasks).for_each(task);
        }
        // SAFETY: the reference is only used between here and the end of the wait below, while `task` is borrowed: a
        // worker takes it after it entered the open job, and has dropped it when it leaves.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(task) };
        // SAFETY: a reference to a trait object is two words.
        let words = unsafe { std::mem::transmute::<Job, [usize; 2]>(job) };
        let shared = &*self.shared;
        shared.job[0].store(words[0], Ordering::Relaxed);
        shared.job[1].store(words[1], Ordering::Relaxed);
        shared.tasks.store(tasks, Ordering::Relaxed);
        let number = (shared.state.fetch_add(STEP, Ordering::SeqCst) / STEP + 1) as u32;
        if shared.rare.asleep.load(Ordering::SeqCst) > 0 {
            self.handles.iter().for_each(Thread::unpark);
        }
        shared.work(job, number, 0, tasks);
        // A worker that has not come by now is not waited for: on a busy machine it may take long.
        let closed = shared.state.fetch_add(STEP, Ordering::Relaxed) + STEP;
        while shared.state.load(Ordering::Acquire) != closed / STEP * STEP {
            std::hint::spin_loop();
        }
        drop(gate);
        assert!(!shared.rare.panicked.swap(false, Ordering::Relaxed), "a task of the pool panicked");
    }

    /// Splits `rows` rows into chunks of `grain` rows and calls `f(range, parts)` for each, `parts` being the rows of the
    /// range in each of the `N` buffers (`(buffer, width)`, row-major).
    ///
    /// # Panics
    /// When a buffer is not `rows * width` long.
    pub fn for_rows<T: Send, const N: usize>(
        &self,
        rows: usize,
        grain: usize,
        buffers: [(&mut [T], usize); N],
        f: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
    ) {
        for (buffer, width) in &buffers {
            assert_eq!(buffer.len(), rows * width, "buffer of {rows} rows of {width}");
        }
        let grain = grain.max(1);
        let raw = buffers.map(|(buffer, width)| (SendPtr(buffer.as_mut_ptr()), width));
        self.run(rows.div_ceil(grain), &|task| {
            let range = task * grain..((task + 1) * grain).min(rows);
            let parts = std::array::from_fn(|i| {
                let (SendPtr(start), width) = raw[i];
                // SAFETY: the length was checked, tasks have disjoint row ranges, and each task runs once.
                unsafe { std::slice::from_raw_parts_mut(start.add(range.start * width), range.len() * width) }
            });
            f(range, parts);
        });
    }
}

/// A borrowed buffer whose disjoint parts tasks may take at the same time.
pub(crate) struct SharedMut<'a, T> {
    start: SendPtr<T>,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [T]>,
}

impl<'a, T: Send> SharedMut<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        SharedMut { start: SendPtr(buffer.as_mut_ptr()), len: buffer.len(), borrow: std::marker::PhantomData }
    }

    /// Elements of the buffer.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No two parts that live at the same time may overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range inside the buffer");
        // SAFETY: inside the buffer as just checked; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.0.add(range.start), range.len()) }
    }
}

#[derive(Clone, Copy)]
struct SendPtr<T>(*mut T);
// SAFETY: only used in `for_rows` to hand disjoint parts of exclusively borrowed buffers of `T: Send` to threads.
unsafe impl<T: Send> Sync for SendPtr<T> {}
// SAFETY: as for `Sync`.
unsafe impl<T: Send> Send for SendPtr<T> {}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.rare.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}
