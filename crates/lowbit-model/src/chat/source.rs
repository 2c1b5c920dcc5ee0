//! The source of a template on its way to the engine.

use std::borrow::Cow;

/// The source as Jinja reads it: lines end with `\n`, characters may be written `\U0001f600`, the first line of a raw block may
/// be empty, and the tags `generation` and `endgeneration`, which mark answers for training, are blocks of their own.
pub(super) fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let opens =
        |rest: &str| rest.match_indices('{').map(|(at, _)| at).find(|at| rest[at + 1..].starts_with(['%', '{']));
    while let Some(start) = opens(rest) {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let close = if before.ends_with("{%") { "%}" } else { "}}" };
        let Some(end) = tag.find(close) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        match tag.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" if close == "%}" => out.push_str(&tag.replace("generation", "with")),
            "endgeneration" if close == "%}" => out.push_str(&tag.replace("endgeneration", "endwith")),
            "raw" if close == "%}" && !tag.ends_with('-') && after.starts_with("%}\n") => {
                // The engine takes the end of the line with the tag.
                out.push_str(tag);
                out.push_str("%}\n");
                rest = &after[close.len()..];
                continue;
            }
            _ => out.push_str(&with_characters(tag)),
        }
        rest = after;
    }
    out + rest
}

/// An expression with characters in place of `\U` and their eight digits.
fn with_characters(expression: &str) -> Cow<'_, str> {
    let mut parts = expression.split("\\U");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let escaped = out.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        let code = part.get(..8).filter(|_| !escaped).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => {
                out.push(c);
                out.push_str(&part[8..]);
            }
            None => {
                out.push_str("\\U");
                out.push_str(part);
            }
        }
    }
    if out == expression { expression.into() } else { out.into() }
}

#[cfg(test)]
mod tests {
    use super::prepared;

    #[test]
    fn tags_for_training() {
        let source = "a{%- generation -%}b{%-endgeneration%}c{% if generation %}d{% endif %}{%";
        assert_eq!(prepared(source), "a{%- with -%}b{%-endwith%}c{% if generation %}d{% endif %}{%");
        for source in ["{%}", "{%%}", "{% %}%}{%", "{%}\u{fffd}%}"] {
            assert_eq!(prepared(source), source);
        }
        assert_eq!(prepared("a\r\nb\rc\n\r"), "a\nb\nc\n\n");
        assert_eq!(
            prepared(r"\U0001f600 {{ '\U0001f600é\\U0001f600\U00zz' }}"),
            "\\U0001f600 {{ '\u{1f600}é\\\\U0001f600\\U00zz' }}"
        );
        assert_eq!(prepared("{% raw %}\n{% endraw %}"), "{% raw %}\n\n{% endraw %}");
    }
}
