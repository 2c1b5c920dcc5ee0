//! Programs of a few lines that use the library, and the examples.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_matrix_is_quantized_and_multiplied() -> Result<(), Box<dyn Error>> {
    let (rows, cols) = (64, 128);
    let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32).sin()).collect();
    let x: Vec<f32> = (0..cols).map(|i| (i as f32).cos()).collect();
    let w = lowbit::quantize("nf4", &weights, rows, cols)?;
    let y = w.matmul(&x)?;
    let exact: f32 = weights[..cols].iter().zip(&x).map(|(w, x)| w * x).sum();
    assert!((y[0] - exact).abs() < 3.0 && w.bytes() * 7 < 4 * rows * cols, "{} {exact} {}", y[0], w.bytes());
    Ok(())
}

#[test]
fn the_shipped_model_chats() -> Result<(), Box<dyn Error>> {
    let model = lowbit::Model::open(lowbit::SHIPPED)?;
    let mut text = String::new();
    for piece in model.chat("This film is").max_tokens(64).stream()? {
        text += &piece?;
    }
    assert!(text.split_whitespace().count() > 5, "{text}");
    Ok(())
}

/// What the first page shows is a program that the tests of `docs/library.md` compile.
#[test]
fn the_first_page_shows_programs_that_are_tested() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a page");
    let (page, tested) = (read("README.md"), read("docs/library.md"));
    let programs: Vec<&str> = page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!programs.is_empty() && programs.iter().all(|program| tested.contains(program)), "{programs:?}");
}

/// An example's program: beside the tests where all was built, else built now.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    let profile = tests.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", "lowbit", "--example", name]);
        build.args(profile.ends_with("release").then_some("--release"));
        assert!(build.status().expect("cargo starts").success(), "{name} is built");
    }
    path
}

/// What an example prints.
fn printed(name: &str, args: &[&str]) -> String {
    let output = Command::new(example(name)).args(args).output().expect("starts");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "a library does not print: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_example_runs_without_data() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let known = ["chat", "classify", "quantize", "train_tiny"];
    let mut found: Vec<String> = std::fs::read_dir(directory)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, known);
    let quantize = printed("quantize", &[]);
    assert_eq!(quantize.lines().count(), lowbit::kernels::FORMATS.len(), "{quantize}");
    assert!(printed("chat", &[]).trim().len() > 20);
    let classify = printed("classify", &[]);
    assert!(classify.contains("horse is old: animal") && classify.contains("by the window: tool"), "{classify}");
    let train = printed("train_tiny", &["40"]);
    assert!(train.contains("step 40 of 40") && train.lines().last().expect("lines").starts_with("the cat"), "{train}");
}
