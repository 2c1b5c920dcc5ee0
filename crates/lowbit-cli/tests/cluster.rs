//! Training on several processes over MPI. Without the feature `mpi`, which `cargo test -p lowbit-cli --features mpi --test cluster` has,
//! it is seen that the program says so.

mod common;

use common::NETWORK;
use std::fs;
use std::path::Path;

/// A text and a language model of it, which is ternary after the first 30 % of the updates, and its twin in full precision.
fn described(at: &Path, steps: u64) {
    let line = |i: usize| format!("Entry {i}: the {} of the {} is {}.\n", ["name", "age", "home"][i % 3], i * 7, i * i);
    fs::write(at.join("book.txt"), (0..600).map(line).collect::<String>()).unwrap();
    let text = format!(
        "kind = \"language\"\nname = \"book\"\ntexts = [\"book.txt\"]\ndocuments = \"files\"\nheld_out = 0.1\ncontext = 32\n\
         recipe = \"bitnet\"\n[model]\n{NETWORK}causal = true\nhead = {{ lm = {{ tied = false }} }}\n[train]\nsteps = {steps}\n\
         batch_size = 8\noptimizer = \"muon\"\nlearning_rate = 3e-3\nwarmup_steps = 5\nsave_every = 10\nevaluate_every = 25\n"
    );
    fs::write(at.join("book.toml"), format!("{text}qat = {{}}\nfloat_fraction = 0.3\n")).unwrap();
    fs::write(at.join("twin.toml"), text.replace("recipe = \"bitnet\"", "recipe = \"f32\"")).unwrap();
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_says_so_under_a_launcher() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    described(at, 6);
    let mut command = common::lowbit();
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "2").current_dir(at);
    let output = command.args(["train", "book.toml", "--data", ".", "--out", "out"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("--features mpi") && told.contains("began 2 processes"), "{told}");
    common::refused(at, &["train", "book.toml", "--out", "x", "--step-timeout", "0"], 2, &[]);
    lowbit_base::testing::skipped(lowbit_base::testing::Need::Environment, "built without the feature `mpi`");
}

#[cfg(feature = "mpi")]
mod launched {
    use super::*;
    use lowbit_base::testing::{Need, skipped};
    use lowbit_train::StepMetrics;
    use std::io::Read;
    use std::process::{Child, Command, Output, Stdio};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    /// Processes that wait for each other need a core each: one job at a time.
    static ONE: Mutex<()> = Mutex::new(());

    /// The right to start a job; none where there is no launcher.
    fn turn() -> Option<MutexGuard<'static, ()>> {
        let there = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        match there.is_ok_and(|status| status.success()) {
            true => Some(ONE.lock().unwrap_or_else(PoisonError::into_inner)),
            false => {
                skipped(Need::Environment, "no mpirun");
                None
            }
        }
    }

    /// `lowbit train` of the ternary model on so many processes of one thread each.
    fn train(at: &Path, processes: usize, args: &[&str]) -> Command {
        of("book.toml", at, processes, args)
    }

    /// The same of another description.
    fn of(name: &str, at: &Path, processes: usize, args: &[&str]) -> Command {
        let mut command = Command::new("mpirun");
        // Open MPI asks for these where there are fewer cores, or the user is root.
        for variable in
            ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"]
        {
            command.env(variable, "1");
        }
        command.env("OMPI_MCA_hwloc_base_binding_policy", "none").env("LOWBIT_THREADS", "1").current_dir(at);
        command.args(["-n", &processes.to_string(), env!("CARGO_BIN_EXE_lowbit"), "train", name, "--data", "."]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn good(output: &Output) -> String {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {told}", output.status);
        told
    }

    fn losses(run: &Path) -> Vec<f64> {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<StepMetrics>(line).unwrap().loss).collect()
    }

    fn weights(run: &Path) -> Vec<u8> {
        fs::read(run.join("model.safetensors")).unwrap()
    }

    /// The number of the process that has a rank of a job.
    fn process(rank: usize, at: &Path) -> String {
        let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == at.canonicalize().unwrap());
                let variables = fs::read(entry.path().join("environ")).unwrap_or_default();
                if here && variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
                    return entry.file_name().into_string().unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no process has rank {rank}");
    }

    fn signal(process: &str, name: &str) {
        assert!(Command::new("kill").args(["-s", name, process]).status().unwrap().success());
    }

    /// Waits until a run has saved a state after its begin.
    fn saved(run: &Path) {
        let start = Instant::now();
        let state = |name: &str| name.starts_with("step-") && name != "step-0000000000.safetensors";
        while start.elapsed() < Duration::from_secs(120) {
            let names = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten().map(|e| e.file_name());
            if names.filter_map(|name| name.into_string().ok()).any(|name| state(&name)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no state was saved");
    }

    /// Waits for the end of a job; its exit code and what it said.
    fn ended(mut job: Child) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            match job.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < Duration::from_secs(120), "the job goes on"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut told = String::new();
        job.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (status.code(), told)
    }

    #[test]
    fn processes_have_the_losses_of_one_with_their_batches() {
        let Some(_turn) = turn() else { return };
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        described(at, 50);
        // A weight that rounding carries over a border of ternary values shows in the loss of so small a network.
        for (name, alike) in [("twin.toml", 50), ("book.toml", 15)] {
            let alone = format!("{name}-1");
            common::good(at, &["train", name, "--data", ".", "--out", &alone]);
            let one = losses(&at.join(alone));
            assert!(one.len() == 50 && one[49] < 0.8 * one[0], "{one:?}");
            for (processes, batch) in [(2, "4"), (4, "2")] {
                let out = format!("{name}-{processes}");
                let output = of(name, at, processes, &["--batch-size", batch, "--out", &out]).output().unwrap();
                let told = good(&output);
                assert!(told.contains(&format!("{processes} processes train together")), "{told}");
                assert_eq!(told.matches("step 50 of 50").count(), 1, "one process speaks: {told}");
                let printed = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(printed.matches("held-out text: ").count(), 1, "{printed}");
                let found = losses(&at.join(&out));
                let apart = found.iter().zip(&one).map(|(a, b)| (a - b).abs());
                let apart: Vec<f64> = apart.collect();
                assert!(apart[..alike].iter().all(|apart| *apart < 1e-5), "{name}, {processes} processes: {apart:?}");
                assert!(apart.iter().all(|apart| *apart < 0.1), "{name}, {processes} processes: {apart:?}");
            }
        }
    }

    #[test]
    fn a_process_that_is_killed_or_stuck_ends_the_job_and_its_state_is_good() {
        let Some(_turn) = turn() else { return };
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        described(at, 400);
        good(&train(at, 2, &["--out", "whole"]).output().unwrap());
        // Killed; stopped, as behind a network that is gone; asked to end.
        for (name, rank, words) in [
            ("KILL", 1, "signal 9"),
            ("STOP", 1, "rank 0 of 2 waited more than 2 seconds for the others"),
            ("TERM", 1, "interrupted; the same command resumes"),
        ] {
            let out = format!("out-{name}");
            let args = ["--out", &out, "--step-timeout", "2"];
            let job = train(at, 2, &args).spawn().unwrap();
            saved(&at.join(&out));
            signal(&process(rank, at), name);
            let (code, told) = ended(job);
            let expected = match name {
                "KILL" => 137,
                "STOP" => 1,
                _ => 130,
            };
            assert!(told.contains(words) && !told.contains("panicked"), "{name}: {told}");
            assert_eq!(code, Some(expected), "{name}: {told}");
            let done = losses(&at.join(&out)).len();
            assert!(!at.join(&out).join("model.safetensors").exists(), "{name}: it had ended before");
            good(&train(at, 2, &args).output().unwrap());
            assert!(done < 400 && losses(&at.join(&out)).len() == 400, "{name}");
            assert!(
                weights(&at.join(&out)) == weights(&at.join("whole")),
                "{name}: the same bits after {done} updates"
            );
        }
    }

    #[test]
    fn wrong_jobs_are_refused() {
        let Some(_turn) = turn() else { return };
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        described(at, 5);
        let output = train(at, 2, &["--learning-rate", "-1", "--out", "x"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains("`learning_rate` is -1"), "{told}");
        assert!(!at.join("x").exists());
        // Another seed on the second process.
        let mut command = train(at, 1, &["--out", "x"]);
        command.args([":", "-n", "1", env!("CARGO_BIN_EXE_lowbit"), "train", "book.toml", "--data", ".", "--out", "x"]);
        let output = command.args(["--seed", "9"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains("rank 1 was started for another run"), "{told}");
    }
}
