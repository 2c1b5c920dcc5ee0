//! Chats turn by turn, on a tiny random model over bytes.

mod common;

use common::{CLASSIFY, LM, cpu, decoder, masters};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::Head;
use lowbit_model::chat::{
    AnswerOptions, ChatError, ChatModel, ChatSession, Message, PromptFormat, Role, Template, context,
};
use lowbit_model::checkpoint::save_masters;
use lowbit_model::engine::{Engine, Event, Settings};
use lowbit_model::generate::{Finish, Progress, Sampling};
use lowbit_model::{Checkpoint, Config, Error, Kind, ModelConfig, Sequences, Tokenizer};
use std::ops::ControlFlow;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";
const TRAINED: usize = 200;

fn checkpoint(head: Head, template: &str) -> (tempfile::TempDir, Checkpoint) {
    let directory = tempfile::tempdir().expect("a directory");
    let config = Config::Decoder(decoder(head));
    let labels = (0..config.classes().unwrap_or(0)).map(|i| i.to_string()).collect();
    let chat_template = (!template.is_empty()).then(|| template.to_string());
    let model_config = ModelConfig { chat_template, labels, ..ModelConfig::new(config, TRAINED) };
    let masters = masters(&model_config.config);
    let params = masters.iter().map(|(spec, values)| (spec, &values[..]));
    save_masters(directory.path(), &model_config, Some(&Tokenizer::bytes()), params).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("opened");
    (directory, checkpoint)
}

fn model(template: &str) -> ChatModel {
    ChatModel::load(&checkpoint(LM, template).1, PromptFormat::Chat).expect("loaded")
}

fn options(max_tokens: usize) -> AnswerOptions {
    AnswerOptions { max_tokens: Some(max_tokens), ..AnswerOptions::default() }
}

fn session(model: &ChatModel, max_tokens: usize) -> ChatSession {
    model.session(cpu(), TRAINED, CacheKind::default(), options(max_tokens))
}

/// The text of an answer, taken whole.
fn say(session: &mut ChatSession, text: &str) -> Result<String, ChatError> {
    Ok(session.say(text, &mut |_| ControlFlow::Continue(()))?.text)
}

#[test]
fn an_answer_becomes_part_of_the_chat() {
    let model = model(TEMPLATE);
    let mut chat = session(&model, 9);
    chat.instruct(Some("short".into()));
    chat.instruct(Some("be brief".into()));
    let first = say(&mut chat, "Hello").expect("answered");
    let second = say(&mut chat, "More").expect("answered");
    let turns = [(Role::User, "Hello"), (Role::Assistant, &first), (Role::User, "More"), (Role::Assistant, &second)];
    let system = [(Role::System, "be brief")];
    let wanted: Vec<Message> = system.iter().chain(&turns).map(|(role, text)| Message::new(*role, *text)).collect();
    assert_eq!(chat.messages(), wanted);
    chat.reset();
    assert_eq!(chat.messages(), &wanted[..1]);
    chat.instruct(None);
    assert!(chat.messages().is_empty());
}

/// What a server does with many requests gives what a session gives.
#[test]
fn a_session_is_a_loop_over_the_engine() {
    let model = model(TEMPLATE);
    let mut chat = session(&model, 12);
    let texts = [say(&mut chat, "One").expect("answered"), say(&mut chat, "Two").expect("answered")];
    let sequences = Sequences::new(model.network().clone(), cpu(), TRAINED, CacheKind::default());
    let mut engine = Engine::new(sequences, model.tokenizer().clone(), Settings::default());
    for (turn, text) in texts.iter().enumerate() {
        let mut options = options(12);
        options.sampling.seed = turn as u64;
        let request = model.request(&chat.messages()[..2 * turn + 1], &options, TRAINED).expect("fits");
        engine.open(request).expect("opened");
        let outcome = loop {
            let end = engine.step().into_iter().find_map(|event| match event {
                Event::End { outcome, .. } => Some(outcome),
                _ => None,
            });
            if let Some(outcome) = end {
                break outcome.expect("answered");
            }
        };
        assert_eq!(outcome.text, *text, "turn {turn}");
    }
}

#[test]
fn pieces_that_are_pulled_are_those_that_are_pushed() {
    let model = model("");
    let pushed = say(&mut session(&model, 20), "Once").expect("answered");
    let mut chat = session(&model, 20);
    assert!(chat.advance().is_err() && chat.messages().is_empty(), "nothing is under way");
    chat.begin("Once").expect("begun");
    let mut pulled = String::new();
    let outcome = loop {
        match chat.advance().expect("goes on") {
            Progress::Text(text) => pulled += &text,
            Progress::Done(outcome) => break outcome,
        }
    };
    assert_eq!((&pulled, &outcome.text), (&pushed, &pushed));
    assert_eq!(chat.messages().len(), 2);
}

#[test]
fn an_answer_that_is_cut_short_is_kept_as_far_as_it_came() {
    let model = model(TEMPLATE);
    let whole = say(&mut session(&model, 40), "Hello").expect("answered");
    let mut chat = session(&model, 40);
    let mut got = String::new();
    let outcome = chat.say("Hello", &mut |piece| {
        got += piece;
        if got.chars().count() > 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let outcome = outcome.expect("cut");
    assert!(outcome.finish == Finish::Cancelled && outcome.text == got && whole.starts_with(&got), "{got} {whole}");
    assert_eq!(chat.messages()[1], Message::new(Role::Assistant, got));
    // Another turn in place of an answer under way keeps what was received of that.
    chat.begin("More").expect("begun");
    chat.begin("Even more").expect("begun");
    let said: Vec<&str> = chat.messages().iter().map(|m| &*m.content).collect();
    assert_eq!((said.len(), said[0], said[2]), (3, "Hello", "Even more"));
}

#[test]
fn what_fails_leaves_the_chat_as_it_was() {
    let model = model(TEMPLATE);
    let mut chat = session(&model, 4);
    say(&mut chat, "Hello").expect("answered");
    let before = chat.messages().to_vec();
    let full = say(&mut chat, &"long ".repeat(60)).expect_err("full");
    assert!(matches!(full, ChatError::ContextFull { context: TRAINED, trained: TRAINED, .. }), "{full:?}");
    let text = full.to_string();
    assert!(text.starts_with("the context of 200 tokens is full: this takes at least 3"), "{text}");
    assert_eq!(Error::from(full).kind, Kind::Usage);
    chat.options_mut().sampling.temperature = -1.0;
    let error = say(&mut chat, "Hello").expect_err("no temperature");
    assert!(error.to_string().contains("temperature is -1"), "{error}");
    assert_eq!(chat.messages(), before);
    let mut small = model.session(cpu(), 50, CacheKind::default(), options(99));
    let outcome = small.say("x", &mut |_| ControlFlow::Continue(())).expect("as far as there is room");
    assert!(small.is_full(&outcome) || outcome.finish == Finish::Stop, "{outcome:?}");
    let text = say(&mut small, &"y".repeat(50)).expect_err("full").to_string();
    assert!(text.ends_with("or take a context of up to 200"), "{text}");
}

#[test]
fn each_turn_has_draws_of_its_own() {
    let model = model("");
    let mut chat = session(&model, 24);
    let first = say(&mut chat, "Hello").expect("answered");
    let again = say(&mut chat, "Hello").expect("answered");
    assert_ne!(first, again);
    let mut other = session(&model, 24);
    other.options_mut().sampling = Sampling { seed: 1, ..Sampling::chat() };
    assert_eq!(say(&mut other, "Hello").expect("answered"), again);
}

#[test]
fn templates_are_taken_where_they_are_asked_for() {
    let (_directory, broken) = checkpoint(LM, "{% nonsense");
    let error = ChatModel::load(&broken, PromptFormat::Chat).err().expect("no template");
    assert!(error.kind == Kind::Input && error.path.as_deref() == Some(broken.path()), "{error}");
    let plain = ChatModel::load(&broken, PromptFormat::Text).expect("needs none");
    let said = [Message::new(Role::User, "x")];
    assert!(!plain.has_template());
    assert_eq!(plain.prompt(&said).expect("tokens"), plain.tokenizer().encode("x", usize::MAX).expect("tokens"));
    let chat = model(TEMPLATE);
    let template = Template::new(TEMPLATE, &Default::default()).expect("a template");
    let text = template.render(&said, true).expect("rendered");
    assert_eq!(text, "<user>x<assistant>");
    assert_eq!(chat.prompt(&said).expect("tokens"), chat.tokenizer().encode(&text, usize::MAX).expect("tokens"));
}

#[test]
fn contexts_are_those_of_training_at_most() {
    let (_directory, trained) = checkpoint(LM, "");
    assert_eq!(context(&trained, None).expect("fits"), TRAINED);
    assert_eq!(context(&trained, Some(0)).expect("fits"), TRAINED);
    assert_eq!(context(&trained, Some(7)).expect("fits"), 7);
    let error = context(&trained, Some(TRAINED + 1)).expect_err("too long");
    assert_eq!(error.to_string(), "context is 201, but the model was trained for 200 tokens");
    let (_directory, classifier) = checkpoint(CLASSIFY, "");
    let error = context(&classifier, None).expect_err("no language model");
    assert!(error.kind == Kind::Input && error.to_string().contains("is a classifier"), "{error}");
    assert!(ChatModel::load(&classifier, PromptFormat::Chat).is_err());
}

#[test]
fn sessions_go_to_other_threads() {
    fn send<T: Send>() {}
    send::<ChatSession>();
    send::<ChatModel>();
}
