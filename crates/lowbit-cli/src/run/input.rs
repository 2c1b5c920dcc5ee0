//! What a line typed in a chat means.

/// Opens and closes a text of several lines.
const QUOTES: &str = "\"\"\"";

/// Name, argument and meaning of each command.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("/help", "", "this list"),
    ("/reset", "", "begin anew; the system message stays"),
    ("/system", "[TEXT]", "instruct the model from now on; without text, no more"),
    ("/save", "FILE", "write the conversation to a file"),
    ("/load", "FILE", "go on with a conversation from a file"),
    ("/stats", "", "tokens, times and energy so far"),
    ("/exit", "", "leave; so does Ctrl-D"),
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing was typed.
    Nothing,
    /// Said to the model.
    Say(String),
    /// List the commands.
    Help,
    /// Forget the turns.
    Reset,
    /// Set the system message, or remove it.
    System(Option<String>),
    /// Write the conversation to a file.
    Save(String),
    /// Read a conversation from a file.
    Load(String),
    /// Tell tokens, times and energy.
    Stats,
    /// Leave.
    Exit,
    /// No command, or without its argument; the text says so.
    Wrong(String),
}

/// Whether a text that begins a block of several lines is not closed yet.
pub fn is_open(text: &str) -> bool {
    let text = text.trim_start();
    let block = text.strip_prefix("/system").map_or(text, str::trim_start);
    block.strip_prefix(QUOTES).is_some_and(|rest| !rest.trim_end().ends_with(QUOTES))
}

/// What a line, or a closed block of lines, means.
pub fn parse(text: &str) -> Input {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Input::Nothing;
    }
    // A path or a comment is no command: names are lower-case letters.
    let name = trimmed.split_whitespace().next().unwrap_or_default();
    let letters = name.strip_prefix('/').filter(|letters| !letters.is_empty());
    if !letters.is_some_and(|letters| letters.bytes().all(|b| b.is_ascii_lowercase())) {
        return Input::Say(unquoted(text).to_string());
    }
    let rest = trimmed[name.len()..].trim();
    let Some((_, takes, _)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
        return Input::Wrong(format!("`{}` is no command; there are {}", name.escape_debug(), known.join(" ")));
    };
    match (name, rest) {
        ("/save" | "/load", "") => Input::Wrong(format!("{name} needs a {takes}")),
        ("/system", "") => Input::System(None),
        ("/system", text) => Input::System(Some(unquoted(text).to_string())),
        ("/save", path) => Input::Save(path.to_string()),
        ("/load", path) => Input::Load(path.to_string()),
        (_, text) if !text.is_empty() => Input::Wrong(format!("{name} takes no argument")),
        ("/help", _) => Input::Help,
        ("/reset", _) => Input::Reset,
        ("/stats", _) => Input::Stats,
        _ => Input::Exit,
    }
}

/// The text inside triple quotes, or the text as it is.
fn unquoted(text: &str) -> &str {
    let trimmed = text.trim();
    let inside = trimmed.strip_prefix(QUOTES).and_then(|rest| rest.strip_suffix(QUOTES));
    inside.map_or(text, |inside| inside.strip_prefix('\n').unwrap_or(inside)).trim_end_matches('\n')
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, Input, is_open, parse};

    #[test]
    fn every_command_is_known() {
        for (name, takes, _) in COMMANDS {
            let parsed = parse(name);
            match *takes {
                "FILE" => assert_eq!(parsed, Input::Wrong(format!("{name} needs a FILE"))),
                "" => {
                    assert!(!matches!(parsed, Input::Wrong(_) | Input::Say(_)), "{name}");
                    let extra = parse(&format!("{name} x"));
                    assert_eq!(extra, Input::Wrong(format!("{name} takes no argument")));
                }
                _ => assert_eq!(parsed, Input::System(None)),
            }
        }
        let all: Vec<Input> = COMMANDS.iter().map(|(name, ..)| parse(name)).collect();
        assert!(all.iter().enumerate().all(|(i, a)| all[..i].iter().all(|b| a != b)), "{all:?}");
    }

    #[test]
    fn arguments() {
        assert_eq!(parse(" /save a b.json "), Input::Save("a b.json".into()));
        assert_eq!(parse("/load x"), Input::Load("x".into()));
        assert_eq!(parse("/system Be brief. "), Input::System(Some("Be brief.".into())));
        assert_eq!(parse("/system \"\"\"a\nb\"\"\""), Input::System(Some("a\nb".into())));
    }

    #[test]
    fn any_text_can_be_said() {
        let pieces = ["é", "你好", "😀", "\u{a0}", "/", "//", "/é", "/help", "\"\"\"", "\"", "\n", " ", "x", "\u{301}"];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    let text = [a, b, c].concat();
                    let open = is_open(&text);
                    let parsed = parse(&text);
                    let trimmed = text.trim_start();
                    if !trimmed.is_empty() && !trimmed.starts_with(['/', '"']) {
                        assert_eq!(parsed, Input::Say(text.trim_end_matches('\n').into()), "{text:?}");
                        assert!(!open, "{text:?}");
                    }
                }
            }
        }
        assert_eq!(parse("你好"), Input::Say("你好".into()));
        assert_eq!(parse("/é"), Input::Say("/é".into()));
    }

    #[test]
    fn what_is_said() {
        assert_eq!(parse(" \t "), Input::Nothing);
        assert_eq!(parse(" Hello /exit "), Input::Say(" Hello /exit ".into()));
        assert_eq!(parse("/usr/bin/env is what?"), Input::Say("/usr/bin/env is what?".into()));
        assert_eq!(parse("// what is this?"), Input::Say("// what is this?".into()));
        assert_eq!(parse("a\nb\n"), Input::Say("a\nb".into()));
        assert_eq!(parse("\"\"\"\nfn main() {\n}\n\"\"\""), Input::Say("fn main() {\n}".into()));
        assert_eq!(parse("\"quoted\""), Input::Say("\"quoted\"".into()));
        assert!(matches!(parse("/quit"), Input::Wrong(text) if text.contains("/exit")));
    }

    #[test]
    fn blocks() {
        for open in ["\"\"\"", " \"\"\"a", "/system \"\"\"a\nb", "\"\"\"a\nb"] {
            assert!(is_open(open), "{open}");
        }
        for closed in ["", "a", "\"\"\"a\"\"\"", "\"\"\"a\nb\"\"\" ", "say \"\"\"", "/save \"\"\"", "\"\"\"\"\"\""] {
            assert!(!is_open(closed), "{closed}");
        }
    }
}
