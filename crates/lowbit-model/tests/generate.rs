//! Generating text with small random networks.

mod common;

use common::{LM, TIED, cpu, decoder};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::decoder;
use lowbit_model::cpu::PREFILL_CHUNK;
use lowbit_model::generate::{Draft, Finish, Generator, Outcome, Request, Sampling};
use lowbit_model::rope::{LongRope, RopeScaling};
use lowbit_model::{Config, Error, Model, Param, Session, Tokenizer, recipe, synthetic};
use std::ops::ControlFlow;
use std::sync::Arc;

fn model(recipe: &str, seed: u64) -> Arc<Model<Param>> {
    let recipe = recipe::find(recipe).expect("listed");
    let head = if seed.is_multiple_of(2) { TIED } else { LM };
    let config = decoder::Config { bigram_buckets: 64, ..decoder(head) };
    Arc::new(synthetic::model(&Config::Decoder(config), recipe, seed).expect("made"))
}

fn generator(recipe: &str, seed: u64, context: usize) -> Generator {
    Generator::new(model(recipe, seed), Arc::new(Tokenizer::bytes()), cpu(), context)
}

fn prompt(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn request(text: &str, max_tokens: usize) -> Request {
    Request { prompt: prompt(text), max_tokens, ..Request::default() }
}

/// The answer and its pieces.
fn run(generator: &mut Generator, request: &Request) -> Result<(Outcome, Vec<String>), Error> {
    let mut pieces = Vec::new();
    let outcome = generator.generate(request, &mut |piece| {
        pieces.push(piece.to_string());
        ControlFlow::Continue(())
    })?;
    assert_eq!(pieces.concat(), outcome.text);
    Ok((outcome, pieces))
}

fn answer(generator: &mut Generator, request: &Request) -> Outcome {
    run(generator, request).expect("answers").0
}

fn refusal(generator: &mut Generator, request: &Request) -> String {
    run(generator, request).expect_err("refused").to_string()
}

fn warm(seed: u64) -> Sampling {
    let base = Sampling { repetition_penalty: 1.1, seed, ..Sampling::default() };
    Sampling { temperature: 0.9, top_k: 40, top_p: 0.95, min_p: 0.02, ..base }
}

#[test]
fn a_greedy_answer_is_the_best_token_each_time() {
    for recipe in ["f32", "bitnet"] {
        let outcome = answer(&mut generator(recipe, 1, 64), &request("Once upon", 30));
        let mut session = Session::with_cache(model(recipe, 1), cpu(), 64, CacheKind::F16);
        let mut logits = session.feed(&prompt("Once upon")).expect("fits").to_vec();
        let mut expected = Vec::new();
        for _ in 0..30 {
            let best = (0..258).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("logits") as u32;
            expected.push(best);
            logits = session.feed(&[best]).expect("fits").to_vec();
        }
        assert_eq!(outcome.tokens, expected);
        let bytes: Vec<u8> = expected.iter().filter(|t| **t < 256).map(|t| *t as u8).collect();
        assert_eq!(outcome.text, String::from_utf8_lossy(&bytes));
        assert_eq!(outcome.finish, Finish::Length);
        let stats = outcome.stats;
        assert_eq!((stats.prompt_tokens, stats.cached_tokens, stats.decoded_tokens), (9, 0, 29));
        assert!(stats.decode_seconds > 0.0 && stats.ttft_seconds >= stats.prompt_seconds && stats.prompt_seconds > 0.0);
    }
}

#[test]
fn guessing_ahead_changes_nothing_but_the_time() {
    let (mut drafted, mut accepted) = (0, 0);
    for (recipe, seed) in ["f32", "int8", "int4", "bitnet", "bitnet_head4", "bitnet_b3_head4"].into_iter().zip(1..) {
        let (model, tokenizer) = (model(recipe, seed), Arc::new(Tokenizer::bytes()));
        for ((_, kind), sampling) in
            CacheKind::ALL.into_iter().flat_map(|k| [(k, Sampling::default()), (k, warm(seed))])
        {
            let fresh = || Generator::with_cache(model.clone(), tokenizer.clone(), cpu(), 200, kind);
            let plain = Request { sampling, ..request("abcabcabcabc, abc", 120) };
            let guessed = Request { draft: Some(Draft::Ngram), ..plain.clone() };
            let (a, b) = (answer(&mut fresh(), &plain), answer(&mut fresh(), &guessed));
            assert_eq!((&a.tokens, &a.text, a.finish), (&b.tokens, &b.text, b.finish), "{recipe} {kind:?} {seed}");
            assert_eq!((a.stats.drafted, a.stats.accepted), (0, 0));
            drafted += b.stats.drafted;
            accepted += b.stats.accepted;
            let stopped = Request { stop_tokens: vec![a.tokens[60]], ..guessed };
            let at = a.tokens.iter().position(|t| *t == a.tokens[60]).expect("it is there");
            assert_eq!(answer(&mut fresh(), &stopped).tokens, a.tokens[..at], "{recipe} {kind:?} {seed}");
        }
    }
    assert!(drafted > accepted && accepted > 100, "{accepted} of {drafted}");
}

#[test]
fn guesses_that_could_change_the_answer_are_refused() {
    for recipe in ["bf16", "nf4"] {
        let plain = request("abcabcabc", 60);
        let guessed = Request { draft: Some(Draft::Ngram), ..plain.clone() };
        let expected = answer(&mut generator(recipe, 1, 100), &plain);
        match run(&mut generator(recipe, 1, 100), &guessed) {
            Ok((outcome, _)) => assert_eq!(outcome.tokens, expected.tokens, "{recipe}"),
            Err(error) => assert!(error.to_string().contains("guesses would change the answer"), "{error}"),
        }
    }
}

#[test]
fn a_head_read_in_part_gives_the_same_answer() {
    let few = Sampling { top_k: 5, repetition_penalty: 1.0, ..warm(7) };
    let all = Sampling { top_k: 258, ..few.clone() };
    for seed in 0..4 {
        let draw = |sampling: &Sampling| {
            let request = Request { sampling: sampling.clone(), ..request("abcabcabc", 60) };
            answer(&mut generator("bitnet_scan", seed, 100), &request).tokens
        };
        // A penalty that changes nothing makes all logits wanted.
        let same = |s: &Sampling| Sampling { repetition_penalty: 1.0 + f32::EPSILON, ..s.clone() };
        for sampling in [&Sampling::default(), &few, &all] {
            assert_eq!(draw(sampling), draw(&same(sampling)), "{seed} {sampling:?}");
        }
    }
    let model = model("bitnet_scan", 1);
    let session = || Session::new(model.clone(), cpu(), 100);
    let (mut part, mut whole) = (session(), session());
    part.keep_largest(Some(2));
    let mut hidden = 0;
    for token in 0..20 {
        let mut best = whole.feed(&[token]).expect("fits").to_vec();
        let found = part.feed(&[token]).expect("fits");
        assert!(found.iter().zip(&best).all(|(f, b)| f.to_bits() == b.to_bits() || *f == f32::NEG_INFINITY));
        hidden += found.iter().filter(|f| **f == f32::NEG_INFINITY).count();
        let finite = found.iter().filter(|f| f.is_finite()).count();
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        assert!(finite >= 2 && best[..2].iter().all(|b| found.contains(b)), "{token}");
    }
    assert!(hidden > 0 && part.largest_bytes() > 0 && whole.largest_bytes() == 0);
}

#[test]
fn a_common_begin_is_processed_once() {
    let mut generator_ = generator("bitnet", 1, 200);
    let first = answer(&mut generator_, &request("Tell me", 8));
    assert_eq!(first.stats.cached_tokens, 0);
    let mut longer = prompt("Tell me");
    longer.extend(&first.tokens);
    longer.extend(prompt(" more"));
    let next = Request { prompt: longer, ..request("", 8) };
    let second = answer(&mut generator_, &next);
    assert_eq!(second.stats.cached_tokens, 7 + 7, "the last token of an answer was never an input");
    assert_eq!(second.tokens, answer(&mut generator("bitnet", 1, 200), &next).tokens);
    let again = answer(&mut generator_, &next);
    assert_eq!(
        (again.stats.cached_tokens, &again.tokens),
        (19, &second.tokens),
        "one token is processed for its logits"
    );
    let other = answer(&mut generator_, &request("Tell us", 8));
    assert_eq!(other.stats.cached_tokens, 5);
    assert_eq!(other.tokens, answer(&mut generator("bitnet", 1, 200), &request("Tell us", 8)).tokens);
}

#[test]
fn the_seed_decides_what_is_drawn() {
    let draw =
        |seed| answer(&mut generator("f32", 1, 100), &Request { sampling: warm(seed), ..request("x", 40) }).tokens;
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn stop_texts_end_the_answer_and_are_not_shown() {
    let sampling = Sampling { temperature: 2.0, top_k: 80, ..warm(5) };
    let plain = Request { sampling, ..request("go", 150) };
    let whole = answer(&mut generator("f32", 1, 200), &plain);
    let characters: Vec<char> = whole.text.chars().collect();
    let stop: String = characters[40..43].iter().collect();
    let (outcome, pieces) = run(
        &mut generator("f32", 1, 200),
        &Request { stop: vec!["never there".into(), stop.clone()], ..plain.clone() },
    )
    .expect("answers");
    let at = whole.text.find(&stop).expect("it is there");
    assert_eq!((outcome.text.as_str(), outcome.finish), (&whole.text[..at], Finish::Stop));
    assert!(whole.tokens.starts_with(&outcome.tokens) && outcome.tokens.len() < whole.tokens.len());
    assert!(!pieces.concat().contains(&stop));
    // What only began a stop text is shown in the end.
    let open = format!("{}\u{1}", characters[characters.len() - 1]);
    let outcome = answer(&mut generator("f32", 1, 200), &Request { stop: vec![open], ..plain.clone() });
    assert_eq!((outcome.text, outcome.finish), (whole.text.clone(), Finish::Length));
    let token = whole.tokens[20];
    let outcome = answer(&mut generator("f32", 1, 200), &Request { stop_tokens: vec![token], ..plain });
    let at = whole.tokens.iter().position(|t| *t == token).expect("it is there");
    assert_eq!((&outcome.tokens[..], outcome.finish), (&whole.tokens[..at], Finish::Stop));
}

#[test]
fn the_receiver_can_stop_the_answer() {
    let mut generator_ = generator("bitnet", 1, 1400);
    let mut calls = 0;
    let outcome = generator_.generate(&request("hello", 50), &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let outcome = outcome.expect("answers");
    assert_eq!((outcome.tokens.len(), outcome.finish, calls), (3, Finish::Cancelled, 3));
    // A long prompt is read in pieces, between which it can be stopped.
    let long = request(&"long text ".repeat(130), 4);
    let outcome = generator_.generate(&long, &mut |_| ControlFlow::Break(())).expect("stops");
    assert_eq!((outcome.tokens.len(), outcome.finish), (0, Finish::Cancelled));
    let (outcome, pieces) = run(&mut generator_, &long).expect("answers");
    assert_eq!((outcome.stats.cached_tokens, outcome.tokens.len()), (PREFILL_CHUNK, 4));
    assert_eq!(pieces[0], "");
    assert_eq!(outcome.tokens, answer(&mut generator("bitnet", 1, 1400), &long).tokens);
}

#[test]
fn bad_requests_are_one_clear_line() {
    let mut generator = generator("f32", 1, 20);
    let base = request("0123456789", 10);
    answer(&mut generator, &base);
    let cases = [
        (request("", 5), "the prompt is empty"),
        (request("x", 0), "an answer of 0 tokens"),
        (request("0123456789", 11), "a prompt of 10 tokens and an answer of 11 exceed the context of 20 tokens"),
        (request("x", usize::MAX), "exceed the context of 20"),
        (Request { stop: vec![String::new()], ..base.clone() }, "a stop text is empty"),
        (Request { prompt: vec![258], ..base.clone() }, "token 258 is outside the table of 258 entries"),
        (Request { sampling: Sampling { top_p: 2.0, ..warm(1) }, ..base.clone() }, "top_p is 2"),
    ];
    for (request, words) in cases {
        let error = refusal(&mut generator, &request);
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }
    assert_eq!(answer(&mut generator, &base).tokens.len(), 10);
}

#[test]
fn a_prompt_cache_continues_in_another_process() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("prompt");
    let tokenizer = || Arc::new(Tokenizer::bytes());
    for (_, kind) in CacheKind::ALL {
        let fresh =
            |recipe, seed, context| Generator::with_cache(model(recipe, seed), tokenizer(), cpu(), context, kind);
        let mut first = fresh("bitnet", 1, 64);
        let expected = answer(&mut first, &request("a rather long prompt", 6));
        first.save_prompt(&path).expect("written");
        let mut second = fresh("bitnet", 1, 64);
        assert_eq!(second.load_prompt(&path).expect("fits"), 25);
        let outcome = answer(&mut second, &request("a rather long prompt", 6));
        assert_eq!((outcome.stats.cached_tokens, &outcome.tokens), (19, &expected.tokens));
        let refuse = |generator: &mut Generator, words: &str| {
            let error = generator.load_prompt(&path).expect_err(words).to_string();
            assert!(error.contains(words) && error.contains("delete the file"), "{error}");
        };
        refuse(&mut fresh("bitnet", 3, 64), "another model or context");
        refuse(&mut fresh("int4", 1, 64), "another model or context");
        refuse(&mut fresh("bitnet", 1, 12), "no prompt cache that fits");
        let other = if kind == CacheKind::F32 { CacheKind::F16 } else { CacheKind::F32 };
        refuse(
            &mut Generator::with_cache(model("bitnet", 1), tokenizer(), cpu(), 64, other),
            "keeps keys and values as",
        );
        let good = std::fs::read(&path).expect("readable");
        for at in [0, 20, 30, 60, 70, 100, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).expect("writable");
            refuse(&mut fresh("bitnet", 1, 64), "prompt cache");
        }
        for len in [0, 10, 40, 100, good.len() - 1] {
            std::fs::write(&path, &good[..len]).expect("writable");
            refuse(&mut fresh("bitnet", 1, 64), "prompt cache");
        }
    }
    let error = generator("f32", 1, 8).load_prompt(&home.path().join("absent")).expect_err("refused");
    assert_eq!(error.kind, lowbit_model::Kind::Io);
    assert!(generator("f32", 1, 8).load_prompt(home.path()).is_err());
    assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 1, "no temporary file is left");
}

/// Where frequencies depend on the length that a sequence may reach, so do the keys that are kept.
#[test]
fn a_prompt_cache_has_the_frequencies_of_its_context() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("prompt");
    let rope_scaling = Some(RopeScaling::LongRope(LongRope {
        short_factor: vec![1.0; 6],
        long_factor: vec![2.0; 6],
        original_max_position_embeddings: 40.0,
        attention_factor: 1.0,
    }));
    let config = Config::Decoder(decoder::Config { rope_scaling, ..decoder(LM) });
    let model = Arc::new(synthetic::model(&config, recipe::find("f32").expect("listed"), 1).expect("made"));
    let fresh = |context| Generator::new(model.clone(), Arc::new(Tokenizer::bytes()), cpu(), context);
    let mut first = fresh(40);
    answer(&mut first, &request("a rather long prompt", 6));
    first.save_prompt(&path).expect("written");
    assert_eq!(fresh(36).load_prompt(&path).expect("as short"), 25);
    let error = fresh(41).load_prompt(&path).expect_err("other frequencies").to_string();
    assert!(error.contains("another model or context"), "{error}");
}
