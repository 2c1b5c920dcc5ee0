//! Titles of commits fit into one line of a log.

use std::path::Path;
use std::process::Command;

/// Most characters of a title.
const LONGEST: usize = 72;
/// The last commit that was made without this rule.
const SINCE: &str = "82be853";

/// Checks the titles of all commits since the rule; nothing where the history does not reach back.
pub fn check(root: &Path) -> Result<String, Vec<String>> {
    let log = |range: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(root).args(["log", "--format=%h %s"]).args(range).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(text) = log(&[&format!("{SINCE}..HEAD")]) else {
        return Ok(format!("not checked: the history does not reach back to {SINCE}"));
    };
    let wrong = long(&text);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!("{} commits have titles of at most {LONGEST} characters", text.lines().count()))
}

/// The commits of a log whose title is too long.
fn long(log: &str) -> Vec<String> {
    let title = |line: &str| line.split_once(' ').map_or(0, |(_, title)| title.chars().count());
    let lines = log.lines().map(|line| (line, title(line)));
    lines.filter(|&(_, n)| n > LONGEST).map(|(line, n)| format!("{line}: {n} characters, {LONGEST} at most")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_titles_are_told() {
        let fits = format!("abc {}", "é".repeat(LONGEST));
        assert!(long(&fits).is_empty());
        let wrong = long(&format!("{fits}\ndef {}", "x".repeat(LONGEST + 1)));
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].starts_with("def ") && wrong[0].ends_with("73 characters, 72 at most"));
    }
}
