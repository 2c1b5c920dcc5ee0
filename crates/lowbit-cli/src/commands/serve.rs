//! `lowbit serve`

use super::Machine;
use super::model::{self, ModelPath, ModelRecipe};
use crate::failure::Failure;
use lowbit::shipped;
use lowbit_base::{Error, Stop};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::generate::Draft;
use lowbit_serve::{EngineOptions, Key, Limits, Served, Server, Settings};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit serve                                        # the model inside this program, on http://127.0.0.1:8080
  lowbit serve model.gguf --port 9000 --parallel 16
  lowbit serve HuggingFaceTB/SmolLM2-135M-Instruct --alias gpt-4o-mini
  LOWBIT_API_KEY=\"$(openssl rand -hex 24)\" lowbit serve MODEL --host 0.0.0.0 --allow-host models.example.org

Clients of OpenAI take `http://127.0.0.1:8080/v1` as base URL. SIGTERM and Ctrl-C stop it after the answers under way; a second one at once.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Address to listen on; others than this machine need --api-key.
    #[arg(long, default_value = "127.0.0.1", env = "LOWBIT_HOST")]
    host: String,
    /// Port; 0 for any that is free.
    #[arg(long, default_value_t = 8080, env = "LOWBIT_PORT")]
    port: u16,
    /// Another name of the model in requests; may be repeated.
    #[arg(long, visible_alias = "served-model-name", value_name = "NAME", env = "LOWBIT_ALIAS", value_delimiter = ',')]
    alias: Vec<String>,
    /// The key that clients show in `Authorization: Bearer`; better in the variable than on a command line that others can read.
    #[arg(long, value_name = "KEY", env = "LOWBIT_API_KEY", hide_env_values = true, conflicts_with = "api_key_file")]
    api_key: Option<String>,
    /// The file that holds the key.
    #[arg(long, value_name = "FILE", env = "LOWBIT_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// A name that the header `Host` may hold beside IP addresses and localhost; `*` for any; may be repeated.
    #[arg(long, value_name = "NAME", env = "LOWBIT_ALLOW_HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// An origin (https://example.org) whose web pages may use the server (CORS); `*` for any; may be repeated [default: none].
    #[arg(long, value_name = "ORIGIN", env = "LOWBIT_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for [default: these, at most 4096].
    #[arg(short, long, visible_alias = "ctx-size", env = "LOWBIT_CONTEXT")]
    context: Option<usize>,
    /// Answers at a time, each with keys and values of its own.
    #[arg(long, visible_alias = "max-num-seqs", default_value_t = 8, env = "LOWBIT_PARALLEL", value_parser = at_least_one)]
    parallel: usize,
    /// Tokens of prompts that are processed in a step in which answers go on: fewer let these wait less.
    #[arg(long, default_value_t = 64, env = "LOWBIT_CHUNK", value_parser = at_least_one)]
    chunk: usize,
    /// Memory for keys and values of ended answers, MiB: a prompt that begins like an earlier one goes on from there.
    #[arg(long, default_value_t = 256, env = "LOWBIT_PREFIX_CACHE_MIB")]
    prefix_cache_mib: u32,
    /// Guess tokens ahead: `ngram` looks them up in what was said. Answers stay the same.
    #[arg(long, value_parser = ["ngram"], env = "LOWBIT_DRAFT")]
    draft: Option<String>,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    #[arg(aliases = ["cache-type", "cache-type-k", "cache-type-v"], action = clap::ArgAction::Append)]
    kv: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
}

/// What clients may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// Answers that wait for their turn; more are refused with status 429.
    #[arg(long, default_value_t = 64, env = "LOWBIT_MAX_QUEUE")]
    max_queue: usize,
    /// Connections at a time; the one that has waited longest for a request makes room.
    #[arg(long, default_value_t = 256, env = "LOWBIT_MAX_CONNECTIONS", value_parser = at_least_one)]
    max_connections: usize,
    /// Answers to one request (`n`).
    #[arg(long, default_value_t = 8, env = "LOWBIT_MAX_CHOICES", value_parser = at_least_one)]
    max_choices: usize,
    /// Size of the header of a request, KiB.
    #[arg(long, default_value_t = 16, env = "LOWBIT_MAX_HEADER_KIB", value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_header_kib: u16,
    /// Lines of the header of a request.
    #[arg(long, default_value_t = 100, env = "LOWBIT_MAX_HEADERS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_headers: u16,
    /// Size of the body of a request, MiB.
    #[arg(long, default_value_t = 4, env = "LOWBIT_MAX_BODY_MIB", value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_body_mib: u16,
    /// Time for the header of a request, and that a connection may be idle.
    #[arg(long, default_value_t = 10, env = "LOWBIT_HEADER_SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    header_seconds: u32,
    /// Time for the body of a request, which after 5 seconds must also come at 512 bytes a second.
    #[arg(long, default_value_t = 30, env = "LOWBIT_BODY_SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    body_seconds: u32,
    /// Time that a client may take nothing of an answer.
    #[arg(long, default_value_t = 30, env = "LOWBIT_WRITE_SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    write_seconds: u32,
    /// Time for answers under way after SIGTERM.
    #[arg(long, default_value_t = 30, env = "LOWBIT_DRAIN_SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
    drain_seconds: u32,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "not a number from 1 on".into())
}

impl LimitFlags {
    fn limits(&self) -> Limits {
        let seconds = |n: u32| Duration::from_secs(n.into());
        Limits {
            connections: self.max_connections,
            queue: self.max_queue,
            header_bytes: usize::from(self.max_header_kib) << 10,
            headers: self.max_headers.into(),
            header_time: seconds(self.header_seconds),
            body_bytes: usize::from(self.max_body_mib) << 20,
            body_time: seconds(self.body_seconds),
            write_time: seconds(self.write_seconds),
            drain_time: seconds(self.drain_seconds),
            choices: self.max_choices,
            ..Limits::default()
        }
    }
}

impl Serve {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        // A stop ends no pass: answers under way are completed.
        let (cpu, recipe) = (machine.cpu()?.until(Stop::default()), self.recipe.get()?);
        let options = EngineOptions {
            context: self.context,
            parallel: self.parallel,
            cache: model::cache("--kv", &self.kv)?,
            chunk: self.chunk,
            prefix_bytes: (self.prefix_cache_mib as usize) << 20,
            draft: self.draft.as_ref().map(|_| Draft::Ngram),
            ..EngineOptions::default()
        };
        let server = Server::bind(self.settings()?)?;
        let path = self.model.get();
        let checkpoint = match path {
            Some(path) => model::open(machine, path, recipe, &cpu)?,
            None => shipped::open()?.on(&cpu).under(recipe),
        };
        let name = path.map_or_else(|| shipped::NAME.to_owned(), name_of);
        let served = Served::load(&checkpoint, cpu, &name, &options).map_err(flagged)?.also_as(self.alias.clone());
        machine.terminal.notes(served.notices().iter().skip(checkpoint.notices().len()));
        if served.is_language_model() && !served.has_template() {
            machine.terminal.note("no chat template: the model continues what is said last");
        }
        let url = format!("http://{}", server.address());
        match machine.json {
            true => machine.terminal.json_object(json!({
                "url": url,
                "model": name,
                "context": served.context(),
                "parallel": self.parallel,
            }))?,
            false => machine.terminal.line(format!("{name} at {url}/v1, {} tokens of context", served.context())),
        }
        machine.signals.defer();
        Ok(server.run(served, machine.signals.stop())?)
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let key = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(file)) => Some(crate::run::prompt::read(file)?.trim().to_owned()),
            (None, None) => None,
        };
        Ok(Settings {
            host: self.host.clone(),
            port: self.port,
            key: key.as_deref().map(Key::new).transpose()?,
            hosts: self.allow_host.clone(),
            origins: self.allow_origin.clone(),
            limits: self.limits.limits(),
        })
    }
}

/// The name of a model by its path: that of the file or directory, of a model of the Hub all of it.
fn name_of(path: &Path) -> String {
    if path.exists() { model::name_of(path) } else { path.display().to_string() }
}

/// Faults of values are those of flags.
fn flagged(error: Error) -> Failure {
    match error.path {
        None if error.message.starts_with("context") => Failure::usage(format!("--{error}")),
        _ => error.into(),
    }
}
