//! Decoding a token allocates nothing.

use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::engine::{LanguageModel, Logits, Piece};
use lowbit_model::source::{Init, ParamSpec};
use lowbit_model::{Checkpoint, Config, Sequences, Session, checkpoint, parameter_list::ParameterList, recipe};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

struct Counting;

thread_local! {
    /// Allocations of this thread: those of the test harness on another one do not count.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands every call to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decoded_token_allocates_nothing() {
    let config = r#"{"architecture": "decoder", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96,
        "hidden_act": "relu2", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
        "head": {"lm": {"tied": true}}}"#;
    let config: Config = serde_json::from_str(config).unwrap();
    let model_config = lowbit_model::ModelConfig::new(config.clone(), 64);
    let parameters = ParameterList::new(&config).unwrap();
    let value = |spec: &ParamSpec, i: usize| match spec.init {
        Init::Constant(c) => c,
        Init::Normal(std) => std * (((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0),
    };
    let params: Vec<(ParamSpec, Vec<f32>)> = parameters
        .params()
        .iter()
        .map(|spec| (spec.clone(), (0..spec.rows * spec.cols).map(|i| value(spec, i)).collect()))
        .collect();
    let home = tempfile::tempdir().unwrap();
    let params = params.iter().map(|(spec, values)| (spec, values.as_slice()));
    checkpoint::save_masters(home.path(), &model_config, None, params).unwrap();
    let masters = Checkpoint::open(home.path()).unwrap();
    for name in ["f32", "int8", "nf4", "bitnet"] {
        let model = Arc::new(masters.model_as(recipe::find(name).unwrap(), &Default::default()).unwrap());
        let cpu = || Cpu::new(None, Some(1)).unwrap();
        for (_, kind) in CacheKind::ALL {
            let mut session = Session::with_cache(model.clone(), cpu(), 64, kind);
            session.feed(&[1, 2, 3]).unwrap();
            for token in 0..4 {
                session.feed(&[token]).unwrap();
            }
            let before = COUNT.get();
            for token in 0..40 {
                session.feed(&[token]).unwrap();
            }
            assert_eq!(COUNT.get() - before, 0, "allocations of 40 tokens under {name}, {kind:?}");
        }
        let mut sequences = Sequences::new(model, cpu(), 64, CacheKind::F16);
        let slots = [sequences.open(), sequences.open(), sequences.open()];
        let mut step = |token: u32| {
            let pieces = slots.map(|slot| Piece { slot, tokens: std::slice::from_ref(&token), logits: Logits::All });
            sequences.pass(&pieces, None).unwrap();
        };
        (0..4).for_each(&mut step);
        let before = COUNT.get();
        (0..40).for_each(&mut step);
        assert_eq!(COUNT.get() - before, 0, "allocations of 40 tokens of three sequences under {name}");
    }
}
