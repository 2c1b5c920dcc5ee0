//! Sequences with a cache: several together, several tokens at once, kinds of caches, caches on disk.

mod common;

use common::{LM, TIED, cpu, decoder, distance};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::{Head, decoder};
use lowbit_model::engine::{LanguageModel, Logits, Piece};
use lowbit_model::{Config, Error, Model, Param, Sequences, Session, recipe, synthetic};
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
        let mut together = Sequences::new(model.clone(), cpu(), 64, CacheKind::F16);
        (0..3).for_each(|slot| assert_eq!(together.open(), slot));
        let mut alone: Vec<Session> =
            (0..3).map(|_| Session::with_cache(model.clone(), cpu(), 64, CacheKind::F16)).collect();
        let prompts = [tokens(5, 0), tokens(1, 1), tokens(8, 2)];
        let mut check = |together: &mut Sequences, pieces: &[(usize, &[u32])]| {
            let found = feed(together, pieces).expect("fits").to_vec();
            assert_eq!(found.len(), pieces.len() * 258);
            for ((i, tokens), found) in pieces.iter().zip(found.chunks_exact(258)) {
                assert!(alone[*i].feed(tokens).expect("fits") == found, "{recipe}: sequence {i}");
                assert_eq!(together.tokens(*i).len(), alone[*i].tokens());
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

/// The logits after the last token of each piece.
fn feed<'a>(sequences: &'a mut Sequences, pieces: &[(usize, &[u32])]) -> Result<&'a [f32], Error> {
    let piece = |&(slot, tokens)| Piece { slot, tokens, logits: Logits::Last };
    sequences.pass(&pieces.iter().map(piece).collect::<Vec<_>>(), None)
}

#[test]
fn a_pass_gives_the_logits_that_are_wanted() {
    let model = model(LM, "int8");
    let mut sequences = Sequences::new(model.clone(), cpu(), 64, CacheKind::F16);
    let mut alone = Session::with_cache(model, cpu(), 64, CacheKind::F16);
    let (text, slots) = (tokens(6, 0), [sequences.open(), sequences.open(), sequences.open()]);
    let all = alone.feed_all(&text).expect("fits").to_vec();
    let piece = |i: usize, logits| Piece { slot: slots[i], tokens: &text, logits };
    let pieces = [piece(2, Logits::Last), piece(0, Logits::None), piece(1, Logits::All)];
    let found = sequences.pass(&pieces, None).expect("fits");
    assert!(found[..258] == all[5 * 258..] && found[258..] == all);
    assert_eq!(sequences.pass(&[piece(0, Logits::None)], None).expect("fits").len(), 0);
    assert_eq!(sequences.tokens(slots[0]).len(), 12);
    sequences.close(slots[0]);
    assert!(sequences.pass(&[piece(0, Logits::All)], None).expect_err("closed").to_string().contains("is not open"));
    assert_eq!(sequences.open(), slots[0], "a free slot is taken again");
    assert_eq!(sequences.tokens(slots[0]), [0u32; 0]);
    assert!(sequences.pass(&[piece(0, Logits::All)], None).expect("fits") == all);
}

#[test]
fn memory_grows_with_the_tokens() {
    let mut sequences = Sequences::new(model(LM, "f32"), cpu(), 1 << 40, CacheKind::F16);
    let slot = sequences.open();
    assert_eq!((sequences.cache_allocated(), sequences.cache_bytes()), (0, 0));
    // Two layers of keys and values, two heads of 12.
    let token = 2 * 2 * 24 * 2;
    for (count, blocks) in [(1, 1), (255, 1), (1, 2), (300, 3)] {
        sequences.pass(&[Piece { slot, tokens: &tokens(count, 1), logits: Logits::None }], None).expect("fits");
        assert_eq!(sequences.cache_allocated(), blocks * 256 * token);
        assert_eq!(sequences.cache_bytes(), sequences.tokens(slot).len() * token);
    }
    sequences.truncate(slot, 10);
    assert_eq!(sequences.cache_allocated(), 2 * 256 * token, "one block is kept to spare");
    sequences.close(slot);
    assert_eq!(sequences.cache_allocated(), 0);
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
    let mut sequences = Sequences::new(model(LM, "f32"), cpu(), 4, CacheKind::F16);
    (0..2).for_each(|slot| assert_eq!(sequences.open(), slot));
    feed(&mut sequences, &[(0, &[1, 2, 3]), (1, &[4])]).expect("fits");
    type Pieces<'a> = &'a [(usize, &'a [u32])];
    let bad: [(Pieces, &str); 6] = [
        (&[], "at least one token"),
        (&[(0, &[])], "at least one token"),
        (&[(0, &[1]), (0, &[2])], "sequence 0 is named twice"),
        (&[(2, &[1])], "sequence 2 is not open"),
        (&[(1, &[1]), (0, &[1, 2])], "3 + 2 tokens exceed the context of 4"),
        (&[(1, &[258])], "token 258 is outside"),
    ];
    for (pieces, words) in bad {
        let error = feed(&mut sequences, pieces).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!((sequences.tokens(0), sequences.tokens(1)), (&[1, 2, 3][..], &[4][..]));
    }
    feed(&mut sequences, &[(0, &[1]), (1, &[2, 3, 4])]).expect("fits");
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
        assert!(other.read_cache(&tokens(11, 0), &bytes));
        assert_eq!(other.tokens(), 11);
        assert!(other.feed(&[5]).expect("fits") == expected, "{kind:?}");
        for (count, bytes) in [(10, &bytes[..]), (11, &bytes[1..]), (33, &bytes[..]), (0, &bytes[..])] {
            assert!(!other.read_cache(&tokens(count, 0), bytes), "{count}");
            assert_eq!(other.tokens(), 0);
        }
    }
}
