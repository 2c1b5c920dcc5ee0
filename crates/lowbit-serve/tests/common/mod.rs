//! A server on a free port with a small random model over bytes, and a client that says exactly what it is told.
#![allow(dead_code)] // each test file uses a part

use lowbit_base::{Error, SplitMix64, Stop};
use lowbit_kernels::Cpu;
use lowbit_model::arch::{Head, OutputKind, decoder};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::exec::Activation;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Init;
use lowbit_model::{Checkpoint, Config, Inputs, ModelConfig, Tokenizer};
use lowbit_serve::{EngineOptions, Served, Server, Settings};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tokens that the model was trained for.
pub const TRAINED: usize = 4096;
/// The token that ends an answer.
pub const END: u32 = 257;

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('the system \
                        message comes first') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";

fn config(head: Head) -> Config {
    Config::Decoder(decoder::Config {
        vocab_size: 258,
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 12,
        intermediate_size: 80,
        hidden_act: Activation::Relu2,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-5,
        sub_norm: true,
        qk_norm: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        sliding_window: None,
        full_attention_layers: Vec::new(),
        causal: matches!(head, Head::Lm { .. }),
        bigram_buckets: 0,
        dropout: 0.0,
        head,
    })
}

/// A template that tells of functions and writes calls as Qwen's and Hermes' do.
pub const TOOLS: &str = r#"{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls %}
{{- '\n<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' ~ (call.function.arguments | tojson) ~ '}\n</tool_call>' }}
{%- endfor %}{% endfor %}<assistant>"#;

/// The small model with one of its heads, in a directory that lasts as long as the first value.
pub fn checkpoint(head: Head) -> (tempfile::TempDir, Checkpoint) {
    checkpoint_with(head, TEMPLATE)
}

/// The same with another template.
pub fn checkpoint_with(head: Head, template: &str) -> (tempfile::TempDir, Checkpoint) {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, mut random) = (config(head), SplitMix64::new(3));
    let parameters = ParameterList::new(&config).expect("a valid configuration");
    let mut values = |init: Init, n: usize| -> Vec<f32> {
        let uniform = |random: &mut SplitMix64| random.unit() as f32 * 2.0 - 1.0;
        match init {
            Init::Normal(std) => (0..n).map(|_| 2.0 * std * uniform(&mut random)).collect(),
            Init::Constant(value) => (0..n).map(|_| value + 0.3 * uniform(&mut random)).collect(),
        }
    };
    let weights: Vec<Vec<f32>> =
        parameters.params().iter().map(|spec| values(spec.init, spec.rows * spec.cols)).collect();
    let labels = (0..config.classes().unwrap_or(0)).map(|i| format!("class {i}")).collect();
    // Mean 3, deviation 2.
    let values = Inputs::Features { width: 1, values: vec![1.0, 5.0] };
    let target_scaling = (config.output() == OutputKind::Value).then(|| Scaling::of(&values));
    let model_config = ModelConfig {
        labels,
        target_scaling,
        chat_template: Some(template.into()),
        eos_token_ids: vec![END],
        ..ModelConfig::new(config, TRAINED)
    };
    let params = parameters.params().iter().zip(weights.iter().map(|values| &values[..]));
    save_masters(directory.path(), &model_config, Some(&Tokenizer::bytes()), params).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("opened");
    (directory, checkpoint)
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Settings on a free port.
pub fn settings() -> Settings {
    Settings { port: 0, ..Settings::default() }
}

/// Starts a server of the language model.
pub fn start(settings: Settings, options: EngineOptions) -> Running {
    start_with(Head::Lm { tied: false }, settings, options)
}

/// Starts a server of the model with a head.
pub fn start_with(head: Head, settings: Settings, options: EngineOptions) -> Running {
    start_as(head, TEMPLATE, settings, options)
}

/// Starts a server of the language model with a template that tells of functions.
pub fn with_tools() -> Running {
    with_template(TOOLS)
}

/// Starts a server of the language model with this template.
pub fn with_template(template: &str) -> Running {
    start_as(Head::Lm { tied: false }, template, settings(), EngineOptions::default())
}

fn start_as(head: Head, template: &str, settings: Settings, options: EngineOptions) -> Running {
    let server = Server::bind(settings).expect("listens");
    let (address, stop) = (server.address(), Stop::default());
    let (own, template) = (stop.clone(), template.to_owned());
    let thread = std::thread::spawn(move || {
        let (_directory, checkpoint) = checkpoint_with(head, &template);
        let cpu = Cpu::new(None, Some(1)).expect("a CPU");
        let served = Served::load(&checkpoint, cpu, "tiny", &options).expect("loaded");
        server.run(served.also_as(["gpt-test".to_owned()]), &own)
    });
    Running { address, stop, thread: Some(thread) }
}

/// A server with all defaults but the port.
pub fn plain() -> Running {
    start(settings(), EngineOptions::default())
}

impl Running {
    /// Asks it to stop and waits until it did.
    pub fn end(&mut self) -> Result<(), Error> {
        self.stop.set();
        self.thread.take().expect("runs").join().expect("does not panic")
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        Client { reader: BufReader::new(stream) }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.connect().send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Answer {
        self.connect().send(&post(path, body))
    }

    /// A number of the metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))[name.len() + 1..].parse().expect("a number")
    }

    /// Waits until a number of the metrics is this.
    pub fn wait(&self, name: &str, value: u64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < Duration::from_secs(30), "{name} is {}, not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

/// The text of a request.
pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).expect("written");
    }

    /// The same where the server may have ended the connection.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    pub fn send(&mut self, request: &str) -> Answer {
        self.write(request);
        self.answer().expect("an answer")
    }

    /// What the server says next; none when it ended the connection.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        let length = answer.header("content-length").and_then(|text| text.parse().ok());
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = length {
            answer.body = vec![0; length];
            self.reader.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    /// Status and headers.
    pub fn head(&mut self) -> Option<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.first()?.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, headers: lines.split_off(1), body: Vec::new() })
    }

    /// The next chunk of a stream; none at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut data = vec![0; length + 2];
        self.reader.read_exact(&mut data).ok()?;
        data.truncate(length);
        (length > 0).then_some(data)
    }

    /// Whether the server ends the connection, with or without a last answer.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok()
    }
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    /// The JSON of an answer with status 200.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The error of an answer with another status: all have one shape.
    pub fn error(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?} is no JSON"));
        let error = &value["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{value}");
        assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some(), "{value}");
        error.clone()
    }

    /// The events of a stream, the last of which is `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        let data: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
        data[..data.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }
}

/// A chat with fixed draws that does not end by itself before `max_tokens`.
pub fn chat(text: &str, max_tokens: usize) -> Value {
    json!({
        "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "seed": 7, "temperature": 0.8,
        "logit_bias": {END.to_string(): -100},
    })
}

/// With more fields.
pub fn with(mut base: Value, more: Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    base.as_object_mut().expect("an object").extend(more);
    base
}

/// The text of the answer to a chat.
pub fn said(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}
