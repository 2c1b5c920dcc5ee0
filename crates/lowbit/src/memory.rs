//! Whether a model fits into memory, found before the work starts.

use crate::failure::{Code, Failure};
use crate::output;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::listing::Listing;
use lowbit_model::{Config, Recipe};
use std::path::Path;

/// What a model in use takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// All parameters under the recipe.
    pub weights: u64,
    /// Keys and values of all tokens.
    pub cache: u64,
}

impl Need {
    /// A network under a recipe, whose sequences have `tokens` tokens in all.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the kernels lack a format.
    pub fn of(config: &Config, recipe: &Recipe, kind: CacheKind, tokens: usize) -> Result<Self, Failure> {
        let listing = Listing::new(config)?;
        Ok(Need { weights: listing.bytes(recipe)?, cache: listing.cache_bytes(kind).saturating_mul(tokens as u64) })
    }

    /// Sees that there is as much memory; passes where the system does not tell.
    ///
    /// # Errors
    /// [`Code::Memory`] with what is needed, what there is, and what takes less.
    pub fn check(self) -> Result<(), Failure> {
        match available(Path::new("/")) {
            Some(there) => self.fits(there),
            None => Ok(()),
        }
    }

    fn fits(self, there: u64) -> Result<(), Failure> {
        let all = self.weights.saturating_add(self.cache);
        if all <= there {
            return Ok(());
        }
        let [all, weights, cache, there] = [all, self.weights, self.cache, there].map(output::bytes);
        let text = format!("needs {all} of memory (weights {weights}, keys and values {cache}), available are {there}");
        let message = format!("{text}; take fewer tokens, keys and values in int8, or a recipe with fewer bits");
        Err(Failure { code: Code::Memory, message })
    }
}

/// Bytes this process may still use: what the system has available, no more than its limits of address space and of the
/// control group leave. `root` is where the system's files lie.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let field = |text: &str, name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let system = read("proc/meminfo").and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib << 10);
    let space = read("proc/self/limits").and_then(|text| field(&text, "Max address space"));
    let group = read("proc/self/cgroup").and_then(|text| {
        let name = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/').to_string();
        let file = |end: &str| read(&format!("sys/fs/cgroup/{name}/{end}")).and_then(number);
        Some(file("memory.max")?.saturating_sub(file("memory.current")?))
    });
    [system, space, group].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        assert_eq!(available(root.path()), None);
        write("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:     1000 kB\n");
        write("proc/self/limits", "Max address space         unlimited            unlimited            bytes\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("proc/self/cgroup", "0::/user/x\n");
        write("sys/fs/cgroup/user/x/memory.max", "max\n");
        write("sys/fs/cgroup/user/x/memory.current", "100\n");
        assert_eq!(available(root.path()), Some(1_024_000));
        write("sys/fs/cgroup/user/x/memory.max", "600100\n");
        assert_eq!(available(root.path()), Some(600_000));
        write("proc/self/limits", "Max address space         500000               unlimited            bytes\n");
        assert_eq!(available(root.path()), Some(500_000));
    }

    #[test]
    fn what_does_not_fit_is_told_in_parts() {
        let need = Need { weights: 3_000_000_000, cache: 2_000_000_000 };
        assert!(need.fits(5_000_000_000).is_ok());
        let failure = need.fits(4_000_000_000).expect_err("too much");
        assert_eq!(failure.code, Code::Memory);
        assert!(failure.message.contains("needs 5") && failure.message.contains("available are 4"), "{failure}");
    }
}
