//! A small thread pool: workers spin briefly, then park. Work is split into tasks that do not depend on the number of
//! threads, so results do not either.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

/// How long an idle worker spins before it parks, in turns of [`std::hint::spin_loop`].
const SPINS: u32 = 20_000;

type Job = &'static (dyn Fn(usize) + Sync);

struct Shared {
    /// Odd while a job is published; each publication and each retirement adds one.
    epoch: AtomicUsize,
    job: Mutex<Option<(Job, usize)>>,
    next: AtomicUsize,
    /// Workers that still may touch the job.
    busy: AtomicUsize,
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
    fn work(&self, job: Job, tasks: usize) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| job(task))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
        }
    }

    fn worker(&self) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.epoch.load(Ordering::Acquire) == seen {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    std::thread::park();
                }
            }
            seen = self.epoch.load(Ordering::Acquire);
            let job = *self.job.lock().expect("the lock is never held over a panic");
            if let Some((job, tasks)) = job {
                self.work(job, tasks);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the calling one included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers: Vec<_> = (1..threads.max(1))
            .map(|i| {
                let shared = shared.clone();
                let name = format!("lowbit-{i}");
                std::thread::Builder::new().name(name).spawn(move || shared.worker()).expect("a thread can be started")
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
        // worker takes it after the epoch changed and has dropped it when it leaves `busy`.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(task) };
        *self.shared.job.lock().expect("the lock is never held over a panic") = Some((job, tasks));
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.busy.store(self.workers.len(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for handle in &self.handles {
            handle.unpark();
        }
        self.shared.work(job, tasks);
        while self.shared.busy.load(Ordering::Acquire) != 0 {
            std::hint::spin_loop();
        }
        *self.shared.job.lock().expect("the lock is never held over a panic") = None;
        drop(gate);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a task of the pool panicked");
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
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}
