//! Where the data sets are.

use crate::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory of the data sets: `explicit` (`--data`), else `LOWBIT_DATA`, else `../shared/data`.
pub fn data_dir(explicit: Option<&Path>) -> Result<PathBuf, Error> {
    choose_dir(explicit, std::env::var_os("LOWBIT_DATA").as_deref(), Path::new("../shared/data"))
}

/// Whether somebody said where the data sets are.
pub(super) fn is_named(explicit: Option<&Path>) -> bool {
    explicit.is_some() || std::env::var_os("LOWBIT_DATA").is_some_and(|value| !value.is_empty())
}

fn choose_dir(explicit: Option<&Path>, variable: Option<&OsStr>, fallback: &Path) -> Result<PathBuf, Error> {
    let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
    for (origin, dir) in [("--data", explicit), ("LOWBIT_DATA", variable)] {
        match dir {
            Some(dir) if dir.is_dir() => return Ok(dir.into()),
            Some(dir) => {
                return Err(Error::usage(format!(
                    "{origin} is {}, which is not a directory: name the one that holds the data sets",
                    dir.display()
                )));
            }
            None => {}
        }
    }
    if fallback.is_dir() {
        return Ok(fallback.into());
    }
    Err(Error::usage("no data directory: pass --data DIR or set LOWBIT_DATA (the task `quickstart` needs neither)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directory_in_order_of_precedence() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (first, second, third) = (make("a"), make("b"), make("c"));
        let absent = dir.path().join("absent");
        let os = |path: &PathBuf| path.clone().into_os_string();
        assert_eq!(choose_dir(Some(&first), Some(&os(&second)), &third).unwrap(), first);
        assert_eq!(choose_dir(None, Some(&os(&second)), &third).unwrap(), second);
        assert_eq!(choose_dir(None, Some(OsStr::new("")), &third).unwrap(), third);
        assert_eq!(choose_dir(None, None, &third).unwrap(), third);
        let message = |explicit, variable| choose_dir(explicit, variable, &absent).unwrap_err().to_string();
        assert!(message(Some(&*absent), None).starts_with("--data is "));
        assert!(message(None, Some(absent.as_os_str())).starts_with("LOWBIT_DATA is "));
        assert_eq!(
            message(None, None),
            "no data directory: pass --data DIR or set LOWBIT_DATA (the task `quickstart` needs neither)"
        );
    }
}
