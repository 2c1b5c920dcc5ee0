//! A small thread pool: workers spin briefly, yield for a while, then park. Work is split into tasks that do not depend on the
//! number of threads, so results do not either. Each thread begins with a range of its own, so that it reads memory in order and,
//! job after job, the same part of it; one that is done takes over tasks of others.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};

/// Turns of [`std::hint::spin_loop`] while an idle thread waits, before it lets others have the CPU.
const SPINS: u32 = 2_000;
/// How often an idle worker then yields before it parks.
const YIELDS: u32 = 1_000;

/// Job of the threads; lives on the stack of the calling thread.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    /// Number of the job among all of the pool, wrapping; before job 0 all counters are reset.
    number: u32,
}

/// Workers inside a job are counted in the low bits of [`Shared::state`], jobs opened and closed above them.
const STEP: u64 = 1 << 16;
/// Threads of a pool at most: those inside a job must fit below [`STEP`].
const MOST: usize = STEP as usize - 1;

/// One line that moves between threads, and what they rarely touch on another.
#[repr(align(128))]
struct Shared {
    /// `STEP * (jobs opened + jobs closed) + workers inside`: a job is open while the quotient is odd.
    state: AtomicU64,
    /// The job that is open; dangles while none is.
    job: AtomicPtr<Job<'static>>,
    rare: Rare,
    /// One per thread, the calling one first.
    counters: Vec<TaskCounter>,
}

/// Count of the tasks taken from a thread's range (low 32 bits) and the job it is of (high 32 bits).
#[repr(align(128))]
struct TaskCounter(AtomicU64);

impl TaskCounter {
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
    stop: AtomicBool,
    /// Payload of the first panic of a task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Threads that run the tasks of one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held while a job runs; a second job (nested or from another thread) runs inline.
    gate: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    /// The workers that are woken for a job: no more than there are CPUs for.
    woken: Vec<Thread>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

/// Waits a little longer the more `turns` were waited; says whether to go on.
fn wait_a_turn(turns: &mut u32) -> bool {
    *turns = turns.saturating_add(1);
    match *turns {
        ..=SPINS => std::hint::spin_loop(),
        _ => std::thread::yield_now(),
    }
    *turns < SPINS + YIELDS
}

impl Shared {
    /// Runs the tasks of one thread's range, then those that others have left.
    fn work(&self, job: &Job, thread: usize) {
        let threads = self.counters.len();
        // No product here can overflow: `run` limits the tasks.
        let start = |owner: usize| (owner as u64 * job.tasks as u64 / threads as u64) as usize;
        for owner in (thread..threads).chain(0..thread) {
            let range = start(owner)..start(owner + 1);
            while let Some(i) = self.counters[owner].take(job.number, range.len()) {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.task)(range.start + i))) {
                    self.keep(panic);
                }
            }
        }
    }

    /// Keeps the first panic of a job for the calling thread.
    fn keep(&self, panic: Box<dyn Any + Send>) {
        let mut kept = self.rare.panic.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            None => *kept = Some(panic),
            // Not dropped: what a task panicked with may panic again when it is dropped.
            Some(_) => std::mem::forget(panic),
        }
    }

    /// Waits for a job that is open and was not seen before; none when the pool ends.
    fn wait(&self, seen: u64) -> Option<u64> {
        let new = |state: u64| (state / STEP) % 2 == 1 && state / STEP != seen;
        let mut turns = 0;
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if new(state) {
                return Some(state);
            }
            if self.rare.stop.load(Ordering::Relaxed) {
                return None;
            }
            if wait_a_turn(&mut turns) {
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
            // SAFETY: this worker is inside the job that `Pool::run` published before it opened this state, as the exchange
            // showed; until the state counts no worker inside, `run` keeps that job alive and in place, and publishes no other.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            self.work(job, thread);
            self.state.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the calling one included; of fewer, where the system does not start as many.
    pub fn new(threads: usize) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Pool::build(threads, cpus, |name, work| std::thread::Builder::new().name(name).spawn(work))
    }

    /// [`Pool::new`] on so many CPUs, with `start` for starting threads.
    fn build(
        threads: usize,
        cpus: usize,
        start: impl Fn(String, Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>,
    ) -> Self {
        let (asked, mut begun) = (threads.clamp(1, MOST), Vec::new());
        // Workers wait for what they share, whose size is the number of those that could be started.
        for i in 1..asked {
            let (send, receive) = std::sync::mpsc::sync_channel::<Arc<Shared>>(1);
            let work = Box::new(move || {
                if let Ok(shared) = receive.recv() {
                    shared.worker(i);
                }
            });
            match start(format!("lowbit-{i}"), work) {
                Ok(worker) => begun.push((worker, send)),
                Err(_) => break,
            }
        }
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            rare: Rare { asleep: AtomicUsize::new(0), stop: AtomicBool::new(false), panic: Mutex::new(None) },
            counters: (0..=begun.len()).map(|_| TaskCounter(AtomicU64::new(0))).collect(),
        });
        let share = |(worker, send): (JoinHandle<()>, std::sync::mpsc::SyncSender<_>)| {
            // One that is gone all the same leaves its tasks to the others.
            let _ = send.send(shared.clone());
            worker
        };
        let workers: Vec<JoinHandle<()>> = begun.into_iter().map(share).collect();
        let woken = workers.iter().take(cpus.saturating_sub(1)).map(|worker| worker.thread().clone()).collect();
        Pool { shared, gate: Mutex::new(()), workers, woken }
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for each `i` in `0..tasks`, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// When a task panicked, with what the first one panicked with.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let gate = match self.gate.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Ok(gate) => Some(gate),
            Err(TryLockError::Poisoned(gate)) => Some(gate.into_inner()),
        };
        if tasks <= 1 || self.workers.is_empty() || gate.is_none() {
            return (0..tasks).for_each(task);
        }
        // Those taken of a range are counted in 32 bits.
        const MOST_TASKS: usize = u32::MAX as usize;
        if tasks <= MOST_TASKS {
            return self.open(tasks, task);
        }
        for first in (0..tasks).step_by(MOST_TASKS) {
            self.open(MOST_TASKS.min(tasks - first), &|i| task(first + i));
        }
    }

    /// Runs a job of at most `u32::MAX` tasks; only whoever holds the gate may call it.
    fn open(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // No job is open, hence no worker inside: the state changes here only.
        let number = (shared.state.load(Ordering::Relaxed) / STEP / 2) as u32;
        if number == 0 {
            shared.counters.iter().for_each(|share| share.0.store(0, Ordering::Relaxed));
        }
        let job = Job { task, tasks, number };
        // The pointer outlives its lifetime in name only: see `Shared::worker`.
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        shared.state.fetch_add(STEP, Ordering::SeqCst);
        if shared.rare.asleep.load(Ordering::SeqCst) > 0 {
            self.woken.iter().for_each(Thread::unpark);
        }
        shared.work(&job, 0);
        // A worker that has not come by now is not waited for: on a busy machine it may take long.
        let closed = shared.state.fetch_add(STEP, Ordering::Relaxed) + STEP;
        let mut turns = 0;
        while shared.state.load(Ordering::Acquire) != closed / STEP * STEP {
            wait_a_turn(&mut turns);
        }
        let panic = shared.rare.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
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
            assert_eq!(Some(buffer.len()), rows.checked_mul(*width), "buffer of {rows} rows of {width}");
        }
        let grain = grain.max(1);
        let buffers = buffers.map(|(buffer, width)| (SharedMut::new(buffer), width));
        self.run(rows.div_ceil(grain), &|task| {
            // A task that exists begins before the last row.
            let start = task * grain;
            let range = start..start.saturating_add(grain).min(rows);
            let parts = std::array::from_fn(|i| {
                let (buffer, width) = &buffers[i];
                // SAFETY: tasks have disjoint ranges of rows, and each task runs once.
                unsafe { buffer.slice(range.start * width..range.end * width) }
            });
            f(range, parts);
        });
    }
}

/// A borrowed buffer whose disjoint parts tasks may take at the same time.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of a slice of `T: Send`, of which no two threads have the same part: those who
// take parts promise so.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T: Send> SharedMut<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        SharedMut { start: buffer.as_mut_ptr(), len: buffer.len(), borrow: PhantomData }
    }

    /// Elements of the buffer.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No two parts that live at the same time may overlap, nor a part and what is accessed through [`SharedMut::block`].
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range inside the buffer");
        // SAFETY: inside the buffer as just checked; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where a block of `rows` rows of `width` elements begins, `stride` apart, all of them inside the buffer.
    pub(crate) fn block(&self, first: usize, rows: usize, width: usize, stride: usize) -> *mut T {
        let last = rows.saturating_sub(1).checked_mul(stride).and_then(|end| end.checked_add(first));
        let end = last.and_then(|last| last.checked_add(width));
        assert!(end.is_some_and(|end| end <= self.len), "block inside the buffer");
        // SAFETY: inside the buffer, as just checked.
        unsafe { self.start.add(first) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.rare.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool whose workers are all woken, whatever the machine.
    fn pool(threads: usize) -> Pool {
        Pool::build(threads, usize::MAX, |name, work| std::thread::Builder::new().name(name).spawn(work))
    }

    /// How often each task ran.
    fn counts(pool: &Pool, tasks: usize) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        pool.run(tasks, &|i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once_under_stress() {
        for threads in [2, 3, 8] {
            let pool = pool(threads);
            std::thread::scope(|scope| {
                for caller in 0..3 {
                    let pool = &pool;
                    scope.spawn(move || {
                        for job in 0..500 {
                            let tasks = (job * 7 + caller * 31) % 70;
                            assert!(counts(pool, tasks).iter().all(|count| *count == 1), "{tasks} tasks");
                            if job % 100 == 0 {
                                // Workers are parked by then.
                                std::thread::sleep(std::time::Duration::from_millis(3));
                            }
                        }
                    });
                }
            });
            // Rows are written by many threads, within jobs that run inside others.
            let mut rows = vec![0u64; 997 * 3];
            for _ in 0..50 {
                pool.for_rows(997, 10, [(&mut rows[..], 3)], |range, [part]| {
                    assert_eq!(counts(&pool, 3), [1; 3]);
                    range
                        .zip(part.chunks_exact_mut(3))
                        .for_each(|(i, row)| row.iter_mut().for_each(|v| *v += i as u64));
                });
            }
            assert!(rows.chunks_exact(3).enumerate().all(|(i, row)| row == [50 * i as u64; 3]));
        }
    }

    #[test]
    fn a_pool_runs_with_the_threads_that_could_be_started() {
        for started in [0, 1, 5] {
            let left = std::cell::Cell::new(started);
            let pool = Pool::build(64, 64, |name, work| match left.get() {
                0 => Err(std::io::ErrorKind::WouldBlock.into()),
                more => {
                    left.set(more - 1);
                    std::thread::Builder::new().name(name).spawn(work)
                }
            });
            assert_eq!(pool.threads(), started + 1);
            assert_eq!(counts(&pool, 100), [1; 100]);
        }
        assert_eq!(Pool::build(usize::MAX, 2, |_, _| Err(std::io::ErrorKind::WouldBlock.into())).threads(), 1);
    }

    #[test]
    fn no_more_workers_are_woken_than_there_are_cpus() {
        let start = |name, work| std::thread::Builder::new().name(name).spawn(work);
        for (cpus, woken) in [(1, 0), (2, 1), (200, 63)] {
            let pool = Pool::build(64, cpus, start);
            assert_eq!((pool.threads(), pool.woken.len()), (64, woken), "{cpus} CPUs");
            assert!((0..100).all(|_| counts(&pool, 80) == [1; 80]));
        }
    }

    #[test]
    fn numbers_of_jobs_begin_again() {
        let pool = pool(3);
        pool.run(9, &|_| {});
        // As after 2^32 - 2 jobs; what the counters hold is of a job that will have the same number.
        pool.shared.state.store(STEP * 2 * ((1 << 32) - 2), Ordering::SeqCst);
        for _ in 0..4 {
            assert_eq!(counts(&pool, 9), [1; 9]);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        /// Panics when it is dropped, as what a task panics with may.
        struct Twice;
        impl Drop for Twice {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    panic!("again");
                }
            }
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let pool = pool(3);
        for tasks in [1, 50] {
            let all = catch_unwind(AssertUnwindSafe(|| pool.run(tasks, &|_| std::panic::panic_any(Twice))));
            let panic = all.expect_err("all tasks panicked");
            assert!(panic.is::<Twice>());
            std::mem::forget(panic);
            let one = catch_unwind(AssertUnwindSafe(|| pool.run(tasks, &|i| assert_ne!(i, tasks - 1, "the last one"))));
            let text = one.expect_err("one task panicked");
            assert!(text.downcast_ref::<String>().is_some_and(|text| text.contains("the last one")));
            assert_eq!(counts(&pool, 50), [1; 50]);
            assert!(pool.gate.try_lock().is_ok_and(|_| true) || pool.gate.is_poisoned());
        }
        std::panic::set_hook(hook);
    }

    #[test]
    fn shapes_whose_size_overflows_are_refused() {
        let pool = pool(2);
        let refused = catch_unwind(AssertUnwindSafe(|| {
            pool.for_rows(1 << 63, 1 << 62, [(&mut [0u8; 0][..], 2)], |_, [_]| {});
        }));
        assert!(refused.is_err());
        let ran = AtomicUsize::new(0);
        pool.for_rows(usize::MAX, 1 << 62, [(&mut [0u8; 0][..], 0)], |range, [_]| {
            ran.fetch_add(range.len(), Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), usize::MAX);
    }
}
