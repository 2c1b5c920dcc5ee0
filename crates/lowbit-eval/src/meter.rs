//! Time, memory, energy and the machine, as the operating system reports them.

use crate::record::Measure;
use crate::stats::percentile;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs `f` `warmup` times unmeasured, then `samples` times; returns the seconds of each measured run. The first error ends it.
pub fn latency<E>(warmup: usize, samples: usize, mut f: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    for _ in 0..warmup {
        f()?;
    }
    (0..samples).map(|_| timed(&mut f)).collect()
}

/// A piece of work that is compared with others by [`alternate`].
pub type Workload<'a, E> = &'a mut dyn FnMut() -> Result<(), E>;

/// Runs all workloads `rounds` times after one unmeasured round, forwards in even rounds and backwards in odd ones, so that
/// drift of the machine meets all alike. Returns the seconds of each run, `[workload][round]`. The first error ends it.
pub fn alternate<E>(workloads: &mut [Workload<'_, E>], rounds: usize) -> Result<Vec<Vec<f64>>, E> {
    for workload in workloads.iter_mut() {
        workload()?;
    }
    let mut seconds = vec![Vec::with_capacity(rounds); workloads.len()]; // [workload, round]
    for round in 0..rounds {
        for place in 0..workloads.len() {
            let index = if round % 2 == 0 { place } else { workloads.len() - 1 - place };
            seconds[index].push(timed(&mut workloads[index])?);
        }
    }
    Ok(seconds)
}

fn timed<E>(f: &mut impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

/// `latency_p50`, `latency_p90` and `latency_p99` of samples in seconds, each with the minimum and maximum as its range.
/// Empty without samples.
pub fn latency_measures(seconds: &[f64]) -> Vec<(String, Measure)> {
    let (Some(min), Some(max)) = (percentile(seconds, 0.0), percentile(seconds, 100.0)) else {
        return Vec::new();
    };
    let measure = |q: u8| {
        let value = percentile(seconds, f64::from(q))?;
        Some((format!("latency_p{q}"), Measure::measured(value, "seconds", seconds.len() as u64).between(min, max)))
    };
    [50, 90, 99].into_iter().filter_map(measure).collect()
}

/// Largest resident memory of this process so far, bytes (`VmHWM`); `None` where `/proc` does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Begins [`peak_rss_bytes`] anew from what is resident now; whether the system does so.
pub fn reset_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Resident memory of this process now, bytes (`VmRSS`); `None` where `/proc` does not tell.
pub fn rss_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")
}

/// Memory of the machine, bytes (`MemTotal`); `None` where `/proc` does not tell.
pub fn ram_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")
}

/// Model name of the CPU; `unknown` where `/proc/cpuinfo` does not tell.
pub fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu_of(&text).unwrap_or("unknown").into()
}

/// Cores that this process may use (affinity and quotas counted); 1 where the system does not tell.
pub fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// The value of `NAME:  123 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?.strip_suffix("kB")?.trim_end();
    value.parse::<u64>().ok()?.checked_mul(1024)
}

fn cpu_of(text: &str) -> Option<&str> {
    ["model name", "Model", "cpu model"].into_iter().find_map(|name| field(text, name)).filter(|name| !name.is_empty())
}

/// The value of the first line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_end() == name).then(|| value.trim())
    })
}

/// Energy counters of the CPU packages (RAPL through Linux's powercap tree).
#[derive(Clone, Debug)]
pub struct Rapl {
    packages: Vec<Package>,
}

#[derive(Clone, Debug)]
struct Package {
    counter: PathBuf,
    /// The counter goes from this value to 0, microjoules.
    range: u64,
}

/// The counters of all packages at one instant, microjoules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading(Vec<u64>);

impl Rapl {
    /// Where the tree is: `LOWBIT_POWERCAP`, else `/sys/class/powercap`.
    pub fn root() -> PathBuf {
        let given = std::env::var_os("LOWBIT_POWERCAP").filter(|path| !path.is_empty());
        given.map_or("/sys/class/powercap".into(), PathBuf::from)
    }

    /// The package domains under `root`; `None` when there is none or one cannot be read (on most systems only root may).
    pub fn open(root: &Path) -> Option<Rapl> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(root).ok()?.flatten() {
            let file_name = entry.file_name();
            let number = file_name.to_str().and_then(|name| name.strip_prefix("intel-rapl:"));
            let domain = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if number.is_some_and(|number| !number.contains(':')) && domain.starts_with("package") {
                let range = microjoules(&entry.path().join("max_energy_range_uj"))?;
                packages.push(Package { counter: entry.path().join("energy_uj"), range });
            }
        }
        packages.sort_by(|a, b| a.counter.cmp(&b.counter));
        let rapl = Rapl { packages };
        (!rapl.packages.is_empty() && rapl.read().is_some()).then_some(rapl)
    }

    /// The counters now; `None` when one cannot be read.
    pub fn read(&self) -> Option<Reading> {
        self.packages.iter().map(|package| microjoules(&package.counter)).collect::<Option<_>>().map(Reading)
    }

    /// Joules between two readings of these packages. A counter may have gone past its range once in between; it does so after
    /// 2 minutes at the earliest (32-bit counter, 500 W), so read more often: [`EnergyMeter`].
    pub fn joules(&self, before: &Reading, after: &Reading) -> f64 {
        let counters = self.packages.iter().zip(before.0.iter().zip(&after.0));
        let used = counters.map(|(package, (&before, &after))| match after.checked_sub(before) {
            Some(used) => used,
            None => after + package.range.saturating_sub(before),
        });
        used.sum::<u64>() as f64 * 1e-6
    }
}

fn microjoules(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Energy since its start, for work longer than a counter's range.
#[derive(Clone, Debug)]
pub struct EnergyMeter {
    rapl: Rapl,
    last: Reading,
    joules: f64,
}

impl EnergyMeter {
    /// Starts counting; `None` when the counters cannot be read.
    pub fn start(rapl: &Rapl) -> Option<Self> {
        Some(EnergyMeter { last: rapl.read()?, rapl: rapl.clone(), joules: 0.0 })
    }

    /// Joules since the start. Call it at least once a minute; `None` when a counter cannot be read any more.
    pub fn joules(&mut self) -> Option<f64> {
        let now = self.rapl.read()?;
        self.joules += self.rapl.joules(&self.last, &now);
        self.last = now;
        Some(self.joules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_peak_begins_anew() {
        let large = std::hint::black_box(vec![1u8; 256 << 20]);
        let with = peak_rss_bytes().expect("Linux");
        drop(large);
        assert!(with > 256 << 20);
        if reset_peak_rss() {
            let without = peak_rss_bytes().expect("Linux");
            assert!(without + (200 << 20) < with, "{without} after {with}");
        }
    }

    #[test]
    fn latency_counts_runs() {
        let mut runs = 0;
        let seconds = latency(3, 5, || {
            runs += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!((runs, seconds.len()), (8, 5));
        assert!(seconds.iter().all(|&s| (0.001..1.0).contains(&s)), "{seconds:?}");
        let mut left = 4;
        let failing = latency(1, 9, || {
            left -= 1;
            if left == 0 { Err("spent") } else { Ok(()) }
        });
        assert_eq!((failing, left), (Err("spent"), 0));
    }

    #[test]
    fn workloads_alternate() {
        let order = RefCell::new(String::new());
        let run = |name: char| {
            order.borrow_mut().push(name);
            Ok::<(), ()>(())
        };
        let (mut a, mut b, mut c) = (|| run('a'), || run('b'), || run('c'));
        let seconds = alternate(&mut [&mut a, &mut b, &mut c], 3).unwrap();
        assert_eq!(*order.borrow(), "abcabccbaabc");
        assert_eq!(seconds.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
        let mut fails = || Err("broken");
        assert_eq!(alternate(&mut [&mut fails], 3), Err("broken"));
    }

    #[test]
    fn percentiles_become_measures() {
        let seconds: Vec<f64> = (1..=101).map(f64::from).collect();
        let measures = latency_measures(&seconds);
        let shown: Vec<_> = measures.iter().map(|(name, m)| (name.as_str(), m.value, m.lo, m.hi, m.n)).collect();
        let (lo, hi) = (Some(1.0), Some(101.0));
        assert_eq!(
            shown,
            [
                ("latency_p50", 51.0, lo, hi, 101),
                ("latency_p90", 91.0, lo, hi, 101),
                ("latency_p99", 100.0, lo, hi, 101)
            ]
        );
        assert!(latency_measures(&[]).is_empty());
    }

    #[test]
    fn proc_files() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t1024 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(status, "VmHWM"), Some(2 << 20));
        assert_eq!(kilobytes(status, "VmRSS"), Some(1 << 20));
        assert_eq!(kilobytes(status, "Threads"), None);
        assert_eq!(kilobytes("VmHWM: many kB", "VmHWM"), None);
        assert_eq!(kilobytes("VmHWM: 18446744073709551615 kB", "VmHWM"), None);
        assert_eq!(cpu_of("processor\t: 0\nmodel name\t: Some CPU @ 2: GHz\n"), Some("Some CPU @ 2: GHz"));
        assert_eq!(cpu_of("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
        assert!(cores() >= 1);
        assert!(!cpu_name().is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process() {
        // Other tests of this process free memory meanwhile.
        let grows = || {
            let before = rss_bytes().unwrap();
            let block = vec![1u8; 64 << 20];
            let after = rss_bytes().unwrap();
            std::hint::black_box(&block);
            assert!(peak_rss_bytes().unwrap() >= after);
            after >= before + (32 << 20)
        };
        assert!((0..50).any(|_| grows()));
        assert!(ram_bytes().unwrap() > rss_bytes().unwrap());
    }

    fn domain(root: &Path, folder: &str, name: &str, energy: &str, range: &str) {
        let dir = root.join(folder);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [("name", name), ("energy_uj", energy), ("max_energy_range_uj", range)] {
            fs::write(dir.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn packages_are_summed_and_wrap() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        domain(root, "intel-rapl:0", "package-0", "1000000", "262143328850");
        domain(root, "intel-rapl:1", "package-1", "262143328800", "262143328850");
        domain(root, "intel-rapl:0:0", "core", "5", "262143328850");
        domain(root, "intel-rapl:2", "psys", "7", "262143328850");
        domain(root, "intel-rapl-mmio:0", "package-0", "9", "262143328850");
        fs::create_dir(root.join("intel-rapl")).unwrap();

        let rapl = Rapl::open(root).unwrap();
        let mut meter = EnergyMeter::start(&rapl).unwrap();
        let before = rapl.read().unwrap();
        assert_eq!(before, Reading(vec![1_000_000, 262_143_328_800]));
        assert_eq!(rapl.joules(&before, &before), 0.0);

        domain(root, "intel-rapl:0", "package-0", "3500000", "262143328850");
        domain(root, "intel-rapl:1", "package-1", "999950", "262143328850");
        let after = rapl.read().unwrap();
        assert_eq!(rapl.joules(&before, &after), 2.5 + 1.0);
        assert_eq!(meter.joules(), Some(3.5));

        domain(root, "intel-rapl:1", "package-1", "0", "262143328850");
        assert_eq!(meter.joules(), Some(3.5 + 262_142.328_9));
        fs::remove_file(root.join("intel-rapl:1/energy_uj")).unwrap();
        assert_eq!((rapl.read(), meter.joules()), (None, None));
    }

    #[test]
    fn no_counters() {
        let tree = tempfile::tempdir().unwrap();
        assert!(Rapl::open(tree.path()).is_none());
        assert!(Rapl::open(&tree.path().join("absent")).is_none());
        domain(tree.path(), "intel-rapl:0", "package-0", "unreadable", "1000");
        assert!(Rapl::open(tree.path()).is_none());
        domain(tree.path(), "intel-rapl:0", "package-0", "12", "");
        assert!(Rapl::open(tree.path()).is_none());
    }
}
