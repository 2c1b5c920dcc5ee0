//! Memory: what this process may still take and which limit says so, and what work needs, compared before it starts.

use crate::Error;
use std::fmt;
use std::path::{Path, PathBuf};

mod group;

/// What limits the memory of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The machine: `MemAvailable` of `/proc/meminfo`, which counts reclaimable page cache as available.
    Machine,
    /// A control group or one of its parents, by the file that holds the limit.
    Group(PathBuf),
    /// `RLIMIT_AS` (`ulimit -v`): all that is mapped counts, files too.
    AddressSpace,
    /// `RLIMIT_DATA` (`ulimit -d`): writable memory of this process alone counts.
    Data,
}

impl Limit {
    /// Whether pages of a file that is mapped already take room under this limit once they are read.
    fn counts_mapped_files(&self) -> bool {
        matches!(self, Limit::Machine | Limit::Group(_))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Machine => f.write_str("the memory of this machine"),
            Limit::Group(path) => write!(f, "the control group, {}", path.display()),
            Limit::AddressSpace => f.write_str("the limit of address space, ulimit -v"),
            Limit::Data => f.write_str("the limit of data, ulimit -d"),
        }
    }
}

/// What one limit leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes this process may still take.
    pub bytes: u64,
    /// The limit that leaves them.
    pub limit: Limit,
}

/// What each limit of this process leaves, none where the system tells nothing.
pub fn rooms() -> Vec<Room> {
    rooms_under(Path::new("/"))
}

/// The tightest of [`rooms`].
pub fn available() -> Option<Room> {
    rooms().into_iter().min_by_key(|room| room.bytes)
}

/// [`rooms`], the files of the system lying under `root`.
fn rooms_under(root: &Path) -> Vec<Room> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (status, limits) = (read("proc/self/status"), read("proc/self/limits"));
    let mut rooms = Vec::new();
    let machine = kibibytes(&read("proc/meminfo"), "MemAvailable:");
    rooms.extend(machine.map(|bytes| Room { bytes, limit: Limit::Machine }));
    rooms.extend(group::rooms(root, &read("proc/self/cgroup"), &read("proc/self/mountinfo")));
    for (name, taken, limit) in
        [("Max address space", "VmSize:", Limit::AddressSpace), ("Max data size", "VmData:", Limit::Data)]
    {
        let taken = kibibytes(&status, taken).unwrap_or(0);
        rooms.extend(number(&limits, name).map(|most| Room { bytes: most.saturating_sub(taken), limit }));
    }
    rooms
}

/// The number behind a name at the begin of a line; `None` where it is no number, as `unlimited`.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Bytes of a line that counts in units of 1,024.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    number(text, name)?.checked_mul(1024)
}

/// Memory footprint of work that has not begun, in named parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    parts: Vec<Part>,
    remedy: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: String,
    bytes: u64,
    /// Pages of a file that is mapped already.
    mapped: bool,
}

impl Footprint {
    /// A footprint without a part; `remedy` tells what takes less.
    pub fn new(remedy: impl Into<String>) -> Self {
        Footprint { parts: Vec::new(), remedy: remedy.into() }
    }

    /// The same and a part that is allocated.
    pub fn and(mut self, name: impl Into<String>, bytes: u64) -> Self {
        self.parts.push(Part { name: name.into(), bytes, mapped: false });
        self
    }

    /// The same and a part that is read from a file that is mapped already: address space is taken for it.
    pub fn and_mapped(mut self, name: impl Into<String>, bytes: u64) -> Self {
        self.parts.push(Part { name: name.into(), bytes, mapped: true });
        self
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// Sees that every limit leaves as much; passes where the system tells nothing.
    ///
    /// # Errors
    /// [`Kind::Memory`](crate::Kind::Memory) with the parts, what there is, the limit that says so, and the remedy.
    pub fn check(&self) -> Result<(), Error> {
        self.fits(&rooms())
    }

    fn fits(&self, rooms: &[Room]) -> Result<(), Error> {
        let under = |limit: &Limit| {
            let counted = self.parts.iter().filter(|part| !part.mapped || limit.counts_mapped_files());
            counted.fold(0u64, |sum, part| sum.saturating_add(part.bytes))
        };
        let lacking = |room: &&Room| under(&room.limit) > room.bytes;
        let Some(room) = rooms.iter().filter(lacking).min_by_key(|room| room.bytes) else { return Ok(()) };
        let parts: Vec<String> = match &self.parts[..] {
            [only] => vec![only.name.clone()],
            parts => parts.iter().map(|part| format!("{} {}", part.name, bytes(part.bytes))).collect(),
        };
        let (all, parts, there, limit) = (bytes(self.bytes()), parts.join(", "), bytes(room.bytes), &room.limit);
        let text = format!("needs {all} of memory ({parts}), available are {there} ({limit})");
        Err(Error::memory(format!("{text}; {}", self.remedy)))
    }
}

/// Bytes in decimal units, three digits.
pub fn bytes(n: u64) -> String {
    let (value, unit) = match n {
        0..1_000 => return format!("{n} B"),
        1_000..1_000_000 => (n as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "MB"),
        _ => (n as f64 / 1e9, "GB"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    /// A system whose files are these.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    /// The tightest limit of a system.
    fn tightest(files: &[(&str, &str)]) -> Option<(u64, Limit)> {
        let root = system(files);
        let room = rooms_under(root.path()).into_iter().min_by_key(|room| room.bytes)?;
        let limit = match room.limit {
            Limit::Group(path) => Limit::Group(path.strip_prefix(root.path()).expect("under the root").into()),
            other => other,
        };
        Some((room.bytes, limit))
    }

    fn group(path: &str) -> Limit {
        Limit::Group(path.into())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 9900000 kB\nMemAvailable:     1000000 kB\n");
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_machine_and_nothing() {
        assert_eq!(tightest(&[]), None);
        assert_eq!(tightest(&[MEMINFO]), Some((1_024_000_000, Limit::Machine)));
        assert!(available().is_none_or(|room| room.bytes > 0));
    }

    #[test]
    fn limits_of_the_process_leave_what_is_not_taken() {
        let limits = |space: &str, data: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max data size             {data}            unlimited            bytes     \n\
                 Max address space         {space}            unlimited            bytes     \n"
            )
        };
        let status = ("proc/self/status", "Name:\tlowbit\nVmSize:\t  100000 kB\nVmData:\t   50000 kB\n");
        let of = |space: &str, data: &str| tightest(&[MEMINFO, status, ("proc/self/limits", &limits(space, data))]);
        assert_eq!(of("unlimited", "unlimited"), Some((1_024_000_000, Limit::Machine)));
        assert_eq!(of("500000000", "unlimited"), Some((500_000_000 - 102_400_000, Limit::AddressSpace)));
        assert_eq!(of("unlimited", "400000000"), Some((400_000_000 - 51_200_000, Limit::Data)));
        assert_eq!(of("500000000", "400000000"), Some((400_000_000 - 51_200_000, Limit::Data)));
        assert_eq!(of("100", "unlimited"), Some((0, Limit::AddressSpace)));
    }

    #[test]
    fn cache_that_can_be_reclaimed_is_available() {
        let at = "sys/fs/cgroup/user/x";
        let stat = "anon 100000\nfile 900000\nshmem 300000\ninactive_file 400000\nactive_file 200000\nslab_reclaimable 50000\n";
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user/x\n"),
            ("proc/self/mountinfo", V2),
            (&format!("{at}/memory.max"), "1000000\n"),
            (&format!("{at}/memory.current"), "990000\n"),
            (&format!("{at}/memory.stat"), stat),
        ];
        assert_eq!(tightest(&files), Some((660_000, group("sys/fs/cgroup/user/x/memory.max"))));
        // Without statistics all that is taken counts; without a mount at the usual place it is looked for there.
        assert_eq!(tightest(&files[..5]), Some((10_000, group("sys/fs/cgroup/user/x/memory.max"))));
        let unlisted: Vec<_> = files.iter().filter(|(path, _)| !path.ends_with("mountinfo")).copied().collect();
        assert_eq!(tightest(&unlisted), Some((660_000, group("sys/fs/cgroup/user/x/memory.max"))));
    }

    #[test]
    fn every_parent_counts_and_so_does_throttling() {
        let base = [MEMINFO, ("proc/self/cgroup", "0::/a/b/c\n"), ("proc/self/mountinfo", V2)];
        let with = |more: &[(&'static str, &'static str)]| tightest(&[&base[..], more].concat());
        let (own, parent) = ("sys/fs/cgroup/a/b/c/memory.max", "sys/fs/cgroup/a/memory.max");
        let own = [(own, "max\n"), ("sys/fs/cgroup/a/b/c/memory.current", "7\n")];
        assert_eq!(with(&own), Some((1_024_000_000, Limit::Machine)));
        let parent = [own[0], own[1], (parent, "3000\n"), ("sys/fs/cgroup/a/memory.current", "1000\n")];
        assert_eq!(with(&parent), Some((2_000, group("sys/fs/cgroup/a/memory.max"))));
        let high = [
            parent[0],
            parent[1],
            parent[2],
            parent[3],
            ("sys/fs/cgroup/a/b/memory.high", "1500\n"),
            ("sys/fs/cgroup/a/b/memory.current", "600\n"),
        ];
        assert_eq!(with(&high), Some((900, group("sys/fs/cgroup/a/b/memory.high"))));
    }

    #[test]
    fn version_1_in_hybrid_mounts() {
        let at = "sys/fs/cgroup/memory/jobs/7";
        let none = "9223372036854771712\n";
        let names = "9:name=systemd:/\n4:cpu,memory:/jobs/7\n0::/elsewhere\n";
        let files = |limit: &str, parent: &str| {
            tightest(&[
                MEMINFO,
                ("proc/self/cgroup", names),
                ("proc/self/mountinfo", V1),
                (&format!("{at}/memory.limit_in_bytes"), limit),
                (&format!("{at}/memory.usage_in_bytes"), "900000\n"),
                (
                    &format!("{at}/memory.stat"),
                    "inactive_file 1\ntotal_inactive_file 300000\ntotal_active_file 100000\n",
                ),
                ("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", parent),
                ("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", "900000\n"),
            ])
        };
        assert_eq!(files(none, none), Some((1_024_000_000, Limit::Machine)));
        let own = group("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes");
        assert_eq!(files("1000000\n", none), Some((500_000, own)));
        let parent = group("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes");
        assert_eq!(files("1000000\n", "1000000\n"), Some((100_000, parent)));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount() {
        for (names, mounts) in [
            // The host's name of the group, mounted as the root: no namespace of groups.
            ("0::/docker/abc\n", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            // A namespace of groups.
            ("0::/\n", V2),
            // A name from outside, of which nothing is mounted.
            ("0::/docker/abc\n", V2),
            ("0::/\n", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            ("0::/\n", "30 23 0:26 /../.. /sys/fs/cgroup ro master:4 - cgroup2 cgroup rw\n"),
        ] {
            let found = tightest(&[
                MEMINFO,
                ("proc/self/cgroup", names),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/memory.max", "5000\n"),
                ("sys/fs/cgroup/memory.current", "4000\n"),
            ]);
            assert_eq!(found, Some((1_000, group("sys/fs/cgroup/memory.max"))), "{names}{mounts}");
        }
        let below = tightest(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/docker/abc/own\n"),
            ("proc/self/mountinfo", "30 23 0:26 /docker/abc /mnt/my\\040groups rw - cgroup2 cgroup rw\n"),
            ("mnt/my groups/own/memory.max", "6000\n"),
            ("mnt/my groups/own/memory.current", "1000\n"),
        ]);
        assert_eq!(below, Some((5_000, group("mnt/my groups/own/memory.max"))));
    }

    #[test]
    fn what_does_not_fit_is_told_in_parts() {
        let room = |bytes, limit| Room { bytes, limit };
        let need = Footprint::new("take less").and("weights", 3_000_000_000).and("keys and values", 2_000_000_000);
        assert!(need.fits(&[]).is_ok() && need.fits(&[room(5_000_000_000, Limit::Machine)]).is_ok());
        let rooms = [room(4_500_000_000, Limit::Machine), room(4_000_000_000, Limit::AddressSpace)];
        let error = need.fits(&rooms).expect_err("too much");
        assert_eq!(error.kind, Kind::Memory);
        assert_eq!(
            error.message,
            "needs 5.00 GB of memory (weights 3.00 GB, keys and values 2.00 GB), available are 4.00 GB \
             (the limit of address space, ulimit -v); take less"
        );
        let endless = Footprint::new("less").and("all", u64::MAX).and("more", 5);
        assert!(endless.fits(&[room(u64::MAX - 1, Limit::Machine)]).is_err());
    }

    #[test]
    fn a_mapped_file_takes_no_more_address_space() {
        let need = Footprint::new("take less").and_mapped("weights", 3_000).and("keys and values", 1_000);
        let fits = |bytes, limit| need.fits(&[Room { bytes, limit }]).is_ok();
        assert!(fits(1_000, Limit::AddressSpace) && !fits(999, Limit::AddressSpace));
        assert!(fits(1_000, Limit::Data) && !fits(3_999, Limit::Machine) && fits(4_000, Limit::Machine));
    }
}
