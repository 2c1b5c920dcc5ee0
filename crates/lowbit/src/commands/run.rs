//! `lowbit run`

use super::Machine;
use crate::failure::Failure;
use crate::run::{self, Answer, Chat, Screen, Settings, Speaker, Stop, Total};
use crate::{host, output};
use lowbit_eval::meter;
use lowbit_eval::record::{Detail, Measure, Record};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{Message, Role};
use lowbit_model::generate::{Draft, Finish, Sampling};
use lowbit_model::recipe;
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

/// Longest prompt, bytes.
const MAX_PROMPT: u64 = 64 << 20;
/// Tokens of a plain continuation when no number is asked for.
const CONTINUATION: usize = 256;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Model directory or file [default: the one inside this program].
    model: Option<PathBuf>,
    /// Answer this once, instead of a chat; `-` reads stdin, which is also read when it is piped.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Answer the content of a file; after the text of --prompt, if both are given.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Chat although stdin is no terminal, a line at a time.
    #[arg(short, long, conflicts_with_all = ["prompt", "file"])]
    interactive: bool,
    /// Tokens of an answer at most [default: what the context holds; 256 without a chat template].
    #[arg(short = 'n', long, visible_aliases = ["n-predict", "num-predict"])]
    max_tokens: Option<usize>,
    /// Tokens of prompt and answer together [default: what the model was trained for, at most 4096].
    #[arg(short, long, visible_alias = "ctx-size")]
    context: Option<usize>,
    /// Randomness of the answer; 0 takes the most likely token.
    #[arg(long, visible_alias = "temperature", default_value_t = 0.8, allow_negative_numbers = true)]
    temp: f32,
    /// Draw from this many tokens; 0 from all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Draw from the fewest tokens that have this much probability together.
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw from tokens that have at least this share of the best one's probability.
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    min_p: f32,
    /// Divide the logits of tokens that occurred by this.
    #[arg(long, visible_alias = "repetition-penalty", default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Seed of the draws [default: another one each time].
    #[arg(short, long)]
    seed: Option<u64>,
    /// End the answer before this text; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// Instruct the model.
    #[arg(long, visible_alias = "system-prompt")]
    system: Option<String>,
    /// Continue the text as it is, without the model's chat template.
    #[arg(long)]
    no_chat: bool,
    /// Guess tokens ahead: `ngram` looks them up in what was said. Greedy answers stay the same.
    #[arg(long, value_parser = ["ngram"])]
    draft: Option<String>,
    /// Keep the processed prompt in this file, for the next run.
    #[arg(long)]
    prompt_cache: Option<PathBuf>,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    kv: String,
    /// Make the network of a recipe from f32 masters; `lowbit inspect --recipes` lists them.
    #[arg(long)]
    recipe: Option<String>,
}

impl Run {
    /// Runs the command.
    pub fn run(mut self, machine: &Machine) -> Result<(), Failure> {
        self.check()?;
        let cpu = machine.cpu()?;
        let prompt = self.prompt()?;
        if machine.json && prompt.is_none() {
            return Err(Failure::usage("--json is for one answer; give --prompt, --file or a pipe"));
        }
        let path = self.model.take().map_or_else(run::default_model, Ok)?;
        let system = self.system.take();
        let mut speaker = Speaker::load(&path, self.settings()?, cpu.clone())?;
        for notice in &speaker.notices {
            output::note(notice);
        }
        if system.is_some() && !speaker.chats() {
            return Err(Failure::usage("--system needs a model with a chat template, and not --no-chat"));
        }
        let stop = Stop::listen()?;
        match prompt {
            Some(prompt) => self.once(&mut speaker, system, prompt, &stop, machine.json.then_some(&cpu)),
            None => Chat::new(&mut speaker, system).run(&stop),
        }
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
        if self.no_chat && self.system.is_some() {
            return Err(Failure::usage("--system needs a chat; it does not go with --no-chat"));
        }
        if let Some(name) = &self.recipe {
            recipe::find(name)?;
        }
        Ok(())
    }

    /// The text to answer, if this is no chat.
    fn prompt(&self) -> Result<Option<String>, Failure> {
        let dash = Some(Path::new("-"));
        let mut parts = Vec::new();
        match self.prompt.as_deref() {
            Some("-") => parts.push(stdin()?),
            Some(text) => parts.push(text.to_string()),
            None => {}
        }
        match self.file.as_deref() {
            path if path == dash => parts.push(stdin()?),
            Some(path) => parts.push(read(path)?),
            None if parts.is_empty() && !self.interactive && !std::io::stdin().is_terminal() => parts.push(stdin()?),
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
            max_tokens: self.max_tokens,
            sampling: Sampling {
                temperature: self.temp,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repeat_penalty,
                seed: self.seed.unwrap_or_else(another_seed),
            },
            stop: self.stop.clone(),
            draft: self.draft.as_ref().map(|_| Draft::Ngram),
            cache: CacheKind::ALL
                .into_iter()
                .find(|(name, _)| *name == self.kv)
                .map_or_else(CacheKind::default, |(_, kind)| kind),
            chat: !self.no_chat,
            prompt_cache: self.prompt_cache.clone(),
        })
    }

    fn once(
        &self,
        speaker: &mut Speaker,
        system: Option<String>,
        prompt: String,
        stop: &Stop,
        json: Option<&Cpu>,
    ) -> Result<(), Failure> {
        if !speaker.chats() {
            speaker.limit(CONTINUATION);
            if !self.no_chat {
                output::note("no chat template: the model continues the text");
            }
        }
        let mut messages: Vec<Message> = system.map(|text| Message::new(Role::System, text)).into_iter().collect();
        messages.push(Message::new(Role::User, prompt));
        let mut screen = Screen::default();
        let streams = json.is_none();
        let answer = speaker.answer(&messages, 0, stop, &mut |piece| {
            if streams {
                screen.write(piece);
            }
        });
        screen.end();
        let answer = answer?;
        speaker.keep_prompt()?;
        let mut total = Total::default();
        total.add(&answer);
        match json {
            Some(cpu) => print_json(speaker, &answer, &total, cpu)?,
            None => output::note(run::line(&total)),
        }
        match answer.outcome.finish {
            Finish::Cancelled => Err(Failure {
                code: crate::failure::Code::Interrupted,
                message: "interrupted; the answer is not complete".into(),
            }),
            _ => Ok(()),
        }
    }
}

fn print_json(speaker: &Speaker, answer: &Answer, total: &Total, cpu: &Cpu) -> Result<(), Failure> {
    let mut measures = run::measures(total);
    measures.insert("load_seconds".into(), Measure::measured(speaker.load_seconds, "seconds", 1));
    if let Some(bytes) = meter::peak_rss_bytes() {
        measures.insert("peak_rss_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    }
    let seed = speaker.settings().sampling.seed;
    let record = Record {
        task: "run".into(),
        model: speaker.name.clone(),
        recipe: speaker.recipe.name.into(),
        params: speaker.params,
        measures,
        detail: Detail { seed: Some(seed), ..Detail::default() },
    };
    let results = output::results(host::facts(cpu), vec![record]);
    let mut object = serde_json::to_value(results).map_err(|e| Failure::usage(e.to_string()))?;
    let outcome = &answer.outcome;
    let reason = match outcome.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Cancelled => "cancelled",
    };
    object["text"] = json!(outcome.text);
    object["finish_reason"] = json!(reason);
    object["seed"] = json!(seed);
    object["usage"] = json!({
        "prompt_tokens": outcome.stats.prompt_tokens,
        "cached_tokens": outcome.stats.cached_tokens,
        "completion_tokens": outcome.tokens.len(),
    });
    output::json(&object)
}

fn read(path: &Path) -> Result<String, Failure> {
    let meta = std::fs::metadata(path).map_err(|e| Failure::io(path, &e))?;
    if !meta.is_file() || meta.len() > MAX_PROMPT {
        return Err(Failure::input(path, format!("is not a regular file of at most {MAX_PROMPT} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|e| Failure::io(path, &e))?;
    text(bytes).map_err(|e| Failure::input(path, e))
}

fn stdin() -> Result<String, Failure> {
    let (name, mut bytes) = (Path::new("stdin"), Vec::new());
    let read = std::io::stdin().lock().take(MAX_PROMPT + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::io(name, &e))?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::input(name, format!("is longer than {MAX_PROMPT} bytes")));
    }
    text(bytes).map_err(|e| Failure::input(name, e))
}

/// A prompt as a text, without the line end that files and pipes have.
fn text(bytes: Vec<u8>) -> Result<String, String> {
    let mut text =
        String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to()))?;
    for end in ['\n', '\r'] {
        if text.ends_with(end) {
            text.pop();
        }
    }
    Ok(text)
}

/// A seed that differs from run to run.
fn another_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 20 ^ now.as_secs() ^ u64::from(std::process::id()) << 44
}
