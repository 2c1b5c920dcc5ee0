use super::*;
use crate::study::find;
use lowbit_kernels::Cpu;
use lowbit_model::{ModelConfig, Tokenizer, checkpoint, synthetic::Synthetic};
use serde_json::json;
use std::process::Command;

/// A bench whose processes print what is given.
fn with_processes<T>(
    home: &Path,
    printed: &Value,
    run: impl FnOnce(&mut Bench, &std::cell::RefCell<Vec<String>>) -> T,
) -> T {
    let cpu = Cpu::new(None, Some(1)).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let probe = |_: &Checkpoint, _: &Cpu| Err(std::io::Error::other("not asked for"));
    let bench = |arguments: &[&str], _: &Cpu| {
        asked.borrow_mut().push(arguments[1].to_string());
        let mut command = Command::new("printf");
        command.args(["%s", &printed.to_string()]);
        Ok(command)
    };
    let mut note = |_: &str| {};
    let mut bench =
        Bench { cpu: &cpu, home, quick: true, data: Some(home), probe: &probe, bench: &bench, note: &mut note };
    run(&mut bench, &asked)
}

fn printed(energy: Option<f64>) -> Value {
    let measure = |value: f64| json!({"value": value});
    let record = |test: &str, rates: &[f64], measures: Value| json!({"task": test, "measures": measures, "detail": {"samples": {"tokens_per_second": rates}}});
    let mut decode = json!({"decode_tokens_per_second": measure(20.0), "fraction_of_limit": measure(0.8),
        "weight_bytes": measure(1.2e9), "peak_rss_bytes": measure(1.4e9)});
    if let Some(energy) = energy {
        decode["energy_joules"] = measure(energy);
    }
    json!({"records": [record("tg16", &[19.0, 20.0, 22.0], decode), record("pp128", &[100.0, 120.0, 110.0], json!({})),
        record("ttft32", &[64.0, 80.0, 64.0], json!({}))]})
}

#[test]
fn processes_fill_the_table_and_what_is_missing_says_what_it_needs() {
    let home = tempfile::tempdir().unwrap();
    let networks = [network("one", "mlp-1m", "bitnet"), Network { slow: true, ..network("large", "mlp-10m", "bf16") }];
    for (energy, expected) in [(Some(2.0), Some(40.0)), (None, None)] {
        let records = with_processes(home.path(), &printed(energy), |bench, asked| {
            let records = measured(&SPEED, bench, &networks).unwrap();
            assert_eq!(*asked.borrow(), ["mlp-1m"], "the slow one is left to a whole run");
            records
        });
        let value = |name: &str| records[0].measures.get(name).map(|m| m.value);
        assert_eq!((value("decode_tokens_per_second"), value("prefill_tokens_per_second")), (Some(20.0), Some(110.0)));
        assert_eq!((value("ttft_seconds"), value("loaded_bytes")), (Some(0.5), Some(1.2e9)));
        assert_eq!((value(ENERGY), value(POWER)), (energy, expected));
        assert_eq!(records[0].detail.needs.contains_key(ENERGY), energy.is_none());
        assert_eq!(records[1].detail.needs[ALL], "a run without --quick");
        assert!(records[1].measures.is_empty());
    }
}

/// What a process that fails said is told with the network.
#[test]
fn a_process_that_fails_is_told() {
    let home = tempfile::tempdir().unwrap();
    let networks = [network("one", "mlp-1m", "bitnet")];
    let refused = with_processes(home.path(), &json!("text"), |bench, _| {
        let failing = |_: &[&str], _: &Cpu| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo no memory >&2; exit 4"]);
            Ok(command)
        };
        let mut bench = Bench { bench: &failing, note: &mut |_| {}, ..*bench };
        measured(&SPEED, &mut bench, &networks).unwrap_err().to_string()
    });
    assert!(refused.contains("one") && refused.contains("no memory"), "{refused}");
}

#[test]
fn weights_that_are_there_are_scored_and_others_name_the_command() {
    let home = tempfile::tempdir().unwrap();
    let vocabulary = Tokenizer::bytes().vocab_size();
    let config = serde_json::from_value(json!({"architecture": "decoder", "vocab_size": vocabulary, "hidden_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 32,
        "hidden_act": "silu", "rope_theta": 1e4, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
        "head": {"lm": {"tied": true}}}));
    let model = home.path().join("model");
    let full = recipe::find("f32").unwrap();
    let config = ModelConfig::new(config.unwrap(), 64);
    checkpoint::save(&model, &config, Some(&Tokenizer::bytes()), full, &mut Synthetic::new(full, 1)).unwrap();
    std::fs::create_dir(home.path().join("wikitext2")).unwrap();
    std::fs::write(home.path().join("wikitext2/wiki.test.raw"), "Some words of a text. ".repeat(20)).unwrap();
    let from: &'static str = Box::leak(model.display().to_string().into_boxed_str());
    let all = [
        Weights { row: "here", from, recipe: Some("int8_channel") },
        Weights { row: "elsewhere", from: "nobody/nothing-of-this-name", recipe: None },
    ];
    let records = with_processes(home.path(), &json!({}), |bench, _| scored(&QUALITY, bench, &all).unwrap());
    assert!((6.0..12.0).contains(&records[0].measures["bits_per_byte"].value), "{:?}", records[0].measures);
    assert_eq!(records[0].detail.needs["accuracy"], "a run without --quick");
    assert_eq!((records[0].recipe.as_str(), records[1].measures.len()), ("int8_channel", 0));
    assert_eq!(records[1].detail.needs[ALL], "lowbit pull nobody/nothing-of-this-name");
    assert!(find("language_quality").is_ok());
}
