//! The packages of the workspace, as `cargo metadata` tells them.

use serde_json::Value;

/// One member of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, relative to the workspace.
    pub folder: String,
    /// Root files of its library, binaries and build script, relative to the workspace.
    pub roots: Vec<String>,
    /// Names of the packages it depends on, with the kind: `normal`, `dev` or `build`.
    pub dependencies: Vec<(String, String)>,
}

/// The workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its absolute folder.
    pub root: String,
    /// Its members.
    pub packages: Vec<Package>,
}

impl Workspace {
    /// Reads the output of `cargo metadata --format-version 1 --no-deps`; names the field that is missing.
    pub fn parse(json: &str) -> Result<Workspace, String> {
        let value: Value = serde_json::from_str(json).map_err(|e| format!("cargo metadata: {e}"))?;
        let root = text(&value, "workspace_root")?.to_owned();
        let packages = list(&value, "packages")?.iter().map(|p| package(p, &root)).collect::<Result<_, _>>()?;
        Ok(Workspace { root, packages })
    }
}

fn package(value: &Value, root: &str) -> Result<Package, String> {
    let relative =
        |path: &str| path.strip_prefix(root).unwrap_or(path).trim_start_matches(['/', '\\']).replace('\\', "/");
    let manifest = relative(text(value, "manifest_path")?);
    let mut roots = Vec::new();
    for target in list(value, "targets")? {
        let kinds = list(target, "kind")?.iter().filter_map(Value::as_str);
        if !kinds.into_iter().any(|k| ["test", "bench", "example"].contains(&k)) {
            roots.push(relative(text(target, "src_path")?));
        }
    }
    let mut dependencies = Vec::new();
    for dependency in list(value, "dependencies")? {
        let kind = dependency["kind"].as_str().unwrap_or("normal");
        dependencies.push((text(dependency, "name")?.to_owned(), kind.to_owned()));
    }
    Ok(Package {
        name: text(value, "name")?.to_owned(),
        folder: manifest.trim_end_matches("/Cargo.toml").to_owned(),
        roots,
        dependencies,
    })
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    let missing = || format!("cargo metadata: field `{field}` is missing or not a string");
    value[field].as_str().ok_or_else(missing)
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    let missing = || format!("cargo metadata: field `{field}` is missing or not a list");
    value[field].as_array().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_roots_and_dependencies_are_read() {
        let value = json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "a",
                "manifest_path": "/w/crates/a/Cargo.toml",
                "targets": [
                    {"kind": ["lib"], "src_path": "/w/crates/a/src/lib.rs"},
                    {"kind": ["test"], "src_path": "/w/crates/a/tests/t.rs"},
                    {"kind": ["example"], "src_path": "/w/crates/a/examples/e.rs"},
                    {"kind": ["custom-build"], "src_path": "/w/crates/a/build.rs"},
                ],
                "dependencies": [
                    {"name": "b", "kind": null},
                    {"name": "c", "kind": "dev", "rename": "d"},
                ],
            }],
        });
        let workspace = Workspace::parse(&value.to_string()).unwrap();
        let package = Package {
            name: "a".into(),
            folder: "crates/a".into(),
            roots: vec!["crates/a/src/lib.rs".into(), "crates/a/build.rs".into()],
            dependencies: vec![("b".into(), "normal".into()), ("c".into(), "dev".into())],
        };
        assert_eq!((&*workspace.root, &workspace.packages[0]), ("/w", &package));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Workspace::parse("{").unwrap_err().contains("cargo metadata"));
        let error = Workspace::parse(r#"{"workspace_root": "/w"}"#).unwrap_err();
        assert!(error.contains("`packages`"), "{error}");
        let error = Workspace::parse(r#"{"workspace_root": "/w", "packages": [{}]}"#).unwrap_err();
        assert!(error.contains("`manifest_path`"), "{error}");
    }
}
