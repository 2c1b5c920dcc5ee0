//! HTML: tables, headings and the text between them, by line.

use super::{Cell, Column, Raw, Row, Table};

/// Elements whose content is no text.
const SKIPPED: &[&str] = &["script", "style", "svg", "template"];

/// Reads a page.
pub(super) fn read(text: &str) -> Raw {
    let count = text.lines().count();
    let mut page = Page {
        raw: Raw { plain: vec![String::new(); count], code: vec![false; count], ..Raw::default() },
        ..Page::default()
    };
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let Some(open) = rest.find('<') else {
            page.text(rest, &mut line);
            break;
        };
        page.text(&rest[..open], &mut line);
        let tag = &rest[open..];
        let end = match tag.strip_prefix("<!--") {
            Some(inner) => inner.find("-->").map_or(tag.len(), |end| end + 7),
            None => tag.find('>').map_or(tag.len(), |end| end + 1),
        };
        let name = name_of(&tag[..end]);
        line += tag[..end].matches('\n').count();
        at += open + end;
        if let Some(skipped) = SKIPPED.iter().find(|s| **s == name) {
            let close = format!("</{skipped}");
            let end = text[at..].find(&close).unwrap_or(text.len() - at);
            line += text[at..at + end].matches('\n').count();
            at += end;
            continue;
        }
        page.tag(&name, line);
    }
    page.raw
}

/// Lower-case name of a tag, with its slash where it closes.
fn name_of(tag: &str) -> String {
    let inner = tag.trim_start_matches('<');
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '/')).unwrap_or(inner.len());
    inner[..end].trim_end_matches('/').to_lowercase()
}

#[derive(Default)]
struct Page {
    raw: Raw,
    table: Option<Table>,
    row: Vec<(bool, Cell)>,
    /// The cell being read: whether it is a title, its text and its line.
    cell: Option<(bool, String, usize)>,
    heading: Option<(usize, usize)>,
}

impl Page {
    fn text(&mut self, text: &str, line: &mut usize) {
        let decoded = |t: &str| {
            t.replace("&nbsp;", " ")
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&times;", "\u{d7}")
                .replace("&minus;", "\u{2212}")
                .replace("&amp;", "&")
        };
        for (i, piece) in text.split('\n').enumerate() {
            *line += usize::from(i > 0);
            let piece = decoded(piece);
            if let Some((_, cell, _)) = &mut self.cell {
                cell.push_str(&piece);
            } else if self.table.is_none() {
                let at = self.heading.map_or(*line, |(line, _)| line);
                if let Some(out) = self.raw.plain.get_mut(at - 1) {
                    out.push_str(&piece);
                }
            }
        }
    }

    fn tag(&mut self, name: &str, line: usize) {
        match name {
            "table" => self.table = Some(Table { line, ..Table::default() }),
            "/table" => {
                self.end_row(line);
                self.raw.tables.extend(self.table.take().filter(|t| !t.columns.is_empty()));
            }
            "tr" | "/tr" => self.end_row(line),
            "th" | "td" => {
                self.end_cell();
                self.cell = self.table.is_some().then(|| (name == "th", String::new(), line));
            }
            "/th" | "/td" => self.end_cell(),
            "br" | "small" | "/small" => self.text(" ", &mut line.clone()),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                let level = usize::from(name.as_bytes()[1] - b'0');
                self.heading = Some((line, level));
                self.raw.headings.push((line, level));
            }
            _ if name.starts_with("/h") && name.len() == 3 => self.heading = None,
            _ => {}
        }
    }

    fn end_cell(&mut self) {
        if let Some((title, text, line)) = self.cell.take() {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.row.push((title, Cell::new(&text, line)));
        }
    }

    fn end_row(&mut self, line: usize) {
        self.end_cell();
        let row = std::mem::take(&mut self.row);
        let Some(table) = self.table.as_mut().filter(|_| !row.is_empty()) else { return };
        if table.columns.is_empty() {
            table.columns = row.iter().map(|(_, cell)| Column::new(&cell.text, "")).collect();
            return;
        }
        let name = row[0].1.text.clone();
        let line = row.first().map_or(line, |(_, cell)| cell.line);
        table.rows.push(Row {
            name,
            part: String::new(),
            line,
            cells: row.into_iter().map(|(_, c)| Some(c)).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_page_are_read_by_line() {
        let raw = read(
            "<html>\n<h2>Speed\n</h2>\n<p>fast &amp; <b>small</b></p>\n<script>if (a < b) {}</script>\n<table><tr><th>Model<th>Latency (ms)</tr>\n<tr><td>a</td><td>1.5</td></tr>\n<tr>\n<td>b<td>2.5\n</table>",
        );
        assert_eq!(raw.headings, [(2, 2)]);
        assert_eq!((raw.plain[1].as_str(), raw.plain[3].as_str()), ("Speed", "fast & small"));
        let table = &raw.tables[0];
        assert_eq!(table.columns.len(), 2);
        assert_eq!(table.rows.iter().map(|r| (r.line, r.name.as_str())).collect::<Vec<_>>(), [(7, "a"), (9, "b")]);
        assert_eq!(table.rows[1].cells[1].as_ref().unwrap().text, "2.5");
    }

    #[test]
    fn broken_pages_end() {
        for text in ["<table", "<table><tr><td>", "<!--", "<script>", "</table></tr>", "<h2>", "<td>1"] {
            let _ = read(text);
        }
    }
}
