//! Requests answered together: each gets what it would get alone, whoever joins and leaves.

mod common;

use common::{LM, TIED, cpu, decoder};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::Predictor;
use lowbit_model::arch::decoder;
use lowbit_model::engine::{Engine, Event, Id, LanguageModel, Logits, Passes, Piece, Settings};
use lowbit_model::generate::{Draft, Finish, Generator, Guide, Guided, Outcome, Request, Sampling};
use lowbit_model::{Config, Error, Model, Param, Sequences, Session, Tokenizer, recipe, synthetic};
use std::collections::BTreeMap;
use std::sync::Arc;

const CONTEXT: usize = 700;

fn model(recipe: &str) -> Arc<Model<Param>> {
    let recipe = recipe::find(recipe).expect("listed");
    let config = decoder::Config { bigram_buckets: 64, ..decoder(if recipe.name == "f32" { LM } else { TIED }) };
    Arc::new(synthetic::model(&Config::Decoder(config), recipe, 5).expect("made"))
}

fn sequences(model: &Arc<Model<Param>>) -> Sequences {
    Sequences::new(model.clone(), cpu(), CONTEXT, CacheKind::F16)
}

fn engine(model: &Arc<Model<Param>>, sequences_: usize, keep: usize) -> Engine {
    let settings = Settings { sequences: sequences_, keep, ..Settings::default() };
    Engine::new(sequences(model), Arc::new(Tokenizer::bytes()), settings)
}

fn request(i: usize) -> Request {
    // Prompts of one token, of some, and of more than two pieces; greedy and drawn answers.
    let length = [7, 1, 90, 600, 300][i % 5];
    let sampling = match i % 2 {
        0 => Sampling::default(),
        _ => Sampling { temperature: 0.8, top_k: 40, repetition_penalty: 1.1, seed: i as u64, ..Sampling::default() },
    };
    let prompt = (0..length).map(|t| ((t + i) * 37 % 251) as u32).collect();
    Request { prompt, max_tokens: 12 + 5 * i, sampling, ..Request::default() }
}

fn alone(model: &Arc<Model<Param>>, request: &Request) -> Outcome {
    let mut generator = Generator::new(model.clone(), Arc::new(Tokenizer::bytes()), cpu(), CONTEXT);
    generator.generate(request, &mut |_| std::ops::ControlFlow::Continue(())).expect("answers")
}

/// Answers by request, and the text of each as it came.
#[derive(Default)]
struct Answers {
    ended: BTreeMap<Id, Result<Outcome, Error>>,
    text: BTreeMap<Id, String>,
}

impl Answers {
    fn step(&mut self, engine: &mut Engine<impl LanguageModel>) {
        for event in engine.step() {
            match event {
                Event::Prompt { done, of, .. } => assert!(done < of),
                Event::Text { id, text, .. } => self.text.entry(id).or_default().push_str(&text),
                Event::End { id, outcome } => assert!(self.ended.insert(id, outcome).is_none(), "{id:?} ends once"),
            }
        }
    }

    fn outcome(&self, id: Id) -> &Outcome {
        let outcome = self.ended[&id].as_ref().expect("an answer");
        assert_eq!(outcome.text, self.text.get(&id).cloned().unwrap_or_default());
        outcome
    }
}

fn same(found: &Outcome, expected: &Outcome, what: &str) {
    assert_eq!(
        (&found.tokens, &found.text, found.finish),
        (&expected.tokens, &expected.text, expected.finish),
        "{what}"
    );
}

#[test]
fn requests_that_join_and_leave_get_what_they_get_alone() {
    for recipe in ["f32", "bitnet", "int4", "bf16"] {
        let model = model(recipe);
        let requests: Vec<Request> = (0..5).map(request).collect();
        let expected: Vec<Outcome> = requests.iter().map(|request| alone(&model, request)).collect();
        // Each order joins at other steps, so that every request meets others at every stage of theirs.
        for (order, gap) in [([0, 1, 2, 3, 4], 0), ([4, 3, 2, 1, 0], 1), ([3, 0, 4, 1, 2], 3), ([2, 4, 0, 3, 1], 9)] {
            let (mut engine, mut answers) = (engine(&model, 3, 2), Answers::default());
            let mut ids = BTreeMap::new();
            for i in order {
                ids.insert(i, engine.open(requests[i].clone()).expect("fits"));
                (0..gap).for_each(|_| answers.step(&mut engine));
            }
            while engine.requests() > 0 {
                answers.step(&mut engine);
            }
            for (i, id) in ids {
                same(answers.outcome(id), &expected[i], &format!("{recipe}, order {order:?}, request {i}"));
            }
        }
    }
}

#[test]
fn guesses_and_plain_answers_share_a_pass() {
    let model = model("bitnet");
    let text = |text: &str, draft| Request {
        prompt: text.bytes().map(u32::from).collect(),
        max_tokens: 60,
        draft,
        ..Request::default()
    };
    let requests = [text("abcabcabcabc", Some(Draft::Ngram)), text("abcabc abcabc", None), request(3)];
    let (mut engine, mut answers) = (engine(&model, 3, 0), Answers::default());
    let ids: Vec<Id> = requests.iter().map(|request| engine.open(request.clone()).expect("fits")).collect();
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    for (id, request) in ids.iter().zip(&requests) {
        same(answers.outcome(*id), &alone(&model, request), "together");
    }
    assert!(answers.outcome(ids[0]).stats.accepted > 0);
}

#[test]
fn a_closed_request_frees_its_memory_and_disturbs_nobody() {
    let model = model("int8");
    let expected = alone(&model, &request(2));
    // Closed while it waits, reads its prompt, or answers.
    for steps in [0, 1, 14] {
        let (mut engine, mut answers) = (engine(&model, 2, 0), Answers::default());
        let (stays, leaves, waits) = (request(2), request(3), request(1));
        let stays = engine.open(stays).expect("fits");
        let leaves = engine.open(leaves).expect("fits");
        (0..steps).for_each(|_| answers.step(&mut engine));
        let before = engine.model().cache_allocated();
        let waits = engine.open(waits).expect("fits");
        let outcome = engine.close(leaves).expect("it is open");
        assert_eq!((outcome.finish, engine.close(leaves)), (Finish::Cancelled, None));
        assert!(steps == 0 || engine.model().cache_allocated() < before, "after {steps} steps");
        while engine.requests() > 0 {
            answers.step(&mut engine);
        }
        assert!(!answers.ended.contains_key(&leaves) && answers.ended.contains_key(&waits));
        same(answers.outcome(stays), &expected, &format!("after {steps} steps"));
        assert_eq!(engine.model().cache_allocated(), 0, "nothing is kept");
    }
}

#[test]
fn a_long_prompt_lets_others_go_on() {
    let model = model("bitnet");
    let (mut engine, mut answers) = (engine(&model, 2, 0), Answers::default());
    let short = engine.open(Request { max_tokens: 40, ..request(0) }).expect("fits");
    answers.step(&mut engine);
    let long = engine.open(Request { max_tokens: 2, ..request(3) }).expect("fits");
    // 600 tokens of a prompt in chunks of 64: meanwhile the other answer has a token in each step.
    for step in 0..9 {
        let events = engine.step();
        let tokens = events.iter().filter(|event| matches!(event, Event::Text { id, .. } if *id == short)).count();
        let read = |event: &Event| matches!(event, Event::Prompt { id, done, of: 600, .. } if *id == long && *done == 64 * (step + 1));
        assert_eq!((tokens, events.iter().filter(|event| read(event)).count()), (1, 1), "step {step}");
    }
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    same(
        answers.ended[&long].as_ref().expect("an answer"),
        &alone(&model, &Request { max_tokens: 2, ..request(3) }),
        "long",
    );
}

#[test]
fn a_kept_begin_is_read_once_and_long_ones_are_spared() {
    let model = model("bitnet");
    let (mut engine, mut answers) = (engine(&model, 2, 2), Answers::default());
    let mut answer = |prompt: &[u32]| {
        let request = Request { prompt: prompt.to_vec(), max_tokens: 4, ..Request::default() };
        let id = engine.open(request.clone()).expect("fits");
        while engine.requests() > 0 {
            answers.step(&mut engine);
        }
        same(answers.outcome(id), &alone(&model, &request), "kept");
        (answers.outcome(id).stats.cached_tokens, engine.kept().len())
    };
    let (long, other): (Vec<u32>, Vec<u32>) = ((0..90).collect(), (0..20).chain(100..110).collect());
    assert_eq!(answer(&long), (0, 1));
    assert_eq!(answer(&other), (0, 2), "20 of 90 tokens are not worth the rest");
    assert_eq!(answer(&long), (89, 2));
    assert_eq!(answer(&other), (29, 2));
    assert_eq!(answer(&[200, 201]), (0, 2), "the sequence with the longest common begin makes room, none being free");
}

#[test]
fn requests_that_do_not_fit_are_refused_at_once() {
    let mut engine = engine(&model("f32"), 2, 0);
    let base = request(0);
    let cases = [
        (Request { prompt: vec![], ..base.clone() }, "the prompt is empty"),
        (Request { max_tokens: 0, ..base.clone() }, "an answer of 0 tokens"),
        (Request { max_tokens: CONTEXT - 6, ..base.clone() }, "exceed the context of 700 tokens"),
        (Request { max_tokens: usize::MAX, ..base.clone() }, "exceed the context of 700 tokens"),
        (Request { prompt: vec![1, 258], ..base.clone() }, "token 258 is outside the table of 258 entries"),
        (Request { stop: vec![String::new()], ..base.clone() }, "a stop text is empty"),
        (Request { sampling: Sampling { min_p: 2.0, ..Sampling::default() }, ..base.clone() }, "min_p is 2"),
    ];
    for (request, words) in cases {
        let error = engine.open(request).expect_err(words).to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
        assert_eq!(engine.requests(), 0);
    }
    let whole = engine.open(Request { max_tokens: CONTEXT - 7, ..base }).expect("fits to the last token");
    let mut answers = Answers::default();
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    assert_eq!(answers.outcome(whole).tokens.len(), CONTEXT - 7);
}

/// A model whose logits are written down: the next token is the last one plus one, and `bad` makes them NaN.
struct Fake {
    sequences: Vec<Option<Vec<u32>>>,
    logits: Vec<f32>,
    passes: Vec<usize>,
}

const BAD: u32 = 90;

impl LanguageModel for Fake {
    fn context(&self) -> usize {
        200
    }
    fn vocabulary(&self) -> usize {
        128
    }
    fn open(&mut self) -> usize {
        self.sequences.push(Some(Vec::new()));
        self.sequences.len() - 1
    }
    fn close(&mut self, slot: usize) {
        assert!(self.sequences[slot].take().is_some(), "closed once");
    }
    fn tokens(&self, slot: usize) -> &[u32] {
        self.sequences[slot].as_ref().expect("open")
    }
    fn truncate(&mut self, slot: usize, tokens: usize) {
        self.sequences[slot].as_mut().expect("open").truncate(tokens);
    }
    fn pass(&mut self, pieces: &[Piece<'_>], _: Option<usize>) -> Result<&[f32], Error> {
        self.passes.push(pieces.len());
        self.logits.clear();
        for piece in pieces {
            self.sequences[piece.slot].as_mut().expect("open").extend(piece.tokens);
            let rows = piece.tokens.len() - piece.rows();
            for token in &piece.tokens[rows..] {
                let row = (0..128).map(|i| if *token == BAD { f32::NAN } else { f32::from(i == token + 1) });
                self.logits.extend(row);
            }
        }
        Ok(&self.logits)
    }
}

#[test]
fn an_answer_that_fails_ends_alone_and_all_slots_are_closed() {
    let fake = Fake { sequences: Vec::new(), logits: Vec::new(), passes: Vec::new() };
    let settings = Settings { sequences: 3, keep: 0, passes: Passes::Together, ..Settings::default() };
    let mut engine = Engine::new(fake, Arc::new(Tokenizer::bytes()), settings);
    let ask = |first: u32| Request { prompt: vec![first], max_tokens: 20, ..Request::default() };
    let ids = [40, BAD - 5, 60, 65].map(|first| engine.open(ask(first)).expect("fits"));
    let mut answers = Answers::default();
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    for (id, first) in [(ids[0], 40), (ids[2], 60), (ids[3], 65)] {
        assert_eq!(answers.outcome(id).tokens, (first + 1..first + 21).collect::<Vec<_>>());
    }
    assert_eq!(answers.ended[&ids[1]].as_ref().expect_err("NaN").kind, lowbit_model::Kind::Numeric);
    let passes = &engine.model().passes;
    assert_eq!((passes[0], passes.iter().max()), (3, Some(&3)), "three share a pass, the fourth waits");
    assert!(engine.model().sequences.iter().all(Option::is_none));
}

#[test]
fn what_cannot_continue_a_text_fails_every_request() {
    let bag = common::configs().into_iter().find(|config| matches!(config, Config::Mlp(_))).expect("there");
    let model = Arc::new(synthetic::model(&bag, recipe::find("f32").expect("listed"), 1).expect("made"));
    let mut engine = Engine::new(sequences(&model), Arc::new(Tokenizer::bytes()), Settings::default());
    let id = engine.open(request(1)).expect("it fits");
    let mut answers = Answers::default();
    answers.step(&mut engine);
    let error = answers.ended[&id].as_ref().expect_err("no attention").to_string();
    assert!(error.contains("use it as a classifier"), "{error}");
    assert_eq!(engine.requests(), 0);
    let piece = [Piece { slot: 0, tokens: &[1], logits: Logits::All }];
    assert!(engine.model_mut().pass(&piece, None).is_err());
}

#[test]
fn handles_go_to_other_threads() {
    fn send<T: Send>() {}
    send::<Engine>();
    send::<Generator>();
    send::<Session>();
    send::<Sequences>();
    send::<Predictor>();
    let model = model("bitnet");
    let expected = alone(&model, &request(0));
    let mut generator = Generator::new(model, Arc::new(Tokenizer::bytes()), cpu(), CONTEXT);
    let moved = std::thread::spawn(move || {
        generator.generate(&request(0), &mut |_| std::ops::ControlFlow::Continue(())).expect("answers")
    });
    same(&moved.join().expect("no panic"), &expected, "on another thread");
}

#[test]
fn log_probabilities_are_those_of_the_logits_and_change_no_answer() {
    let model = model("bitnet");
    let (mut engine, mut answers) = (engine(&model, 3, 2), Answers::default());
    // Prompts of one pass and of several, beside a plain request that keeps the prefix of the first.
    let plain = engine.open(request(3)).expect("fits");
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    let scored = [3, 1, 2].map(|i| Request { logprobs: Some(3), echo: true, ..request(i) });
    let ids = scored.clone().map(|request| engine.open(request).expect("fits"));
    let (mut prompts, mut streamed) = (BTreeMap::<Id, Vec<_>>::new(), BTreeMap::<Id, Vec<_>>::new());
    while engine.requests() > 0 {
        for event in engine.step() {
            match event {
                Event::Prompt { id, logprobs, .. } => prompts.entry(id).or_default().extend(logprobs),
                Event::Text { id, logprob, .. } => streamed.entry(id).or_default().extend(logprob),
                Event::End { id, outcome } => drop(answers.ended.insert(id, outcome)),
            }
        }
    }
    same(answers.ended[&ids[0]].as_ref().expect("an answer"), answers.outcome(plain), "with log-probabilities");
    for (id, request) in ids.into_iter().zip(scored) {
        let outcome = answers.ended[&id].as_ref().expect("an answer");
        let text = [&request.prompt[..], &outcome.tokens].concat();
        let mut session = Session::with_cache(model.clone(), cpu(), CONTEXT, CacheKind::F16);
        let rows = session.feed_all(&text).expect("fits").to_vec();
        let all = [prompts.remove(&id).unwrap_or_default(), outcome.logprobs.clone()].concat();
        assert_eq!((all.len(), outcome.logprobs.len()), (text.len() - 1, outcome.tokens.len()));
        assert_eq!(streamed[&id], outcome.logprobs);
        for ((found, row), token) in all.iter().zip(rows.chunks_exact(258)).zip(&text[1..]) {
            let expected = lowbit_model::language::predict(row, *token as usize);
            assert_eq!((found.token, found.top.len()), (*token, 3));
            assert!((f64::from(found.logprob) + expected.nats).abs() < 1e-5, "{found:?} {expected:?}");
            assert_eq!(found.top[0].0 == *token, expected.top);
            assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1) && found.top[0].1 >= found.logprob);
        }
    }
}

#[test]
fn a_bias_forces_and_bars_tokens() {
    let model = model("f32");
    let base = request(0);
    let free = alone(&model, &base);
    let with = |bias| Request { sampling: Sampling { bias, ..Sampling::default() }, ..base.clone() };
    assert!(alone(&model, &with(vec![(65, 1000.0)])).tokens.iter().all(|token| *token == 65));
    assert!(!alone(&model, &with(vec![(free.tokens[0], -1000.0)])).tokens.contains(&free.tokens[0]));
}

#[test]
fn a_begin_that_prompts_share_is_processed_once() {
    for recipe in ["bitnet", "int8", "bf16"] {
        let model = model(recipe);
        let begin: Vec<u32> = (0..300).map(|t| t * 31 % 251).collect();
        let ask = |i: u32| Request {
            prompt: [&begin[..], &[i, 7, i]].concat(),
            max_tokens: 8 + i as usize,
            sampling: Sampling { temperature: 0.9, seed: u64::from(i), ..Sampling::default() },
            ..Request::default()
        };
        let settings = Settings { sequences: 4, keep: usize::MAX / 2, ..Settings::default() };
        let mut engine = Engine::new(sequences(&model), Arc::new(Tokenizer::bytes()), settings);
        let mut answers = Answers::default();
        // At once, while the first reads; then after all have ended, one of which is continued.
        let mut ids: Vec<(Id, Request)> = (0..6).map(|i| (engine.open(ask(i)).expect("fits"), ask(i))).collect();
        while engine.requests() > 0 {
            answers.step(&mut engine);
        }
        let said = answers.outcome(ids[2].0).tokens.clone();
        let more = Request { prompt: [&ask(2).prompt[..], &said, &[1, 2, 3]].concat(), ..ask(2) };
        for request in [ask(9), more] {
            ids.push((engine.open(request.clone()).expect("fits"), request));
            while engine.requests() > 0 {
                answers.step(&mut engine);
            }
        }
        for (i, (id, request)) in ids.iter().enumerate() {
            let outcome = answers.outcome(*id);
            same(outcome, &alone(&model, request), &format!("{recipe}, request {i}"));
            let least = if i == 0 { 0 } else { 300 };
            assert!(outcome.stats.cached_tokens >= least, "{recipe}, request {i}: {:?}", outcome.stats);
        }
        assert!(answers.outcome(ids[7].0).stats.cached_tokens >= 302 + said.len());
    }
}

#[test]
fn kept_sequences_stay_within_their_memory() {
    let model = model("int8");
    let bytes = {
        let mut sequences = sequences(&model);
        let slot = sequences.open();
        sequences.pass(&[Piece { slot, tokens: &[1; 40], logits: Logits::None }], None).expect("fits");
        sequences.bytes(slot)
    };
    assert!(bytes > 0);
    let settings = Settings { sequences: 1, keep: usize::MAX / 2, keep_bytes: 3 * bytes, ..Settings::default() };
    let mut engine = Engine::new(sequences(&model), Arc::new(Tokenizer::bytes()), settings);
    let mut ask = |first: u32| {
        let prompt = (0..40).map(|t| (first + t * 7) % 251).collect();
        let id = engine.open(Request { prompt, max_tokens: 2, ..Request::default() }).expect("fits");
        loop {
            match engine.step().pop() {
                Some(Event::End { id: ended, outcome }) if ended == id => {
                    break outcome.expect("an answer").stats.cached_tokens;
                }
                _ => assert!(engine.kept().len() <= 3),
            }
        }
    };
    assert_eq!([ask(1), ask(2), ask(3), ask(1), ask(4)], [0, 0, 0, 39, 0]);
    // The second was used longest ago.
    assert_eq!([ask(1), ask(3), ask(4), ask(2)], [39, 39, 39, 0]);
}

/// Lets tokens through that are larger than the one before, and the end when none is.
struct Rising(u32);

impl Guide for Rising {
    fn bar(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        logits[..=self.0 as usize].fill(f32::NEG_INFINITY);
        match self.0 {
            250.. => Err(Error::usage("no token may come")),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, token: u32) -> Result<(), Error> {
        self.0 = token;
        Ok(())
    }
}

#[test]
fn a_guide_bars_tokens_whoever_else_is_answered() {
    let model = model("int8");
    let guided = |from: u32| Guided::by(move || Ok(Box::new(Rising(from)) as Box<dyn Guide>));
    let ask = |i: usize| Request { guide: Some(guided(3)), ..request(i) };
    let (mut engine, mut answers) = (engine(&model, 3, 2), Answers::default());
    let ids = [
        engine.open(ask(0)).expect("fits"),
        engine.open(request(2)).expect("fits"),
        engine.open(ask(1)).expect("fits"),
    ];
    while engine.requests() > 0 {
        answers.step(&mut engine);
    }
    same(answers.outcome(ids[1]), &alone(&model, &request(2)), "beside guided ones");
    for (id, i) in [(ids[0], 0), (ids[2], 1)] {
        match &answers.ended[&id] {
            Ok(outcome) => {
                assert!(outcome.tokens.is_sorted_by(|a, b| a < b) && outcome.tokens[0] > 3, "{i}: {outcome:?}")
            }
            Err(error) => assert!(error.message.contains("no token may come"), "{error}"),
        }
    }
    let none = Request { guide: Some(Guided::by(|| Err(Error::usage("no guide")))), ..request(0) };
    engine.open(none).expect("fits");
    let ended = engine.step();
    assert!(matches!(&ended[..], [Event::End { outcome: Err(error), .. }] if error.message == "no guide"), "{ended:?}");
}
