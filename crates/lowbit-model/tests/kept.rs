//! GGUF files of integers with scales: kept as they are stored, in memory, in directories and in files written again.

mod common;

use common::*;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::checkpoint::{Converted, GgufTypes, Target, convert, quantize, save_gguf};
use lowbit_model::container::gguf::{Gguf, TYPES, Type, find};
use lowbit_model::exec::Activation;
use lowbit_model::recipe::ActivationPrecision;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config, CpuExec, Recipe, recipe};
use std::collections::BTreeSet;
use std::path::Path;

/// A Llama, whose rows of queries and keys are stored in pairs.
fn llama(head: Head) -> decoder::Config {
    decoder::Config {
        hidden_size: 256,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 32,
        intermediate_size: 512,
        hidden_act: Activation::Silu,
        sub_norm: false,
        dropout: 0.0,
        ..decoder(head)
    }
}

fn kinds() -> Vec<&'static Type> {
    TYPES.iter().filter(|kind| kind.format().is_some()).collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn asked(text: &str) -> Option<&'static Recipe> {
    Some(recipe::find(text).expect("a spelling"))
}

fn logits(model: &Checkpoint) -> Vec<f32> {
    let model = model.model().unwrap_or_else(|e| panic!("{e}"));
    CpuExec::new(cpu()).forward(&model, &batch()).expect("runs").to_vec()
}

fn as_stored(path: &Path, out: &Path) -> Converted {
    convert(&open(path), out, Target::of(out, None, None).expect("a layout")).unwrap_or_else(|e| panic!("{e}"))
}

/// Sees that two files hold the same types and bytes of matrices.
fn assert_same(a: &Path, b: &Path, what: &str) {
    let [a, b] = [a, b].map(|path| Gguf::open(path).expect("valid"));
    assert_eq!(a.tensors().len(), b.tensors().len());
    for tensor in a.tensors() {
        let other = b.tensor(&tensor.name).expect("there");
        assert_eq!((tensor.kind.name, &tensor.shape), (other.kind.name, &other.shape), "{what}: {}", tensor.name);
        assert!(a.data(tensor) == b.data(other), "{what}: {}", tensor.name);
    }
}

#[test]
fn matrices_of_integers_are_kept_as_they_are_stored() {
    assert_eq!(kinds().len(), 10);
    let home = tempfile::tempdir().expect("a directory");
    for (head, table) in [(LM, "q6_k"), (TIED, "q8_0")] {
        let masters = home.path().join(table);
        write(&masters, &Config::Decoder(llama(head)));
        for kind in kinds() {
            let (name, path) = (kind.name, |end: &str| home.path().join(format!("{}-{table}{end}", kind.name)));
            let file = path(".gguf");
            let types = GgufTypes { body: Some(kind), table: find(table) };
            save_gguf(&open(&masters), &file, types).unwrap_or_else(|e| panic!("{name}: {e}"));
            let kept = open(&file);
            assert_eq!(kept.notices(), [""; 0], "{name}");
            let own = kept.recipe();
            assert_eq!((own.body, own.embedding), (&*name.to_lowercase(), table), "{}", own.name);
            assert_eq!(own.activations, ActivationPrecision::Int8Block, "{}", own.name);
            let mut bytes = 0;
            for spec in kept.parameters().params().iter().filter(|s| !s.role.is_vector()) {
                let packed = kept.packed(spec).expect("valid");
                assert!(packed.dequantize() == kept.master(spec).expect("valid"), "{name}: {}", spec.name);
                bytes += packed.bytes();
            }
            let stored = std::fs::metadata(&file).expect("there").len() as usize;
            assert!(bytes < stored * 6 / 5, "{name}: {bytes} bytes in memory for {stored} in the file");
            // The same numbers as those of the floats the file means.
            let floats = logits(&open(&file).under(asked("f32")));
            let exact = logits(&open(&file).under(asked("stored+act=f32+head_act=f32")));
            assert!(distance(&exact, &floats) < 1e-5, "{name}: {}", distance(&exact, &floats));
            assert!(distance(&logits(&kept), &floats) < 0.05, "{name}: {}", distance(&logits(&kept), &floats));
            // Written again, they have the same bytes.
            let (again, directory) = (path("-again.gguf"), path("-own"));
            let converted = as_stored(&file, &again);
            assert_eq!(converted.kind, "stored");
            assert!(converted.written.iter().all(|written| written.rounded == Some(0)), "{:?}", converted.written);
            assert_same(&file, &again, name);
            quantize(&kept, own, &Default::default(), &directory).expect("written");
            let opened = open(&directory);
            assert_eq!(opened.recipe().name, own.name);
            assert_eq!(logits(&opened), logits(&kept), "{name}");
            // And so does what is written from a directory of this project.
            let from_own = path("-from-own.gguf");
            let converted = as_stored(&directory, &from_own);
            assert!(converted.written.iter().all(|written| written.rounded == Some(0)), "{:?}", converted.written);
            assert_same(&file, &from_own, name);
        }
    }
}

/// llama.cpp stores some matrices of a layer in more bits than others.
#[test]
fn files_of_several_types_are_kept_matrix_by_matrix() {
    let home = tempfile::tempdir().expect("a directory");
    let masters = home.path().join("m");
    // Rows of 256 and of 320.
    write(&masters, &Config::Decoder(decoder::Config { intermediate_size: 320, ..llama(TIED) }));
    let file = home.path().join("m.gguf");
    let written = save_gguf(&open(&masters), &file, GgufTypes { body: find("q4_k"), table: find("f16") });
    let written = written.expect("written");
    let narrow: Vec<_> = written.iter().filter_map(|w| Some((w.name, w.tensors.len(), w.instead_of?))).collect();
    assert_eq!(narrow, [("Q5_0", 2, "Q4_K")]);
    let kept = open(&file);
    let spelling = "q4_k+embed=f32+head_act=f32+layers.0-1.down_proj=q5_0";
    assert_eq!(kept.recipe(), recipe::find(spelling).expect("a spelling"), "{}", kept.recipe().name);
    assert!(kept.notices().iter().any(|n| n.contains("F16 weights are kept as F32")), "{:?}", kept.notices());
    let formats: BTreeSet<String> =
        lowbit_model::checkpoint::ledger(&kept).expect("valid").into_iter().map(|row| row.format).collect();
    assert!(["q4_k", "q5_0", "f32"].iter().all(|name| formats.contains(*name)), "{formats:?}");
    let again = home.path().join("again.gguf");
    as_stored(&file, &again);
    assert_same(&file, &again, "mixed");
    // Rows that fill no block at all are F16.
    write(&masters, &Config::Decoder(decoder::Config { intermediate_size: 72, ..llama(TIED) }));
    let written = save_gguf(&open(&masters), &file, GgufTypes { body: find("q6_k"), table: find("f16") });
    assert!(written.expect("written").iter().any(|w| (w.name, w.instead_of) == ("F16", Some("Q6_K"))));
}

#[test]
fn a_recipe_that_is_named_rounds() {
    let home = tempfile::tempdir().expect("a directory");
    let masters = home.path().join("m");
    write(&masters, &Config::Decoder(llama(LM)));
    let file = home.path().join("m.gguf");
    save_gguf(&open(&masters), &file, GgufTypes { body: find("q5_1"), table: find("q5_1") }).expect("written");
    let model = open(&file).under(asked("nf4"));
    let spec = model.parameters().params().iter().find(|p| p.role == Role::Body).expect("there");
    assert_eq!(model.packed(spec).expect("made").format().name(), "nf4");
    let model = open(&file).under(asked("stored+embed=bf16"));
    assert_eq!(model.packed(spec).expect("made").format().name(), "q5_1");
    assert!(model.packed(spec).expect("made").dequantize() == open(&file).master(spec).expect("valid"));
}

#[test]
fn a_ternary_network_keeps_its_table() {
    let home = tempfile::tempdir().expect("a directory");
    let (masters, ternary, file) = (home.path().join("m"), home.path().join("t"), home.path().join("m.gguf"));
    let config = decoder::Config { hidden_act: Activation::Relu2, sub_norm: true, ..llama(TIED) };
    write(&masters, &Config::Decoder(config));
    let bitnet = recipe::find("bitnet_bf16").expect("known");
    quantize(&open(&masters), bitnet, &Default::default(), &ternary).expect("written");
    save_gguf(&open(&ternary), &file, GgufTypes { body: find("tq2_0"), table: find("q6_k") }).expect("written");
    let kept = open(&file);
    assert_eq!(kept.recipe().name, "bitnet_bf16+embed=q6_k");
    assert_eq!(kept.notices(), [""; 0]);
    let table = kept.parameters().params().iter().find(|p| p.role == Role::Embedding).expect("there");
    assert!(kept.packed(table).expect("valid").dequantize() == kept.master(table).expect("valid"));
    let again = home.path().join("again.gguf");
    as_stored(&file, &again);
    let [first, again] = [&file, &again].map(|path| Gguf::open(path).expect("valid"));
    let [a, b] = [&first, &again].map(|gguf| gguf.data(gguf.tensor("token_embd.weight").expect("there")));
    assert!(a == b, "the table keeps its bytes");
}

#[test]
fn damaged_scales_are_named_by_tensor() {
    let home = tempfile::tempdir().expect("a directory");
    let (masters, file) = (home.path().join("m"), home.path().join("m.gguf"));
    write(&masters, &Config::Decoder(llama(LM)));
    for (name, at) in [("q4_0", 0), ("q5_1", 2), ("q4_k", 2), ("q6_k", 208)] {
        save_gguf(&open(&masters), &file, GgufTypes { body: find(name), table: find(name) }).expect("written");
        let gguf = Gguf::open(&file).expect("valid");
        let block = gguf.data(gguf.tensor("blk.1.ffn_up.weight").expect("there"))
            [..find(name).expect("known").block_bytes]
            .to_vec();
        drop(gguf);
        let mut bytes = std::fs::read(&file).expect("readable");
        let place = bytes.windows(block.len()).position(|window| window == block).expect("there");
        bytes[place + at..place + at + 2].copy_from_slice(&[0, 0x7e]);
        std::fs::write(&file, bytes).expect("written");
        let error = open(&file).model().err().expect("damaged");
        refusal(name, &error, &["m.gguf", "`blk.1.ffn_up.weight`", name, "NaN"]);
    }
}
