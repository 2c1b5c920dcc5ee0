//! What `lowbit run` does once its arguments are checked: a model answers once, or chats in the terminal.

mod chat;
mod input;
mod lines;
mod metered;
pub mod prompt;
mod screen;

pub use chat::Chat;
pub use metered::{MeteredSession, Settings};
pub use screen::Screen;
