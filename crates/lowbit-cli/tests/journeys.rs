//! Whole journeys: compare, interrupt, resume, verify; and training that survives being killed.

mod common;

use common::{good, lowbit, refused, run, small_suite};
use lowbit_base::file::Lock;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_comparison_is_resumed_after_a_signal_and_its_report_holds() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 200, 20);
    let mut child = lowbit()
        .current_dir(at)
        .args(["compare", "small.toml", "--out", "out"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once the first variant is stored, the second training is under way soon.
    let qat = at.join("out/variants/ternary_qat/training");
    for _ in 0..6000 {
        if qat.join("metrics.jsonl").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let status = child.wait().unwrap();
    // On a fast machine the comparison may have ended first.
    assert!(matches!(status.code(), Some(130 | 0)), "{status}");

    let output = run(at, &["compare", "small.toml", "--out", "out", "--json"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}");
    assert_eq!(
        printed.matches("kept from before").count(),
        if status.code() == Some(130) { 5 } else { 6 },
        "{printed}"
    );
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let records = results["records"].as_array().unwrap();
    for name in ["f32", "int8", "llm_int8", "nf4", "ternary_ptq", "ternary_qat"] {
        let record = records.iter().find(|r| r["model"] == name).unwrap();
        for measure in
            ["accuracy", "f1_macro", "weight_bytes", "latency_p50", "throughput/8", "throughput/32", "load_seconds"]
        {
            assert!(record["measures"][measure]["value"].as_f64().is_some_and(|v| v > 0.0), "{name} {measure}");
        }
    }
    assert!(records.iter().any(|r| r["detail"]["made"] == "baseline"));

    let printed = good(at, &["report", "out/results.json", "--verify"]);
    assert_eq!(printed, good(at, &["report", "out", "--verify"]));
    assert!(printed.contains("not who made them"), "{printed}");
    let printed = good(at, &["compare", "small.toml", "--out", "out"]);
    assert!(printed.lines().count() <= 25 && printed.contains("The report: out/report.html"), "{printed}");
    assert!(printed.contains("Choose for") && printed.contains("fastest"), "{printed}");
    another_seed(at);
    let page = fs::read_to_string(at.join("out/report.html")).unwrap();
    assert!(
        page.contains("<svg") && !page.contains("http://") || page.contains("http://www.w3.org"),
        "one self-contained file"
    );
    let csv = fs::read_to_string(at.join("out/results.csv")).unwrap();
    let row = csv.lines().find(|l| l.contains(",accuracy,")).unwrap();
    let digit = row.rfind(|c: char| ('1'..='8').contains(&c)).unwrap();
    let mut edited = row.to_string();
    edited.replace_range(digit..=digit, "9");
    fs::write(at.join("out/results.csv"), csv.replace(row, &edited)).unwrap();
    refused(at, &["report", "out", "--verify"], 7, &["out", "1 of"]);
    good(at, &["report", "out"]);
    good(at, &["report", "out", "--verify"]);
    let weights = at.join("out/variants/int8/model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    refused(at, &["report", "out", "--verify"], 7, &["1 of"]);

    small_suite(at, 201, 20);
    refused(at, &["compare", "small.toml", "--out", "out"], 3, &["out", "another suite"]);
}

/// A comparison that is finished gains a training of every network from the seed that follows.
fn another_seed(at: &Path) {
    let output = run(at, &["compare", "small.toml", "--out", "out", "--seeds", "2", "--json"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.matches("kept from before").count() == 6, "{told}");
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for record in results["records"].as_array().unwrap().iter().filter(|record| record["params"] != 0) {
        let (again, own) = (&record["detail"]["seeds"], &record["detail"]["model_sha256"]);
        assert_eq!((again.as_array().map(Vec::len), again[0]["seed"].as_u64()), (Some(1), Some(8)), "{record}");
        assert!(again[0]["measures"]["accuracy"]["n"] == record["measures"]["accuracy"]["n"], "{record}");
        assert_ne!(again[0]["model_sha256"], *own);
    }
    assert!(at.join("out/seeds/2/int8/record.json").exists());
    let printed = good(at, &["report", "out", "--full"]);
    assert!(printed.contains("Over seeds") && printed.contains("Student's t"), "{printed}");
    good(at, &["report", "out", "--verify"]);
    let limited = good(at, &["report", "out", "--max-size", "1GB", "--max-loss", "100"]);
    assert!(limited.contains("within ") && limited.lines().count() <= 25, "{limited}");
    refused(at, &["report", "out", "--verify", "--max-size", "1MB"], 2, &["--max-size"]);
}

#[test]
fn shards_of_a_comparison_make_what_one_run_makes() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 12, 6);
    fn compare<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["compare", "small.toml", "--out", out], more].concat()
    }
    let mut killed = lowbit().current_dir(at).args(compare("out", &[])).stderr(Stdio::null()).spawn().unwrap();
    let lock = at.join("out/variants/.lowbit.lock");
    (0..2000).take_while(|_| !lock.exists()).for_each(|_| std::thread::sleep(Duration::from_millis(2)));
    killed.kill().unwrap();
    killed.wait().unwrap();

    // A run that was killed keeps nobody out; one that is under way does, and so does the same shard.
    for held in ["out/variants", "out/shards/1-of-2", "g/bench"] {
        fs::create_dir_all(at.join(held)).unwrap();
    }
    let held = Lock::acquire(&at.join("out/variants")).unwrap();
    refused(at, &compare("out", &[]), 5, &["out", "locked by pid"]);
    drop(held);
    let held = [Lock::acquire(&at.join("out/shards/1-of-2")).unwrap(), Lock::acquire(&at.join("g/bench")).unwrap()];
    refused(at, &compare("out", &["--shard", "1/2"]), 5, &["1-of-2", "locked by pid"]);
    refused(at, &["compare", "bitnet-laptop", "--quick", "--out", "g"], 5, &["g", "locked by pid"]);
    drop(held);

    let printed = good(at, &compare("out", &["--shard", "1/2"]));
    assert!(printed.contains("shard 1/2 is done: f32, int8, llm_int8, nf4, ternary_ptq\n"), "{printed}");
    let printed = good(at, &compare("other", &["--shard", "2/2"]));
    assert!(printed.contains("shard 2/2 is done: ternary_qat\n"), "{printed}");
    assert!(!at.join("out/results.json").exists());
    assert!(good(at, &["merge", "other", "--out", "out"]).contains("out: 1 variants"));
    refused(at, &["merge", "other", "out"], 2, &["--out"]);
    let output = run(at, &compare("out", &["--json"]));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && printed.matches("kept from before").count() == 6, "{printed}");
    good(at, &["report", "out", "--verify"]);

    for (scheduler, words) in [("slurm", "#SBATCH --array=1-3"), ("hyperqueue", "--array 1-3"), ("sh", "seq 3")] {
        let script = good(at, &compare("x y", &["--shards", "3", "--emit", scheduler]));
        let last = "lowbit compare small.toml --out 'x y'\n";
        let ends = script.contains(&format!("all are done: {last}")) || script.contains(&format!("|| {last}"));
        assert!(script.contains(words) && script.contains("--shard") && ends, "{script}");
    }
}

#[test]
fn training_killed_at_twenty_moments_ends_with_the_same_weights() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 300, 3);
    let train = |out: &str, threads: &str| {
        let mut command = lowbit();
        command.current_dir(at).args(["train", "small.toml", "--variant", "ternary_qat", "--out", out]);
        command.args(["--threads", threads]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(train("whole", "2").status().unwrap().success());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut kills = 0;
    while kills < 20 {
        let mut child = train("killed", if kills % 2 == 0 { "1" } else { "2" }).spawn().unwrap();
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        wait_for_checkpoint(&at.join("killed"), &mut child);
        std::thread::sleep(Duration::from_micros(seed >> 32 & 0xffff));
        if child.try_wait().unwrap().is_some() {
            break; // finished before it could be killed
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 5, "the run is long enough to be killed");
    assert!(train("killed", "2").status().unwrap().success());
    let weights = |run: &str| fs::read(at.join(run).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("killed"), "the same bytes");
    let left: Vec<_> = walk(&at.join("killed")).into_iter().filter(|p| p.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "orphans: {left:?}");
}

/// Waits until the run writes its metrics, so that the kill meets training and not start-up.
fn wait_for_checkpoint(run: &Path, child: &mut std::process::Child) {
    let size = || fs::metadata(run.join("metrics.jsonl")).map_or(0, |m| m.len());
    let before = size();
    for _ in 0..4000 {
        if size() != before || child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn walk(directory: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.path().is_dir() {
            true => out.extend(walk(&entry.path())),
            false => out.push(entry.path().display().to_string()),
        }
    }
    out
}

#[test]
fn the_small_commands_tell_what_they_promise() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 5, 0);
    good(at, &["train", "small.toml", "--out", "model"]);
    for recipe in ["bf16", "int4", "ternary", "bitnet_b3"] {
        good(at, &["quantize", "model", "--recipe", recipe, "--out", recipe]);
        let text = good(at, &["inspect", recipe, "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["recipe"], recipe);
        let text = good(at, &["eval", recipe, "--task", "quickstart", "--limit", "50", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["records"][0]["measures"]["accuracy"]["n"], 50);
        assert_eq!(value["schema_version"], 1);
    }
    assert!(good(at, &["inspect", "model", "--recipes"]).contains("nf4_dq"));
    let (short, full) = (good(at, &["inspect", "model"]), good(at, &["inspect", "model", "--full"]));
    assert!(short.lines().count() < 10 && short.contains("--full") && full.contains("layers.1."), "{short}{full}");
    let printed = good(at, &["eval", "model", "--task", "quickstart", "--limit", "50"]);
    assert!(printed.lines().count() <= 12 && printed.contains("Note: "), "{printed}");
    let beside = |model: &str, reference: &str| -> serde_json::Value {
        let args = ["eval", model, "--task", "quickstart", "--limit", "50", "--reference", reference, "--json"];
        serde_json::from_str::<serde_json::Value>(&good(at, &args)).unwrap()["records"][0]["measures"].clone()
    };
    let (own, other) = (beside("int4", "int4"), beside("int4", "model"));
    assert_eq!((&own["kl_divergence"]["value"], &own["same_top"]["value"]), (&0.0.into(), &1.0.into()));
    assert!(other["kl_divergence"]["value"].as_f64().unwrap() > 0.0 && other["kl_divergence"]["n"] == 50, "{other}");
    let doctor: serde_json::Value = serde_json::from_str(&good(at, &["doctor", "--json"])).unwrap();
    assert!(doctor["host"]["limits"]["memory_gbps"].as_f64().unwrap() > 0.0);
    assert!(good(at, &["doctor", "--isa", "scalar"]).contains("scalar (asked for)"));
    assert!(good(at, &["completions", "bash"]).contains("_lowbit"));
    // The same answers whatever the instruction set and the threads, for an integer body.
    let scores = |args: &[&str]| {
        let all: Vec<&str> = ["eval", "ternary", "--task", "quickstart", "--limit", "200", "--json"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let value: serde_json::Value = serde_json::from_str(&good(at, &all)).unwrap();
        value["records"][0]["detail"]["answers"].clone()
    };
    assert_eq!(scores(&["--isa", "scalar", "--threads", "1"]), scores(&["--threads", "2"]));
}

#[test]
fn a_variant_learns_from_another_in_a_comparison_and_alone() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    small_suite(at, 20, 0);
    let text = fs::read_to_string(at.join("small.toml")).unwrap();
    let head = text.find("[[variant]]\nname = \"int8\"").unwrap();
    let distilled = "[[variant]]\nname = \"distilled\"\nrecipe = \"int8_channel\"\nteacher = \"f32\"\nmodel = { sub_norm = false }\n\
        train = { qat = { weights = \"int8\", granularity = \"channel\" }, distill = { weight = 0.7, attention = { layer = 0 } } }\n\
        [[variant]]\nname = \"further\"\nrecipe = \"int8_channel\"\nteacher = \"f32\"\ninit = \"f32\"\n\
        train = { qat = { weights = \"int8\", granularity = \"channel\" }, distill = { hidden = 1.0 } }\n\
        [[variant]]\nname = \"pruned\"\nrecipe = \"f32\"\ntrain = { prune = { sparsity = 0.5, end_step = 10 } }\n\
        [[variant]]\nname = \"calibrated\"\nrecipe = \"int4_g64\"\nfrom = \"f32\"\nmethod = \"gptq\"\ncalibration_tokens = 500\n\
        [[variant]]\nname = \"trained\"\nrecipe = \"int4_g64\"\nfrom = \"f32\"\nmethod = \"trained\"\ncalibration_tokens = 500\n";
    fs::write(at.join("small.toml"), format!("{}{distilled}", &text[..head])).unwrap();
    good(at, &["compare", "small.toml", "--out", "out"]);
    good(at, &["report", "out", "--verify"]);
    let report = fs::read_to_string(at.join("out/report.md")).unwrap();
    assert!(report.contains("| pruned | 50.00 % |"), "{report}");
    assert!(report.contains("quantized by gptq from f32"), "{report}");
    let masters = "out/variants/f32/training";
    let calibrate =
        ["--recipe", "int4_g64", "--calibrate", "small.toml", "--calibration-tokens", "500", "--out", "rounded"];
    good(at, &[&["quantize", masters], &calibrate[..]].concat());
    let packed = |model: &str| fs::read(at.join(model).join("model.safetensors")).unwrap();
    assert!(packed("rounded") == packed("out/variants/calibrated/model"));
    good(at, &[&["quantize", masters, "--method", "trained"], &calibrate[..]].concat());
    assert!(packed("rounded") == packed("out/variants/trained/model"));
    let metrics = fs::read_to_string(at.join("out/variants/distilled/training/metrics.jsonl")).unwrap();
    assert!(metrics.lines().count() == 20 && metrics.lines().all(|line| line.contains("distillation")), "{metrics}");
    let train = ["train", "small.toml", "--variant", "distilled", "--out", "alone"];
    refused(at, &train, 2, &["`teacher = \"f32\"`", "--teacher"]);
    let teacher = "out/variants/f32/training";
    good(at, &[&train[..], &["--teacher", teacher]].concat());
    let weights = |run: &str| fs::read(at.join(run).join("model.safetensors")).unwrap();
    assert!(weights("alone") == weights("out/variants/distilled/training"));
    refused(at, &["train", "small.toml", "--out", "other", "--teacher", teacher], 2, &["leave --teacher out"]);
    let train = ["train", "small.toml", "--variant", "further", "--out", "begun", "--teacher", teacher];
    refused(at, &train, 2, &["`init = \"f32\"`", "--init"]);
    good(at, &[&train[..], &["--init", teacher]].concat());
    assert!(weights("begun") == weights("out/variants/further/training"));
}
