//! What `lowbit run` does once its arguments are checked: a model answers once, or chats in the terminal.

mod chat;
mod conversation;
mod input;
mod lines;
pub mod prompt;
mod screen;
mod speaker;
mod statistics;

pub use chat::Chat;
pub use screen::Screen;
pub use speaker::{Answer, Settings, Speaker};
pub use statistics::{Total, line, measures};
