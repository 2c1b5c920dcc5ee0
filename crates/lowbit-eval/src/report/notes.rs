//! The words around the numbers: title, task, machine, warnings, and how each quantity was obtained.

use super::compare::{Comparison, HIDDEN, VariantRow, Verdict, quality};
use super::document::{Block, Cell, Fact, Table};
use super::measures::{known, title as measure_title};
use super::noise::{MIN_SAMPLES, SAME_SIZE, SAME_SPEED, UNSTEADY};
use super::number::{Scale, count, percent, plain};
use super::query::{What, mark};
use super::sentence::{Finding, SentencePart};
use crate::record::{Results, TaskFacts};

/// Title of the report.
pub(crate) fn title(results: &Results, tasks: &[Comparison]) -> String {
    let whole = results.title.clone().unwrap_or_else(|| of_tasks(results, tasks));
    match &results.scope {
        Some(scope) => format!("{whole} (quick run: {scope})"),
        None => whole,
    }
}

/// The title by the tasks, where there are any.
fn of_tasks(results: &Results, tasks: &[Comparison]) -> String {
    if tasks.is_empty() {
        let (machines, cpus) =
            (results.machines.len(), results.machines.iter().map(|machine| machine.host.cpu.as_str()));
        let cpus: Vec<&str> = cpus.collect();
        return match machines {
            0 => "Layers and networks".into(),
            _ => format!("By machine: {}", cpus.join(", ")),
        };
    }
    let mut names: Vec<&str> = tasks.iter().map(|c| c.task.split('@').next().unwrap_or(c.task)).collect();
    names.dedup();
    format!("{}: what is gained and what is lost", names.join(", "))
}

/// The sentence about a task.
pub(crate) fn about(c: &Comparison, several: bool) -> Option<Block> {
    let about = c.facts.map(|f| f.about.as_str()).filter(|about| !about.is_empty());
    let about = about.map(|about| if several { format!("{}: {about}", c.task) } else { about.into() });
    about.or(several.then(|| c.task.to_string())).map(Block::Paragraph)
}

/// What each network is, where there are several.
pub(crate) fn networks(c: &Comparison) -> Option<String> {
    c.facts.filter(|facts| !facts.networks.is_empty()).map(|facts| format!("Networks: {}", facts.networks.join(" ")))
}

/// Task, rows, ceiling, reference.
pub(crate) fn task(c: &Comparison) -> Vec<Fact> {
    let mut list = vec![Fact::new("Task", c.task)];
    let Some(facts) = c.facts else {
        return list;
    };
    let rows = format!("{} training, {} test", count(facts.train_rows as f64), count(facts.test_rows as f64));
    list.push(Fact::new(if facts.unit.as_deref() == Some("bytes") { "Bytes" } else { "Rows" }, rows));
    list.extend(facts.max_length.map(|n| Fact::new("Longest text", format!("{} tokens", count(n as f64)))));
    if let Some(ceiling) = c.fact(What::Ceiling) {
        let mark = ceiling.mark.map(|m| format!(" ({m})")).unwrap_or_default();
        list.push(Fact::new("Best possible accuracy", format!("{}{mark}", ceiling.text)));
    }
    if let Some(chance) = c.fact(What::Chance) {
        list.push(Fact::new("Chance", chance.text));
    }
    list.push(Fact::new("Reference", facts.baseline.clone()));
    list
}

/// What a reader must know before trusting a number.
pub(crate) fn warnings(c: &Comparison) -> Vec<String> {
    let mut out = Vec::new();
    if c.reference().is_none() {
        out.push("The reference variant has no record: nothing is compared.".into());
    }
    out.extend(c.facts.into_iter().flat_map(|facts| split_warnings(c, facts)));
    let scored = c.rows.iter().filter_map(|r| quality(r.record)).map(|m| m.n).min();
    if let (Some(facts), Some(n)) = (c.facts, scored)
        && n < facts.test_rows
    {
        out.push(format!("Scored on a sample: {} of {} test rows.", count(n as f64), count(facts.test_rows as f64)));
    }
    out.extend(unsteady(c));
    for row in &c.rows {
        out.extend(row.record.detail.notices.iter().map(|notice| format!("{}: {notice}", row.name())));
    }
    out
}

/// Overlap, cut and empty texts, classes without rows.
fn split_warnings(c: &Comparison, facts: &TaskFacts) -> Vec<String> {
    let mut out = Vec::new();
    let of = |part: u64, whole: u64| format!("{} of {}", count(part as f64), count(whole as f64));
    if facts.overlap_rows > 0 {
        let rows = of(facts.overlap_rows, facts.test_rows);
        out.push(format!(
            "Train and test overlap: {rows} test rows also occur in the training split, so every accuracy is too high."
        ));
    }
    let splits = [("training", &facts.train, facts.train_rows), ("test", &facts.test, facts.test_rows)];
    for (name, split, rows) in splits {
        if let (Some(cut), Some(most)) = (split.truncated.filter(|cut| *cut > 0), facts.max_length) {
            let (share, most) = (percent(cut as f64 / rows.max(1) as f64), count(most as f64));
            let cut = of(cut, rows);
            out.push(format!(
                "Texts are cut: {cut} {name} rows ({share}) are longer than the {most} tokens a network sees; raise max_length."
            ));
        }
        if split.empty > 0 {
            out.push(format!("Empty texts: {} {name} rows hold no text.", of(split.empty, rows)));
        }
        let absent: Vec<usize> = (0..split.classes.len()).filter(|class| split.classes[*class] == 0).collect();
        if !absent.is_empty() {
            let classes = c.rows.iter().map(|r| &r.record.detail.classes).find(|classes| !classes.is_empty());
            let class = |i: &usize| classes.and_then(|k| k.get(*i)).map_or(i.to_string(), Clone::clone);
            let names: Vec<String> = absent.iter().take(SHOWN).map(class).collect();
            let more = if absent.len() > SHOWN { ", \u{2026}" } else { "" };
            let (absent, all) = (count(absent.len() as f64), count(split.classes.len() as f64));
            out.push(format!("Classes without {name} rows: {absent} of {all} ({}{more}).", names.join(", ")));
        }
    }
    out
}

/// Names listed in a warning.
const SHOWN: usize = 5;

/// Variants whose raw latencies vary more than a steady machine's.
fn unsteady(c: &Comparison) -> Option<String> {
    let of = |r: &VariantRow| c.ask(r.name(), What::Variation).filter(|f| f.value > UNSTEADY);
    let all: Vec<String> = c.networks().filter_map(|r| Some(format!("{} {}", r.name(), of(r)?.text))).collect();
    let more = if all.len() > SHOWN { ", \u{2026}" } else { "" };
    let names = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    (!all.is_empty()).then(|| {
        format!(
            "Unsteady times: the runs of a variant vary by up to so much of their mean ({names}{more}). Another program may have \
             been at work; medians and their intervals stand, p90 and p99 do not."
        )
    })
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

/// Whether a finding is the line of one variant, which starts with its name and a colon.
pub(crate) fn is_variant_line(c: &Comparison, finding: &Finding) -> bool {
    match finding.sentence.parts.as_slice() {
        [SentencePart::Name(name), SentencePart::Text(": "), ..] => {
            c.row(name).is_some_and(|r| r.verdict != Verdict::Reference)
        }
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

/// How differences are shown, and how they are tested.
const TESTS: &[(&str, &str)] = &[
    (
        "Points",
        "Difference of two accuracies, in percentage points, on the same rows; 95 % interval of paired proportions after \
         Agresti and Min (2005).",
    ),
    (
        "McNemar",
        "Test on the rows that only one of the two answered right. Of other tasks: a normal test of paired squared errors, or the \
         bootstrap of paired blocks.",
    ),
    (
        "After Holm",
        "Every network is tested against the reference, and of many tests some come out by chance: p is corrected for their number \
         (Holm 1979), over all networks of the task. A word such as higher, lower or fewer stands only where the corrected p is \
         below 0.05 and the interval excludes zero.",
    ),
    (
        "Bits per byte against the reference",
        "Difference on the same blocks of the text, with the 95 % interval of a bootstrap over blocks.",
    ),
    ("Shown within a point", "The lower end of the interval of the change is above minus one point."),
    ("Higher, lower", "The interval excludes zero, and p after Holm is below 0.05."),
    ("Fails", "Shown to be less accurate, and more than half of what the reference has above chance is lost."),
    (
        "Learnt nothing that shows",
        "The interval of the accuracy reaches down to chance, or a baseline without a network is shown to be more accurate and has \
         more than twice as much above chance.",
    ),
    ("Times smaller", "Weight bytes of the reference divided by those of the variant."),
    (
        "Bits per weight",
        "Bytes of quantized tensors, scales included, times 8, divided by their weights; padding of rows and columns to the units \
         of the kernels is left out and stands in a column of its own.",
    ),
    (
        "Chance",
        "Accuracy of always answering the most frequent class where that was run, and at least one over the classes.",
    ),
    ("Macro", "Plain mean over the classes that occur among truths or answers, as scikit-learn has it by default."),
];

fn derived() -> Table {
    let most = plain(HIDDEN * 100.0);
    let bounds = [
        ("No loss shown", format!("The interval of the change holds zero, and no loss of more than {most} points.")),
        (
            "Undecided",
            format!(
                "The interval of the change holds a loss of more than {most} points beside no loss at all, or interval and test \
                 disagree: there are too few test rows."
            ),
        ),
        (
            "Times faster",
            format!(
                "Median of the reference divided by the median of the variant, from at least {MIN_SAMPLES} raw runs of each. \
                 Called faster or slower only if the 95 % intervals of the two medians (order statistics) are apart and the \
                 medians differ by more than a factor of {SAME_SPEED}."
            ),
        ),
        (
            "Dominated",
            format!(
                "Another network is at least as accurate, as small and as fast by the measured values, and beyond noise in one of \
                 the three: sizes apart by a factor of {SAME_SIZE}, medians called faster, or accuracies shown to differ by a test \
                 of the two alone."
            ),
        ),
    ];
    let tests = TESTS.iter().map(|(name, words)| (*name, words.to_string()));
    let rows = tests.chain(bounds).map(|(name, words)| vec![Cell::words(name), Cell::words(words)]);
    Table {
        caption: "Derived here".into(),
        head: vec!["Word".into(), "Meaning".into()],
        rows: rows.collect(),
        foot: String::new(),
    }
}

/// What a variant's name stands for: what its maker says, else the formats it is stored in.
pub(crate) fn explain(row: &VariantRow) -> String {
    let detail = &row.record.detail;
    let made = super::tables::made(row);
    let about = match (&detail.about, row.network()) {
        (Some(about), _) => about.clone(),
        (None, true) => super::tables::stored(row),
        (None, false) => detail.note.clone().unwrap_or_default(),
    };
    let fails = if detail.expected_to_fail { "; expected to fail" } else { "" };
    match about.is_empty() {
        true => format!("{made}{fails}"),
        false => format!("{made}: {about}{fails}"),
    }
}

/// The legend of names.
pub(crate) fn names(c: &Comparison) -> Table {
    let rows = c.rows.iter().map(|r| vec![Cell::words(r.name()), Cell::words(explain(r))]).collect();
    Table {
        caption: String::new(),
        head: vec!["Variant".into(), "What it is".into()],
        rows,
        foot: "Bits are those of the body's weights; tables and heads are often wider, see Formats by role.".into(),
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
    let head = vec!["Variant".into(), "Remark".into(), "Identity".into()];
    (!rows.is_empty()).then(|| Block::Table(Table { caption: "Variants".into(), head, rows, foot: String::new() }))
}
