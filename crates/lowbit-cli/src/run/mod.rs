//! What `lowbit run` does once its arguments are checked: a model answers once, or chats in the terminal.

mod chat;
mod conversation;
mod input;
mod lines;
mod metered;
pub mod prompt;
mod screen;
mod statistics;

pub use chat::Chat;
pub use metered::{Answer, MeteredSession, Settings};
pub use screen::Screen;
pub use statistics::{Total, line, measures};
