use super::*;
use crate::record::TensorBytes;
use std::collections::BTreeSet;

fn measured(name: &str) -> Vec<Record> {
    let home = tempfile::tempdir().unwrap();
    let cpu = Cpu::new(None, Some(1)).unwrap();
    let probe = |_: &Checkpoint, _: &Cpu| {
        let mut command = Command::new("sh");
        command.args(["-c", "cat > /dev/null; echo '{\"load_seconds\": 0.5, \"peak_rss_bytes\": 1000}'"]);
        Ok(command)
    };
    let mut notes = Vec::new();
    let mut note = |text: &str| notes.push(text.to_string());
    let networks = home.path().join("networks");
    let refused = |_: &[&str], _: &Cpu| Err(std::io::Error::other("asked for"));
    let mut bench =
        Bench { cpu: &cpu, home: &networks, quick: true, data: None, probe: &probe, bench: &refused, note: &mut note };
    let records = find(name).unwrap().run(&mut bench).unwrap();
    assert!(!networks.exists() && !notes.is_empty());
    records
}

#[test]
fn studies_are_found_by_their_names() {
    let names: BTreeSet<&str> = STUDIES.iter().map(|study| study.name).collect();
    assert_eq!(names.len(), STUDIES.len());
    for study in STUDIES {
        assert_eq!(find(study.name).unwrap().title, study.title);
        assert!(!study.columns.is_empty() && !study.about.is_empty());
    }
    let refused = find("layer_sizes").err().unwrap().to_string();
    assert!(refused.contains("did you mean `layer_size`"), "{refused}");
}

/// 1.6 bits a weight and a scale per matrix leave at most 6 % of 32 bits, the bias included, from 1,000 x 1,000 on.
#[test]
fn a_layer_of_five_trits_a_byte_saves_what_it_stores() {
    let records = measured("layer_memory");
    assert_eq!(records.len(), 4 * 3);
    let of = |row: &str, side: &str| records.iter().find(|record| record.model == format!("{row}, {side}")).unwrap();
    for (row, width, least) in [("100 x 100", 100.0, 0.88), ("1000 x 1000", 1e3, 0.94), ("2000 x 2000", 2e3, 0.94)] {
        let packed = of(row, "ternary, 1.6 bits");
        let bytes: u64 = packed.detail.tensors.iter().map(TensorBytes::bytes).sum();
        assert_eq!(bytes as f64, packed.measures["weight_bytes"].value);
        let used: u64 = of(row, "f32").detail.tensors.iter().map(TensorBytes::used).sum();
        assert_eq!(used as f64, 4.0 * (width * width + width), "{row}: weights and bias");
        let saved = 1.0 - bytes as f64 / used as f64;
        assert!(saved >= least && saved < 0.95, "{row}: {saved}");
    }
}

#[test]
fn fresh_processes_tell_what_a_small_device_needs() {
    let records = measured("edge");
    assert_eq!(records.len(), 2 * 2);
    for record in &records {
        let value = |name: &str| record.measures[name].value;
        assert_eq!((value("load_seconds"), value("peak_rss_bytes")), (0.5, 1000.0));
        assert!(value("cold_start_seconds") > 0.0 && value("weight_bytes") > 1e5);
        assert!(record.detail.model_sha256.is_none());
    }
}

#[test]
fn calls_are_timed_beside_products() {
    let records = measured("dispatch");
    for pair in records.chunks(2) {
        let seconds = |record: &Record| record.measures["latency_p50"].value;
        assert!(seconds(&pair[0]) < seconds(&pair[1]), "{}", pair[0].model);
        assert!(pair[0].detail.samples["latency"].len() >= 7);
    }
}
