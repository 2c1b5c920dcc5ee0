//! Which way of a product is faster where that depends on the machine: measured once, and kept in the user's cache.
//!
//! Products of bf16 pairs are one instruction on some CPUs and slow there: the ways that multiply f32 are then preferred from
//! a number of tokens on. Since bf16 pairs round otherwise, a choice holds until the CPU or the program changes, and records
//! tell it.

use crate::format::ways::{self, Capability, Ways};
use crate::format::{QuantizeOptions, find};
use crate::{Activations, Cpu, Isa, Packed, Pool};
use lowbit_base::file;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Numbers of tokens that are measured; a way that is preferred from one on is faster at it and at all larger ones.
const TOKENS: [usize; 4] = [2, 4, 16, 64];
/// Rows and columns of the matrix that is multiplied.
const SHAPE: [usize; 2] = [128, 1024];
/// Products of each number of tokens and way; the fastest counts.
const RUNS: usize = 5;
/// How much faster the way without rounding must be.
const MARGIN: f64 = 1.05;
/// Largest cache file that is read, bytes.
const MOST: u64 = 1 << 16;
/// Lines that a cache keeps: those of machines that share a home.
const LINES: usize = 64;

/// The ways that products prefer on this machine, by the cache, else by a measurement of a few milliseconds.
pub(crate) fn of(isa: Isa) -> Arc<Ways> {
    static KNOWN: Mutex<Vec<(Isa, Arc<Ways>)>> = Mutex::new(Vec::new());
    if !Capability::Bf16Pairs.is_of(isa) {
        return Arc::default();
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ways)) = known.iter().find(|(of, _)| *of == isa) {
        return ways.clone();
    }
    let folder = folder(|name| std::env::var_os(name));
    let path = folder.map(|folder| folder.join("ways"));
    let ways = Arc::new(cached(path.as_deref(), &key(isa), || measure(isa)));
    known.push((isa, ways.clone()));
    ways
}

/// Where this program keeps what can be made again.
fn folder(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let get = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(get("HOME").or_else(|| get("USERPROFILE"))?.join(".cache"));
    Some(get("XDG_CACHE_HOME").or_else(home)?.join("lowbit"))
}

/// What a choice depends on: the model of the CPU, the instruction set, and the program.
fn key(isa: Isa) -> String {
    format!("{} {} {}", cpu_model(), isa.name(), env!("CARGO_PKG_VERSION"))
}

/// The name, family, model and stepping of the CPU.
fn cpu_model() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        let mut name = Vec::new();
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            for leaf in 0x8000_0002..=0x8000_0004 {
                let part = __cpuid(leaf);
                name.extend([part.eax, part.ebx, part.ecx, part.edx].iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        let name: String = name.into_iter().filter(u8::is_ascii_graphic).map(char::from).collect();
        format!("{name}-{:x}", __cpuid(1).eax)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.into()
}

/// The choice that a cache has under a key, else a measured one, which the cache then has, if it can be written.
fn cached(path: Option<&Path>, key: &str, measure: impl FnOnce() -> Ways) -> Ways {
    let text = path.and_then(|path| file::read_text(path, MOST).ok()).unwrap_or_default();
    let line = |line: &str| line.rsplit_once('\t').map(|(key, names)| (key.to_string(), names.to_string()));
    let mut lines: Vec<(String, String)> = text.lines().filter_map(line).collect();
    let found = lines.iter().find(|(of, _)| of == key).map(|(_, names)| names);
    if let Some(Ok(ways)) = found.map(|names| Ways::parse(names, "measured on this machine before")) {
        return ways;
    }
    let ways = measure();
    lines.retain(|(of, _)| of != key);
    lines.drain(..(lines.len() + 1).saturating_sub(LINES));
    lines.push((key.into(), ways.to_string()));
    if let Some((path, folder)) = path.and_then(|path| Some((path, path.parent()?))) {
        let text: String = lines.iter().map(|(key, names)| format!("{key}\t{names}\n")).collect();
        // Without a cache the next run measures again.
        let _ = file::make(folder).and_then(|_| file::replace(path, text.as_bytes()));
    }
    ways
}

/// Seconds of the fastest of some products by each of two ways, in turns.
fn seconds(cpus: &[Cpu; 2], packed: &Packed, x: &[f32], y: &mut [f32]) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..RUNS {
        for (cpu, best) in cpus.iter().zip(&mut best) {
            let start = Instant::now();
            packed.matmul(cpu, Activations::F32(x), y);
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    best
}

/// Measures on the calling thread.
fn measure(isa: Isa) -> Ways {
    let [rows, cols] = SHAPE;
    let values = |n: usize| (0..n).map(|i| (i * i % 61) as f32 / 61.0 - 0.5).collect::<Vec<f32>>();
    let pool = Arc::new(Pool::new(1));
    let prefer = |way| Cpu::with(isa, pool.clone()).preferring(Ways::of(way, 1));
    let cpus = [ways::BF16_PAIRS, ways::FLOAT_PANELS].map(prefer);
    let format = find("bf16").expect("a format of pairs");
    let packed = format.quantize(&values(rows * cols), rows, cols, &QuantizeOptions::default()).expect("finite");
    let mut from = None;
    for tokens in TOKENS.into_iter().rev() {
        let [pairs, panels] = seconds(&cpus, &packed, &values(tokens * cols), &mut vec![0.0; tokens * rows]);
        if panels * MARGIN > pairs {
            break;
        }
        from = Some(tokens);
    }
    let ways = from.map_or(Ways::of(ways::BF16_PAIRS, 1), |fewest| Ways::of(ways::FLOAT_PANELS, fewest));
    ways.because("measured on this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_measured_once_and_kept() {
        let folder = std::env::temp_dir().join(format!("lowbit-choice-{}", std::process::id()));
        let path = folder.join("a").join("ways");
        let slow = || Ways::of(ways::FLOAT_PANELS, 16).because("measured");
        let never = || -> Ways { panic!("a choice that is known is not measured") };
        assert_eq!(cached(Some(&path), "cpu isa 1", slow).to_string(), "float_panels@16");
        assert_eq!(cached(Some(&path), "cpu isa 1", never).to_string(), "float_panels@16");
        assert_eq!(cached(Some(&path), "cpu isa 2", Ways::default).to_string(), "default");
        assert_eq!(cached(Some(&path), "cpu isa 2", never).to_string(), "default");
        for i in 0..2 * LINES {
            cached(Some(&path), &format!("another {i}"), slow);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), LINES);
        // What cannot be read is measured again.
        for damaged in ["cpu\tno_such_way\n", "no tab", "\u{0}"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(cached(Some(&path), "cpu", slow).to_string(), "float_panels@16");
            assert_eq!(cached(Some(&path), "cpu", never).to_string(), "float_panels@16");
        }
        // A cache that cannot be written changes nothing, nor does having none.
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "a file").unwrap();
        assert_eq!(cached(Some(&path), "cpu", slow).to_string(), "float_panels@16");
        assert_eq!(cached(None, "cpu", slow).to_string(), "float_panels@16");
        std::fs::remove_file(&folder).unwrap();
    }

    #[test]
    fn caches_are_where_users_have_them() {
        let place = |names: &[(&str, &str)]| folder(|name| Some(names.iter().find(|(n, _)| *n == name)?.1.into()));
        assert_eq!(place(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c/lowbit".into()));
        assert_eq!(place(&[("XDG_CACHE_HOME", ""), ("HOME", "/h")]), Some("/h/.cache/lowbit".into()));
        assert_eq!(place(&[("HOME", "relative")]), None);
    }

    #[test]
    fn a_measurement_names_a_way_that_exists() {
        for isa in Isa::available().into_iter().filter(|isa| Capability::Bf16Pairs.is_of(*isa)) {
            let start = Instant::now();
            let ways = measure(isa);
            println!("{}: {ways} in {:?}", key(isa), start.elapsed());
            assert_eq!(Ways::parse(&ways.to_string(), ways.why()).expect("its own words"), ways);
        }
        assert!(!cpu_model().is_empty() && !cpu_model().contains(['\t', '\n']));
    }
}
