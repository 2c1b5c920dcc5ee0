//! Gradients: central finite differences for the unquantized path, the formula for the straight-through one.

mod common;

use common::*;
use lowbit_kernels::Cpu;
use lowbit_model::exec::{
    Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling,
};
use lowbit_model::rope::{Rope, RopeScaling, Yarn};
use lowbit_model::source::{Init, ParamSpec, Role};
use lowbit_model::{Config, arch::Head};
use lowbit_train::{Network, ParamId, Params, Pass, Qat, QatActivations, Tape, Tensor};
use serde_json::json;

/// `sum(weights * logits)` in f64.
fn weighted(values: &[f32], weights: &[f32]) -> f64 {
    values.iter().zip(weights).map(|(&a, &b)| a as f64 * b as f64).sum()
}

/// Compares gradients with central differences of `loss` at a few elements of each parameter and along one random
/// direction per parameter.
fn compare(label: &str, tape: &mut Tape, loss: &mut dyn FnMut(&mut Tape) -> f64) {
    let ids = tape.params.ids().filter(|id| tape.params.get(*id).spec.role != Role::Statistics);
    let params = ids.map(|id| (tape.params.get(id), tape.gradient(id).expect("every parameter is used")));
    let gradients: Vec<(String, Vec<f32>, Vec<f32>)> =
        params.map(|(p, gradient)| (p.spec.name.clone(), p.values().to_vec(), gradient.to_vec())).collect();
    let mut numbers = Numbers(99);
    for (name, value, gradient) in &gradients {
        let norm = gradient.iter().map(|&g| g as f64 * g as f64).sum::<f64>().sqrt();
        let used: Vec<usize> = (0..value.len()).filter(|&i| gradient[i] != 0.0).collect();
        assert!(!used.is_empty(), "{label}: the gradient of {name} is zero");
        for trial in 0..6 {
            let mut direction = vec![0.0f32; value.len()];
            if trial == 0 {
                direction.iter_mut().for_each(|d| *d = numbers.float());
                let length = weighted(&direction, &direction).sqrt() as f32;
                direction.iter_mut().for_each(|d| *d /= length);
            } else {
                direction[used[numbers.next() as usize % used.len()]] = 1.0;
            }
            let mut at = |h: f32| {
                let moved: Vec<f32> = value.iter().zip(&direction).map(|(v, d)| v + h * d).collect();
                tape.params.set(name, &moved).unwrap();
                loss(tape)
            };
            let h = 4e-3;
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h as f64);
            let exact = weighted(gradient, &direction);
            let error = (slope - exact).abs();
            assert!(
                error <= 2e-3 * norm.max(0.2),
                "{label}: {name} trial {trial}: {exact} against {slope}, norm {norm}"
            );
        }
        tape.params.set(name, value).unwrap();
    }
}

/// Moves every parameter away from special values (norms of 1, biases of 0).
fn stir(params: &mut Params) {
    let mut numbers = Numbers(5);
    let names: Vec<(String, Vec<f32>)> = params.iter().map(|p| (p.spec.name.clone(), p.values().to_vec())).collect();
    for (name, mut value) in names {
        value.iter_mut().for_each(|v| *v += 0.3 * numbers.float());
        params.set(&name, &value).unwrap();
    }
}

fn of(config: serde_json::Value) -> Config {
    serde_json::from_value(config).unwrap()
}

fn check_network(label: &str, config: &Config) {
    let mut network = Network::new(&cpu(2), config, 3, None).unwrap();
    stir(&mut network.tape.params);
    let mut batch = ragged(&[5, 1, 8], 19, 2);
    if config.features() > 0 {
        batch.refill([]);
        let mut numbers = Numbers(8);
        (0..5).for_each(|_| batch.push_features((0..config.features()).map(|_| numbers.float())));
    }
    let pass = Pass::Train(77);
    let logits = network.forward(&batch, pass);
    let mut numbers = Numbers(1);
    let weights: Vec<f32> = (0..logits.rows() * logits.width()).map(|_| numbers.float()).collect();
    network.tape.seed_gradient(&logits, &weights);
    network.tape.backward();
    // The network is rebuilt around the tape for every evaluation of the loss.
    let Network { mut tape, .. } = network;
    let (model, _) = Params::initialise(config, 3).unwrap();
    let mut loss = |tape: &mut Tape| {
        tape.begin(&batch, pass);
        let logits = model.forward(tape);
        weighted(&tape.read(&logits), &weights)
    };
    compare(label, &mut tape, &mut loss);
}

#[test]
fn networks_follow_finite_differences() {
    let lm = |tied| Head::Lm { tied };
    let last = Head::Classify { classes: 3, pooling: Pooling::Last, bias: true };
    let cases = [
        ("tied lm", bitnet(lm(true), json!({}))),
        ("untied lm, bigrams, no sub-norm", bitnet(lm(false), json!({"bigram_buckets": 7, "sub_norm": false}))),
        ("classifier, both ways, dropout", bitnet(CLASSIFY, json!({"causal": false, "dropout": 0.3}))),
        ("classifier, last token, gelu", bitnet(last, json!({"hidden_act": "gelu", "num_key_value_heads": 4}))),
        ("window, gelu by erf", bitnet(lm(false), json!({"hidden_act": "gelu_erf", "sliding_window": 3}))),
        ("relu2", bitnet(lm(true), json!({"hidden_act": "relu2", "num_key_value_heads": 1}))),
        (
            "norms of queries and keys, biases",
            bitnet(
                lm(true),
                json!({"qk_norm": true, "qkv_bias": true, "output_bias": true, "mlp_bias": true, "sub_norm": false}),
            ),
        ),
        ("mlp", mlp(json!({}))),
        ("mlp, bigrams, dropout, silu", mlp(json!({"bigram_buckets": 7, "dropout": 0.3, "hidden_act": "silu"}))),
        ("fastText", mlp(json!({"layers": []}))),
        (
            "lenet",
            of(json!({"architecture": "lenet", "image": [12, 13, 2], "hidden_act": "silu", "widths": [3, 4, 9, 7],
            "batch_norm": true, "dropout": 0.2, "classes": 3})),
        ),
        ("encoder, pooler", encoder(json!({"pooler": "tanh", "dropout": 0.2}))),
        (
            "encoder, segments, vectors",
            encoder(json!({"type_vocab_size": 2, "hidden_act": "gelu_erf",
            "head": {"embed": {"pooling": "mean", "normalize": true}}})),
        ),
        ("encoder, sub-norms", encoder(json!({"sub_norm": true}))),
        ("gpt, tied", gpt(json!({"dropout": 0.2}))),
        ("gpt, sub-norms", gpt(json!({"sub_norm": true}))),
        (
            "gpt, classifier, window, unscaled",
            gpt(json!({"attention_scale": 1.0, "sliding_window": 3,
            "full_attention_layers": [1], "qkv_bias": false, "head": {"classify": {"classes": 3, "pooling": "last"}}})),
        ),
    ];
    for (label, config) in &cases {
        check_network(label, config);
    }
}

fn spec(name: &str, rows: usize, cols: usize, role: Role) -> ParamSpec {
    ParamSpec { name: name.into(), rows, cols, role, init: Init::Constant(0.0), positions: 1 }
}

fn push(params: &mut Params, name: &str, rows: usize, cols: usize, role: Role) -> ParamId {
    let mut numbers = Numbers(name.bytes().map(u64::from).sum());
    let value = (0..rows * cols).map(|_| numbers.float()).collect();
    params.push(spec(name, rows, cols, role), value)
}

type Build = fn(&mut Tape, &Tensor, &Tensor, &[ParamId; 3]) -> Tensor;

/// Every operation of the vocabulary, as a function of two activations of width 12 and of a matrix, a vector and a bias.
const OPERATIONS: &[(&str, Build)] = &[
    ("linear", |t, a, _, p| t.linear(a, &p[0], Some(&p[1]))),
    ("rms norm", |t, a, _, p| t.norm(a, NormKind::Rms, &p[1], None, 1e-5)),
    ("rms norm with bias", |t, a, _, p| t.norm(a, NormKind::Rms, &p[1], Some(&p[2]), 1e-5)),
    ("layer norm", |t, a, _, p| t.norm(a, NormKind::Layer, &p[1], Some(&p[2]), 1e-5)),
    ("layer norm without bias", |t, a, _, p| t.norm(a, NormKind::Layer, &p[1], None, 1e-5)),
    ("relu", |t, a, _, _| t.activate(a, Activation::Relu)),
    ("relu2", |t, a, _, _| t.activate(a, Activation::Relu2)),
    ("silu", |t, a, _, _| t.activate(a, Activation::Silu)),
    ("gelu", |t, a, _, _| t.activate(a, Activation::GeluErf)),
    ("gelu by tanh", |t, a, _, _| t.activate(a, Activation::GeluTanh)),
    ("tanh", |t, a, _, _| t.activate(a, Activation::Tanh)),
    ("mul", |t, a, b, _| t.mul(a, b)),
    ("square", |t, a, _, _| t.mul(a, a)),
    ("add", |t, a, b, _| t.add(a, b)),
    ("twice", |t, a, _, _| t.add(a, a)),
    ("gate", |t, a, b, _| {
        let a = t.activate(a, Activation::Silu);
        t.mul(&a, b)
    }),
    ("gate from the right, of itself", |t, a, _, _| {
        let f = t.activate(a, Activation::Silu);
        t.mul(a, &f)
    }),
    ("an activation that is used twice", |t, a, b, _| {
        let f = t.activate(a, Activation::Silu);
        let sum = t.add(&f, b);
        t.mul(&f, &sum)
    }),
    ("a gate and the activation alone", |t, a, b, _| {
        let f = t.activate(a, Activation::Silu);
        let gated = t.mul(&f, b);
        t.add(&gated, &f)
    }),
    ("pool mean", |t, a, _, _| t.pool(a, Pooling::Mean)),
    ("pool first", |t, a, _, _| t.pool(a, Pooling::First)),
    ("pool last", |t, a, _, _| t.pool(a, Pooling::Last)),
    ("conv", |t, a, _, p| {
        let window = Window { input: [4, 3], channels: 3, kernel: [2, 2], stride: [1, 2], padding: [0, 1] };
        t.conv(a, &p[0], Some(&p[2]), &window)
    }),
    ("conv of single pixels", |t, a, _, p| t.conv(a, &p[0], None, &Window::square([3, 2], 12, 1, 1, 0))),
    ("conv of whole images", |t, a, _, p| t.conv(a, &p[0], Some(&p[2]), &Window::whole([2, 3], 2))),
    ("batch norm", |t, a, _, p| {
        let [_, weight, bias] = *p;
        t.batch_norm(a, &BatchNorm { weight, bias, mean: weight, variance: weight, eps: 1e-3, momentum: 0.0 })
    }),
    ("max of windows", |t, a, _, _| {
        let window = Window::square([3, 2], 12, 2, 1, 1);
        t.pool_windows(a, WindowPooling::Max, &window)
    }),
    ("mean of windows", |t, a, _, _| t.pool_windows(a, WindowPooling::Mean, &Window::square([3, 2], 12, 2, 2, 1))),
    ("mean of images", |t, a, _, _| t.pool_windows(a, WindowPooling::Mean, &Window::whole([3, 2], 12))),
    ("dropout", |t, a, _, _| t.dropout(a, 0.4)),
    ("attend", |t, a, b, _| {
        let scaling = RopeScaling::Yarn(Yarn {
            factor: 4.0,
            original_max_position_embeddings: 16.0,
            attention_factor: 1.3,
            beta_fast: 2.0,
            beta_slow: 0.5,
            truncate: true,
        });
        let rope = Rope::new(100.0, 6, Some(&scaling));
        let spec = Attention { rope: Some(&rope), ..Attention::new(2, 2, 6) };
        let v = t.add(a, b);
        t.attend(a, b, &v, &spec)
    }),
    ("attend to itself, both ways, unrotated", |t, a, _, _| {
        let spec = Attention { causal: false, ..Attention::new(3, 3, 4) };
        t.attend(a, a, a, &spec)
    }),
    ("attend in a window", |t, a, b, _| t.attend(a, b, b, &Attention { window: Some(2), ..Attention::new(2, 2, 6) })),
    ("attend in a window, both ways, with a scale", |t, a, b, _| {
        let spec = Attention { window: Some(3), causal: false, scale: 0.7, ..Attention::new(1, 1, 12) };
        t.attend(a, a, b, &spec)
    }),
];

/// Each stands between embeddings and the loss.
#[test]
fn each_operation_follows_finite_differences() {
    let batch = ragged(&[4, 7, 1], 5, 8);
    for (label, build) in OPERATIONS {
        let mut params = Params::default();
        let tables = ["table a", "table b"].map(|name| push(&mut params, name, 5, 12, Role::Embedding));
        let ids = [
            push(&mut params, "weight", 12, 12, Role::Body),
            push(&mut params, "vector", 1, 12, Role::Norm),
            push(&mut params, "bias", 1, 12, Role::Bias),
        ];
        let mut tape = Tape::new(&cpu(1), params, None);
        let run = |tape: &mut Tape| {
            tape.begin(&batch, Pass::Train(5));
            let (a, b) = (tape.embed(&tables[0], Index::Tokens), tape.embed(&tables[1], Index::Bigrams(5)));
            let y = build(tape, &a, &b, &ids);
            // Every parameter takes part, so that every gradient exists.
            let y = tape.linear(&y, &ids[0], Some(&ids[2]));
            let b = tape.pool(&b, Pooling::Mean);
            let b = tape.norm(&b, NormKind::Rms, &ids[1], None, 1e-5);
            (y, b)
        };
        let weigh = |n: usize| (0..n).map(|i| ((i * 37 % 23) as f32 - 11.0) / 11.0).collect::<Vec<f32>>();
        let (y, b) = run(&mut tape);
        for out in [&y, &b] {
            tape.seed_gradient(out, &weigh(out.rows() * out.width()));
        }
        tape.backward();
        let mut loss = |tape: &mut Tape| {
            let (y, b) = run(tape);
            [y, b].iter().map(|out| weighted(&tape.read(out), &weigh(out.rows() * out.width()))).sum()
        };
        compare(label, &mut tape, &mut loss);
    }
}

/// `torch.nn.functional.mse_loss(y, t, reduction="sum")` has the gradient `2 * (y - t)`; here through layers over numbers.
#[test]
fn squared_error_seeds_its_own_gradient() {
    let mut params = Params::default();
    let mut numbers = Numbers(4);
    let mut push = |params: &mut Params, name: &str, rows, cols, role| {
        let values = (0..rows * cols).map(|_| numbers.float()).collect();
        params.push(ParamSpec { name: name.into(), rows, cols, role, init: Init::Constant(0.0), positions: 1 }, values)
    };
    let hidden = push(&mut params, "hidden", 5, 3, Role::Body);
    let head = push(&mut params, "head", 1, 5, Role::Head);
    let bias = push(&mut params, "bias", 1, 1, Role::Bias);
    let mut tape = Tape::new(&Cpu::new(None, Some(1)).unwrap(), params, None);
    let mut batch = Batch::default();
    [[0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [0.0, 0.0, 1.0]].into_iter().for_each(|row| batch.push_features(row));
    let targets = [1.0f32, -2.0, 0.5];
    let forward = |tape: &mut Tape, pass| {
        tape.begin(&batch, pass);
        let x = tape.features(3);
        let x = tape.linear(&x, &hidden, None);
        let x = tape.activate(&x, Activation::Silu);
        tape.linear(&x, &head, Some(&bias))
    };
    let values = forward(&mut tape, Pass::Train(0));
    let found = tape.read(&values);
    let expected: f64 = found.iter().zip(&targets).map(|(y, t)| f64::from(y - t).powi(2)).sum();
    let sum = tape.squared_error(&values, &targets, 0.5);
    assert!((sum - expected).abs() < 1e-6 * expected, "{sum} {expected}");
    drop(values);
    tape.backward();
    compare("squared error", &mut tape, &mut |tape| {
        let values = forward(tape, Pass::Evaluate);
        0.5 * tape.squared_error(&values, &targets, 0.5)
    });
}

#[test]
fn cross_entropy_seeds_its_own_gradient() {
    let config = mlp(json!({"layers": []}));
    let mut network = Network::new(&cpu(1), &config, 1, None).unwrap();
    let batch = ragged(&[3, 4, 2, 6], 19, 3);
    let targets = [0, u32::MAX, 2, 1];
    let logits = network.forward(&batch, Pass::Train(0));
    network.tape.cross_entropy(&logits, &targets, 0.1, 0.5);
    network.tape.backward();
    let Network { mut tape, .. } = network;
    let (model, _) = Params::initialise(&config, 1).unwrap();
    let mut loss = |tape: &mut Tape| {
        tape.begin(&batch, Pass::Train(0));
        let logits = model.forward(tape);
        0.5 * tape.cross_entropy(&logits, &targets, 0.1, 0.5)
    };
    compare("cross entropy", &mut tape, &mut loss);
}

/// `clamp(round(w * s), -1, 1) / s`, `s = 1 / max(mean|w|, 1e-5)`.
fn ternary(w: &[f32]) -> Vec<f64> {
    let mean = w.iter().map(|w| w.abs() as f64).sum::<f64>() / w.len() as f64;
    let s = 1.0 / mean.max(1e-5);
    w.iter().map(|&w| (w as f64 * s).round_ties_even().clamp(-1.0, 1.0) / s).collect()
}

/// `clamp(round(x * s), -128, 127) / s`, `s = 127 / max(max|x|, 1e-5)`, per token.
fn int8(x: &[f64]) -> Vec<f64> {
    let top = x.iter().fold(1e-5f64, |m, x| m.max(x.abs()));
    x.iter().map(|x| (x * 127.0 / top).round_ties_even().clamp(-128.0, 127.0) * top / 127.0).collect()
}

/// A quantized layer multiplies quantized values, and its gradient is that of a plain layer with those values.
#[test]
fn the_straight_through_layer_follows_its_formula() {
    let (width, out) = (40, 24);
    let batch = ragged(&[3, 2], 7, 4);
    for activations in [QatActivations::Int8, QatActivations::F32] {
        let mut params = Params::default();
        let table = push(&mut params, "table", 7, width, Role::Embedding);
        let weight = push(&mut params, "weight", out, width, Role::Body);
        let (e, w) = (params.get(table).values().to_vec(), params.get(weight).values().to_vec());
        let mut tape = Tape::new(&cpu(2), params, Some(Qat { activations, ..Qat::default() }));
        tape.begin(&batch, Pass::Train(0));
        let x = tape.embed(&table, Index::Tokens);
        let y = tape.linear(&x, &weight, None);
        let got = tape.read(&y);
        let dy: Vec<f32> = (0..got.len()).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        tape.seed_gradient(&y, &dy);
        tape.backward();

        let w_hat = ternary(&w);
        let row = |token: u32| e[token as usize * width..][..width].iter().map(|&x| x as f64).collect::<Vec<_>>();
        let quantize = |x: Vec<f64>| if activations == QatActivations::Int8 { int8(&x) } else { x };
        let x_hat: Vec<Vec<f64>> = batch.tokens.iter().map(|&t| quantize(row(t))).collect();
        let (mut dw, mut de) = (vec![0.0; w.len()], vec![0.0; e.len()]);
        for (t, x) in x_hat.iter().enumerate() {
            for o in 0..out {
                let sum: f64 = (0..width).map(|i| x[i] * w_hat[o * width + i]).sum();
                assert!((got[t * out + o] as f64 - sum).abs() < 1e-5, "forward");
                let g = dy[t * out + o] as f64;
                for i in 0..width {
                    dw[o * width + i] += g * x[i];
                    de[batch.tokens[t] as usize * width + i] += g * w_hat[o * width + i];
                }
            }
        }
        for (id, want) in [(weight, &dw), (table, &de)] {
            let gradient = tape.gradient(id).unwrap();
            for (i, (got, want)) in gradient.iter().zip(want).enumerate() {
                assert!((*got as f64 - want).abs() < 2e-5, "gradient {i}: {got}, not {want}");
            }
        }
    }
}

#[test]
fn only_body_weights_are_quantized() {
    let batch = ragged(&[4], 7, 4);
    for (role, equal) in [(Role::Body, false), (Role::Head, true), (Role::Embedding, true)] {
        let logits = |qat| {
            let mut params = Params::default();
            let table = push(&mut params, "table", 7, 16, Role::Embedding);
            let weight = push(&mut params, "weight", 5, 16, role);
            let mut tape = Tape::new(&cpu(1), params, qat);
            tape.begin(&batch, Pass::Evaluate);
            let x = tape.embed(&table, Index::Tokens);
            let y = tape.linear(&x, &weight, None);
            tape.read(&y)
        };
        assert_eq!(logits(None) == logits(Some(Qat::default())), equal, "{role:?}");
    }
}

#[test]
fn evaluation_drops_nothing_and_records_nothing() {
    let config = |dropout: f32| bitnet(CLASSIFY, json!({"dropout": dropout}));
    let batch = ragged(&[5, 3], 19, 2);
    let network = |dropout| Network::new(&cpu(1), &config(dropout), 3, None).unwrap();
    let (with, without) = (network(0.5).logits(&batch), network(0.0).logits(&batch));
    assert_eq!(with, without);
    let mut network = network(0.5);
    let train = |network: &mut Network, seed| {
        let logits = network.forward(&batch, Pass::Train(seed));
        network.tape.read(&logits)
    };
    let (first, other) = (train(&mut network, 1), train(&mut network, 2));
    assert_ne!(first, other);
    assert_eq!(first, train(&mut network, 1));
    assert_ne!(first, with.0);
    let logits = network.forward(&batch, Pass::Evaluate);
    network.tape.seed_gradient(&logits, &vec![1.0; logits.rows() * logits.width()]);
    network.tape.backward();
    assert!(network.params().ids().all(|id| network.tape.gradient(id).is_none()));
}

/// Bits of all gradients after one pass.
fn gradient_bits(cpu: &Cpu, config: &Config, qat: Option<Qat>, batch: &Batch) -> Vec<u32> {
    let mut network = Network::new(cpu, config, 3, qat).unwrap();
    let logits = network.forward(batch, Pass::Train(9));
    let gradient: Vec<f32> = (0..logits.rows() * logits.width()).map(|i| (i % 13) as f32 - 6.0).collect();
    network.tape.seed_gradient(&logits, &gradient);
    network.tape.backward();
    network.params().ids().flat_map(|id| network.tape.gradient(id).unwrap()).map(|g| g.to_bits()).collect()
}

#[test]
fn gradients_have_the_same_bits_on_every_number_of_threads_and_instruction_set() {
    let lengths: Vec<usize> = (0..40).map(|i| 1 + i * 7 % 23).collect();
    let batch = ragged(&lengths, 19, 6);
    let config = bitnet(Head::Lm { tied: true }, json!({"dropout": 0.1, "bigram_buckets": 5}));
    for (config, qat) in [(&config, None), (&config, Some(Qat::default())), (&mlp(json!({})), None)] {
        let reference = gradient_bits(&cpu(1), config, qat, &batch);
        for threads in [2, 3, 7] {
            assert!(gradient_bits(&cpu(threads), config, qat, &batch) == reference, "{threads} threads");
        }
        for isa in lowbit_kernels::Isa::available() {
            let cpu = Cpu::new(Some(isa.name()), Some(2)).unwrap();
            assert!(gradient_bits(&cpu, config, qat, &batch) == reference, "{}", isa.name());
        }
    }
}

/// A frozen matrix is a constant: logits and all other gradients are those of masters with its values.
#[test]
fn gradients_pass_through_frozen_matrices() {
    let (cpu, batch) = (cpu(2), ragged(&[5, 3, 9], 19, 2));
    let config = bitnet(Head::Lm { tied: false }, json!({"dropout": 0.1}));
    let frozen = ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"];
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for format in ["int4", "nf4", "ternary"] {
        let format = lowbit_kernels::format::find(format).unwrap();
        let [packed, same] = [true, false].map(|freeze| {
            let mut network = Network::new(&cpu, &config, 3, None).unwrap();
            for name in frozen {
                let param = network.params().by_name(name).unwrap();
                let (rows, cols) = (param.spec.rows, param.spec.cols);
                let packed = format.quantize(&param.values(), rows, cols, &Default::default()).unwrap();
                match freeze {
                    true => network.tape.params.freeze(name, packed).unwrap(),
                    false => network.tape.params.set(name, &packed.dequantize()).unwrap(),
                }
            }
            let logits = network.forward(&batch, Pass::Train(9));
            let gradient: Vec<f32> = (0..logits.rows() * logits.width()).map(|i| (i % 13) as f32 - 6.0).collect();
            network.tape.seed_gradient(&logits, &gradient);
            network.tape.backward();
            let logits = bits(&network.tape.read(&logits));
            (network, logits)
        });
        assert_eq!(packed.1, same.1, "{}", format.name());
        for id in packed.0.params().ids() {
            let name = &*packed.0.params().get(id).spec.name;
            let gradients = [&packed.0, &same.0].map(|network| network.tape.gradient(id).map(bits));
            match frozen.contains(&name) {
                true => assert!(gradients[0].is_none() && gradients[1].is_some(), "{name}"),
                false => assert_eq!(gradients[0], gradients[1], "{} {name}", format.name()),
            }
        }
    }
}

/// Quantization-aware training leaves a frozen matrix of the body as it is.
#[test]
fn a_frozen_matrix_is_not_quantized_again() {
    let (width, out) = (32, 20);
    let mut params = Params::default();
    let table = push(&mut params, "table", 7, width, Role::Embedding);
    let weight = push(&mut params, "weight", out, width, Role::Body);
    let packed = lowbit_kernels::format::find("int4").unwrap();
    let packed = packed.quantize(&params.get(weight).values(), out, width, &Default::default()).unwrap();
    let logits = |params, qat| {
        let mut tape = Tape::new(&cpu(1), params, qat);
        tape.begin(&ragged(&[4], 7, 4), Pass::Evaluate);
        let x = tape.embed(&table, Index::Tokens);
        let y = tape.linear(&x, &weight, None);
        (tape.read(&y), tape.params)
    };
    params.freeze("weight", packed).unwrap();
    let (plain, params) = logits(params, None);
    assert_eq!(logits(params, Some(Qat::default())).0, plain);
}

#[test]
fn only_matrices_of_the_network_can_be_frozen() {
    let mut network = Network::new(&cpu(1), &bitnet(CLASSIFY, json!({})), 3, None).unwrap();
    let format = lowbit_kernels::format::find("int8").unwrap();
    let packed = |rows, cols| format.quantize(&vec![0.5; rows * cols], rows, cols, &Default::default()).unwrap();
    let params = &mut network.tape.params;
    for (name, rows, cols, words) in [
        ("absent", 2, 2, "no tensor `absent`"),
        ("model.embed_tokens.weight", 2, 12, "is [2, 12], not [19, 12]"),
        ("model.norm.weight", 1, 12, "is a vector"),
    ] {
        let error = params.freeze(name, packed(rows, cols)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// What a site of a layer drops depends on the seed of the step, the layer and the site alone.
#[test]
fn dropout_is_drawn_by_step_layer_and_site() {
    let mut params = Params::default();
    let table = push(&mut params, "table", 7, 64, Role::Embedding);
    let mut tape = Tape::new(&cpu(1), params, None);
    let batch = ragged(&[4], 7, 4);
    // What each dropout of the layers gives of the same input; `None` stands for outside of layers.
    let mut run = |seed: u64, sites: &[(Option<usize>, usize)]| -> Vec<Vec<f32>> {
        tape.begin(&batch, Pass::Train(seed));
        let x = tape.embed(&table, Index::Tokens);
        let mut dropped = Vec::new();
        for &(layer, count) in sites {
            match layer {
                None => dropped.extend((0..count).map(|_| tape.dropout(&x, 0.5)).collect::<Vec<_>>()),
                Some(layer) => {
                    tape.block(layer, &x, |tape, x| {
                        dropped.extend((0..count).map(|_| tape.dropout(x, 0.5)).collect::<Vec<_>>());
                        x.clone()
                    });
                }
            }
        }
        dropped.iter().map(|x| tape.read(x)).collect()
    };
    let all = run(1, &[(None, 1), (Some(0), 2), (Some(1), 2), (None, 1)]);
    for (i, a) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|b| a != b), "site {i} has draws of its own");
    }
    assert_eq!(run(1, &[(Some(1), 2)]), all[3..5]);
    assert_eq!(run(1, &[(Some(0), 5), (Some(1), 1)])[5], all[3]);
    assert_eq!(run(1, &[(None, 2)]), [all[0].clone(), all[5].clone()]);
    assert_ne!(run(2, &[(Some(1), 2)]), all[3..5]);
}
