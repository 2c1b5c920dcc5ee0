//! What others wrote and the binary and the Python package hold: licences, sources and versions as `deny.toml` allows them, and the notices that
//! are passed on.
//!
//! `cargo deny` does the same and looks at advisories too; it is run where it is installed.

use crate::cargo_output;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file with the notices.
pub const NOTICES: &str = "THIRD-PARTY-NOTICES.txt";
/// The rules.
const RULES: &str = "deny.toml";
/// The target whose crates are looked at: the same notices on every machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The members that are handed out compiled: the binary, and the module of the Python package.
const PROGRAMS: [&str; 2] = ["lowbit-cli", "lowbit-python"];
/// How files with a licence begin.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT"];
/// Of several licences, the first of these is taken.
const PREFERRED: &[&str] = &["MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "Zlib"];

/// What `cargo deny` says where it cannot fetch its advisories.
const UNREACHABLE: &str = "failed to fetch advisory database";

/// A crate of somebody else.
struct Package {
    name: String,
    version: String,
    license: String,
    source: String,
    folder: PathBuf,
    /// Whether it brings a library in another language along.
    links: bool,
}

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

/// An older version that is known to stand beside a newer one.
#[derive(Deserialize)]
struct Skip {
    name: String,
    version: String,
}

/// Checks licences, sources, versions and notices, and what `cargo deny` says where it is installed.
pub fn check(root: &Path) -> Result<String, Vec<String>> {
    let one = |message: String| vec![message];
    let text = std::fs::read_to_string(root.join(RULES)).map_err(|e| one(format!("{RULES}: {e}")))?;
    let rules: Rules = toml::from_str(&text).map_err(|e| one(format!("{RULES}: {e}")))?;
    let packages = packages(root).map_err(one)?;
    let mut wrong = judge(&packages, &rules);
    let stored = std::fs::read_to_string(root.join(NOTICES)).unwrap_or_default();
    if stored != notices(&packages).map_err(one)? {
        wrong.push(format!("{NOTICES} is not what the crates say: run `cargo xtask notices`"));
    }
    let checked = denied(root).unwrap_or_else(|message| {
        wrong.push(message);
        ""
    });
    match wrong.is_empty() {
        true => Ok(format!("{} crates of others with allowed licences; {checked}", packages.len())),
        false => Err(wrong),
    }
}

/// Writes the notices; returns how many crates they name.
pub fn write_notices(root: &Path) -> Result<usize, String> {
    let packages = packages(root)?;
    std::fs::write(root.join(NOTICES), notices(&packages)?).map_err(|e| format!("{NOTICES}: {e}"))?;
    Ok(packages.len())
}

/// All crates that are built into what is handed out, or build it, sorted.
fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let run = |arguments: &str| cargo_output(root, arguments);
    let tree = run(&format!(
        "tree --locked {} --edges normal,build --target {TARGET} --prefix none --no-dedupe --format {{p}}",
        PROGRAMS.map(|name| format!("--package {name}")).join(" ")
    ))?;
    let used: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata = run(&format!("metadata --locked --format-version 1 --filter-platform {TARGET}"))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let all = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let mut packages: Vec<Package> = all
        .iter()
        .map(|value| {
            let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
            let folder = PathBuf::from(text("manifest_path")).parent().map(Path::to_owned).unwrap_or_default();
            let links = value["links"].is_string();
            let (name, version, license) = (text("name"), text("version"), text("license"));
            Package { name, version, license, source: text("source"), folder, links }
        })
        .filter(|p| !p.source.is_empty() && used.contains(&(&p.name, &p.version)))
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

/// What `cargo deny` says, in words.
///
/// # Errors
/// Its messages, when it refuses something.
fn denied(root: &Path) -> Result<&'static str, String> {
    let deny = |args: &[&str]| Command::new("cargo-deny").args(args).current_dir(root).output();
    if !deny(&["--version"]).is_ok_and(|output| output.status.success()) {
        return Ok("cargo deny is not installed: no advisories");
    }
    let check = |what: &[&str]| -> Result<(), String> {
        let output = deny(&[&["deny", "--color", "never", "check"], what].concat()).map_err(|e| e.to_string())?;
        let told = String::from_utf8_lossy(&output.stderr).trim().to_string();
        if output.status.success() { Ok(()) } else { Err(format!("cargo deny check {}: {told}", what.join(" "))) }
    };
    check(&["licenses", "bans", "sources"])?;
    match check(&["advisories"]) {
        Ok(()) => Ok("cargo deny agrees"),
        Err(told) if told.contains(UNREACHABLE) => Ok("cargo deny agrees, but its advisories are out of reach"),
        Err(told) => Err(told),
    }
}

fn judge(packages: &[Package], rules: &Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for p in packages {
        let (name, version) = (&p.name, &p.version);
        if !allowed(&p.license, &rules.licenses.allow) {
            wrong.push(format!("{name} {version}: licence `{}` is not one that {RULES} allows", p.license));
        }
        if !p.source.starts_with("registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{name} {version}: comes from `{}`, not from the registry", p.source));
        }
        let known = |skip: &Skip| skip.name == *name && within(version, &skip.version);
        if !rules.bans.skip.iter().any(known) {
            versions.entry(name).or_default().push(version);
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        wrong.push(format!("{name} is there in versions {}; drop one or name it in {RULES}", versions.join(" and ")));
    }
    wrong
}

/// Whether a version is one of those that `2` or `0.3` means.
fn within(version: &str, prefix: &str) -> bool {
    version.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a licence expression (SPDX, `/` for OR) can be met with allowed licences alone.
fn allowed(expression: &str, allow: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allow);
    met && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words, allow: &BTreeSet<String>) -> bool {
    let mut met = every(words, allow);
    while words.next_if_eq(&"OR").is_some() {
        met |= every(words, allow);
    }
    met
}

fn every(words: &mut Words, allow: &BTreeSet<String>) -> bool {
    let mut met = licence(words, allow);
    while words.next_if_eq(&"AND").is_some() {
        met &= licence(words, allow);
    }
    met
}

fn licence(words: &mut Words, allow: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => any(words, allow) & (words.next() == Some(")")),
        Some(name) => {
            // An exception gives more rights, never fewer.
            let exception = words.next_if_eq(&"WITH").is_none() || words.next().is_some();
            exception && allow.contains(name)
        }
        None => false,
    }
}

/// All licence texts, each once, under the crates it stands for.
fn notices(packages: &[Package]) -> Result<String, String> {
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut bare = Vec::new();
    for p in packages {
        let title = format!("{} {} ({})", p.name, p.version, p.license);
        let files = files(p).map_err(|e| format!("{}: {e}", p.folder.display()))?;
        if files.is_empty() {
            bare.push(title.clone());
        }
        for file in files {
            let text = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace('\r', "");
            let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if key.chars().take(200).collect::<String>().to_uppercase().contains("GENERAL PUBLIC LICENSE")
                && !p.license.contains("GPL")
            {
                // The other choice for the C library, or for programs beside it.
                continue;
            }
            let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
            let entry = texts.entry(key).or_insert_with(|| (trimmed.join("\n").trim_matches('\n').into(), Vec::new()));
            let inside = file.strip_prefix(&p.folder).ok().and_then(Path::parent);
            entry.1.push(match inside {
                Some(part) if part != Path::new("") => format!("{title}: {}", part.display()),
                _ => title.clone(),
            });
        }
    }
    let mut sections: Vec<(String, Vec<String>)> = texts.into_values().collect();
    sections.iter_mut().for_each(|(_, names)| names.dedup());
    sections.sort_by(|a, b| a.1.cmp(&b.1));
    let line = "-".repeat(100);
    let mut out = format!(
        "The lowbit binary and Python package for {TARGET} are made of these works of others. Written by `cargo xtask notices`.\n"
    );
    for (text, names) in sections {
        out += &format!("\n{line}\n{}\n{line}\n\n{text}\n", names.join("\n"));
    }
    if !bare.is_empty() {
        out += &format!("\n{line}\nWithout a file of its licence:\n{}\n", bare.join("\n"));
    }
    Ok(out)
}

/// The files with the licence of a crate, and of the library in another language that it brings along.
fn files(p: &Package) -> std::io::Result<Vec<PathBuf>> {
    let mut found = chosen(licence_files(&p.folder)?, &p.license);
    if p.links {
        for entry in std::fs::read_dir(&p.folder)? {
            let path = entry?.path();
            if path.is_dir() {
                found.extend(licence_files(&path)?);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn licence_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|known| name.starts_with(known)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where a crate offers several licences, the files of one of them, and those that belong to none.
fn chosen(files: Vec<PathBuf>, license: &str) -> Vec<PathBuf> {
    if license.contains("AND") {
        return files;
    }
    let short = |name: &str| name.split('-').next().unwrap_or(name).to_uppercase();
    let of = |path: &Path, name: &str| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        file.contains(&format!("-{}", short(name))) || file.contains(&format!("_{}", short(name)))
    };
    let Some(first) = PREFERRED.iter().find(|name| files.iter().any(|file| of(file, name))) else { return files };
    let other = |file: &PathBuf| PREFERRED.iter().any(|name| name != first && of(file, name)) && !of(file, first);
    files.into_iter().filter(|file| !other(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, license: &str) -> Package {
        let source = "registry+https://github.com/rust-lang/crates.io-index".into();
        let (name, version, license) = (name.into(), version.into(), license.into());
        Package { name, version, license, source, folder: PathBuf::new(), links: false }
    }

    fn rules() -> Rules {
        let skip = vec![Skip { name: "syn".into(), version: "2".into() }];
        Rules { licenses: Licenses { allow: ["MIT", "Zlib"].map(String::from).into() }, bans: Bans { skip } }
    }

    #[test]
    fn licence_expressions_are_understood() {
        let allow = rules().licenses.allow;
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(MIT OR X) AND Zlib", "MIT WITH LLVM-exception OR X"] {
            assert!(allowed(good, &allow), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR X) AND Y", "(MIT", "MIT Zlib", "OR"] {
            assert!(!allowed(bad, &allow), "{bad}");
        }
    }

    #[test]
    fn two_versions_and_strange_sources_are_told() {
        let mut packages =
            vec![package("a", "1.0.0", "MIT"), package("syn", "2.0.1", "MIT"), package("syn", "3.0.0", "MIT")];
        assert!(judge(&packages, &rules()).is_empty());
        packages.push(package("a", "2.0.0", "GPL-3.0"));
        packages[0].source = "git+https://example.org".into();
        let wrong = judge(&packages, &rules());
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].contains("example.org") && wrong[1].contains("GPL-3.0"), "{wrong:?}");
        assert!(wrong[2].contains("1.0.0 and 2.0.0"), "{wrong:?}");
    }

    #[test]
    fn one_of_several_licences_is_passed_on() {
        let files = ["COPYRIGHT", "LICENSE-APACHE", "LICENSE-MIT"].map(PathBuf::from).to_vec();
        let names =
            |license: &str| chosen(files.clone(), license).iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names("MIT OR Apache-2.0"), ["COPYRIGHT", "LICENSE-MIT"]);
        assert_eq!(names("MIT AND Apache-2.0"), ["COPYRIGHT", "LICENSE-APACHE", "LICENSE-MIT"]);
        assert_eq!(chosen(vec!["LICENSE".into()], "MIT"), [PathBuf::from("LICENSE")]);
    }
}
