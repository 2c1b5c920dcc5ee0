//! Dependencies between members point strictly down the floors.

use crate::metadata::Package;

/// Instead of a floor, for a member that stands outside: it depends on no other, and no other on it.
pub const OUTSIDE: u8 = u8::MAX;

/// The floor of every member.
pub static FLOORS: &[(&str, u8)] = &[
    ("lowbit-base", 0),
    ("lowbit-kernels", 1),
    ("lowbit-model", 2),
    ("lowbit-train", 3),
    ("lowbit-eval", 3),
    ("lowbit-hub", 3),
    ("lowbit-serve", 3),
    ("lowbit", 4),
    ("lowbit-cli", 5),
    ("lowbit-python", 5),
    ("lowbit-c", 5),
    ("xtask", OUTSIDE),
];

/// Checks every arrow between members, dev-dependencies and build-dependencies included.
pub fn check(packages: &[Package], floors: &[(&str, u8)]) -> Result<String, Vec<String>> {
    let floor = |name: &str| floors.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    let member = |name: &str| packages.iter().any(|p| p.name == name);
    let mut wrong = Vec::new();
    for (name, _) in floors.iter().filter(|(name, _)| !member(name)) {
        wrong.push(format!("FLOORS lists `{name}`, which is no member of the workspace"));
    }
    let mut arrows = 0;
    for package in packages {
        let from = &package.name;
        let Some(high) = floor(from) else {
            wrong.push(format!("`{from}` has no floor: add it to FLOORS in xtask/src/floors.rs"));
            continue;
        };
        for (to, kind) in package.dependencies.iter().filter(|(to, _)| member(to)) {
            arrows += 1;
            if let Some(fault) = fault(high, floor(to).unwrap_or(OUTSIDE)) {
                wrong.push(format!("`{from}` depends on `{to}` ({kind}), which {fault}"));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("{} crates, {arrows} arrows, all down", packages.len()))
}

/// What is wrong with an arrow between two floors.
fn fault(from: u8, to: u8) -> Option<String> {
    match (from, to) {
        (OUTSIDE, _) | (_, OUTSIDE) => Some("crosses into a crate that stands outside the floors".into()),
        _ if to == from => Some(format!("is its neighbour on floor {to}")),
        _ if to > from => Some(format!("is above it: floor {to}, not below {from}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, &str)]) -> Package {
        let owned = |(name, kind): &(&str, &str)| (name.to_string(), kind.to_string());
        Package {
            name: name.into(),
            folder: String::new(),
            roots: vec![],
            dependencies: dependencies.iter().map(owned).collect(),
        }
    }

    const SMALL: &[(&str, u8)] = &[("low", 0), ("left", 1), ("right", 1), ("outside", OUTSIDE)];

    /// The only complaint about a workspace with these dependencies of each member.
    fn complaint(low: &[(&str, &str)], left: &[(&str, &str)], outside: &[(&str, &str)]) -> String {
        let packages = [package("low", low), package("left", left), package("right", &[]), package("outside", outside)];
        match check(&packages, SMALL) {
            Ok(summary) => summary,
            Err(wrong) => wrong.join("\n"),
        }
    }

    #[test]
    fn arrows_point_down() {
        let fine = complaint(&[("serde", "normal")], &[("low", "normal"), ("low", "dev")], &[]);
        assert_eq!(fine, "4 crates, 2 arrows, all down");
        assert!(complaint(&[("left", "normal")], &[], &[]).contains("is above it: floor 1"));
        assert!(complaint(&[("left", "dev")], &[], &[]).contains("(dev)"));
        assert!(complaint(&[], &[("right", "dev")], &[]).contains("neighbour on floor 1"));
        assert!(complaint(&[], &[("left", "build")], &[]).contains("neighbour"));
        assert!(complaint(&[], &[], &[("low", "normal")]).contains("outside"));
        assert!(complaint(&[], &[("outside", "normal")], &[]).contains("outside"));
    }

    #[test]
    fn members_and_list_agree() {
        let wrong = check(&[package("low", &[]), package("new", &[])], SMALL).unwrap_err();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(wrong.iter().any(|w| w.contains("`new` has no floor")));
        assert!(wrong.iter().any(|w| w.contains("`right`, which is no member")));
    }
}
