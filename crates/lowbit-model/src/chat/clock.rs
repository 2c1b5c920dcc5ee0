//! The date as templates write it: Python's `strftime`.

use chrono::{DateTime, FixedOffset, Local, format::StrftimeItems};

/// The moment of which `strftime_now` speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock(Option<DateTime<FixedOffset>>);

impl Clock {
    /// The time of this machine, in its own zone.
    pub const NOW: Clock = Clock(None);

    /// A moment, in seconds since 1970 in UTC.
    pub fn at(seconds: i64) -> Self {
        Clock(DateTime::from_timestamp(seconds, 0).map(|moment| moment.fixed_offset()))
    }

    /// The moment in a format of Python; directives that are none stay as they are.
    pub fn written(self, format: &str) -> String {
        let moment = self.0.unwrap_or_else(|| Local::now().fixed_offset());
        let (mut out, mut rest) = (String::new(), format);
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let directive = &rest[at..];
            let flags = directive[1..].chars().take_while(|c| "-_0^#".contains(*c)).count();
            let Some(c) = directive[1 + flags..].chars().next() else {
                rest = directive;
                break;
            };
            let (directive, after) = directive.split_at(1 + flags + c.len_utf8());
            out.push_str(&one(moment, directive, c));
            rest = after;
        }
        out + rest
    }
}

fn one(moment: DateTime<FixedOffset>, directive: &str, c: char) -> String {
    // The letter is the last character, flags of one byte are before it.
    let flags = &directive[1..directive.len() - c.len_utf8()];
    let upper = flags.contains('^');
    let plain: String = directive.chars().filter(|c| !"^#".contains(*c)).collect();
    let text = match c {
        'f' => format!("{:06}", moment.timestamp_subsec_micros()),
        // A moment without a zone, as transformers takes it.
        'z' | 'Z' => String::new(),
        'c' => moment.format("%a %b %e %H:%M:%S %Y").to_string(),
        _ if StrftimeItems::new(&plain).any(|item| item == chrono::format::Item::Error) => directive.to_string(),
        _ => moment.format(&plain).to_string(),
    };
    if upper { text.to_uppercase() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives() {
        let clock = Clock(Some(DateTime::parse_from_rfc3339("2026-03-09T07:05:04+01:00").expect("a moment")));
        assert_eq!(Clock::at(1_773_039_904).written("%F %T"), "2026-03-09 07:05:04");
        for (format, expected) in [
            ("%d %b %Y", "09 Mar 2026"),
            ("%-d.%-m.%y %H:%M %%", "9.3.26 07:05 %"),
            ("%^a %f %z|%Q %é%", "MON 000000 |%Q %é%"),
        ] {
            assert_eq!(clock.written(format), expected, "{format}");
        }
        let today = Local::now().format("%Y-%m-%d").to_string();
        let written = Clock::NOW.written("%Y-%m-%d");
        assert!(written == today || written == Local::now().format("%Y-%m-%d").to_string());
    }
}
