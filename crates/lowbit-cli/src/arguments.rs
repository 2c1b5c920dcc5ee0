//! The command line before it is parsed: flags of llama.cpp with one dash, hints for those there is no counterpart of,
//! and environment variables that are set but empty.

use crate::commands::Cli;
use crate::failure::Failure;
use crate::terminal::Terminal;
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};

/// Commands whose flags are those of llama.cpp.
const COMMANDS: &[&str] = &["run", "bench"];

/// Flags with one dash and several letters, and what this program calls them.
const SPELLINGS: &[(&str, &str)] = &[
    ("-cnv", "--interactive"),
    ("-no-cnv", "--no-chat"),
    ("-no-conversation", "--no-chat"),
    ("-sys", "--system"),
    ("-sysf", "--system-file"),
    ("-st", "--single-turn"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-pg", "--pg"),
];

/// Flags of llama.cpp that have no counterpart here, and what to do instead.
const HINTS: &[(&[&str], &str)] = &[
    (
        &["-ngl", "--gpu-layers", "--n-gpu-layers", "-sm", "--split-mode", "-mg", "--main-gpu", "-dev", "--device"],
        "computes on the CPU: leave it out",
    ),
    (
        &["-b", "--batch-size", "-ub", "--ubatch-size", "-tb", "--threads-batch", "-fa", "--flash-attn", "--no-warmup"],
        "chooses that by itself: leave it out",
    ),
    (
        &["--mlock", "--no-mmap", "-mmp", "--mmap", "--numa", "--prio", "--poll", "--cpu-mask"],
        "maps the weights and uses the cores of --threads: leave it out",
    ),
    (
        &["--jinja", "--no-jinja", "--color", "-co", "--simple-io", "--no-display-prompt", "--multiline-input", "-mli"],
        "needs no such switch (chat templates are Jinja, the prompt is not repeated): leave it out",
    ),
    (
        &["-lv", "-v", "--verbose", "--log-disable", "--log-file", "--no-perf", "--verbose-prompt", "-sp", "--special"],
        "prints the answer on stdout and all else on stderr: leave it out",
    ),
    (
        &["--keep", "--context-shift", "--no-context-shift", "-gan", "-gaw", "--rope-scaling", "--rope-freq-base"],
        "keeps the context as the model was trained and does not shift it: leave it out; -c chooses its size",
    ),
    (
        &["-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url"],
        "downloads nothing: fetch the model with the Hub's own client, then name org/name",
    ),
    (
        &["--chat-template", "--chat-template-file", "--in-prefix", "--in-suffix"],
        "takes the chat template of the model: put a chat_template.jinja beside its config.json, or give --no-chat",
    ),
    (
        &["--presence-penalty", "--frequency-penalty", "--dry-multiplier"],
        "has --repeat-penalty and --repeat-last-n instead",
    ),
    (
        &["--mirostat", "--typical", "--xtc-probability", "--dynatemp-range", "--top-nsigma", "--samplers"],
        "has --temp, --top-k, --top-p and --min-p instead",
    ),
    (
        &["--grammar", "--grammar-file", "-j", "--json-schema", "--lora", "--control-vector", "--logit-bias", "-l"],
        "has nothing like it yet",
    ),
    (&["--ignore-eos"], "ends where the model does: leave it out, or ask for the context's tokens with --no-chat"),
    (&["-md", "--model-draft", "-hfd", "--draft-max"], "guesses tokens without a second model: --draft ngram"),
];

/// The parsed command line of a terminal; none when help or a version was asked for, which are then printed.
///
/// # Errors
/// What to write in place of a flag of llama.cpp without a counterpart; of other faults the message is empty, as they are
/// printed there, over several lines.
pub fn parse(terminal: &Terminal) -> Result<Option<Cli>, Failure> {
    let arguments = spelled(terminal.arguments().to_vec()).map_err(Failure::usage)?;
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    match parsed(arguments, is_empty) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) => {
            terminal.styled(&error.render(), !error.use_stderr());
            if error.use_stderr() { Err(Failure::usage("")) } else { Ok(None) }
        }
    }
}

fn parsed(arguments: Vec<OsString>, is_empty: impl Fn(&OsStr) -> bool + Copy) -> Result<Cli, clap::Error> {
    let mut command = without_empty(Cli::command(), is_empty);
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command and its subcommands, for which variables of the environment that are set but empty count as unset.
fn without_empty(command: Command, is_empty: impl Fn(&OsStr) -> bool + Copy) -> Command {
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&'static str>),
        false => arg,
    });
    command.mut_subcommands(|inner| without_empty(inner, is_empty))
}

/// The arguments with flags of llama.cpp in this program's spelling.
///
/// # Errors
/// A sentence that says what to write in place of a flag without a counterpart.
fn spelled(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let commands = arguments.iter().skip(1).position(|a| COMMANDS.iter().any(|name| a == name));
    let Some(start) = commands.map(|at| at + 2) else { return Ok(arguments) };
    let end = arguments.iter().position(|a| a == "--").unwrap_or(arguments.len());
    let rename = |(i, argument): (usize, OsString)| {
        let Some(text) = argument.to_str().filter(|text| (start..end).contains(&i) && text.starts_with('-')) else {
            return Ok(argument);
        };
        let (flag, value) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value)));
        if let Some((_, hint)) = HINTS.iter().find(|(names, _)| names.contains(&flag)) {
            return Err(format!("{flag} is a flag of llama.cpp; this program {hint}"));
        }
        let known = SPELLINGS.iter().find(|(theirs, _)| *theirs == flag);
        Ok(known.map_or(argument.clone(), |(_, ours)| match value {
            Some(value) => format!("{ours}={value}").into(),
            None => (*ours).into(),
        }))
    };
    arguments.into_iter().enumerate().map(rename).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;
    use clap::error::ErrorKind;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn accepted(text: &str) -> bool {
        let result = parsed(spelled(words(text)).expect(text), |_| false);
        if let Err(error) = &result {
            println!("{text}: {error}");
        }
        result.is_ok()
    }

    #[test]
    fn flags_of_llama_cpp() {
        for text in [
            "lowbit run m -n -1 -s -1 -t -1 --top-k -1 -c 0 --temp 0 --repeat-last-n -1 -p x",
            "lowbit run -m model.gguf -cnv -sys text -n -2 --top-k 0 -t 0 --repeat-last-n 0",
            "lowbit run -m m -no-cnv -e -p a -f file -r stop --seed 7",
            "lowbit run --model=m --n-predict=-1 --ctx-size=0 --seed=-1 --threads=-1 --system-prompt text -st -p x",
            "lowbit -t -1 run m -sysf file -ctk f16 -ctv f16 -p x",
            "lowbit bench -m m -p 512,128 -n 0 -pg 512,128 -d 0,64 -r 3 -o json -t -1 -ctk f16 -ctv f16",
            "lowbit eval m --text t --threads -1",
        ] {
            assert!(accepted(text), "{text}");
        }
        for (text, word) in [
            ("lowbit run m -ngl 99", "leave it out"),
            ("lowbit run m --gpu-layers=99", "--gpu-layers is a flag of llama.cpp"),
            ("lowbit run -hf org/name", "org/name"),
            ("lowbit bench m -fa 1", "leave it out"),
        ] {
            let hint = spelled(words(text)).expect_err(text);
            assert!(hint.contains(word), "{text}: {hint}");
        }
        for (text, word) in [
            ("lowbit run m -n -3", "-3 is not in"),
            ("lowbit run m -s -2", "nor -1"),
            ("lowbit run m -t -2", "nor -1"),
            ("lowbit run m -m n -p x", "cannot be used with"),
        ] {
            let error = parsed(words(text), |_| false).expect_err(text);
            assert!(error.to_string().contains(word), "{text}: {error}");
            assert_eq!(error.exit_code(), 2, "{text}");
        }
        // A value, another command's flag, and what follows `--` are left alone.
        assert_eq!(spelled(words("lowbit eval -ngl")), Ok(words("lowbit eval -ngl")));
        assert_eq!(spelled(words("lowbit run -- -ngl")), Ok(words("lowbit run -- -ngl")));
    }

    #[test]
    fn no_hint_is_for_a_flag_there_is() {
        let command = Cli::command();
        for (name, hints) in COMMANDS.iter().map(|name| (name, HINTS.iter().flat_map(|(names, _)| *names))) {
            let own = command.find_subcommand(name).expect("a command");
            for hint in hints {
                let text = hint.trim_start_matches('-');
                let long = |arg: &Arg| {
                    arg.get_long() == Some(text) || arg.get_all_aliases().is_some_and(|all| all.contains(&text))
                };
                let short = |arg: &Arg| text.len() == 1 && arg.get_short() == text.chars().next();
                assert!(!own.get_arguments().any(|arg| long(arg) || short(arg)), "{name} has {hint}");
            }
        }
    }

    /// The words of a line as a shell splits them: quotes, the remark left out.
    fn shell_words(line: &str) -> Vec<OsString> {
        let line = line.split(" # ").next().unwrap_or_default();
        let (mut words, mut quote) = (vec![String::new()], None);
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') => words.push(String::new()),
                (_, c) => words.last_mut().expect("one at least").push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        let redirected = words.iter().position(|word| word == ">").unwrap_or(words.len());
        words.into_iter().take(redirected).map(OsString::from).collect()
    }

    #[test]
    fn every_command_has_examples_and_each_parses() {
        fn walk(command: &Command, seen: &mut usize) {
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                let text = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
                let lines =
                    text.lines().filter_map(|line| Some(&line[line.strip_prefix("  ")?.find("lowbit ")? + 2..]));
                let lines: Vec<&str> = lines.collect();
                assert!(!lines.is_empty(), "`{}` has no examples", inner.get_name());
                for line in lines {
                    let words = shell_words(line);
                    assert!(words[1..].iter().any(|word| word == inner.get_name()), "{line}");
                    let arguments = spelled(words).unwrap_or_else(|hint| panic!("{line}: {hint}"));
                    parsed(arguments, |_| false).unwrap_or_else(|e| panic!("{line}: {e}"));
                    *seen += 1;
                }
                walk(inner, seen);
            }
        }
        let mut seen = 0;
        walk(&Cli::command(), &mut seen);
        assert!(seen > 30, "{seen}");
    }

    /// All Markdown files below a folder.
    fn pages(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            match entry.extension() {
                None if entry.is_dir() => pages(&entry, out),
                Some(extension) if extension == "md" => out.push(entry),
                _ => {}
            }
        }
    }

    /// The commands of a page, and whether each stands whole, in a block, or may be a fragment, in a sentence.
    fn commands(page: &str) -> Vec<(String, bool)> {
        let (mut found, mut text, mut block) = (Vec::new(), String::new(), false);
        for line in page.replace("\\\n", " ").lines() {
            if line.trim_start().starts_with("```") {
                (block, text) = (!block, text + "\n");
                continue;
            }
            if !block {
                text += &format!("{line}\n");
                continue;
            }
            let line = line.rsplit("| ").next().unwrap_or_default().trim().trim_start_matches("$ ");
            let line = line.replace("cargo run --release -- ", "lowbit ");
            let line = match line.strip_prefix("mpirun -n ").and_then(|rest| rest.split_once(' ')) {
                Some((_, command)) => command.to_owned(),
                None => line,
            };
            let (program, rest) = line.split_once(' ').unwrap_or_default();
            if program.rsplit('/').next() == Some("lowbit") {
                found.push((format!("lowbit {rest}"), true));
            }
        }
        for paragraph in text.split("\n\n") {
            let spans = paragraph.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "));
            found.extend(spans.filter(|span| span.starts_with("lowbit ")).map(|span| (span, false)));
        }
        found
    }

    #[test]
    fn every_command_on_a_page_parses() {
        let page = "$ mpirun -n 2 bin/lowbit train x\n```\nmpirun -n 2 bin/lowbit train \\\nx\ncat a | lowbit run\nlowbit 4\n```\nsee `lowbit\neval`";
        let want = [("lowbit train  x", true), ("lowbit run", true), ("lowbit 4", true), ("lowbit eval", false)];
        assert_eq!(commands(page), want.map(|(command, whole)| (command.to_owned(), whole)));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files: Vec<PathBuf> =
            ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
        ["docs", "crates", "tools"].iter().for_each(|folder| pages(&root.join(folder), &mut files));
        let (mut wrong, mut seen) = (Vec::new(), 0);
        for file in &files {
            for (command, whole) in commands(&fs::read_to_string(file).expect("a page")) {
                let mut words = shell_words(&command.replace(['[', ']'], ""));
                // What is left out, and what runs in the background.
                words.retain(|word| !["..", "&"].iter().any(|mark| word == mark));
                if words.get(1).and_then(|word| word.to_str()).is_some_and(|word| word == word.to_uppercase()) {
                    continue;
                }
                seen += 1;
                let error = match spelled(words) {
                    Ok(arguments) => parsed(arguments, |_| false).err().filter(|error| !is_fine(error.kind(), whole)),
                    Err(hint) => panic!("{}: {command}: {hint}", file.display()),
                };
                wrong.extend(error.map(|error| format!("{}: `{command}`: {error}", file.display())));
            }
        }
        assert!(seen > 150 && wrong.is_empty(), "{seen} commands\n{}", wrong.join("\n"));
    }

    /// Whether a page may hold a command that is refused so: help, and of fragments what is left out or stands for something.
    fn is_fine(kind: ErrorKind, whole: bool) -> bool {
        let open = [ErrorKind::MissingRequiredArgument, ErrorKind::InvalidValue, ErrorKind::ValueValidation];
        kind == ErrorKind::DisplayHelp || !whole && open.contains(&kind)
    }

    #[test]
    fn empty_variables_are_unset() {
        fn all(command: &Command, out: &mut Vec<OsString>) {
            out.extend(command.get_arguments().filter_map(|arg| arg.get_env().map(OsStr::to_owned)));
            command.get_subcommands().for_each(|inner| all(inner, out));
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        all(&Cli::command(), &mut before);
        assert!(before.iter().any(|name| name == "LOWBIT_THREADS"));
        all(&without_empty(Cli::command(), |name| name != "LOWBIT_ISA"), &mut after);
        assert!(!after.is_empty() && after.iter().all(|name| name == "LOWBIT_ISA"), "{after:?}");
    }
}
