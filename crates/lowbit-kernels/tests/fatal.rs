//! Ends of a process that no code can answer, each in a process of its own.
#![cfg(target_os = "linux")]

use lowbit_base::file::{Set, abandon};
use lowbit_kernels::{Bytes, fatal};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[global_allocator]
static ALLOCATOR: fatal::Allocator<4> = fatal::Allocator;

const VARIABLE: &str = "LOWBIT_TEST_FATAL";

/// The folder of the process that is to end; none in the test itself.
fn folder() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// Runs a test of this file again in a process that ends, with as much address space as it likes or so many KiB.
fn again(name: &str, folder: &Path, kibibytes: &str) -> Output {
    let program = std::env::current_exe().expect("a program");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -v {kibibytes}; exec \"$0\" --exact \"$1\" --nocapture --test-threads 1"));
    shell.arg(program).arg(name).env(VARIABLE, folder).output().expect("a shell")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Begins a file that must not be left, as a command does that writes a model.
fn begin(folder: &Path) {
    fatal::tidy_with(abandon).expect("a thread");
    let mut set = Set::open(&folder.join("new")).expect("writable");
    set.write("a", b"1").expect("written");
    std::mem::forget((set.part("b").expect("begun"), set));
}

#[test]
fn a_file_cut_short_in_use_ends_with_a_sentence_and_leaves_nothing() {
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights");
        std::fs::write(&path, vec![7; 1 << 20]).expect("written");
        let test = "a_file_cut_short_in_use_ends_with_a_sentence_and_leaves_nothing";
        let output = again(test, folder.path(), "unlimited");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{told}");
        assert!(told.contains(&format!("error: {}: cannot be read any more", path.display())), "{told}");
        assert_eq!(names(folder.path()), ["weights"]);
        return;
    };
    begin(&folder);
    fatal::on_lost_pages(5).expect("a handler");
    let file = std::fs::File::options().read(true).write(true).open(folder.join("weights")).expect("there");
    let bytes = Bytes::map(&file).expect("mapped");
    file.set_len(4096).expect("cut");
    std::process::exit(i32::from(bytes[1 << 19]));
}

#[test]
fn a_signal_that_was_sent_keeps_its_meaning() {
    use std::os::unix::process::ExitStatusExt;
    if folder().is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = again("a_signal_that_was_sent_keeps_its_meaning", folder.path(), "unlimited");
        assert_eq!(output.status.signal(), Some(libc::SIGBUS));
        return;
    }
    fatal::on_lost_pages(5).expect("a handler");
    // SAFETY: a plain system call.
    unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
    std::thread::sleep(std::time::Duration::from_secs(5));
}

#[test]
fn memory_that_cannot_be_had_ends_with_a_sentence_and_leaves_nothing() {
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().expect("a folder");
        let test = "memory_that_cannot_be_had_ends_with_a_sentence_and_leaves_nothing";
        let output = again(test, folder.path(), "1000000");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains("error: out of memory: 3000000000 bytes more cannot be had"), "{told}");
        assert_eq!(names(folder.path()), [""; 0]);
        return;
    };
    begin(&folder);
    let large = std::hint::black_box(vec![1u8; 3_000_000_000]);
    std::process::exit(i32::from(large[5]));
}
