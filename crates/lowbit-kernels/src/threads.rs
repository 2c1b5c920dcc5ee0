//! How many threads: physical cores, and no more than affinity and quota allow.

use crate::Error;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

/// A number of threads and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Threads, at least 1.
    pub count: usize,
    /// Where the number comes from, in words.
    pub why: String,
}

impl Threads {
    /// Most threads of a pool.
    pub const MOST: usize = 1024;

    /// As many as asked for; else as `LOWBIT_THREADS` says (not when empty or -1); else the physical cores, but no more than the affinity mask and
    /// the CPU quota of this process allow.
    ///
    /// # Errors
    /// [`Error::Threads`] when a number is not in 1..=[`Threads::MOST`].
    pub fn choose(asked: Option<usize>) -> Result<Self, Error> {
        let given = |place: &str, text: &str, why: &str| match text.parse::<usize>() {
            Ok(count @ 1..=Threads::MOST) => Ok(Threads { count, why: why.into() }),
            _ => Err(Error::Threads(format!("{place} `{text}` is not a number from 1 to {}", Threads::MOST))),
        };
        if let Some(count) = asked {
            return given("number of threads", &count.to_string(), "asked for");
        }
        // As of `--threads`: 0 and -1 are the default.
        let is_default = |text: &OsString| text.is_empty() || text == "-1" || text == "0";
        if let Some(text) = std::env::var_os("LOWBIT_THREADS").filter(|text| !is_default(text)) {
            return given("LOWBIT_THREADS", &text.to_string_lossy(), "LOWBIT_THREADS");
        }
        let available = std::thread::available_parallelism().map_or(1, |n| n.get());
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Ok(by_default(available, cores(&status, Path::new("/sys/devices/system/cpu"))))
    }
}

/// The number for so many `available` CPUs (affinity and quota counted) and, where known, [`Cores`].
fn by_default(available: usize, cores: Option<Cores>) -> Threads {
    let (count, why) = match cores {
        None => (available, "CPUs this process may use; the system does not tell physical cores".into()),
        Some(Cores { physical, .. }) if physical > available => {
            (available, format!("all that the CPU quota allows, on {physical} physical cores"))
        }
        Some(Cores { physical, cpus }) => (physical, format!("physical cores of {cpus} CPUs this process may use")),
    };
    Threads { count: count.max(1), why }
}

/// What the CPUs of an affinity mask belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cores {
    physical: usize,
    cpus: usize,
}

/// The cores behind the line `Cpus_allowed_list` of a thread's `status`, by the siblings that `sysfs` names for each CPU.
fn cores(status: &str, sysfs: &Path) -> Option<Cores> {
    let cpus = list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let siblings = |cpu: &usize| {
        let path = sysfs.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        list(&std::fs::read_to_string(path).ok()?)
    };
    let groups: BTreeSet<BTreeSet<usize>> = cpus.iter().map(siblings).collect::<Option<_>>()?;
    Some(Cores { physical: groups.len(), cpus: cpus.len() })
}

/// The numbers of a list like `0-3,8`; `None` when it is not one, or is empty.
fn list(text: &str) -> Option<BTreeSet<usize>> {
    /// CPU numbers above this are no CPU numbers.
    const MOST: usize = 1 << 20;
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    type Siblings<'a> = &'a [&'a str];

    /// A machine whose CPUs have these siblings, and the line of a process that may use `allowed`.
    fn machine(name: &str, siblings: &[&str], allowed: &str) -> (PathBuf, String) {
        let root = std::env::temp_dir().join(format!("lowbit-threads-{}-{name}", std::process::id()));
        for (cpu, text) in siblings.iter().enumerate() {
            let folder = root.join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("thread_siblings_list"), format!("{text}\n")).unwrap();
        }
        (root, format!("Name:\tlowbit\nCpus_allowed:\tf\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n"))
    }

    #[test]
    fn threads_are_physical_cores_that_may_be_used() {
        let two_per_core = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"];
        let next_to_each_other = ["0-1", "0-1", "2-3", "2-3"];
        let single = ["0", "1"];
        let cases: [(&str, Siblings, &str, usize, usize, &str); 7] = [
            ("smt", &two_per_core, "0-7", 8, 4, "physical cores of 8 CPUs"),
            ("affinity", &two_per_core, "0-1,4-5", 4, 2, "physical cores of 4 CPUs"),
            ("one core", &two_per_core, "0,4", 2, 1, "physical cores of 2 CPUs"),
            ("half a core", &two_per_core, "7", 1, 1, "physical cores of 1 CPUs"),
            ("quota", &two_per_core, "0-7", 3, 3, "all that the CPU quota allows, on 4 physical cores"),
            ("neighbours", &next_to_each_other, "0-3", 4, 2, "physical cores of 4 CPUs"),
            ("single", &single, "0-1", 2, 2, "physical cores of 2 CPUs"),
        ];
        for (name, siblings, allowed, available, wanted, why) in cases {
            let (root, status) = machine(name, siblings, allowed);
            let threads = by_default(available, cores(&status, &root));
            std::fs::remove_dir_all(root).unwrap();
            assert_eq!(threads.count, wanted, "{name}: {}", threads.why);
            assert!(threads.why.starts_with(why), "{name}: {}", threads.why);
        }
    }

    #[test]
    fn what_is_not_told_is_not_guessed() {
        let (root, status) = machine("silent", &["0", "not a list"], "0-1");
        assert_eq!(cores(&status, &root), None, "siblings that are no list");
        assert_eq!(cores(&status.replace("0-1", "0-2"), &root), None, "a CPU without topology");
        assert_eq!(cores("Name:\tx\n", &root), None, "no mask");
        std::fs::remove_dir_all(root).unwrap();
        let threads = by_default(6, None);
        assert_eq!(threads.count, 6);
        assert!(threads.why.contains("does not tell"), "{}", threads.why);
        for bad in ["", "-", "3-1", "a", "1,", "0-99999999999", "0-9999999"] {
            assert_eq!(list(bad), None, "{bad}");
        }
        assert_eq!(list(" 0-2,7\n"), Some(BTreeSet::from([0, 1, 2, 7])));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for bad in [0, Threads::MOST + 1] {
            let error = Threads::choose(Some(bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("1 to 1024"), "{error}");
        }
        assert_eq!(Threads::choose(Some(3)).unwrap().count, 3);
    }
}
