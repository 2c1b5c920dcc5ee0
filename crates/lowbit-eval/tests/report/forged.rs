//! Records that nobody measured: whatever stands in `results.json`, it is reported or refused, and nothing panics.

use super::fixture;
use super::record::Results;
use lowbit_eval::report;
use serde_json::{Value, json};

/// A small deterministic generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Changes one value somewhere below: to another, to none, or to one twice.
fn disturb(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Array(list) if !list.is_empty() && dice.below(8) > 0 => {
            let at = dice.below(list.len());
            match dice.below(12) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                2 => list.clear(),
                _ => disturb(&mut list[at], dice),
            }
        }
        Value::Object(fields) if !fields.is_empty() && dice.below(12) > 0 => {
            let name = fields.keys().nth(dice.below(fields.len())).expect("a field").clone();
            match dice.below(16) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let copy = fields[&name].clone();
                    fields.insert(format!("{name}/\u{1b}[2J<b>"), copy);
                }
                _ => disturb(&mut fields[&name], dice),
            }
        }
        Value::Number(_) => {
            let numbers =
                [json!(0), json!(-1), json!(1e300), json!(-1e300), json!(1e-300), json!(0.5), json!(u64::MAX)];
            *value = numbers[dice.below(numbers.len())].clone();
        }
        Value::String(text) => {
            let texts =
                ["", "<script>", "\u{1b}[31m", "{}", "| a | b |", "\n\n", "f32", "naive_bayes", "majority", "../.."];
            *text = texts[dice.below(texts.len())].into();
        }
        Value::Bool(flag) => *flag = !*flag,
        _ => *value = [json!(null), json!([]), json!({}), json!(7), json!("x")][dice.below(5)].clone(),
    }
}

#[test]
fn forged_records_are_reported_or_refused() {
    let mut small = fixture::clean();
    small.records.retain(|r| ["f32", "int8", "nf4", "naive_bayes", "majority"].contains(&&*r.model));
    let clean = serde_json::to_value(&small).expect("records");
    let dir = tempfile::tempdir().expect("a directory");
    let (mut read, mut refused, mut failed) = (0, 0, 0);
    let mut dice = Dice(11);
    for _ in 0..400 {
        let mut forged = clean.clone();
        for _ in 0..1 + dice.below(3) {
            disturb(&mut forged, &mut dice);
        }
        let Ok(results) = serde_json::from_value::<Results>(forged) else {
            refused += 1;
            continue;
        };
        read += 1;
        let _ = report::summary(&results, 25, 80);
        match report::write(dir.path(), &results) {
            Ok(_) => {}
            Err(error) => {
                failed += 1;
                assert!(!error.to_string().contains('\u{1b}'), "{error}");
            }
        }
    }
    println!("{read} read, {failed} of them with a failed check, {refused} refused");
    assert!(read > 100 && refused > 20 && failed > 20, "{read} {refused} {failed}");
}
