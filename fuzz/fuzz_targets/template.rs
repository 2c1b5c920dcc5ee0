//! Chat templates: parts between NUL bytes are the template, then the turns of the chat, the user's first.
#![no_main]

use lowbit_model::Tokenizer;
use lowbit_model::chat::{Message, Role, Template, tokens};

/// Most bytes a template may write beyond twice the turns' own.
const MAX_OUTPUT: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let source = parts.next().unwrap_or_default();
    let template = match Template::new(source, &[("bos_token", "<s>"), ("eos_token", "</s>")].into()) {
        Ok(template) => template,
        Err(error) => return one_line(&error),
    };
    let roles = [Role::User, Role::Assistant, Role::User, Role::System].into_iter().cycle();
    let messages: Vec<Message> = parts.zip(roles).map(|(said, role)| Message::new(role, said)).collect();
    let said: usize = messages.iter().map(|m| m.content.len()).sum();
    for answer in [false, true] {
        match template.render(&messages, answer) {
            Ok(text) => assert!(text.len() <= MAX_OUTPUT + 2 * said, "{} bytes of output", text.len()),
            Err(error) => one_line(&error),
        }
    }
    let _ = tokens(&Tokenizer::bytes(), Some(&template), &messages);
});

/// An error is one printable line.
fn one_line(error: &lowbit_model::Error) {
    let line = error.to_string();
    assert!(!line.contains(|c: char| c.is_control()) && line.len() < 1 << 17, "{line:?}");
}
