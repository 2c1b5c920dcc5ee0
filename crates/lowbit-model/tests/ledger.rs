//! The ledger of a model against what the allocator holds for its weights.

mod common;

use common::write;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::checkpoint::{LedgerRow, Options, ledger, quantize};
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::recipe::{self, RECIPES};
use lowbit_model::{Checkpoint, Config, Recipe};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

struct Counting;

/// Bytes that are allocated and not given back, of all threads: matrices are made on those of a pool.
static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: hands every call to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Larger parts lie in pages of their own, which the allocator does not see.
const LARGE: usize = 64 << 10;

/// The largest network whose parts are all on the heap under a recipe: so what a matrix takes beside its parts counts little.
fn network(recipe: &Recipe) -> Config {
    let of = |width: usize, intermediate_size: usize| {
        let config = common::decoder(Head::Lm { tied: false });
        let head_dim = width / config.num_attention_heads;
        Config::Decoder(decoder::Config { vocab_size: 256, hidden_size: width, head_dim, intermediate_size, ..config })
    };
    let bytes = |config: &Config| {
        let list = ParameterList::new(config).expect("valid");
        let fits = list.params().iter().all(|spec| match recipe.format_of(spec).expect("known") {
            Some(format) => format.parts(spec.rows, spec.cols, &[]).iter().all(|part| part.bytes < LARGE),
            None => true,
        });
        if fits { list.bytes(recipe).expect("known") } else { 0 }
    };
    let all = (7..=31).flat_map(|i| (1..=32).map(move |j| of(8 * i, 64 * j)));
    all.max_by_key(bytes).expect("not empty")
}

/// The ledger of a file sums to what the same network takes in memory, within 2 %, under every recipe and a mix. One test, so that
/// no other allocates meanwhile.
#[test]
fn the_ledger_sums_to_what_the_allocator_holds() {
    let home = tempfile::tempdir().expect("a directory");
    let mix = recipe::find("nf4+layers.0=int8_channel+layers.1.down_proj=ternary").expect("a spelling");
    for recipe in RECIPES.iter().chain([mix]) {
        write(home.path(), &network(recipe));
        let masters = Checkpoint::open(home.path()).expect("valid");
        let out = home.path().join(recipe.name);
        quantize(&masters, recipe, &Options::new(), &out).expect("written");
        let rows = ledger(&Checkpoint::open(&out).expect("valid")).expect("readable");
        let listed = rows.iter().map(LedgerRow::bytes).sum::<u64>() as f64;
        // What the pool keeps from its first work is none of a model's.
        drop(masters.model_as(recipe, &Options::new()).expect("made"));
        let before = LIVE.load(Ordering::Relaxed);
        let model = masters.model_as(recipe, &Options::new()).expect("made");
        let held = (LIVE.load(Ordering::Relaxed) - before) as f64;
        drop(model);
        let off = held / listed - 1.0;
        println!("{}: ledger {listed}, allocator {held}, {:+.2} %", recipe.name, 100.0 * off);
        assert!(off.abs() <= 0.02, "{}: the ledger has {listed} bytes, the allocator {held}", recipe.name);
    }
}
