//! Conversations as files.

use super::Message;
use crate::Error;
use lowbit_base::file;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Largest file, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The turns of a chat: a JSON object with `messages`, each with `role` and `content`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Name of the model that answered.
    #[serde(default)]
    pub model: String,
    /// The turns, from the first.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// Reads a file.
    ///
    /// # Errors
    /// Names file, line and field.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = file::read(path, MAX_BYTES)?;
        serde_json::from_slice(&text).map_err(|e| Error::input(path, format!("not a saved conversation: {e}")))
    }

    /// Writes a file, atomically.
    ///
    /// # Errors
    /// When writing fails; an earlier file is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::input(path, e.to_string()))?;
        file::replace(path, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::Conversation;
    use crate::Kind;
    use crate::chat::{Message, Role};

    #[test]
    fn round_trip() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("chat.json");
        let turns = [(Role::System, "be brief"), (Role::User, "a\n\"\u{1b}\u{1f600}"), (Role::Assistant, "")];
        let messages = turns.into_iter().map(|(role, text)| Message::new(role, text)).collect();
        let saved = Conversation { model: "m".into(), messages };
        saved.save(&path).expect("saved");
        saved.save(&path).expect("saved again");
        assert_eq!(Conversation::load(&path).expect("loaded"), saved);
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn wrong_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("chat.json");
        for (text, word) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{}", "missing field `messages`"),
            (r#"{"messages": [{"role": "wizard", "content": "x"}]}"#, "unknown variant `wizard`"),
            (r#"{"messages": [{"role": "user"}]}"#, "missing field `content`"),
        ] {
            std::fs::write(&path, text).expect("written");
            let failure = Conversation::load(&path).expect_err(text);
            assert_eq!(failure.kind, Kind::Input);
            assert!(failure.message.contains(word) && failure.to_string().contains("chat.json"), "{failure}");
        }
        assert_eq!(Conversation::load(directory.path()).expect_err("a directory").kind, Kind::Input);
        assert_eq!(Conversation::load(&directory.path().join("no")).expect_err("absent").kind, Kind::Io);
    }
}
