//! What is compared in a report: its names, where sentences mention them, and what is said of their size.

use super::Table;
use crate::audit::facts::Facts;
use crate::audit::figure::{Dimension, figures};
use crate::audit::quantity::Quantity;

/// A number that is stated of something, with its line.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    pub(crate) value: f64,
    /// Half a unit of the last printed digit.
    pub(crate) half: f64,
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// One thing that is compared, by all the names it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    pub(crate) text: String,
    /// Each way to write it, as words.
    ways: Vec<Vec<String>>,
    pub(crate) parameters: Option<Stated>,
    /// Bits of a weight, as its label says.
    pub(crate) bits: Option<Stated>,
}

/// Everything that is compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) all: Vec<Named>,
    /// Parameters that are stated of no name: those of the only model.
    pub(crate) parameters: Option<Stated>,
}

/// A place in a text where names are mentioned; several where a short name fits several.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mention {
    /// First byte in the text.
    pub(crate) start: usize,
    /// Byte after the last.
    pub(crate) end: usize,
    pub(crate) ids: Vec<usize>,
}

/// Words that tell nothing apart.
const EMPTY: &[&str] = &["your", "setup", "the", "model", "models", "class", "a", "an", "our"];
/// Words of a name at most.
const LONGEST: usize = 6;

/// Words with their places, in lower case.
fn words(text: &str) -> Vec<(usize, usize, String)> {
    let mut out: Vec<(usize, usize, String)> = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| c.is_alphanumeric()) {
        let end = at + c.len_utf8();
        match out.last_mut().filter(|(_, last, _)| *last == at) {
            Some(word) => {
                word.1 = end;
                word.2.extend(c.to_lowercase());
            }
            None => out.push((at, end, c.to_lowercase().collect())),
        }
    }
    out
}

fn telling(text: &str) -> Vec<String> {
    words(text).into_iter().map(|w| w.2).filter(|w| !EMPTY.contains(&w.as_str())).collect()
}

/// Whether all words of one name occur in another, in order.
fn within(short: &[String], long: &[String]) -> bool {
    let mut rest = long.iter();
    !short.is_empty() && short.iter().all(|word| rest.any(|other| other == word))
}

impl Names {
    /// The names of the rows of all tables, and what lines say of them.
    pub(super) fn of(tables: &[Table], plain: &[String], facts: &Facts) -> Self {
        let mut names = Names::default();
        let rows = tables.iter().filter(|t| t.columns.len() > 1).flat_map(|t| &t.rows);
        for name in rows.map(|row| row.name.as_str()).chain(facts.models.iter().map(|m| m.name.as_str())) {
            names.add(name);
        }
        names.merge();
        for (i, line) in plain.iter().enumerate() {
            names.described(line, i + 1);
        }
        for table in tables {
            names.counted(table);
        }
        for model in &facts.models {
            if let Some(id) = names.id(&model.name) {
                let named = &mut names.all[id];
                let stated = |value: f64| Stated { value, half: 0.0, text: value.to_string(), line: 0 };
                named.parameters = model.parameters.map(stated).or(named.parameters.take());
                named.bits = model.bits.map(stated).or(named.bits.take());
            }
        }
        names
    }

    fn add(&mut self, name: &str) {
        let way = telling(name);
        let letters = name.chars().any(char::is_alphabetic);
        let quantity = figures(name)
            .iter()
            .any(|f| f.start == 0 && f.dimension != Dimension::Plain && f.dimension != Dimension::Times);
        let long = way.is_empty() || way.len() > LONGEST;
        if !letters || quantity || long || self.all.iter().any(|n| n.ways.contains(&way)) {
            return;
        }
        let bits = label_bits(name);
        let bits = bits.map(|value| Stated { value, half: 0.0, text: name.into(), line: 0 });
        self.all.push(Named { text: name.trim().into(), ways: vec![way], parameters: None, bits });
    }

    /// A name whose words all occur in one other is the short form of it.
    fn merge(&mut self) {
        let mut i = 0;
        while i < self.all.len() {
            let short = self.all[i].ways[0].clone();
            let longer: Vec<usize> =
                (0..self.all.len()).filter(|j| *j != i && within(&short, &self.all[*j].ways[0])).collect();
            match longer[..] {
                [only] => {
                    let from = self.all.remove(i);
                    let into = &mut self.all[only - usize::from(only > i)];
                    into.ways.extend(from.ways);
                    if from.text.chars().count() < into.text.chars().count() {
                        into.text = from.text;
                    }
                }
                _ => i += 1,
            }
        }
    }

    /// The name that a text is.
    pub(crate) fn id(&self, text: &str) -> Option<usize> {
        let way = telling(text);
        let exact = self.all.iter().position(|n| n.ways.contains(&way));
        exact.or_else(|| match self.mentions(text).as_slice() {
            [Mention { ids, .. }] if ids.len() == 1 => Some(ids[0]),
            _ => None,
        })
    }

    /// Where a text mentions names; the longest form wins.
    pub(crate) fn mentions(&self, text: &str) -> Vec<Mention> {
        let words: Vec<_> = words(text).into_iter().filter(|w| !EMPTY.contains(&w.2.as_str())).collect();
        let (mut out, mut i): (Vec<Mention>, usize) = (Vec::new(), 0);
        while i < words.len() {
            let fits = |way: &Vec<String>| {
                way.len() <= words.len() - i && way.iter().zip(&words[i..]).all(|(a, (.., b))| a == b)
            };
            let best = self.all.iter().enumerate().flat_map(|(id, n)| n.ways.iter().map(move |w| (id, w)));
            let best = best.filter(|(_, way)| fits(way)).max_by_key(|(_, way)| way.len());
            let (ids, n) = match best {
                Some((id, way)) => (vec![id], way.len()),
                None => (self.beginning(&words[i], text), 1),
            };
            if !ids.is_empty() {
                out.push(Mention { start: words[i].0, end: words[i + n - 1].1, ids });
                i += n;
            } else {
                i += 1;
            }
        }
        out
    }

    /// Names that begin with a word that looks like one.
    fn beginning(&self, word: &(usize, usize, String), text: &str) -> Vec<usize> {
        let printed = &text[word.0..word.1];
        let capitals = printed.chars().filter(|c| c.is_uppercase()).count();
        let number = printed.chars().all(|c| c.is_ascii_digit());
        let named = (capitals >= 2 || printed.chars().any(|c| c.is_ascii_digit()) || printed == "Baseline") && !number;
        let begins = |n: &Named| n.ways.iter().any(|way| way.first() == Some(&word.2));
        let ids = self.all.iter().enumerate().filter(|(_, n)| named && begins(n)).map(|(id, _)| id);
        ids.collect()
    }

    /// What a line says in parentheses behind a name: `(2B parameters, 1-bit quantization)`.
    fn described(&mut self, text: &str, line: usize) {
        let mentions = self.mentions(text);
        for f in figures(text) {
            let parameters = f.dimension == Dimension::Count && text[f.end..].trim_start().starts_with("param");
            if !parameters && f.dimension != Dimension::Bits {
                continue;
            }
            let stated = Stated { value: f.value(), half: f.half, text: f.text.clone(), line };
            let before = mentions.iter().rfind(|m| m.end <= f.start && m.ids.len() == 1);
            let between = before.map_or("", |m| &text[m.end..f.start]);
            let behind =
                between.contains('(') && !between.contains(':') && !between.contains(". ") && between.len() < 40;
            match before.filter(|_| behind) {
                Some(mention) => {
                    let named = &mut self.all[mention.ids[0]];
                    let slot = if parameters { &mut named.parameters } else { &mut named.bits };
                    slot.get_or_insert(stated);
                }
                None if parameters && mentions.is_empty() => {
                    self.parameters.get_or_insert(stated);
                }
                None => {}
            }
        }
    }

    /// Parameters that a table counts.
    fn counted(&mut self, table: &Table) {
        for column in table.of(Quantity::Parameters) {
            for row in &table.rows {
                let Some((id, f)) = self.id(&row.name).zip(row.figure(column)) else { continue };
                if f.dimension == Dimension::Count {
                    let line = row.line_of(column);
                    let stated = Stated { value: f.value(), half: f.half, text: f.text.clone(), line };
                    self.all[id].parameters.get_or_insert(stated);
                }
            }
        }
    }

    /// Parameters of a name, or of the only model of the report.
    pub(crate) fn parameters_of(&self, id: usize) -> Option<&Stated> {
        let any = self.all.iter().any(|n| n.parameters.is_some());
        self.all[id].parameters.as_ref().or(self.parameters.as_ref().filter(|_| !any))
    }
}

/// Bits that a name of a format says: `INT8`, `NF4`, `FP32`.
fn label_bits(name: &str) -> Option<f64> {
    const LABELS: &[(&str, f64)] = &[
        ("fp32", 32.0),
        ("f32", 32.0),
        ("fp16", 16.0),
        ("bf16", 16.0),
        ("int8", 8.0),
        ("fp8", 8.0),
        ("nf4", 4.0),
        ("int4", 4.0),
        ("fp4", 4.0),
        ("int2", 2.0),
    ];
    let words = telling(name);
    let mut found: Vec<f64> =
        LABELS.iter().filter(|(label, _)| words.iter().any(|w| w == label)).map(|(_, bits)| *bits).collect();
    found.dedup();
    // "int8 (quantized from f32)" tells two.
    if found.len() == 1 { found.first().copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Names {
        let mut out = Names::default();
        all.iter().for_each(|n| out.add(n));
        out.merge();
        out
    }

    #[test]
    fn short_and_long_forms_are_one_name() {
        let n = names(&[
            "BitNet 2B",
            "Llama 3.2 3B",
            "GPT-4",
            "Llama 70B",
            "Your BitNet Setup",
            "GPT-4 Class Models",
            "Llama 3.1 70B",
            "Claude 3.5 Sonnet / GPT-4o",
        ]);
        assert_eq!(n.all.len(), 5, "{:?}", n.all);
        assert_eq!(n.id("BitNet"), n.id("BitNet 2B"));
        assert_eq!(n.id("2. Llama 3.1 70B (70B parameters)"), n.id("Llama 70B"));
        assert_ne!(n.id("Claude 3.5 Sonnet / GPT-4o"), n.id("GPT-4"));
    }

    #[test]
    fn mentions_have_places_and_may_fit_several() {
        let n = names(&["INT8 (Scratch)", "INT8 (bnb)", "NF4 (bnb)"]);
        let one = n.mentions("Use INT8-bnb (optimized)");
        assert_eq!((one.len(), one[0].ids.len(), one[0].start), (1, 1, 4));
        assert_eq!(n.mentions("Use INT8 quantization")[0].ids.len(), 2);
        assert_eq!(n.mentions("Use NF4 quantization")[0].ids, [2]);
        assert!(n.mentions("bigger is best").is_empty());
        assert_eq!(n.all[2].bits.as_ref().unwrap().value, 4.0);
    }
}
