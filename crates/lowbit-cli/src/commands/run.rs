//! `lowbit run`

use super::Machine;
use super::model::{self, ModelPath};
use crate::failure::Failure;
use crate::run::{self, Chat, MeteredSession, Screen, Settings};
use lowbit_base::Stop;
use lowbit_eval::bench::host;
use lowbit_eval::generation::{Answer, Total};
use lowbit_eval::meter;
use lowbit_eval::record::{Detail, Measure, Record};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{AnswerOptions, PromptFormat};
use lowbit_model::generate::{Draft, Finish, Sampling};
use lowbit_model::recipe;
use lowbit_model::text::unescaped;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Tokens of a plain continuation when no number is asked for.
const CONTINUATION: usize = 256;
/// How tokens are drawn when nothing else is asked for.
const CHAT: Sampling = Sampling::chat();

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit run                                              # the model inside the program, which continues articles and film reviews
  lowbit run MODEL                                        # a chat; /help lists its commands
  lowbit run -m model.gguf -p 'Why is the sky blue?'      # one answer
  git diff | lowbit run MODEL -p 'Write a commit message for this:' -f -
  lowbit run MODEL --no-chat -p 'Once upon a time' -n 64 --temp 0
  lowbit run MODEL -sys 'Answer in French.' -i -p Hello   # a chat that begins with a prompt

What was said, the system message and prompts are text: names of control tokens in them stay text. With --no-chat,
--parse-special reads them as llama.cpp does. Other flags of llama.cpp are named with what to write in their place.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    #[command(flatten)]
    model: ModelPath,
    /// Answer this once, instead of a chat; `-` reads stdin, which is also read when it is piped.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Answer the content of a file; after the text of --prompt, if both are given.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Read \n, \r, \t, \', \", \\ and \xHH in --prompt, --system and --stop as llama.cpp does.
    #[arg(short, long, overrides_with = "no_escape")]
    escape: bool,
    #[arg(long, hide = true)]
    no_escape: bool,
    /// Chat although stdin is no terminal, a line at a time; a prompt is then the first thing said [also: -cnv].
    #[arg(short, long, visible_alias = "conversation", conflicts_with = "single_turn")]
    interactive: bool,
    /// Answer one prompt and end, as without --interactive [also: -st].
    #[arg(long, hide = true)]
    single_turn: bool,
    /// Tokens of an answer at most; -1 or -2 until the model ends or the context is full [default: -1; 256 without a chat
    /// template].
    #[arg(short = 'n', long, visible_aliases = ["n-predict", "num-predict", "predict"], value_name = "N")]
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-2..))]
    max_tokens: Option<i64>,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for [default: these, at most 4096].
    #[arg(short, long, visible_alias = "ctx-size")]
    context: Option<usize>,
    /// Randomness of the answer; 0 takes the most likely token.
    #[arg(long, visible_alias = "temperature", default_value_t = CHAT.temperature, allow_negative_numbers = true)]
    temp: f32,
    /// Draw from this many tokens; 0 or less from all.
    #[arg(long, default_value_t = CHAT.top_k as i64, allow_negative_numbers = true)]
    top_k: i64,
    /// Draw from the fewest tokens that have this much probability together.
    #[arg(long, default_value_t = CHAT.top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw from tokens that have at least this share of the best one's probability.
    #[arg(long, default_value_t = CHAT.min_p, allow_negative_numbers = true)]
    min_p: f32,
    /// Divide the logits of tokens that occurred by this.
    #[arg(long, visible_alias = "repetition-penalty", default_value_t = CHAT.repetition_penalty, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// How many of the last tokens the penalty looks at; -1 for all, 0 for none.
    #[arg(long, default_value_t = CHAT.repetition_window as i64, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    repeat_last_n: i64,
    /// Seed of the draws; -1 for another one each time [default: -1].
    #[arg(short, long, allow_negative_numbers = true, value_parser = seed, value_name = "SEED")]
    seed: Option<Seed>,
    /// End the answer before this text; may be repeated.
    #[arg(short = 'r', long, visible_alias = "reverse-prompt")]
    stop: Vec<String>,
    /// Instruct the model [also: -sys].
    #[arg(long, visible_alias = "system-prompt")]
    system: Option<String>,
    /// Instruct the model with the content of a file [also: -sysf].
    #[arg(long, visible_alias = "system-prompt-file", conflicts_with = "system", value_name = "FILE")]
    system_file: Option<PathBuf>,
    /// Continue the text as it is, without the model's chat template [also: -no-cnv].
    #[arg(long)]
    no_chat: bool,
    /// Names of control tokens in the prompt of --no-chat are these tokens, as llama.cpp has it; else they are text.
    #[arg(long, requires = "no_chat")]
    parse_special: bool,
    /// Guess tokens ahead: `ngram` looks them up in what was said. Greedy answers stay the same.
    #[arg(long, value_parser = ["ngram"])]
    draft: Option<String>,
    /// Keep the processed prompt in this file, for the next run.
    #[arg(long)]
    prompt_cache: Option<PathBuf>,
    /// Compare the weights with their checksums first.
    #[arg(long)]
    verify: bool,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    #[arg(aliases = ["cache-type", "cache-type-k", "cache-type-v"], action = clap::ArgAction::Append)]
    kv: Vec<String>,
    /// Make the network of a recipe from f32 masters; `lowbit inspect --recipes` lists them.
    #[arg(long)]
    recipe: Option<String>,
}

/// A seed, if one is asked for.
#[derive(Clone, Copy, Debug)]
struct Seed(Option<u64>);

fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed(None)),
        _ => text.parse().map(|seed| Seed(Some(seed))).map_err(|_| "not a number from 0 on, nor -1".into()),
    }
}

impl Run {
    /// Runs the command.
    pub fn run(mut self, machine: &Machine) -> Result<(), Failure> {
        self.unescape()?;
        self.check()?;
        // A stop ends an answer between tokens, and no pass within.
        let (cpu, stop) = (machine.cpu()?.until(Stop::default()), machine.signals.stop());
        let prompt = self.prompt(machine)?;
        if machine.json && (prompt.is_none() || self.interactive) {
            return Err(Failure::usage("--json is for one answer; give --prompt, --file or a pipe"));
        }
        if self.model.get().is_none() {
            machine
                .terminal
                .note("the model inside this program only continues articles and film reviews; name another: lowbit run MODEL");
        }
        let system = match &self.system_file {
            Some(file) => Some(run::prompt::read(file)?),
            None => self.system.take(),
        };
        let mut metered = MeteredSession::load(self.model.get(), self.settings()?, cpu.clone(), &machine.terminal)?;
        for notice in &metered.notices {
            machine.terminal.note(notice);
        }
        if system.is_some() && !metered.chats() {
            return Err(Failure::usage("--system needs a model with a chat template, and not --no-chat"));
        }
        match prompt {
            Some(prompt) if !self.interactive => {
                machine.signals.defer();
                self.once(&mut metered, system, prompt, machine, &cpu)
            }
            first => {
                machine.signals.defer_interrupt();
                Chat::new(&mut metered, system).run(first, stop)
            }
        }
    }

    /// Reads escapes where that is asked for.
    fn unescape(&mut self) -> Result<(), Failure> {
        if self.escape {
            for text in self.prompt.iter_mut().chain(&mut self.system).chain(&mut self.stop) {
                *text = unescaped(text)?;
            }
        }
        Ok(())
    }

    /// Refuses values that make no sense, before anything slow begins.
    fn check(&self) -> Result<(), Failure> {
        let within = |flag: &str, value: f32, good: bool, limits: &str| match good {
            true => Ok(()),
            false => Err(Failure::usage(format!("{flag} is {value}; it must lie in {limits}"))),
        };
        within("--temp", self.temp, (0.0..=2.0).contains(&self.temp), "0..=2")?;
        within("--top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "0..=1 without 0")?;
        within("--min-p", self.min_p, (0.0..1.0).contains(&self.min_p), "0..1")?;
        let penalty = self.repeat_penalty;
        within("--repeat-penalty", penalty, (0.1..=10.0).contains(&penalty), "0.1..=10")?;
        if self.max_tokens == Some(0) {
            return Err(Failure::usage("--max-tokens is 0; it must be at least 1"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Failure::usage("--stop is empty; it must be a text"));
        }
        model::cache("--kv", &self.kv)?;
        if self.no_chat && (self.system.is_some() || self.system_file.is_some()) {
            return Err(Failure::usage("--system needs a chat; it does not go with --no-chat"));
        }
        if let Some(name) = &self.recipe {
            recipe::find(name)?;
        }
        Ok(())
    }

    /// The text to answer, if this is no chat.
    fn prompt(&self, machine: &Machine) -> Result<Option<String>, Failure> {
        let dash = Some(Path::new("-"));
        let mut parts = Vec::new();
        match self.prompt.as_deref() {
            Some("-") => parts.push(run::prompt::piped(&machine.terminal)?),
            Some(text) => parts.push(text.to_string()),
            None => {}
        }
        match self.file.as_deref() {
            path if path == dash => parts.push(run::prompt::piped(&machine.terminal)?),
            Some(path) => parts.push(run::prompt::read(path)?),
            None if parts.is_empty() && !self.interactive && !machine.terminal.is_typed() => {
                parts.push(run::prompt::piped(&machine.terminal)?)
            }
            None => {}
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let text = parts.join("\n\n");
        if text.is_empty() {
            return Err(Failure::usage(
                "the prompt is empty; give --prompt TEXT, or --interactive to chat through a pipe",
            ));
        }
        Ok(Some(text))
    }

    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            recipe: self.recipe.as_deref().map(recipe::find).transpose()?,
            context: self.context,
            options: AnswerOptions {
                max_tokens: self.max_tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
                sampling: Sampling {
                    temperature: self.temp,
                    top_k: usize::try_from(self.top_k).unwrap_or(0),
                    top_p: self.top_p,
                    min_p: self.min_p,
                    repetition_penalty: self.repeat_penalty,
                    repetition_window: usize::try_from(self.repeat_last_n).unwrap_or(usize::MAX),
                    seed: self.seed.and_then(|seed| seed.0).unwrap_or_else(another_seed),
                    ..CHAT
                },
                stop: self.stop.clone(),
                draft: self.draft.as_ref().map(|_| Draft::Ngram),
                ..AnswerOptions::default()
            },
            cache: model::cache("--kv", &self.kv)?,
            format: match (self.no_chat, self.parse_special) {
                (false, _) => PromptFormat::Chat,
                (true, false) => PromptFormat::Text,
                (true, true) => PromptFormat::TextWithControls,
            },
            verify: self.verify,
            prompt_cache: self.prompt_cache.clone(),
        })
    }

    fn once(
        &self,
        metered: &mut MeteredSession,
        system: Option<String>,
        prompt: String,
        machine: &Machine,
        cpu: &Cpu,
    ) -> Result<(), Failure> {
        if !metered.chats() {
            metered.session.options_mut().max_tokens.get_or_insert(CONTINUATION);
            if !self.no_chat {
                machine.terminal.note("no chat template: the model continues the text");
            }
        }
        metered.session.instruct(system);
        let mut screen = Screen::new(&machine.terminal);
        let answer = metered.say(prompt, machine.signals.stop(), &mut |piece| {
            if !machine.json {
                screen.write(piece);
            }
        });
        screen.end();
        let answer = answer?;
        metered.keep_prompt()?;
        let mut total = Total::default();
        total.add(&answer);
        match machine.json {
            true => print_json(machine, metered, &answer, &total, cpu)?,
            false => machine.terminal.note(total.line()),
        }
        match answer.outcome.finish {
            Finish::Cancelled if machine.terminal.is_open() => Err(Failure {
                code: crate::failure::Code::Interrupted,
                message: "interrupted; the answer is not complete".into(),
            }),
            _ => Ok(()),
        }
    }
}

fn print_json(
    machine: &Machine,
    metered: &MeteredSession,
    answer: &Answer,
    total: &Total,
    cpu: &Cpu,
) -> Result<(), Failure> {
    let mut measures = total.measures();
    measures.insert("load_seconds".into(), Measure::measured(metered.load_seconds, "seconds", 1));
    if let Some(bytes) = meter::peak_rss_bytes() {
        measures.insert("peak_rss_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    }
    let seed = metered.session.options().sampling.seed;
    let record = Record {
        task: "run".into(),
        model: metered.name.clone(),
        recipe: metered.recipe.name.into(),
        params: metered.params,
        measures,
        detail: Detail { seed: Some(seed), ..Detail::default() },
    };
    let mut object = json!(machine.terminal.results(host::facts(cpu), vec![record]));
    if let Value::Object(object) = &mut object {
        object.extend(answer.json());
    }
    object["seed"] = json!(seed);
    machine.terminal.json(&object)
}

/// A seed that differs from run to run.
fn another_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 20 ^ now.as_secs() ^ u64::from(std::process::id()) << 44
}
