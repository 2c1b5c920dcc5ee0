//! Two ends of a process that no code can answer, for programs that ask for a sentence and an exit code in their place: memory that
//! cannot be had, and a mapped file whose pages are gone. A library changes neither.
//!
//! Nothing here allocates or locks once an end has begun: an end may begin in a signal handler, or inside of any allocation.

use std::alloc::{GlobalAlloc, Layout, System};

/// The allocator of the system; as the global allocator of a program it ends the process with exit code `CODE` and a sentence
/// where there is no memory, in place of an abort.
#[derive(Debug)]
pub struct Allocator<const CODE: i32>;

impl<const CODE: i32> Allocator<CODE> {
    fn seen(start: *mut u8, bytes: usize) -> *mut u8 {
        if start.is_null() && bytes > 0 {
            let mut digits = [0; 20];
            end(
                CODE,
                &[b"out of memory: ", decimal(bytes, &mut digits), b" bytes more cannot be had; give it less to do"],
            );
        }
        start
    }
}

// SAFETY: every call goes to the allocator of the system as it came, and its answer is returned as it is or not at all.
unsafe impl<const CODE: i32> GlobalAlloc for Allocator<CODE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        Self::seen(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        Self::seen(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        Self::seen(unsafe { System.realloc(start, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) }
    }
}

/// A number in decimal digits.
fn decimal(mut n: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Read};
    use std::os::fd::IntoRawFd;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

    /// Whether an end has begun; other threads then wait for it.
    static BEGUN: AtomicBool = AtomicBool::new(false);
    /// The exit code of the end.
    static CODE: AtomicI32 = AtomicI32::new(0);
    /// Where the thread that tidies up is told of it; -1 while there is none.
    static TELL: AtomicI32 = AtomicI32::new(-1);
    /// Exit code for lost pages of a mapped file.
    static LOST: AtomicI32 = AtomicI32::new(0);
    /// Seconds the tidying may take.
    const PATIENCE: u32 = 2;

    /// Says `error: ` and the parts on stderr, has the thread of [`tidy_with`] tidy up, and ends the process.
    pub(super) fn end(code: i32, parts: &[&[u8]]) -> ! {
        if BEGUN.swap(true, Ordering::SeqCst) {
            // By another thread, or by this one while it tidies up: the first one ends the process.
            loop {
                // SAFETY: a plain system call.
                unsafe { libc::sleep(PATIENCE) };
            }
        }
        CODE.store(code, Ordering::SeqCst);
        for part in [b"error: ".as_slice()].iter().chain(parts).chain(&[b"\n".as_slice()]) {
            write(libc::STDERR_FILENO, part);
        }
        let tell = TELL.load(Ordering::SeqCst);
        if tell >= 0 {
            write(tell, b"!");
            // SAFETY: a plain system call.
            unsafe { libc::sleep(PATIENCE) };
        }
        // SAFETY: a plain system call, safe in signal handlers; nothing that runs at a common exit is needed.
        unsafe { libc::_exit(code) }
    }

    fn write(to: i32, bytes: &[u8]) {
        // SAFETY: reads the slice; that it fails changes nothing.
        let _ = unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Has a thread wait for an end, and `tidy` before the process is gone.
    ///
    /// # Errors
    /// When the system refuses a pipe or a thread; ends are then sudden.
    pub fn tidy_with(tidy: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (mut listen, tell) = io::pipe()?;
        let wait = move || {
            if listen.read_exact(&mut [0]).is_ok() {
                tidy();
                // SAFETY: a plain system call.
                unsafe { libc::_exit(CODE.load(Ordering::SeqCst)) }
            }
        };
        std::thread::Builder::new().name("tidy".into()).stack_size(256 << 10).spawn(wait)?;
        TELL.store(tell.into_raw_fd(), Ordering::SeqCst);
        Ok(())
    }

    /// From now on, reading a page of a mapped file that is no longer there (another program cut the file short, or its disk
    /// failed) ends the process with this exit code and a sentence that names the file, in place of SIGBUS.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub fn on_lost_pages(code: i32) -> io::Result<()> {
        LOST.store(code, Ordering::SeqCst);
        // SAFETY: all zero is a valid action; `lost` is a handler of the kind that the flag asks for, and does nothing that a
        // signal handler may not do. It runs on the stack of the thread that read, which is not what is broken.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = lost as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    extern "C" fn lost(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system passes the information that `SA_SIGINFO` asked for.
        let (cause, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        if cause <= 0 {
            // Sent by a process, and no fault of a read.
            // SAFETY: plain system calls, safe in signal handlers.
            unsafe {
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                libc::raise(libc::SIGBUS);
            }
            return;
        }
        let mut path = [0; 512];
        let len = mapped_at(address, &mut path);
        let path = if len == 0 { b"a mapped file".as_slice() } else { &path[..len] };
        end(
            LOST.load(Ordering::SeqCst),
            &[
                path,
                b": cannot be read any more: it was cut short while it was in use, or its disk failed; fetch it again",
            ],
        )
    }

    /// Writes the path of the file that is mapped at an address, as `/proc/self/maps` has it; its length, 0 when it is not told.
    fn mapped_at(address: usize, path: &mut [u8; 512]) -> usize {
        // SAFETY: the path ends in 0; the buffer is written within its length.
        let file = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        let mut buffer = [0u8; 1024];
        let mut line = MapLine::default();
        loop {
            // SAFETY: as above.
            let read = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else { return 0 };
            for byte in &buffer[..read] {
                if line.take(*byte, address, path) {
                    return line.len;
                }
            }
        }
    }

    /// A line of `/proc/self/maps` on its way: `start-end rights offset device inode path`.
    #[derive(Default)]
    struct MapLine {
        /// Fields that are complete, start and end of the addresses being one each.
        fields: usize,
        start: usize,
        end: usize,
        /// Bytes of the path.
        len: usize,
    }

    impl MapLine {
        /// Takes the next byte; true when the line is at its end and holds the address.
        fn take(&mut self, byte: u8, address: usize, path: &mut [u8; 512]) -> bool {
            let digit = || (byte as char).to_digit(16).unwrap_or(0) as usize;
            match (byte, self.fields) {
                (b'\n', _) => {
                    let found = (self.start..self.end).contains(&address);
                    let len = self.len;
                    *self = MapLine::default();
                    self.len = if found { len } else { 0 };
                    return found;
                }
                (b'-', 0) | (b' ', 1..6) => self.fields += 1,
                (_, 0) => self.start = self.start << 4 | digit(),
                (_, 1) => self.end = self.end << 4 | digit(),
                // Blanks fill up to the column of the path.
                (b' ', 6) if self.len == 0 => {}
                (_, 6) if self.len < path.len() => {
                    path[self.len] = if byte.is_ascii_control() { b'?' } else { byte };
                    self.len += 1;
                }
                _ => {}
            }
            false
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_file_at_an_address_is_named() {
            let maps = "00400000-0040b000 r-xp 00000000 08:01 12 /bin/cat\n\
                        7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
                        7f0000001000-7f0000003000 r--p 00000000 08:01 99                         /a b/m\u{1b}.bin\n";
            let of = |address: usize| {
                let (mut line, mut path) = (MapLine::default(), [0; 512]);
                let found = maps.bytes().any(|byte| line.take(byte, address, &mut path));
                found.then(|| String::from_utf8_lossy(&path[..line.len]).into_owned())
            };
            assert_eq!(of(0x40_0000).as_deref(), Some("/bin/cat"));
            assert_eq!(of(0x7f00_0000_2fff).as_deref(), Some("/a b/m?.bin"));
            assert_eq!(of(0x7f00_0000_0000).as_deref(), Some(""));
            assert_eq!((of(0x40_b000), of(0)), (None, None));
        }
    }
}

#[cfg(unix)]
use unix::end;
#[cfg(unix)]
pub use unix::{on_lost_pages, tidy_with};

/// Elsewhere an end is sudden.
#[cfg(not(unix))]
fn end(code: i32, _: &[&[u8]]) -> ! {
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_memory() {
        let text = |n| String::from_utf8(decimal(n, &mut [0; 20]).to_vec()).expect("digits");
        for n in [0, 7, 10, 65_536, usize::MAX] {
            assert_eq!(text(n), n.to_string());
        }
    }
}
