//! The words around the numbers: title, task, machine, warnings, and how each quantity was obtained.

use super::compare::{Comparison, MIN_SAMPLES, SAME_SPEED, Verdict};
use super::document::{Block, Cell, Fact, Table};
use super::measures::{known, title as measure_title};
use super::number::{Scale, count, plain};
use super::query::{What, mark};
use super::sentence::{Finding, Part};
use crate::record::Results;

/// Title of the report.
pub(crate) fn title(tasks: &[Comparison]) -> String {
    let names: Vec<&str> = tasks.iter().map(|c| c.task.split('@').next().unwrap_or(c.task)).collect();
    format!("{}: what is gained and what is lost", names.join(", "))
}

/// Task, sentence about it, rows, ceiling.
pub(crate) fn about(c: &Comparison, several: bool) -> Vec<Block> {
    let mut out = Vec::new();
    let Some(facts) = c.facts else {
        return vec![Block::Facts(vec![Fact::new("Task", c.task)])];
    };
    if !facts.about.is_empty() {
        let about = if several { format!("{}: {}", c.task, facts.about) } else { facts.about.clone() };
        out.push(Block::Paragraph(about));
    }
    let rows = format!("{} training, {} test", count(facts.train_rows as f64), count(facts.test_rows as f64));
    let mut list = vec![Fact::new("Task", c.task), Fact::new("Rows", rows)];
    if let Some(ceiling) = c.fact(What::Ceiling) {
        let mark = ceiling.mark.map(|m| format!(" ({m})")).unwrap_or_default();
        list.push(Fact::new("Best possible accuracy", format!("{}{mark}", ceiling.text)));
    }
    if let Some(chance) = c.fact(What::Chance) {
        list.push(Fact::new("Chance", chance.text));
    }
    list.push(Fact::new("Reference", facts.baseline.clone()));
    out.push(Block::Facts(list));
    out
}

/// What a reader must know before trusting a number.
pub(crate) fn warnings(c: &Comparison) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(facts) = c.facts.filter(|f| f.overlap_rows > 0) {
        out.push(format!(
            "Train and test overlap: {} of {} test rows also occur in the training split, so every accuracy is too high.",
            count(facts.overlap_rows as f64),
            count(facts.test_rows as f64)
        ));
    }
    if c.reference().is_none() {
        out.push("The reference contender has no record: nothing is compared.".into());
    }
    let scored = c.rows.iter().filter_map(|r| r.record.measures.get("accuracy")).map(|m| m.n).min();
    if let (Some(facts), Some(n)) = (c.facts, scored)
        && n < facts.test_rows
    {
        out.push(format!("Scored on a sample: {} of {} test rows.", count(n as f64), count(facts.test_rows as f64)));
    }
    out
}

/// Machine, program, command.
pub(crate) fn machine(results: &Results) -> Vec<Fact> {
    let (host, tool) = (&results.host, &results.tool);
    let mut out = vec![
        Fact::new("Processor", host.cpu.clone()),
        Fact::new("Threads", format!("{} of {} cores", host.threads, host.cores)),
        Fact::new("Instruction set", host.isa.clone()),
        Fact::new("Memory", Scale::bytes([host.ram_bytes as f64]).text(host.ram_bytes as f64)),
    ];
    let limits = &host.limits;
    let known = [
        ("Memory bandwidth, measured", limits.memory_gbps, "GB/s"),
        ("f32 peak, measured", limits.f32_gflops, "GFLOP/s"),
        ("bf16 peak, measured", limits.bf16_gflops, "GFLOP/s"),
        ("int8 peak, measured", limits.int8_gops, "GOP/s"),
    ];
    for (label, value, unit) in known {
        out.extend(value.map(|v| Fact::new(label, format!("{} {unit}", plain(v)))));
    }
    out.push(Fact::new("Program", format!("lowbit {}, commit {}", tool.version, tool.commit)));
    out.push(Fact { code: true, ..Fact::new("Command", results.command.join(" ")) });
    out
}

/// Whether a finding is the line of one contender, which starts with its name and a colon.
pub(crate) fn is_contender_line(c: &Comparison, finding: &Finding) -> bool {
    match finding.sentence.parts.as_slice() {
        [Part::Name(name), Part::Text(": "), ..] => c.row(name).is_some_and(|r| r.verdict != Verdict::Reference),
        _ => false,
    }
}

/// Definitions of every measure printed, and of the derived ones.
pub(crate) fn method(results: &Results, tasks: &[Comparison]) -> Vec<Block> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (name, measure) in results.records.iter().flat_map(|r| &r.measures) {
        let Some(entry) = known(name).filter(|k| !seen.contains(&k.name)) else {
            continue;
        };
        seen.push(entry.name);
        let label = if entry.name.ends_with('/') { entry.title.to_string() } else { measure_title(name) };
        let how = mark(measure.how).unwrap_or("measured");
        rows.push(vec![Cell::words(label), Cell::words(entry.about), Cell::words(how)]);
    }
    rows.sort_by(|a, b| a[0].text.cmp(&b[0].text));
    let measures = Table {
        caption: "Measures".into(),
        head: vec!["Measure".into(), "Definition".into(), "How".into()],
        rows,
        foot: "Not measured means that no record holds the value; it is never taken as zero.".into(),
    };
    let mut out = vec![Block::Table(measures), Block::Table(derived())];
    out.extend(made(tasks));
    out
}

fn derived() -> Table {
    let speed = format!(
        "Median of the reference divided by the median of the contender, from at least {MIN_SAMPLES} raw runs of each. Called \
         faster or slower only if the 95 % intervals of the two medians (order statistics) are apart and the medians differ \
         by more than a factor of {SAME_SPEED}."
    );
    let rows: [(&str, &str); 9] = [
        (
            "Points",
            "Difference of two accuracies, in percentage points, on the same rows; 95 % interval of paired proportions after \
             Agresti and Min (2005).",
        ),
        (
            "McNemar",
            "Test on the rows that only one of the two answered right; p is not corrected for the number of contenders.",
        ),
        (
            "Not distinguishable, no loss shown",
            "The interval includes zero, or p is at least 0.05. The interval says how large a difference may still be hidden.",
        ),
        ("Fails", "Shown to be less accurate, and more than half of what the reference has above chance is lost."),
        ("Times smaller", "Weight bytes of the reference divided by those of the contender."),
        ("Times faster", &speed),
        ("Bits per weight", "All bytes of quantized tensors, scales included, times 8, divided by their weights."),
        (
            "Dominated",
            "Another network is at least as accurate, as small and as fast by the measured values, and better in one of the \
             three.",
        ),
        (
            "Chance",
            "Accuracy of always answering the most frequent class where that was run, else one over the classes.",
        ),
    ];
    let rows = rows.map(|(name, words)| vec![Cell::words(name), Cell::words(words)]);
    Table {
        caption: "Derived here".into(),
        head: vec!["Word".into(), "Meaning".into()],
        rows: rows.into(),
        foot: String::new(),
    }
}

/// Notes of the makers of records.
fn made(tasks: &[Comparison]) -> Option<Block> {
    let mut rows = Vec::new();
    for row in tasks.iter().flat_map(|c| &c.rows) {
        let detail = &row.record.detail;
        let seed = detail.seed.map(|s| format!("seed {s}")).unwrap_or_default();
        let hash =
            detail.model_sha256.as_deref().map(|h| format!("sha256 {}", h.get(..12).unwrap_or(h))).unwrap_or_default();
        let facts = [seed, hash].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ");
        let note = detail.note.clone().unwrap_or_default();
        if !note.is_empty() || !facts.is_empty() {
            rows.push(vec![Cell::words(row.name()), Cell::words(note), Cell::words(facts)]);
        }
    }
    let head = vec!["Contender".into(), "Remark".into(), "Identity".into()];
    (!rows.is_empty()).then(|| Block::Table(Table { caption: "Contenders".into(), head, rows, foot: String::new() }))
}
