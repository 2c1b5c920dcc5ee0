//! A C program links the static library and answers as Rust does.
#![forbid(unsafe_code)]

use lowbit::Sequential;
use lowbit::base::testing::{Need, skipped};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The static library that was built with this test.
fn library() -> Option<PathBuf> {
    let deps = std::env::current_exe().ok()?.parent()?.to_path_buf();
    let all = std::fs::read_dir(deps).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = all.filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("liblowbit_c") && name.ends_with(".a")
    });
    ours.max_by_key(|path| path.metadata().and_then(|facts| facts.modified()).ok())
}

/// The C program, compiled; none where there is no C compiler.
fn program(home: &Path) -> Option<PathBuf> {
    if Command::new("cc").arg("--version").output().is_err() {
        skipped(Need::Environment, "no C compiler `cc`");
        return None;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = home.join("program");
    let built = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&out)
        .arg(here.join("tests/program.c"))
        .arg("-I")
        .arg(here.join("include"))
        .arg(library().expect("the static library is built with this test"))
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .expect("cc runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(out)
}

fn ask(program: &Path, model: &Path, input: &str) -> (Option<i32>, Vec<String>) {
    let output = Command::new(program).arg(model).arg(input).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), text.lines().map(String::from).collect())
}

#[test]
fn a_c_program_answers_as_rust_does() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(program) = program(home.path()) else { return };
    let x: Vec<[f32; 2]> =
        (0..200).map(|i| [(i * 37 % 101) as f32 / 50.0 - 1.0, (i * 61 % 103) as f32 / 51.0]).collect();
    let y: Vec<usize> = x.iter().map(|[a, b]| usize::from(a + b > 1.0)).collect();
    let network = Sequential::rows(2).bit_linear(16).relu().linear(2).labels(["low", "high"]).epochs(5.0);
    // One file, which needs nothing beside it.
    let classifier = home.path().join("alone/classifier.safetensors");
    std::fs::create_dir(home.path().join("alone")).expect("a directory");
    let model = network.fit(&x, &y).and_then(|fitted| fitted.deploy(&classifier)).expect("trained");
    let rows: Vec<String> = x[..3].iter().map(|[a, b]| format!("{a},{b}")).collect();
    let expected: Vec<String> = model
        .classify_all(&x[..3])
        .expect("classified")
        .iter()
        .flat_map(|answer| {
            let both = ["low", "high"].iter().zip(&answer.probabilities);
            both.map(|(label, p)| format!("{label} {p:.6}", p = *p as f32)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ask(&program, &classifier, &rows.join(",")), (Some(0), expected));

    let beside = std::fs::read_dir(home.path().join("alone")).expect("there").count();
    assert_eq!(beside, 1, "one file is the whole model");

    let values: Vec<f32> = x.iter().map(|[a, b]| 100.0 + 10.0 * a * b).collect();
    let regression = home.path().join("regression");
    let network = Sequential::rows(2).bit_linear(16).relu().linear(1).epochs(5.0);
    let model = network.fit(&x, &values).and_then(|fitted| fitted.deploy(&regression)).expect("trained");
    let expected = format!("- {:.6}", model.predict(x[1]).expect("predicted") as f32);
    assert_eq!(ask(&program, &regression, &rows[1]), (Some(0), vec![expected]));
}

#[test]
fn what_cannot_be_answered_is_said() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(program) = program(home.path()) else { return };
    let (code, lines) = ask(&program, &home.path().join("nothing"), "1");
    assert!(code == Some(50) && lines[0].contains("nothing"), "{lines:?}");
    let model = Sequential::rows(2).bit_linear(4).relu().linear(2).epochs(1.0);
    let place = home.path().join("model");
    let fitted = model.fit([[0.0, 1.0], [1.0, 0.0]], &vec![0usize, 1]).expect("trained");
    fitted.deploy(&place).expect("stored");
    let (code, lines) = ask(&program, &place, "0,inf");
    assert!(code == Some(6) && lines[0].contains("not finite"), "{code:?} {lines:?}");
}

#[test]
fn the_header_is_short() {
    let header = include_str!("../include/lowbit.h");
    assert!(header.lines().count() <= 200);
    let source = include_str!("../src/lib.rs");
    for name in source.lines().filter_map(|line| line.split("extern \"C\" fn ").nth(1)?.split('(').next()) {
        assert!(header.contains(&format!("{name}(")), "{name}");
    }
}
