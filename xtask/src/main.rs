//! `cargo xtask check`: what a compiler does not check in this workspace.
#![forbid(unsafe_code)]

mod copies;
mod floors;
mod formats;
mod guards;
mod hygiene;
mod links;
mod lists;
mod metadata;
mod modules;
mod publish;
mod quiet;
mod sizes;
mod source;
mod supply;
mod titles;

use metadata::Workspace;
use source::Tree;
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask check [--quick]   (--quick leaves out clippy and the documentation)
       cargo xtask notices           (writes the licences of all crates in the binary)";

/// What a check looks at.
struct House {
    workspace: Workspace,
    tree: Tree,
}

/// One check: a summary, or one line for each thing that is wrong.
struct Check {
    name: &'static str,
    /// Whether it compiles the workspace.
    slow: bool,
    run: fn(&House) -> Result<String, Vec<String>>,
}

/// Every check, in the order they run.
static CHECKS: &[Check] = &[
    Check { name: "floors", slow: false, run: |house| floors::check(&house.workspace.packages, floors::FLOORS) },
    Check { name: "lists", slow: false, run: |house| lists::check(&house.tree, lists::LISTS) },
    Check { name: "copies", slow: false, run: |house| copies::check(&house.tree, lists::LISTS) },
    Check { name: "modules", slow: false, run: |house| modules::check(&house.tree) },
    Check { name: "unsafe", slow: false, run: |house| guards::check(&house.tree, &house.workspace.packages) },
    Check { name: "quiet", slow: false, run: |house| quiet::check(&house.tree, &house.workspace.packages) },
    Check { name: "publish", slow: false, run: |house| publish::check(&house.tree, &house.workspace.packages) },
    Check { name: "formats", slow: false, run: |house| formats::check(&house.tree) },
    Check { name: "text", slow: false, run: |house| hygiene::check(&house.tree) },
    Check { name: "links", slow: false, run: linked },
    Check { name: "titles", slow: false, run: |house| titles::check(Path::new(&house.workspace.root)) },
    Check { name: "supply", slow: false, run: |house| supply::check(Path::new(&house.workspace.root)) },
    Check { name: "format", slow: false, run: formatted },
    Check {
        name: "clippy",
        slow: true,
        run: |house| {
            let arguments = "clippy --workspace --all-targets --release -- -D warnings";
            cargo(house, arguments, &[])
        },
    },
    Check {
        name: "documentation",
        slow: true,
        run: |house| {
            let arguments = "doc --workspace --no-deps --release";
            cargo(house, arguments, &[("RUSTDOCFLAGS", "-D warnings")])
        },
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(|a| &**a).collect();
    let quick = match arguments[..] {
        ["check"] => false,
        ["check", "--quick"] => true,
        ["notices"] => return notices(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match open() {
        Ok(house) if run(&house, quick) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn notices() -> ExitCode {
    match open().and_then(|house| supply::write_notices(Path::new(&house.workspace.root))) {
        Ok(crates) => {
            println!("{}: {crates} crates", supply::NOTICES);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the checks and prints what they found; true when all passed.
fn run(house: &House, quick: bool) -> bool {
    print!("{}", sizes::report(&house.tree, &house.workspace.packages, floors::FLOORS));
    let mut failed = Vec::new();
    for check in CHECKS.iter().filter(|c| !(quick && c.slow)) {
        match (check.run)(house) {
            Ok(summary) => println!("ok    {}: {summary}", check.name),
            Err(wrong) => {
                failed.push(check.name);
                println!("FAIL  {}", check.name);
                wrong.iter().for_each(|line| println!("      {line}"));
            }
        }
    }
    if quick {
        println!("left out by --quick: clippy, documentation");
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    failed.is_empty()
}

fn open() -> Result<House, String> {
    let workspace = Workspace::parse(&cargo_output(Path::new("."), "metadata --format-version 1 --no-deps")?)?;
    let root = Path::new(&workspace.root);
    let tree = Tree::read(root).map_err(|e| format!("{}: {e}", root.display()))?;
    Ok(House { workspace, tree })
}

/// The cargo that runs this program.
fn program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// What cargo prints in a folder.
fn cargo_output(folder: &Path, arguments: &str) -> Result<String, String> {
    let what = || format!("cargo {}", arguments.split(' ').next().unwrap_or_default());
    let output = Command::new(program()).args(arguments.split(' ')).current_dir(folder).output();
    let output = output.map_err(|e| format!("{}: {e}", what()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Whether links between pages lead to files and headings.
fn linked(house: &House) -> Result<String, Vec<String>> {
    let root = Path::new(&house.workspace.root);
    let wrong = links::dead(&house.tree, &|path| root.join(path).exists());
    match wrong.is_empty() {
        true => Ok(format!("those of {} pages lead to files and headings", house.tree.all("md").count())),
        false => Err(wrong),
    }
}

/// Whether every file is formatted: cargo finds modules by their declarations, and those that a macro declares by the lists.
fn formatted(house: &House) -> Result<String, Vec<String>> {
    let told = cargo(house, "fmt --all --check", &[])?;
    let listed = lists::LISTS.iter().filter(|list| list.extension == "rs");
    let files = listed.flat_map(|list| lists::members(&house.tree, list)).map(|file| &file.path);
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--check", "--edition", "2024"]).args(files).current_dir(&house.workspace.root);
    match rustfmt.status() {
        Ok(status) if status.success() => Ok(format!("{told}, and modules that macros declare")),
        Ok(status) => Err(vec![format!("rustfmt of modules that macros declare: {status}; see its messages")]),
        Err(e) => Err(vec![format!("rustfmt: {e}")]),
    }
}

/// Runs cargo in the workspace; its own messages go to the terminal.
fn cargo(house: &House, arguments: &str, variables: &[(&str, &str)]) -> Result<String, Vec<String>> {
    let status = Command::new(program())
        .args(arguments.split(' '))
        .envs(variables.iter().copied())
        .current_dir(&house.workspace.root)
        .status();
    match status {
        Ok(status) if status.success() => Ok(format!("cargo {arguments}")),
        Ok(status) => Err(vec![format!("cargo {arguments}: {status}; see its messages")]),
        Err(e) => Err(vec![format!("cargo {arguments}: {e}")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house() -> House {
        open().expect("the workspace this test is part of")
    }

    #[test]
    fn checks_have_names_of_their_own() {
        let mut names: Vec<&str> = CHECKS.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn the_workspace_is_read() {
        let house = house();
        let names: Vec<&str> = house.workspace.packages.iter().map(|p| &*p.name).collect();
        for (name, _) in floors::FLOORS {
            assert!(names.contains(name), "{name} in {names:?}");
        }
        assert!(house.tree.get("xtask/src/main.rs").is_some());
        assert!(house.tree.get("Cargo.toml").is_some());
        assert!(house.tree.files.iter().all(|f| !f.path.starts_with("target")));
    }

    #[test]
    fn a_command_that_fails_is_told() {
        let wrong = cargo(&house(), "no-such-command", &[]).unwrap_err();
        assert!(wrong[0].starts_with("cargo no-such-command: "), "{wrong:?}");
    }
}
