//! The library as a program meets it, on tiny models and the one that the crate brings along.

use lowbit::base::Kind;
use lowbit::model::arch::{Head, decoder, encoder, mlp};
use lowbit::model::checkpoint::save_masters;
use lowbit::model::exec::{Activation, Pooling};
use lowbit::model::input::Scaling;
use lowbit::model::parameter_list::ParameterList;
use lowbit::model::{Config, ModelConfig, Tokenizer};
use lowbit::train::{Granularity, Qat, QatWeights, Scale};
use lowbit::{Error, Model, Stop, quantize};
use std::path::{Path, PathBuf};

const CHAT: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";

/// Writes seeded random masters.
fn masters(directory: &Path, name: &str, model_config: &ModelConfig) -> PathBuf {
    let parameters = ParameterList::new(&model_config.config).expect("parameters");
    let mut random = lowbit::base::SplitMix64::new(3);
    let mut noise = |len: usize| -> Vec<f32> { (0..len).map(|_| random.unit() as f32 - 0.5).collect() };
    let weights: Vec<Vec<f32>> = parameters.params().iter().map(|p| noise(p.rows * p.cols)).collect();
    let params = parameters.params().iter().zip(&weights).map(|(spec, values)| (spec, &values[..]));
    let path = directory.join(name);
    save_masters(&path, model_config, Some(&Tokenizer::bytes()), params).expect("written");
    path
}

fn language_model(directory: &Path) -> PathBuf {
    let json = r#"{"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48, "hidden_act": "relu2", "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true, "head": {"lm": {"tied": false}}}"#;
    let config: decoder::Config = serde_json::from_str(json).expect("a configuration");
    assert_eq!(config.head, Head::Lm { tied: false });
    let model_config =
        ModelConfig { chat_template: Some(CHAT.into()), ..ModelConfig::new(Config::Decoder(config), 120) };
    masters(directory, "talker", &model_config)
}

fn classifier(directory: &Path, labels: &[&str]) -> PathBuf {
    let config = mlp::Config {
        vocab_size: 258,
        features: 0,
        hidden_size: 16,
        layers: vec![12],
        hidden_act: Activation::Relu2,
        classes: 3,
        bigram_buckets: 0,
        dropout: 0.0,
    };
    let labels = labels.iter().map(|label| label.to_string()).collect();
    let model_config = ModelConfig { labels, ..ModelConfig::new(Config::Mlp(config), 120) };
    masters(directory, "judge", &model_config)
}

fn here() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_matrix_multiplies_as_its_weights_do() {
    let (rows, cols) = (5, 70);
    let weights: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 13) as f32 / 6.0 - 1.0).collect();
    let x: Vec<f32> = (0..2 * cols).map(|i| (i * 5 % 11) as f32 / 5.0 - 1.0).collect();
    for format in lowbit::kernels::FORMATS {
        let w = quantize(format.name(), &weights, rows, cols).expect("packed");
        assert_eq!((w.rows(), w.cols(), w.format()), (rows, cols, format.name()));
        let (y, own) = (w.matmul(&x).expect("a product"), w.dequantize());
        assert_eq!(y.len(), 2 * rows);
        for (at, y) in y.iter().enumerate() {
            let (token, row) = (at / rows, at % rows);
            let terms = x[token * cols..][..cols].iter().zip(&own[row * cols..][..cols]);
            let expected: f32 = terms.map(|(a, b)| a * b).sum();
            assert!((y - expected).abs() < 0.6, "{} [{token}, {row}]: {y}, not {expected}", format.name());
        }
        assert!(w.matmul(&[]).expect("nothing").is_empty());
    }
}

#[test]
fn activations_of_a_matrix_are_rounded_as_they_are_told() {
    let (rows, cols) = (5, 70);
    let weights: Vec<f32> = (0..rows * cols).map(|i| (i * 7 % 13) as f32 / 6.0 - 1.0).collect();
    let x: Vec<f32> = (0..2 * cols).map(|i| (i as f32).sin()).collect();
    for format in lowbit::kernels::FORMATS {
        for activations in lowbit::model::recipe::ActivationPrecision::ALL {
            let w = quantize(&format!("{}+act={}", format.name(), activations.name()), &weights, rows, cols);
            let w = w.expect("packed");
            assert_eq!((w.format(), w.activations()), (format.name(), activations));
            let rounded = w.packed().dequantize();
            let exact = |at: usize| -> f32 {
                let terms = x[at / rows * cols..][..cols].iter().zip(&rounded[at % rows * cols..][..cols]);
                terms.map(|(a, b)| a * b).sum()
            };
            for (at, y) in w.matmul(&x).expect("a product").iter().enumerate() {
                assert!((y - exact(at)).abs() < 0.3, "{} {activations:?}: {y}, not {}", format.name(), exact(at));
            }
        }
    }
    let error = quantize("int4+act=int7", &[0.0], 1, 1).expect_err("no such activations");
    assert!(error.to_string().contains("unknown activations `int7`"), "{error}");
}

#[test]
fn refusals_are_kinds_to_match() {
    let unknown = quantize("nf5", &[0.0], 1, 1).expect_err("no such format");
    assert!(
        matches!(&unknown, Error::UnknownName { what: "format", name, nearest: Some("nf4"), .. } if name == "nf5"),
        "{unknown:?}"
    );
    assert!(unknown.to_string().contains("did you mean `nf4`?"), "{unknown}");
    for (weights, rows, cols) in [(5, 2, 3), (0, 4, 0), (1, usize::MAX, 2)] {
        let error = quantize("int8", &vec![0.0; weights], rows, cols).expect_err("no such shape");
        assert!(matches!(error, Error::Request(_)), "{error:?}");
    }
    let error = quantize("int8", &[0.0, f32::NAN], 1, 2).expect_err("NaN");
    assert!(matches!(&error, Error::NotFinite(fault) if fault.kind == Kind::Numeric), "{error:?}");
    assert!(error.to_string().contains("row 0, column 1"), "{error}");
    let w = quantize("int8", &[0.0; 6], 2, 3).expect("packed");
    let error = w.matmul(&[0.0; 4]).expect_err("no whole token");
    assert!(matches!(&error, Error::Request(text) if text.contains("[tokens, 3]")), "{error:?}");

    let absent = Model::open("no/such/model").err().expect("absent");
    assert!(matches!(&absent, Error::Io(fault) if fault.path.is_some()), "{absent:?}");
    let at = here();
    std::fs::write(at.path().join("x.gguf"), "nonsense").expect("written");
    let broken = Model::open(at.path().join("x.gguf")).err().expect("no model");
    assert!(matches!(&broken, Error::Input(fault) if fault.path.is_some()), "{broken:?}");
}

#[test]
fn recipes_are_names_or_put_together() {
    let at = here();
    let path = language_model(at.path());
    let open = || Model::open(&path).expect("opened");
    let error = open().recipe("ternry+head=int8").err().expect("unknown");
    assert!(
        matches!(&error, Error::UnknownName { what: "recipe", name, nearest: Some("ternary"), .. } if name == "ternry"),
        "{error:?}"
    );
    assert!(error.to_string().contains("did you mean `ternary`?"), "{error}");
    let error = open().recipe("ternary+hed=int8").err().expect("unknown");
    assert!(matches!(&error, Error::Request(text) if text.contains("did you mean `head`?")), "{error:?}");
    let model = open().recipe("ternary+head=int8").expect("known");
    assert_eq!(model.checkpoint().recipe().head, "int8");
    assert!(!model.generate("x").max_tokens(4).temperature(0.0).text().expect("answered").is_empty());
    // The last recipe counts, and what was loaded under another is not kept.
    let [packed, again] = ["ternary", "f32"].map(|recipe| {
        let model = open().recipe(recipe).expect("known");
        let ask = |model: &Model| model.generate("Once").max_tokens(20).temperature(0.0).text().expect("answered");
        (ask(&model), ask(&model.recipe("f32").expect("known")))
    });
    assert_ne!(packed.0, again.0);
    assert_eq!(packed.1, again.1);
}

#[test]
fn an_answer_comes_in_pieces_and_ends_once() {
    let at = here();
    let model = Model::open(language_model(at.path())).expect("opened");
    let whole = model.chat("Hello").max_tokens(20).seed(5).text().expect("answered");
    let mut answer = model.chat("Hello").max_tokens(20).seed(5).stream().expect("begun");
    let pieces: Vec<String> = answer.by_ref().collect::<Result<_, _>>().expect("goes on");
    assert!(pieces.iter().all(|piece| !piece.is_empty()) && pieces.len() > 1);
    assert_eq!(pieces.concat(), whole);
    assert!(answer.next().is_none());
    let outcome = answer.outcome().expect("complete");
    assert!(outcome.text == whole && outcome.tokens.len() <= 20, "{outcome:?}");
    assert_eq!(answer.into_session().messages().len(), 2);
    // The template makes another prompt of it than the text alone.
    let first = |mut answer: lowbit::Answer| {
        answer.by_ref().for_each(|piece| drop(piece.expect("goes on")));
        answer.outcome().expect("complete").stats.prompt_tokens
    };
    let prompt_tokens = |ask: lowbit::Ask<'_>| first(ask.max_tokens(1).stream().expect("begun"));
    assert_eq!(prompt_tokens(model.generate("Hello")), 5);
    assert_eq!(prompt_tokens(model.chat("Hello")), "<user>Hello<assistant>".len());
    assert_eq!(prompt_tokens(model.chat("Hello").system("Be")), "<system>Be<user>Hello<assistant>".len());
    let error = model.generate("Hello").system("Be").stream().err().expect("no place");
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
}

#[test]
fn what_does_not_fit_or_makes_no_sense_is_refused() {
    let at = here();
    let path = language_model(at.path());
    let model = Model::open(&path).expect("opened");
    let full = model.generate("x".repeat(130)).stream().err().expect("full");
    assert_eq!(full, Error::ContextFull { prompt: 130, context: 120, trained: 120 });
    let hot = model.generate("x").temperature(-1.0).stream().err().expect("no temperature");
    assert!(matches!(&hot, Error::Request(text) if text.contains("temperature is -1")), "{hot:?}");
    let long = Model::open(&path).expect("opened").context(121).chat("x").stream().err().expect("too long");
    assert!(matches!(&long, Error::Request(text) if text.contains("trained for 120")), "{long:?}");
    let error = model.classify("x").expect_err("no classes");
    assert!(matches!(&error, Error::Unsupported(text) if text.contains("talker")), "{error:?}");
}

#[test]
fn a_stop_of_the_caller_ends_an_answer() {
    let at = here();
    let stop = Stop::default();
    let model = Model::open(language_model(at.path())).expect("opened").until(stop.clone());
    let mut answer = model.generate("Hello").stream().expect("begun");
    let first = answer.next().expect("a piece").expect("goes on");
    stop.set();
    assert_eq!(answer.next(), Some(Err(Error::Stopped)));
    assert_eq!(answer.next(), None);
    assert_eq!(answer.outcome().expect("what was received").text, first);
    stop.clear();
    assert!(model.generate("Hello").max_tokens(1).text().is_ok());
}

#[test]
fn classes_have_names_and_probabilities() {
    let at = here();
    let labels = ["low", "middle", "high"];
    let model = Model::open(classifier(at.path(), &labels)).expect("opened");
    let texts = ["a", "something longer", ""];
    let all = model.classify_all(texts).expect("classified");
    for (text, answer) in texts.iter().zip(&all) {
        assert_eq!(model.classify(text).expect("classified"), *answer);
        assert!((answer.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(answer.probabilities.iter().all(|p| *p <= answer.probability));
        assert_eq!(answer.label, labels[answer.class]);
        assert_eq!(answer.probability, answer.probabilities[answer.class]);
    }
    assert!(model.classify_all([""; 0]).expect("nothing").is_empty());
    let error = model.chat("Hello").stream().err().expect("no language model");
    assert!(matches!(&error, Error::Unsupported(text) if text.contains("is a classifier")), "{error:?}");
    let at = here();
    let nameless = Model::open(classifier(at.path(), &[])).expect("opened").classify("a").expect("classified");
    assert_eq!(nameless.label, nameless.class.to_string());
}

/// A network of rows of three numbers: with weights 0 it answers with the mean of its values.
fn numbers(directory: &Path, name: &str, classes: usize) -> PathBuf {
    let config = mlp::Config {
        vocab_size: 0,
        features: 3,
        hidden_size: 0,
        layers: vec![8],
        hidden_act: Activation::Relu,
        classes,
        bigram_buckets: 0,
        dropout: 0.0,
    };
    let scaling = |n: usize| Scaling { mean: vec![250.0; n], deviation: vec![10.0; n] };
    let model_config = ModelConfig {
        input_scaling: Some(scaling(3)),
        target_scaling: (classes == 1).then(|| scaling(1)),
        ..ModelConfig::new(Config::Mlp(config), 1)
    };
    match name {
        "zero" => {
            let parameters = ParameterList::new(&model_config.config).expect("parameters");
            let zeros: Vec<Vec<f32>> = parameters.params().iter().map(|p| vec![0.0; p.rows * p.cols]).collect();
            let params = parameters.params().iter().zip(&zeros).map(|(spec, values)| (spec, &values[..]));
            let path = directory.join(name);
            save_masters(&path, &model_config, None, params).expect("written");
            path
        }
        _ => masters(directory, name, &model_config),
    }
}

#[test]
fn rows_of_numbers_have_classes_and_values() {
    let at = here();
    let zero = Model::open(numbers(at.path(), "zero", 1)).expect("opened");
    assert_eq!((zero.features(), zero.predict([1.0, 2.0, 3.0]).expect("predicted")), (Some(3), 250.0));
    let rows = [vec![240.0, 255.0, 250.0], vec![260.0, 245.0, f32::NAN]];
    let house = Model::open(numbers(at.path(), "house", 1)).expect("opened");
    let values = house.predict_all(&rows).expect("predicted");
    assert!(values[0] != values[1] && values == rows.each_ref().map(|row| house.predict(row).expect("predicted")));
    let digit = Model::open(numbers(at.path(), "digit", 4)).expect("opened");
    let answers = digit.classify_all(&rows).expect("classified");
    assert!(answers[0].probabilities.len() == 4 && answers[0] == digit.classify(&rows[0]).expect("classified"));
    assert!(digit.classify_all([[0.0f32; 3]; 0]).expect("nothing").is_empty());

    let request = |error: Error, text: &str| {
        assert!(matches!(&error, Error::Request(message) if message.contains(text)), "{error:?}");
    };
    request(house.predict([1.0, 2.0]).expect_err("two"), "rows of 2 numbers, and the model reads 3");
    request(digit.classify([0.0; 784]).expect_err("many"), "rows of 784 numbers, and the model reads 3");
    request(
        house.predict_all([vec![1.0; 3], vec![1.0; 2]]).expect_err("ragged"),
        "row 1 has 2 numbers, and the first row 3",
    );
    request(house.predict([]).expect_err("none"), "rows of 0 numbers");
    request(digit.classify("three").expect_err("a text"), "texts, and the model reads rows of numbers");
    let judge = Model::open(classifier(at.path(), &[])).expect("opened");
    request(judge.classify([1.0, 2.0]).expect_err("numbers"), "rows of numbers, and the model reads texts");
    assert_eq!(judge.features(), None);
    for (error, call) in [
        (digit.predict(&rows[0]).expect_err("classes"), "`classify`"),
        (house.classify(&rows[0]).map(drop).expect_err("values"), "`predict`"),
    ] {
        assert!(matches!(&error, Error::Unsupported(text) if text.contains(call)), "{error:?}");
    }
}

#[test]
fn texts_have_vectors_of_length_one() {
    let at = here();
    let config = encoder::Config {
        vocab_size: 258,
        hidden_size: 36,
        num_hidden_layers: 1,
        num_attention_heads: 3,
        intermediate_size: 50,
        hidden_act: Activation::GeluErf,
        max_position_embeddings: 44,
        position_offset: 0,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        sub_norm: false,
        dropout: 0.0,
        pooler: None,
        head: Head::Embed { pooling: Pooling::Mean, normalize: true },
    };
    let model = Model::open(masters(at.path(), "vectors", &ModelConfig::new(Config::Encoder(config), 40)));
    let model = model.expect("opened");
    let texts = ["a film", "another, longer text", "a film"];
    let all = model.embed_all(texts).expect("embedded");
    assert!(all[0] == all[2] && all[0] != all[1] && all[1] == model.embed(texts[1]).expect("embedded"));
    for vector in &all {
        let length: f64 = vector.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!(vector.len() == 36 && (length - 1.0).abs() < 1e-5, "{length}");
    }
    let refused = [
        (
            model.classify("x").map(drop).expect_err("no classes"),
            "is an embedding model and has no classes; call `embed`",
        ),
        (model.predict("x").map(drop).expect_err("no value"), "predicts no value; call `embed`"),
        (model.chat("x").text().map(drop).expect_err("no text"), "writes no text; call `embed`"),
    ];
    for (error, words) in refused {
        assert!(matches!(&error, Error::Unsupported(text) if text.contains(words)), "{error:?}");
    }
}

#[test]
fn a_model_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Model>();
    shared::<lowbit::Matrix>();
    fn sent<T: Send>() {}
    sent::<lowbit::Answer>();
    let at = here();
    let model = Model::open(language_model(at.path())).expect("opened");
    let ask = || model.generate("Hello").max_tokens(12).text().expect("answered");
    let alone = ask();
    let together = std::thread::scope(|scope| [scope.spawn(ask), scope.spawn(ask)].map(|t| t.join().expect("ends")));
    assert_eq!(together, [alone.clone(), alone]);
}

/// Points of a plane, and in which of four quarters each lies.
fn quarters() -> (Vec<[f32; 2]>, Vec<usize>) {
    let point = |i: usize| [(i * 37 % 101) as f32 / 50.0 - 1.0, (i * 61 % 103) as f32 / 51.0 - 1.0];
    let x: Vec<[f32; 2]> = (0..300).map(point).collect();
    let y = x.iter().map(|[a, b]| 2 * usize::from(*a > 0.0) + usize::from(*b > 0.0)).collect();
    (x, y)
}

#[test]
fn a_network_of_layers_is_deployed_as_it_was_trained() {
    let (x, y) = quarters();
    let network = || lowbit::Sequential::rows(2).bit_linear(48).layer_norm().relu().bit_linear(48).relu().linear(4);
    let median = Qat { scale: Scale::Median, ..Qat::default() };
    let binary = Qat { weights: QatWeights::Binary, granularity: Granularity::Channel, ..Qat::default() };
    for qat in [Qat::default(), median, binary] {
        let at = here();
        let network = network().labels(["a", "b", "c", "d"]).quantization(qat).epochs(25.0).learning_rate(5e-3);
        let fitted = network.fit(&x, &y).expect("trained");
        let packed = fitted.deploy(at.path().join("packed")).expect("deployed");
        let score = packed.score(&x, &y).expect("scored");
        assert!(score > 0.85 && score == fitted.model().score(&x, &y).expect("scored"), "{qat:?}: {score}");
        let [trained, stored] = [fitted.model(), &packed].map(|model| model.classify_all(&x).expect("classified"));
        assert_eq!(trained, stored, "{qat:?}");
        assert!(trained.iter().all(|answer| ["a", "b", "c", "d"][answer.class] == answer.label));
        fitted.save(at.path().join("masters")).expect("saved");
        let masters = Model::open(at.path().join("masters")).expect("opened");
        assert_eq!(masters.classify_all(&x).expect("classified"), trained, "{qat:?}");
    }
}

#[test]
fn layers_that_do_not_fit_are_named() {
    use lowbit::layers::{Layer, Linear};
    let (x, y) = quarters();
    let takes = |inputs| Layer::Linear(Linear { inputs: Some(inputs), outputs: Some(4), bias: true });
    let rows = lowbit::Sequential::rows;
    for (network, words) in [
        (rows(2).bit_linear(8).layer(takes(9)), "`layers[1]` (linear) takes rows of 9 numbers, and is given rows of 8"),
        (rows(2).bit_conv2d(8, 3).linear(4), "`layers[0]` (bit_conv2d) takes images, and is given rows of 2"),
        (rows(2).linear(4).dropout(1.0), "`layers[1]` (dropout) has p = 1"),
        (lowbit::Sequential::images(1, 2, 1).max_pool2d(2).linear(4), "`layers[0]` (max_pool2d)"),
        (rows(3).linear(4), "rows of 2 numbers, and the network reads rows of 3"),
        (rows(2).linear(3), "has class 3, and the network answers with 3"),
        (rows(2), "without layers"),
        (rows(2).linear(4).labels(["a"]), "1 labels for 4 classes"),
        (rows(2).linear(4).learning_rate(-1.0), "`learning_rate` is -1"),
    ] {
        let error = network.epochs(1.0).fit(&x, &y).map(drop).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let few = rows(2).linear(4).fit(&x, &y[1..]).map(drop).expect_err("too few");
    assert!(few.to_string().contains("300 rows and 299 targets"), "{few}");
}
