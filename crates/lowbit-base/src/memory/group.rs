//! Limits of control groups, of version 2 and 1, of all parents too (the kernel's `cgroup-v2.rst` and `cgroup-v1/memory.rst`).

use super::{Limit, Room, number};
use std::path::{Component, Path, PathBuf};

/// Limits from here on are none: version 1 writes the largest number of whole pages.
const NONE: u64 = 1 << 62;

/// How a version of control groups names its files.
struct Version {
    /// Type of its file systems.
    file_system: &'static str,
    /// Where it is mounted when the system does not say.
    usual: &'static str,
    /// Limits: of what is taken, and of what is taken before the kernel slows the processes down.
    limits: &'static [&'static str],
    /// What is taken.
    taken: &'static str,
    /// What is taken for files and can be reclaimed, in `memory.stat`.
    reclaimable: &'static [&'static str],
}

static VERSIONS: [Version; 2] = [
    Version {
        file_system: "cgroup2",
        usual: "/sys/fs/cgroup",
        limits: &["memory.max", "memory.high"],
        taken: "memory.current",
        reclaimable: &["inactive_file ", "active_file ", "slab_reclaimable "],
    },
    Version {
        file_system: "cgroup",
        usual: "/sys/fs/cgroup/memory",
        limits: &["memory.limit_in_bytes"],
        taken: "memory.usage_in_bytes",
        reclaimable: &["total_inactive_file ", "total_active_file "],
    },
];

/// What the groups of this process and their parents leave; `names` and `mounts` are its `cgroup` and `mountinfo`.
pub(super) fn rooms(root: &Path, names: &str, mounts: &str) -> Vec<Room> {
    let mut rooms = Vec::new();
    for version in &VERSIONS {
        let Some(name) = version.name(names) else { continue };
        let mut found: Vec<(PathBuf, PathBuf)> = mounts.lines().filter_map(|line| version.mount(line)).collect();
        if found.is_empty() {
            found.push(("/".into(), version.usual.into()));
        }
        for (top, mount) in found {
            // A group outside of what is mounted has no files here, but the mount is one of its parents, or itself under
            // another name.
            let below = Path::new(name).strip_prefix(&top).unwrap_or(Path::new(""));
            let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            let mount = root.join(mount.strip_prefix("/").unwrap_or(&mount));
            rooms.extend(below.ancestors().flat_map(|group| version.left(&mount.join(group))));
        }
    }
    rooms
}

impl Version {
    /// The name of the group of this process, a path from the root of the groups.
    fn name<'a>(&self, names: &'a str) -> Option<&'a str> {
        names.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, name) = rest.split_once(':')?;
            let ours = match self.file_system {
                "cgroup2" => line.starts_with("0::"),
                _ => controllers.split(',').any(|controller| controller == "memory"),
            };
            ours.then_some(name)
        })
    }

    /// The group that is mounted and where, by a line of `mountinfo` (proc_pid_mountinfo(5)), if it is of this version.
    fn mount(&self, line: &str) -> Option<(PathBuf, PathBuf)> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (top, mount) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let ours = kind == self.file_system && (kind == "cgroup2" || options.split(',').any(|name| name == "memory"));
        ours.then(|| (unescaped(top).into(), unescaped(mount).into()))
    }

    /// What the limits of one group leave.
    fn left(&self, group: &Path) -> Vec<Room> {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let value = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let Some(taken) = value(self.taken) else { return Vec::new() };
        let stat = read("memory.stat").unwrap_or_default();
        let reclaimable = self.reclaimable.iter().filter_map(|name| number(&stat, name)).fold(0, u64::saturating_add);
        let taken = taken.saturating_sub(reclaimable);
        let room = |file: &&str| {
            let most = value(file).filter(|most| *most < NONE)?;
            Some(Room { bytes: most.saturating_sub(taken), limit: Limit::Group(group.join(file)) })
        };
        self.limits.iter().filter_map(room).collect()
    }
}

/// A path of `mountinfo`, in which blanks and the backslash are octal numbers.
fn unescaped(path: &str) -> String {
    let octal = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octal.iter().fold(path.to_string(), |path, (number, character)| path.replace(number, character))
}
