//! Dimensions of networks that are published, or measured by studies.

use crate::container::show;
use crate::{Config, Error};
use lowbit_base::alternatives;

/// The dimensions of a network.
#[derive(Debug)]
pub struct ModelShape {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Name of the recipe such networks usually run under.
    pub recipe: &'static str,
    json: &'static str,
}

/// Every shape.
pub static SHAPES: &[ModelShape] = &[
    ModelShape {
        name: "bitnet-2b",
        summary: "BitNet b1.58 2B4T",
        recipe: "bitnet",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 2560, "num_hidden_layers": 30,
            "num_attention_heads": 20, "num_key_value_heads": 5, "head_dim": 128, "intermediate_size": 6912,
            "hidden_act": "relu2", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "bitnet-700m",
        summary: "bitnet_b1_58-large",
        recipe: "bitnet",
        json: r#"{"architecture": "decoder", "vocab_size": 32002, "hidden_size": 1536, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 96, "intermediate_size": 4096,
            "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "llama-1b",
        summary: "Llama 3.2 1B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
            "hidden_act": "silu", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "llama-3b",
        summary: "Llama 3.2 3B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192,
            "hidden_act": "silu", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "qwen3-1.7b",
        summary: "Qwen3 1.7B, Bonsai 1.7B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144,
            "hidden_act": "silu", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "sub_norm": false, "qk_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "qwen3-4b",
        summary: "Qwen3 4B, Bonsai 4B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 151936, "hidden_size": 2560, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728,
            "hidden_act": "silu", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "sub_norm": false, "qk_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt2",
        summary: "GPT-2 small",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 1024,
            "qkv_bias": true, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt2-classifier",
        summary: "GPT-2 small for four classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 1024,
            "qkv_bias": true, "layer_norm_eps": 1e-5, "head": {"classify": {"classes": 4, "pooling": "last", "bias": false}}}"#,
    },
    ModelShape {
        name: "gpt-neo-1.3b",
        summary: "GPT-Neo 1.3B",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 2048, "num_hidden_layers": 24,
            "num_attention_heads": 16, "intermediate_size": 8192, "hidden_act": "gelu", "max_position_embeddings": 2048,
            "attention_scale": 1.0, "sliding_window": 256, "full_attention_layers": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22],
            "qkv_bias": false, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt-neo-2.7b",
        summary: "GPT-Neo 2.7B",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 2560, "num_hidden_layers": 32,
            "num_attention_heads": 20, "intermediate_size": 10240, "hidden_act": "gelu", "max_position_embeddings": 2048,
            "attention_scale": 1.0, "sliding_window": 256, "full_attention_layers": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30],
            "qkv_bias": false, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "distilbert-classifier",
        summary: "DistilBERT for two classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler": "relu", "head": {"classify": {"classes": 2, "pooling": "first", "bias": true}}}"#,
    },
    ModelShape {
        name: "distilbert-multilingual-classifier",
        summary: "DistilBERT multilingual for three classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler": "relu", "head": {"classify": {"classes": 3, "pooling": "first", "bias": true}}}"#,
    },
    ModelShape {
        name: "minilm",
        summary: "all-MiniLM-L6-v2, vectors of sentences",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 1536, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "head": {"embed": {"pooling": "mean", "normalize": true}}}"#,
    },
    ModelShape {
        name: "mlp-100k",
        summary: "perceptron of 2 layers, 0.1 M parameters",
        recipe: "bitnet",
        json: r#"{"architecture": "mlp", "features": 784, "layers": [128], "hidden_act": "relu", "classes": 10}"#,
    },
    ModelShape {
        name: "mlp-1m",
        summary: "perceptron of 3 layers, 1 M parameters",
        recipe: "bitnet",
        json: r#"{"architecture": "mlp", "features": 784, "layers": [640, 768], "hidden_act": "relu", "classes": 10}"#,
    },
    ModelShape {
        name: "mlp-10m",
        summary: "perceptron of 4 layers, 10 M parameters",
        recipe: "bitnet",
        json: r#"{"architecture": "mlp", "features": 784, "layers": [1536, 2304, 2304], "hidden_act": "relu", "classes": 10}"#,
    },
    ModelShape {
        name: "mlp-100m",
        summary: "perceptron of 5 layers, 100 M parameters",
        recipe: "bitnet",
        json: r#"{"architecture": "mlp", "features": 784, "layers": [4096, 5632, 6144, 6400], "hidden_act": "relu", "classes": 10}"#,
    },
    ModelShape {
        name: "resnet18-cifar",
        summary: "ResNet-18 for 32 x 32 pixels and ten classes",
        recipe: "bitnet",
        json: r#"{"architecture": "resnet", "image": [32, 32, 3], "stem": "cifar", "block": "basic", "stages": [2, 2, 2, 2],
            "width": 64, "classes": 10}"#,
    },
    ModelShape {
        name: "resnet18",
        summary: "ResNet-18 for ImageNet",
        recipe: "bitnet",
        json: r#"{"architecture": "resnet", "image": [224, 224, 3], "stem": "imagenet", "block": "basic", "stages": [2, 2, 2, 2],
            "width": 64, "classes": 1000}"#,
    },
    ModelShape {
        name: "resnet50",
        summary: "ResNet-50 for ImageNet",
        recipe: "bitnet",
        json: r#"{"architecture": "resnet", "image": [224, 224, 3], "stem": "imagenet", "block": "bottleneck", "stages": [3, 4, 6, 3],
            "width": 64, "classes": 1000}"#,
    },
    ModelShape {
        name: "vgg16",
        summary: "VGG-16 for ImageNet",
        recipe: "bitnet",
        json: r#"{"architecture": "vgg", "image": [224, 224, 3], "hidden": [4096, 4096], "classes": 1000}"#,
    },
];

impl ModelShape {
    /// The dimensions.
    pub fn config(&self) -> Config {
        serde_json::from_str(self.json).expect("the list holds valid configurations")
    }
}

/// The shape of a name.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind), listing all, with the nearest.
pub fn find(name: &str) -> Result<&'static ModelShape, Error> {
    if let Some(shape) = SHAPES.iter().find(|s| s.name == name) {
        return Ok(shape);
    }
    let known = alternatives(name, SHAPES.iter().map(|s| s.name));
    Err(Error::usage(format!("unknown synthetic model `{}`{known}", show(name))))
}
