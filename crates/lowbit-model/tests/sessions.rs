//! Sequences with a cache: several together, several tokens at once, kinds of caches, caches on disk.

mod common;

use common::{LM, TIED, cpu, decoder, distance};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::{Config, Model, Param, Sequences, Session, recipe, synthetic};
use std::sync::Arc;

/// Recipes whose products of several tokens have the bits of products of one.
const EXACT: [&str; 10] = [
    "f32",
    "int8",
    "int8_channel",
    "llm_int8",
    "int4",
    "int4_head4",
    "int2",
    "bitnet",
    "bitnet_head4",
    "bitnet_b3_head4",
];

fn model(head: Head, recipe: &str) -> Arc<Model<Param>> {
    let (config, recipe) =
        (decoder::Config { bigram_buckets: 64, ..decoder(head) }, recipe::find(recipe).expect("listed"));
    Arc::new(synthetic::model(&Config::Decoder(config), recipe, 5).expect("made"))
}

fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i + 1) * (37 + seed) % 251) as u32).collect()
}

#[test]
fn several_tokens_at_once_have_the_logits_of_one_by_one() {
    for recipe in EXACT {
        for (_, kind) in CacheKind::ALL {
            let model = model(TIED, recipe);
            let mut one = Session::with_cache(model.clone(), cpu(), 400, kind);
            let mut all = Session::with_cache(model, cpu(), 400, kind);
            one.feed(&tokens(20, 0)).expect("fits");
            all.feed(&tokens(20, 0)).expect("fits");
            for (count, seed) in [(8, 1), (60, 2), (300, 3)] {
                let next = tokens(count, seed);
                let found = all.feed_all(&next).expect("fits").to_vec();
                for (token, found) in next.iter().zip(found.chunks_exact(258)) {
                    let expected = one.feed(&[*token]).expect("fits");
                    assert!(expected == found, "{recipe} {kind:?} {count}: {}", distance(expected, found));
                }
            }
            assert_eq!((one.tokens(), all.tokens()), (388, 388));
        }
    }
}

#[test]
fn sequences_together_have_the_logits_of_each_alone() {
    for recipe in EXACT {
        let model = model(LM, recipe);
        let mut together = Sequences::new(model.clone(), cpu(), 3, 64, CacheKind::F16);
        let mut alone: Vec<Session> =
            (0..3).map(|_| Session::with_cache(model.clone(), cpu(), 64, CacheKind::F16)).collect();
        let prompts = [tokens(5, 0), tokens(1, 1), tokens(8, 2)];
        let mut check = |together: &mut Sequences, pieces: &[(usize, &[u32])]| {
            let found = together.feed(pieces).expect("fits").to_vec();
            assert_eq!(found.len(), pieces.len() * 258);
            for ((i, tokens), found) in pieces.iter().zip(found.chunks_exact(258)) {
                assert!(alone[*i].feed(tokens).expect("fits") == found, "{recipe}: sequence {i}");
                assert_eq!(together.tokens(*i), alone[*i].tokens());
            }
        };
        check(&mut together, &[(2, &prompts[2]), (0, &prompts[0]), (1, &prompts[1])]);
        for t in 0..5u32 {
            check(&mut together, &[(0, &[t]), (1, &[t + 7]), (2, &[t + 90])]);
        }
        check(&mut together, &[(1, &[3])]);
        check(&mut together, &[(2, &[3]), (1, &[9])]);
    }
}

#[test]
fn a_cut_sequence_remembers_the_token_before() {
    let model = model(LM, "int8");
    let mut session = Session::new(model.clone(), cpu(), 64);
    session.feed(&tokens(20, 0)).expect("fits");
    for kept in [19, 7, 1, 0] {
        session.truncate(kept);
        let again = session.feed(&[99]).expect("fits").to_vec();
        let text: Vec<u32> = tokens(kept, 0).into_iter().chain([99]).collect();
        assert!(Session::new(model.clone(), cpu(), 64).feed(&text).expect("fits") == again, "{kept} tokens kept");
    }
}

#[test]
fn requests_that_do_not_fit_change_nothing() {
    let mut sequences = Sequences::new(model(LM, "f32"), cpu(), 2, 4, CacheKind::F16);
    sequences.feed(&[(0, &[1, 2, 3]), (1, &[4])]).expect("fits");
    type Pieces<'a> = &'a [(usize, &'a [u32])];
    let bad: [(Pieces, &str); 6] = [
        (&[], "at least one token"),
        (&[(0, &[])], "at least one token"),
        (&[(0, &[1]), (0, &[2])], "sequence 0 of 2"),
        (&[(2, &[1])], "sequence 2 of 2"),
        (&[(1, &[1]), (0, &[1, 2])], "3 + 2 tokens exceed the context of 4"),
        (&[(1, &[258])], "token 258 is outside"),
    ];
    for (pieces, words) in bad {
        let error = sequences.feed(pieces).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!((sequences.tokens(0), sequences.tokens(1)), (3, 1));
    }
    sequences.feed(&[(0, &[1]), (1, &[2, 3, 4])]).expect("fits");
}

#[test]
fn narrow_caches_take_less_and_stay_close() {
    let model = model(TIED, "f32");
    let run = |kind| {
        let mut session = Session::with_cache(model.clone(), cpu(), 700, kind);
        session.feed(&tokens(600, 0)).expect("fits");
        (session.feed(&[7]).expect("fits").to_vec(), session.cache_bytes())
    };
    let (exact, bytes) = run(CacheKind::F32);
    assert_eq!(bytes, 601 * 2 * 2 * 24 * 4);
    for (kind, limit, size) in [(CacheKind::F16, 2e-3, bytes / 2), (CacheKind::Int8, 3e-2, 601 * 2 * 2 * (24 + 2 * 4))]
    {
        let (logits, bytes) = run(kind);
        let distance = distance(&logits, &exact);
        assert!(distance < limit && distance > 0.0, "{kind:?}: {distance}");
        assert_eq!(bytes, size);
    }
}

#[test]
fn a_stored_cache_continues_as_the_sequence_did() {
    let model = model(LM, "bitnet");
    for (_, kind) in CacheKind::ALL {
        let mut session = Session::with_cache(model.clone(), cpu(), 32, kind);
        session.feed(&tokens(11, 0)).expect("fits");
        let mut bytes = Vec::new();
        session.write_cache(&mut bytes);
        let expected = session.feed(&[5]).expect("fits").to_vec();
        let mut other = Session::with_cache(model.clone(), cpu(), 32, kind);
        assert!(other.read_cache(&tokens(11, 0), &bytes).expect("a language model"));
        assert_eq!(other.tokens(), 11);
        assert!(other.feed(&[5]).expect("fits") == expected, "{kind:?}");
        for (count, bytes) in [(10, &bytes[..]), (11, &bytes[1..]), (33, &bytes[..]), (0, &bytes[..])] {
            assert!(!other.read_cache(&tokens(count, 0), bytes).expect("a language model"), "{count}");
            assert_eq!(other.tokens(), 0);
        }
    }
}
