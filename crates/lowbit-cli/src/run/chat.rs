//! The chat in the terminal.

use super::input::{self, COMMANDS, Input};
use super::lines::{Line, Lines};
use super::{MeteredSession, Screen};
use crate::failure::Failure;
use crate::terminal::Terminal;
use lowbit_base::Stop;
use lowbit_eval::generation::Total;
use lowbit_model::chat::Conversation;
use lowbit_model::generate::Finish;
use std::path::Path;

/// A person, a model, and what they said.
pub struct Chat<'a> {
    terminal: Terminal,
    metered: &'a mut MeteredSession,
    total: Total,
}

impl<'a> Chat<'a> {
    /// A chat in which nothing was said yet.
    pub fn new(metered: &'a mut MeteredSession, system: Option<String>) -> Self {
        metered.session.instruct(system);
        Chat { terminal: metered.terminal.clone(), metered, total: Total::default() }
    }

    /// Answers `first`, if it is given, then reads lines and answers them until the person leaves. Answers go to stdout, all
    /// else to stderr.
    ///
    /// # Errors
    /// When stdin cannot be read or the prompt cache cannot be written.
    pub fn run(mut self, first: Option<String>, stop: &Stop) -> Result<(), Failure> {
        let mut lines = Lines::open(&self.terminal)?;
        self.terminal.note(self.greeting());
        if let Some(text) = first {
            self.say(text, stop, self.terminal.is_typed());
        }
        while let Some(text) = read(&mut lines)?.filter(|_| self.terminal.is_open()) {
            match input::parse(&text) {
                Input::Nothing => {}
                Input::Exit => break,
                Input::Say(text) => self.say(text, stop, self.terminal.is_typed()),
                command => {
                    let reply = self.command(command);
                    self.terminal.note(reply.unwrap_or_else(|failure| format!("error: {failure}")));
                }
            }
        }
        self.metered.keep_prompt()?;
        self.terminal.note(self.total.line());
        Ok(())
    }

    fn greeting(&self) -> String {
        let metered = &self.metered;
        let greeting = format!(
            "{} ({}), context {} tokens; /help lists commands",
            metered.name,
            metered.recipe.name,
            metered.session.context()
        );
        match metered.chats() {
            true => greeting,
            false => format!("{greeting}\nno chat template: the model continues each text by itself"),
        }
    }

    /// Carries out a command; its reply.
    fn command(&mut self, command: Input) -> Result<String, Failure> {
        Ok(match command {
            Input::Help => {
                let rows =
                    COMMANDS.iter().map(|(name, takes, does)| format!("{:16} {does}", format!("{name} {takes}")));
                let quotes = "\"\"\" opens and closes a text of several lines; Ctrl-C stops an answer";
                rows.chain([quotes.to_string()]).collect::<Vec<_>>().join("\n")
            }
            Input::Reset => {
                self.metered.session.reset();
                "a new conversation".into()
            }
            Input::System(_) if !self.metered.chats() => {
                return Err(Failure::usage("a system message needs a model with a chat template"));
            }
            Input::System(text) => {
                let reply = if text.is_some() { "the system message is set" } else { "no system message" };
                self.metered.session.instruct(text);
                reply.into()
            }
            Input::Save(path) => {
                let messages = self.metered.session.messages().to_vec();
                let reply = format!("{} messages in {path}", messages.len());
                Conversation { model: self.metered.name.clone(), messages }.save(Path::new(&path))?;
                reply
            }
            Input::Load(path) => {
                let Conversation { messages, .. } = Conversation::load(Path::new(&path))?;
                let reply = format!("{} messages from {path}", messages.len());
                self.metered.session.resume(messages);
                reply
            }
            Input::Stats => self.total.line(),
            Input::Wrong(text) => return Err(Failure::usage(text)),
            Input::Nothing | Input::Say(_) | Input::Exit => String::new(),
        })
    }

    /// Answers; what fails leaves the conversation as it was.
    fn say(&mut self, text: String, stop: &Stop, is_typed: bool) {
        stop.clear();
        let terminal = self.terminal.clone();
        let mut screen = Screen::new(&terminal);
        let answer = self.metered.say(text, stop, &mut |piece| screen.write(piece));
        screen.end();
        stop.clear();
        match answer {
            Ok(answer) => {
                self.total.add(&answer);
                if self.metered.session.is_full(&answer.outcome) {
                    self.terminal
                        .note("the context is full: /reset begins anew, --context N makes room where the model has it");
                }
                if answer.outcome.finish == Finish::Cancelled && is_typed {
                    self.terminal.note("stopped");
                }
            }
            Err(failure) => self.terminal.note(format!("error: {failure}")),
        }
    }
}

/// The next line or block; `None` at the end.
fn read(lines: &mut Lines) -> Result<Option<String>, Failure> {
    let Line::Text(mut text) = lines.next(">>> ")? else { return Ok(None) };
    while input::is_open(&text) {
        // A block that the end of input cuts off is said as far as it came.
        let Line::Text(more) = lines.next("... ")? else { break };
        text.push('\n');
        text.push_str(&more);
    }
    Ok(Some(text))
}
