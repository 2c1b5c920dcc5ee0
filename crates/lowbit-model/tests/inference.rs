//! The CPU interpreter against itself and against the parameters.

mod common;

use common::*;
use lowbit_model::calibrate::observe;
use lowbit_model::checkpoint::Options;
use lowbit_model::exec::Batch;
use lowbit_model::input::Scaling;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::predict::Predictor;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config, CpuExec, Inputs, Model, ModelConfig, Param, Session, recipe};
use std::sync::Arc;

fn model(config: &Config, recipe: &str) -> Model<Param> {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), config);
    let checkpoint = Checkpoint::open(directory.path()).expect("valid");
    checkpoint.model_as(recipe::find(recipe).expect("listed"), &Options::new()).expect("quantizes")
}

/// Straight from the definitions: f64, one token after another, no interpreter.
fn reference(config: &Config, tokens: &[u32]) -> Vec<f64> {
    let Config::Decoder(c) = config else { unreachable!("a decoder") };
    let masters = masters(config);
    let get = |name: &str| {
        let (spec, values) = masters.iter().find(|(spec, _)| spec.name == name).expect(name);
        (spec.cols, values.iter().map(|v| *v as f64).collect::<Vec<f64>>())
    };
    let product = |x: &[f64], name: &str| -> Vec<f64> {
        let (cols, w) = get(name);
        w.chunks_exact(cols).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let norm = |x: &[f64], name: &str| -> Vec<f64> {
        let square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (square + c.rms_norm_eps as f64).sqrt();
        x.iter().zip(get(name).1).map(|(x, w)| x * scale * w).collect()
    };
    let rotate = |x: &mut [f64], position: usize| {
        for head in x.chunks_exact_mut(c.head_dim) {
            let half = c.head_dim / 2;
            for i in 0..half {
                let angle = position as f64 * (c.rope_theta as f64).powf(-2.0 * i as f64 / c.head_dim as f64);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    };
    let (width, table) = get("model.embed_tokens.weight");
    let mut rows: Vec<Vec<f64>> = tokens.iter().map(|t| table[*t as usize * width..][..width].to_vec()).collect();
    for layer in 0..c.num_hidden_layers {
        let at = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let inputs: Vec<_> = rows.iter().map(|x| norm(x, &at("input_layernorm"))).collect();
        let mut keys: Vec<_> = inputs.iter().map(|x| product(x, &at("self_attn.k_proj"))).collect();
        keys.iter_mut().enumerate().for_each(|(i, k)| rotate(k, i));
        let values: Vec<_> = inputs.iter().map(|x| product(x, &at("self_attn.v_proj"))).collect();
        for (t, input) in inputs.iter().enumerate() {
            let mut q = product(input, &at("self_attn.q_proj"));
            rotate(&mut q, t);
            let mut mixed = Vec::new();
            for (h, q) in q.chunks_exact(c.head_dim).enumerate() {
                let shared = h / (c.num_attention_heads / c.num_key_value_heads) * c.head_dim;
                let score = |k: &Vec<f64>| q.iter().zip(&k[shared..]).map(|(q, k)| q * k).sum::<f64>();
                let weights: Vec<f64> =
                    keys[..=t].iter().map(|k| (score(k) / (c.head_dim as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                let value = |i: usize| weights.iter().zip(&values).map(|(w, v)| w * v[shared + i]).sum::<f64>() / total;
                mixed.extend((0..c.head_dim).map(value));
            }
            let mixed = product(&norm(&mixed, &at("self_attn.attn_sub_norm")), &at("self_attn.o_proj"));
            rows[t].iter_mut().zip(mixed).for_each(|(x, y)| *x += y);
            let input = norm(&rows[t], &at("post_attention_layernorm"));
            let (gate, up) = (product(&input, &at("mlp.gate_proj")), product(&input, &at("mlp.up_proj")));
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g.max(0.0).powi(2) * u).collect();
            let inner = product(&norm(&inner, &at("mlp.ffn_sub_norm")), &at("mlp.down_proj"));
            rows[t].iter_mut().zip(inner).for_each(|(x, y)| *x += y);
        }
    }
    rows.iter().flat_map(|x| product(&norm(x, "model.norm.weight"), "lm_head.weight")).collect()
}

#[test]
fn logits_are_those_of_the_definition() {
    let config = Config::Decoder(decoder(LM));
    let tokens: Vec<u32> = b"low bits, long words".iter().map(|b| *b as u32).collect();
    let logits = CpuExec::new(cpu()).forward(&model(&config, "f32"), &Batch::new([&tokens[..]])).expect("runs");
    assert_eq!((logits.rows(), logits.width()), (tokens.len(), 258));
    let expected: Vec<f32> = reference(&config, &tokens).iter().map(|v| *v as f32).collect();
    let distance = distance(&logits.to_vec(), &expected);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn decoding_gives_the_logits_of_the_prompt() {
    let tokens: Vec<u32> = (0..70).map(|i| (i * 37 % 251) as u32).collect();
    for head in [LM, TIED] {
        for recipe in ["f32", "int8", "nf4", "bitnet"] {
            let model = Arc::new(model(&Config::Decoder(decoder(head)), recipe));
            let whole = CpuExec::new(cpu()).forward(&model, &Batch::new([&tokens[..]])).expect("runs").to_vec();
            let mut session = Session::new(model, cpu(), 128);
            let mut seen = 0;
            for step in [31, 1, 1, 5, 1, 1, 30] {
                let logits = session.feed(&tokens[seen..seen + step]).expect("fits").to_vec();
                seen += step;
                // Several tokens at once may be summed in another order, which can flip a rounding boundary of 8-bit
                // activations, and may be multiplied in bf16, where the CPU has that and the weights are 4-bit floats.
                let limit = if recipe == "f32" { 1e-5 } else { 5e-2 };
                let distance = distance(&logits, &whole[(seen - 1) * 258..][..258]);
                assert!(distance < limit, "{recipe} after {seen} tokens: {distance}");
            }
            assert_eq!(session.tokens(), 70);
            session.truncate(31);
            let again = session.feed(&tokens[31..32]).expect("fits").to_vec();
            assert!(distance(&again, &whole[31 * 258..][..258]) < 5e-2, "a cut sequence continues as the first time");
        }
    }
}

#[test]
fn decoding_allocates_no_buffers() {
    for recipe in ["f32", "bitnet"] {
        let model = Arc::new(model(&Config::Decoder(decoder(LM)), recipe));
        let mut session = Session::new(model, cpu(), 300);
        session.feed(&[1, 2, 3, 4, 5]).expect("fits");
        session.feed(&[6]).expect("fits");
        let before = session.buffer_growths();
        for token in 0..200 {
            session.feed(&[token]).expect("fits");
        }
        assert!(before > 0);
        assert_eq!(session.buffer_growths(), before);
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    for config in configs() {
        for recipe in ["f32", "bitnet"] {
            let model = model(&config, recipe);
            let mut exec = CpuExec::new(cpu());
            let together = exec.forward(&model, &batch()).expect("runs").to_vec();
            let mut alone = Vec::new();
            for span in batch().cu_seqlens.windows(2) {
                let single = Batch::new([&batch().tokens[span[0]..span[1]]]);
                exec.forward(&model, &single).expect("runs").append_to(&mut alone);
            }
            let distance = distance(&together, &alone);
            assert!(distance < 1e-5, "{recipe}: {distance}");
        }
    }
}

#[test]
fn the_listing_counts_what_is_there() {
    for config in configs() {
        let parameters = ParameterList::new(&config).expect("valid");
        let masters = masters(&config);
        assert_eq!(parameters.count(), masters.iter().map(|(_, values)| values.len() as u64).sum::<u64>());
        assert_eq!(parameters.params().len(), masters.len());
        let names: std::collections::BTreeSet<_> = parameters.params().iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), masters.len(), "names are unique");
        assert!(parameters.count_of(|role| role == Role::Body) < parameters.count());
    }
    let Config::Decoder(c) = &configs()[0] else { unreachable!("a decoder") };
    let parameters = ParameterList::new(&configs()[0]).expect("valid");
    let (n, attention) = (9, c.num_attention_heads * c.head_dim);
    let weights = parameters.count_of(|role| matches!(role, Role::Body | Role::Head));
    let pairs = (c.num_hidden_layers * attention * n * (n + 1) / 2) as u64;
    let tokens: Vec<u32> = (0..n as u32).collect();
    assert_eq!(parameters.flops(&Batch::new([&tokens[..]])), 2 * weights * n as u64 + 4 * pairs);
}

#[test]
fn bad_requests_are_one_clear_line() {
    let decoder_model = Arc::new(model(&configs()[0], "f32"));
    let mut exec = CpuExec::new(cpu());
    let mut fails = |batch: &Batch| exec.forward(&decoder_model, batch).expect_err("refused").to_string();
    assert!(fails(&Batch::new([&[1, 258][..]])).contains("token 258 is outside the table of 258 entries"));
    assert!(fails(&Batch::new([&[1][..], &[]])).contains("none may be empty"));
    assert!(fails(&Batch::default()).contains("at least one sequence"));
    let mut session = Session::new(decoder_model, cpu(), 4);
    assert!(session.feed(&[]).expect_err("refused").to_string().contains("at least one token"));
    session.feed(&[1, 2]).expect("fits");
    assert!(session.feed(&[999]).is_err());
    let expected = "2 + 3 tokens exceed the context of 4";
    assert!(session.feed(&[1, 2, 3]).expect_err("refused").to_string().contains(expected));
    assert_eq!(session.tokens(), 2);
    session.feed(&[1, 2]).expect("fits");
    for config in &configs()[2..] {
        let text =
            Session::new(Arc::new(model(config, "f32")), cpu(), 4).feed(&[1]).map(|_| ()).map_err(|e| e.to_string());
        let causal = matches!(config, Config::Decoder(c) if c.causal) || matches!(config, Config::Gpt(_));
        assert!(causal || text.expect_err("refused").contains("use it as a classifier"));
    }
}

#[test]
fn a_classifier_takes_any_text() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[2]);
    let mut classifier = Predictor::of(&Checkpoint::open(directory.path()).expect("valid"), cpu()).expect("valid");
    assert_eq!(classifier.labels(), ["class 0", "class 1", "class 2"]);
    let long = "x".repeat(100_000);
    let texts = Inputs::Texts(["", "plain", "\0\u{202e}<|pad|>", &long].map(String::from).into());
    let logits = classifier.outputs(&texts, 0..4).expect("runs");
    assert_eq!(logits.len(), 4 * 3);
    let tokens = |row| {
        let mut batch = Batch::default();
        classifier.encoder().push(&texts, row, &mut batch).expect("encodes");
        batch.tokens
    };
    assert_eq!((tokens(0), tokens(3).len()), (vec![256], 40));
    let one = classifier.outputs(&texts, [1]).expect("runs");
    assert!(distance(&one, &logits[3..6]) < 1e-6);
    let many = Inputs::Texts(vec!["some text".into(); 1000]);
    let logits = classifier.outputs(&many, 0..1000).expect("runs");
    assert!(logits.chunks_exact(3).all(|row| distance(row, &logits[..3]) < 1e-6), "pieces of a batch agree");
}

/// A network of numbers: one hidden unit for each, so that the answer can be told by hand.
#[test]
fn a_network_of_numbers_answers_with_values() {
    let text = r#"{"architecture": "mlp", "features": 2, "hidden_act": "relu", "layers": [2], "classes": 1}"#;
    let config: Config = serde_json::from_str(text).expect("valid");
    let model_config = ModelConfig {
        input_scaling: Some(Scaling { mean: vec![10.0, -1.0], deviation: vec![2.0, 4.0] }),
        target_scaling: Some(Scaling { mean: vec![100.0], deviation: vec![50.0] }),
        ..ModelConfig::new(config.clone(), 1)
    };
    let mut masters = masters(&config);
    for (spec, values) in &mut masters {
        match spec.name.as_str() {
            "layers.0.weight" => values.copy_from_slice(&[1.0, 0.0, 0.0, 1.0]),
            "classifier.weight" => values.copy_from_slice(&[3.0, -2.0]),
            "classifier.bias" => values.fill(0.5),
            _ => values.fill(0.0),
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let params = masters.iter().map(|(spec, values)| (spec, &values[..]));
    lowbit_model::checkpoint::save_masters(directory.path(), &model_config, None, params).expect("written");
    let mut predictor = Predictor::of(&Checkpoint::open(directory.path()).expect("valid"), cpu()).expect("valid");
    // Scaled (1, 2), (-1, 0), and (0, 0) for what is unknown.
    let inputs = Inputs::Features { width: 2, values: vec![12.0, 7.0, 8.0, -1.0, f32::NAN, f32::NAN] };
    let outputs = predictor.outputs(&inputs, 0..3).expect("runs");
    assert_eq!(outputs, [3.0 - 4.0 + 0.5, 0.5, 0.5]);
    assert_eq!(predictor.values(&outputs), [75.0, 125.0, 125.0]);
    let refused =
        |inputs: &Inputs, predictor: &mut Predictor| predictor.outputs(inputs, [0]).expect_err("refused").to_string();
    let wide = Inputs::Features { width: 3, values: vec![0.0; 3] };
    assert!(refused(&wide, &mut predictor).contains("rows of 3 numbers, and the model reads 2"));
    assert!(refused(&Inputs::Texts(vec!["x".into()]), &mut predictor).contains("the model reads rows of numbers"));
}

#[test]
fn scalings_that_do_not_fit_are_refused() {
    let text = r#"{"architecture": "mlp", "features": 2, "hidden_act": "relu", "classes": 1}"#;
    let config: Config = serde_json::from_str(text).expect("valid");
    let scaling = |n: usize, deviation: f32| Some(Scaling { mean: vec![0.0; n], deviation: vec![deviation; n] });
    for (input, target, said) in [
        (None, scaling(1, 1.0), "`input_scaling` is missing"),
        (scaling(3, 1.0), scaling(1, 1.0), "`input_scaling` is of 3 numbers; the network has 2"),
        (scaling(2, 0.0), scaling(1, 1.0), "`input_scaling` must hold"),
        (scaling(2, 1.0), None, "`target_scaling` is missing"),
        (scaling(2, 1.0), scaling(1, -1.0), "`target_scaling` must hold"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let model_config =
            ModelConfig { input_scaling: input, target_scaling: target, ..ModelConfig::new(config.clone(), 1) };
        let path = directory.path().join("config.json");
        model_config.save(&path).expect("written");
        let error = ModelConfig::load(&path).expect_err("refused").to_string();
        assert!(error.contains(said) && error.contains("config.json"), "{said}: {error}");
    }
}

#[test]
fn a_language_model_is_no_classifier() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[0]);
    let error =
        Predictor::of(&Checkpoint::open(directory.path()).expect("valid"), cpu()).err().expect("refused").to_string();
    assert!(error.contains("has no classes"), "{error}");
}

#[test]
fn calibration_finds_outlier_features() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = configs()[0].clone();
    let mut masters = masters(&config);
    let norm =
        masters.iter_mut().find(|(spec, _)| spec.name == "model.layers.0.input_layernorm.weight").expect("there");
    norm.1[17] = 100.0;
    let params = masters.iter().map(|(spec, values)| (spec, &values[..]));
    lowbit_model::checkpoint::save_masters(directory.path(), &model_config(config), None, params).expect("written");
    let model = Checkpoint::open(directory.path()).expect("valid").model().expect("loads");
    let options = observe(&model, cpu(), [&batch()]).expect("runs").outliers();
    assert_eq!(options["model.layers.0.self_attn.q_proj.weight"].outlier_columns, [17]);
    assert_eq!(options["model.layers.1.self_attn.q_proj.weight"].outlier_columns, [0u32; 0]);
}
