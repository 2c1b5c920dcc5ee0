//! Small networks with reproducible weights.
#![allow(dead_code)]

pub mod tokenizers;

use lowbit_kernels::Cpu;
use lowbit_model::arch::{Head, decoder, encoder, gpt, mlp};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::container::{Dtype, Planned, Tensors, Writer};
use lowbit_model::exec::{Activation, Batch, Pooling};
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::{Init, ParamSpec};
use lowbit_model::{Config, Error, Kind, ModelConfig, Tokenizer};
use std::collections::BTreeMap;
use std::path::Path;

/// Uniform numbers in -1..1.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

pub fn decoder(head: Head) -> decoder::Config {
    decoder::Config {
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
        causal: true,
        bigram_buckets: 0,
        dropout: 0.1,
        head,
    }
}

pub const LM: Head = Head::Lm { tied: false };
pub const TIED: Head = Head::Lm { tied: true };
pub const CLASSIFY: Head = Head::Classify { classes: 3, pooling: Pooling::Mean, bias: true };

/// One configuration per architecture and kind of head.
pub fn configs() -> Vec<Config> {
    let both_ways = decoder::Config { causal: false, sub_norm: false, bigram_buckets: 64, ..decoder(CLASSIFY) };
    let biased = decoder::Config {
        qk_norm: true,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        sub_norm: false,
        head_dim: 16,
        ..decoder(TIED)
    };
    let last = Head::Classify { classes: 5, pooling: Pooling::Last, bias: true };
    let bag = mlp::Config {
        vocab_size: 258,
        hidden_size: 20,
        features: 0,
        layers: vec![33, 17],
        hidden_act: Activation::GeluTanh,
        classes: 4,
        bigram_buckets: 50,
        dropout: 0.1,
    };
    vec![
        Config::Decoder(decoder(LM)),
        Config::Decoder(decoder(TIED)),
        Config::Decoder(both_ways),
        Config::Decoder(decoder(last)),
        Config::Decoder(biased),
        Config::Mlp(bag),
        Config::Encoder(encoder(CLASSIFY)),
        Config::Encoder(encoder(Head::Embed { pooling: Pooling::Mean, normalize: true })),
        Config::Gpt(gpt(TIED)),
        Config::Gpt(gpt(last)),
    ]
}

pub fn encoder(head: Head) -> encoder::Config {
    encoder::Config {
        vocab_size: 258,
        hidden_size: 36,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 50,
        hidden_act: Activation::GeluErf,
        max_position_embeddings: 44,
        position_offset: 2,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        sub_norm: false,
        dropout: 0.1,
        pooler: Some(Activation::Tanh),
        head,
    }
}

pub fn gpt(head: Head) -> gpt::Config {
    gpt::Config {
        vocab_size: 258,
        hidden_size: 36,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 50,
        hidden_act: Activation::GeluTanh,
        max_position_embeddings: 44,
        qkv_bias: true,
        attention_scale: None,
        sliding_window: Some(5),
        full_attention_layers: vec![0],
        layer_norm_eps: 1e-5,
        sub_norm: false,
        dropout: 0.1,
        head,
    }
}

pub fn model_config(config: Config) -> ModelConfig {
    let labels = (0..config.classes().unwrap_or(0)).map(|i| format!("class {i}")).collect();
    ModelConfig { labels, ..ModelConfig::new(config, 40) }
}

/// Weights as [`Init`] says, but no vector is constant.
pub fn masters(config: &Config) -> Vec<(ParamSpec, Vec<f32>)> {
    let parameters = ParameterList::new(config).expect("a valid configuration");
    let mut noise = Noise(7);
    let fill = |spec: &ParamSpec| {
        let (mean, width) = match spec.init {
            Init::Normal(std) => (0.0, std * 3f32.sqrt()),
            Init::Constant(value) => (value, 0.3),
        };
        (0..spec.rows * spec.cols).map(|_| mean + width * noise.next()).collect()
    };
    let values: Vec<Vec<f32>> = parameters.params().iter().map(fill).collect();
    parameters.params().iter().cloned().zip(values).collect()
}

/// Writes a model directory with the byte tokenizer.
pub fn write(directory: &Path, config: &Config) -> Vec<(ParamSpec, Vec<f32>)> {
    let masters = masters(config);
    let params = masters.iter().map(|(spec, values)| (spec, &values[..]));
    save_masters(directory, &model_config(config.clone()), Some(&Tokenizer::bytes()), params).expect("written");
    masters
}

pub fn cpu() -> Cpu {
    Cpu::new(None, Some(2)).expect("a CPU")
}

pub fn batch() -> Batch {
    let texts = ["The quick", "b", "rown fox jumps over", "!?"];
    let tokens: Vec<Vec<u32>> = texts.iter().map(|t| t.bytes().map(u32::from).collect()).collect();
    Batch::new(tokens.iter().map(|t| &t[..]))
}

/// Largest difference over largest magnitude.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let top = a.iter().chain(b).fold(1e-30f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / top
}

/// Demands that an error blames a file's content in one short printable line with these words; returns the line.
pub fn refusal(what: &str, error: &Error, words: &[impl AsRef<str>]) -> String {
    let line = error.to_string();
    assert_eq!(error.kind, Kind::Input, "{what}: {line}");
    assert!(!line.contains(char::is_control) && line.len() < 1000, "{what} is one printable line: {line:?}");
    for word in words.iter().map(AsRef::as_ref) {
        assert!(line.contains(word), "{what}: `{word}` is not in: {line}");
    }
    line
}

/// [`refusal`] of a file, which the line begins with.
pub fn refused_file(what: &str, path: &Path, error: &Error, words: &[impl AsRef<str>]) {
    let line = refusal(what, error, words);
    assert!(line.starts_with(path.to_str().expect("UTF-8")), "{what} names the file: {line}");
}

/// Type, shape and bytes of tensors by name.
pub type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a safetensors file.
pub fn stored(path: &Path) -> Stored {
    let file = Tensors::open(path).unwrap_or_else(|e| panic!("{e}"));
    let stored = |name: &String| {
        let entry = file.entry(name).expect("listed");
        (name.clone(), (entry.dtype, entry.shape.clone(), file.bytes(name).expect("listed").to_vec()))
    };
    file.names().iter().map(stored).collect()
}

/// Writes a safetensors file.
pub fn write_tensors(path: &Path, tensors: &Stored) {
    let planned = |(name, (dtype, shape, _)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| Planned {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    };
    let plan: Vec<_> = tensors.iter().map(planned).collect();
    let mut writer = Writer::create(path, BTreeMap::new(), &plan).expect("created");
    for (name, (dtype, shape, bytes)) in tensors {
        writer.tensor(name, *dtype, shape, bytes).expect("written");
    }
    writer.finish().expect("written");
}

/// A directory as transformers writes it, configuration and tensors free to change.
pub struct Home {
    directory: tempfile::TempDir,
    pub config: serde_json::Value,
    pub tensors: Stored,
}

impl Home {
    pub fn of(config: serde_json::Value, tensors: Stored) -> Self {
        Home { tensors, ..Home::in_directory(tempfile::tempdir().expect("a directory"), config) }
    }

    /// The same in a directory that holds other files already, without tensors.
    pub fn in_directory(directory: tempfile::TempDir, config: serde_json::Value) -> Self {
        Home { directory, config, tensors: Stored::new() }
    }

    /// Adds tensors of zeros.
    pub fn zeros(&mut self, tensors: &[(&str, &[usize])]) {
        for (name, shape) in tensors {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            self.tensors.insert((*name).into(), (Dtype::F32, shape.to_vec(), bytes));
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self) {
        std::fs::write(self.path().join("config.json"), self.config.to_string()).expect("written");
        write_tensors(&self.path().join("model.safetensors"), &self.tensors);
    }
}
