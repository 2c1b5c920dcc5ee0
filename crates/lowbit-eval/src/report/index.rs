//! A page that leads to several reports, each in a folder of its name.

use super::charts::escape;
use super::html::shell;
use super::{markdown, notes, summary};
use crate::record::{Results, Tool};
use std::fmt::Write;

/// The page in Markdown; it appears last.
pub const INDEX: &str = "index.md";
/// The page.
const PAGE: &str = "index.html";
/// Lines of a report that the page repeats.
const LINES: usize = 3;

/// One report, or why there is none.
pub struct Entry<'a> {
    /// Name of its suite and folder.
    pub name: &'a str,
    /// Its records, or a sentence.
    pub outcome: Result<&'a Results, String>,
}

/// What is told of an entry: its title, and the first sentences of its report.
struct Told {
    title: String,
    lines: Vec<String>,
    has_report: bool,
}

fn told(entry: &Entry) -> Told {
    match &entry.outcome {
        Ok(results) => {
            let lines = summary::headlines(results).into_iter().take(LINES);
            let title = notes::title(results, &super::compare::comparisons(results));
            Told { title, lines: lines.collect(), has_report: true }
        }
        Err(why) => Told { title: entry.name.into(), lines: vec![why.clone()], has_report: false },
    }
}

/// The files of the page, name and content.
pub fn index(entries: &[Entry], quick: bool, tool: &Tool) -> [(&'static str, String); 2] {
    let title = if quick { "Five studies, redone (quick runs)" } else { "Five studies, redone" };
    let (mut text, mut page) = (format!("# {title}\n\n"), format!("<main>\n<h1>{title}</h1>\n"));
    for entry in entries {
        let Told { title, lines, has_report } = told(entry);
        let name = entry.name;
        // Writing to memory cannot fail.
        let _ = write!(text, "## {name}\n\n");
        let _ = writeln!(page, "<section>\n<h2>{}</h2>", escape(name));
        if has_report {
            let _ = write!(text, "[{}]({name}/report.md)\n\n", markdown::escape(&title));
            let _ = writeln!(page, "<p><a href=\"{0}/report.html\">{1}</a></p>", escape(name), escape(&title));
        }
        for line in lines {
            let _ = write!(text, "{}\n\n", markdown::escape(&line));
            let _ = writeln!(page, "<p>{}</p>", escape(&line));
        }
        page.push_str("</section>\n");
    }
    page.push_str("</main>\n");
    text.truncate(text.trim_end().len());
    text.push('\n');
    [(PAGE, shell(title, &tool.version, "", &page)), (INDEX, text)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_its_lines() {
        let results = Results { title: Some("A study".into()), scope: Some("two rows".into()), ..Results::default() };
        let needs = Err("not measured: needs a|b".to_string());
        let entries = [Entry { name: "one", outcome: Ok(&results) }, Entry { name: "two", outcome: needs }];
        let [(_, page), (name, text)] = index(&entries, true, &Tool::default());
        assert_eq!(name, INDEX);
        assert!(text.contains("[A study (quick run: two rows)](one/report.md)"), "{text}");
        assert!(text.contains("## two\n\nnot measured: needs a\\|b\n"), "{text}");
        assert!(page.contains("href=\"one/report.html\"") && !page.contains("two/report.html"));
    }
}
