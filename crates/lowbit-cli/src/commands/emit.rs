//! Scripts that run the shards of a command, one job each.

use crate::failure::Failure;

/// Who runs the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheduler {
    /// An array job for `sbatch`.
    Slurm,
    /// Tasks of `hq submit`.
    Hyperqueue,
    /// One after another, or the shards named as arguments.
    Sh,
}

/// The script: `arguments` are those of the program without the flags that ask for a script, `last` those of the command that is run when
/// all shards are done.
///
/// # Errors
/// When the directory of the process is gone.
pub fn script(scheduler: Scheduler, shards: u32, arguments: &[String], last: &[String]) -> Result<String, Failure> {
    let here = std::env::current_dir().map_err(|e| Failure::usage(format!("the working directory: {e}")))?;
    let here = quoted(&here.to_string_lossy());
    let line = |arguments: &[String]| {
        let words = std::iter::once("lowbit").chain(arguments.iter().map(String::as_str)).map(quoted);
        words.collect::<Vec<_>>().join(" ")
    };
    let (command, last) = (line(arguments), line(last));
    let name = if arguments.iter().any(|word| word == "compare") { "lowbit-compare" } else { "lowbit-predict" };
    let own_threads = |flag: &str| arguments.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}=")));
    let has_threads = own_threads("--threads") || own_threads("-t");
    let threads =
        |variable: &str| if has_threads { String::new() } else { format!(" --threads \"${{{variable}:--1}}\"") };
    Ok(match scheduler {
        Scheduler::Slurm => format!(
            "#!/bin/sh\n# sbatch THIS; a shard that failed is sent again and goes on. When all are done: {last}\n\
            #SBATCH --job-name={name}\n#SBATCH --array=1-{shards}\n#SBATCH --cpus-per-task=4\n#SBATCH --requeue\n\
            cd {here} || exit 5\nexec {command} --shard \"$SLURM_ARRAY_TASK_ID/{shards}\"{}\n",
            threads("SLURM_CPUS_PER_TASK")
        ),
        Scheduler::Hyperqueue => format!(
            "#!/bin/sh\n# sh THIS; then, when all are done: {last}\ncd {here} || exit 5\n\
            exec hq submit --name {name} --array 1-{shards} --cpus 4 --crash-limit 5 -- sh -c {}\n",
            quoted(&format!("exec {command} --shard \"$HQ_TASK_ID/{shards}\"{}", threads("HQ_NUM_CPUS")))
        ),
        Scheduler::Sh => format!(
            "#!/bin/sh\n# sh THIS [SHARD..]: the shards named, on a machine each, or all of them one after another, and the end\n\
            set -e\ncd {here}\nfor shard in ${{@:-$(seq {shards})}}; do\n  {command} --shard \"$shard/{shards}\"\ndone\n\
            [ $# -gt 0 ] || {last}\n"
        ),
    })
}

/// The arguments of this program without flags and their values.
pub fn without(arguments: impl Iterator<Item = String>, flags: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut is_value = false;
    for argument in arguments {
        let is_flag = flags.contains(&argument.as_str());
        let joined = flags.iter().any(|flag| argument.starts_with(&format!("{flag}=")));
        if !is_flag && !joined && !is_value {
            kept.push(argument);
            continue;
        }
        is_value = is_flag && !is_value;
    }
    kept
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_flags_left_out() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("models/sst2"), "models/sst2");
        let given = ["predict", "m", "--emit", "sh", "--shards=4", "in.csv", "-o", "o.csv"].map(String::from);
        let kept = without(given.into_iter(), &["--emit", "--shards"]);
        assert_eq!(kept, ["predict", "m", "in.csv", "-o", "o.csv"]);
    }
}
