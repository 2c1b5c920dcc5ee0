//! The findings: what the records of one task say, as sentences made of queries.

use super::bits;
use super::compare::{Comparison, Standing, VariantRow, Verdict, WITHIN, measured};
use super::noise::Pace;
use super::query::What;
use super::sentence::{ClaimKind, Finding, Sentence, Tone};
use crate::laws;

/// The faults among the headline, which make the other findings meaningless.
pub(crate) fn faults(c: &Comparison) -> Vec<Finding> {
    headline(c).into_iter().filter(|finding| finding.tone == Tone::Bad).collect()
}

/// The headline: a fault that makes the other findings meaningless, else the first recommendation, or that there is none.
pub(crate) fn headline(c: &Comparison) -> Vec<Finding> {
    let mut out: Vec<Finding> =
        [nothing_learnt(c), too_few_rows(c), below_baselines(c)].into_iter().flatten().collect();
    if out.iter().all(|f| f.tone != Tone::Bad) {
        let asked = limited(c);
        out.extend(if asked.is_some() { asked } else { recommendations(c).into_iter().next() });
        out.extend(bits::findings(c));
    }
    out
}

/// The variant to choose under the limits that were asked for, or that there is none.
fn limited(c: &Comparison) -> Option<Finding> {
    let reference = c.reference()?.name();
    let mut bounds: Vec<Sentence> = Vec::new();
    for what in [What::LimitBytes, What::LimitLatency] {
        bounds.extend(c.fact(what).map(|figure| Sentence::default().figure(figure)));
    }
    if let Some(figure) = c.fact(What::LimitLoss) {
        let unit = match c.quality() {
            Some(_) => " points of measured loss against ",
            None => " % more bits per byte than ",
        };
        bounds.push(Sentence::default().figure(figure).text(unit).name(reference));
    }
    let last = bounds.len().checked_sub(1)?;
    let list = |start: Sentence| {
        bounds.iter().cloned().enumerate().fold(start, |sentence, (i, bound)| match i {
            0 => sentence.then(bound),
            i if i == last => sentence.text(" and ").then(bound),
            _ => sentence.text(", ").then(bound),
        })
    };
    let Some(row) = least(c.within(), "weight_bytes") else {
        let start = Sentence::default().claim(ClaimKind::NoneWithin, reference).text(" keeps within ");
        return Some(finding(c, Tone::Warn, list(start).text("."), None));
    };
    let mut sentence = list(Sentence::default().claim(ClaimKind::Chosen, row.name()).text(" within "));
    sentence = sentence.text(": ").name(row.name());
    if row.name() == reference {
        return Some(finding(c, Tone::Good, sentence.text(", the reference."), Some(row.name())));
    }
    if let Some(short) = short_change(c, row) {
        sentence = sentence.text(", ").then(short);
        if let (Some(low), Some(high)) = (c.ask(row.name(), What::PointsLow), c.ask(row.name(), What::PointsHigh)) {
            sentence = sentence.text(" (").figure(low).text(" to ").figure(high).text(")");
        }
    }
    let sentence = sentence.text("; ").then(size_and_speed(c, row)).text(".");
    Some(finding(c, Tone::Good, sentence, Some(row.name())))
}

/// The findings of one task beyond its headline: further recommendations, failures, baselines, then one sentence per
/// variant.
pub(crate) fn findings(c: &Comparison) -> Vec<Finding> {
    let said = headline(c);
    let mut out: Vec<Finding> = recommendations(c).into_iter().filter(|f| !said.contains(f)).collect();
    out.extend(spread(c));
    out.extend(c.networks().filter_map(|r| failure(c, r)));
    out.extend(baselines(c));
    out.extend(c.networks().filter(|r| r.verdict != Verdict::Reference).filter_map(|r| variant(c, r)));
    out
}

/// Whether "within a point" separates variants here.
pub(crate) fn threshold_says_something(c: &Comparison) -> bool {
    c.widest_gap().is_some_and(|gap| !laws::is_vacuous(WITHIN, gap))
}

/// The variant with the least of `measure` among `rows`; ties go to the more accurate.
pub(crate) fn least<'a, 'b>(rows: Vec<&'b VariantRow<'a>>, measure: &str) -> Option<&'b VariantRow<'a>> {
    let key = |r: &VariantRow| {
        let merit = |name: &str| measured(r.record, name).unwrap_or(f64::INFINITY);
        let quality = r.quality().unwrap_or(f64::NEG_INFINITY);
        (merit(measure), -quality, merit("weight_bytes"), merit("latency_p50"))
    };
    rows.into_iter()
        .filter(|r| measured(r.record, measure).is_some())
        .min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// A reference that learnt nothing makes every comparison with it void.
fn nothing_learnt(c: &Comparison) -> Option<Finding> {
    let reference = c.reference().filter(|_| c.standing == Some(Standing::NothingLearnt))?;
    let mut sentence = Sentence::default()
        .name(reference.name())
        .text(" ")
        .claim(ClaimKind::NothingLearnt, reference.name())
        .text(": ")
        .text(c.noun())
        .text(" ")
        .asked(c, reference.name(), quality_of(c))?
        .text(" where chance is ")
        .figure(c.fact(What::Chance)?);
    if let Some(plain) = c.plain().filter(|p| p.quality() > reference.quality()) {
        let figure = c.ask(plain.name(), quality_of(c))?;
        sentence = sentence.text(" and ").name(plain.name()).text(", without a network, reaches ").figure(figure);
    }
    let sentence = sentence.text(". Being as accurate as it means nothing: mend its training first.");
    Some(finding(c, Tone::Bad, sentence, None))
}

/// Too few rows to show that anything is kept.
fn too_few_rows(c: &Comparison) -> Option<Finding> {
    let reference = c.reference()?.name();
    let sentence = Sentence::default()
        .claim(ClaimKind::TooFewRows, reference)
        .text(": with ")
        .figure(c.fact(What::TestRows)?)
        .text(", a loss of ")
        .figure(c.fact(What::OpenLoss)?)
        .text(" points against ")
        .name(reference)
        .text(" is ruled out for no variant.");
    holds(c, ClaimKind::TooFewRows, reference).then(|| finding(c, Tone::Warn, sentence, None))
}

/// A baseline without a network above every network, or above the reference.
fn below_baselines(c: &Comparison) -> Option<Finding> {
    let (plain, reference) = (c.plain()?, c.reference().filter(|_| c.standing != Some(Standing::NothingLearnt))?);
    let figures = || {
        Sentence::default().asked(c, plain.name(), quality_of(c))?.text(" against ").asked(
            c,
            reference.name(),
            quality_of(c),
        )
    };
    let start = Sentence::default().name(plain.name()).text(", without a network, is ");
    let sentence = match () {
        () if holds(c, ClaimKind::AboveAll, plain.name()) => start.claim(ClaimKind::AboveAll, plain.name()),
        () if c.standing == Some(Standing::Beaten) => {
            start.claim_against(ClaimKind::AboveReference, plain.name(), reference.name())
        }
        () => return None,
    };
    let sentence = sentence.text(": ").then(figures()?).text(" of the reference ").name(reference.name()).text(".");
    Some(finding(c, Tone::Warn, sentence, None))
}

/// What variants are compared by.
fn quality_of(c: &Comparison) -> What {
    What::Measure(c.quality().unwrap_or_default().into())
}

/// The recommended variants: smallest and fastest of those close to the reference, smallest of those equal to it.
pub(crate) fn picks<'a, 'b>(c: &'b Comparison<'a>) -> Vec<(ClaimKind, &'b VariantRow<'a>)> {
    let narrow = threshold_says_something(c);
    let kind = |within, any| if narrow { within } else { any };
    let timed = c.networks().all(|r| measured(r.record, "latency_p50").is_some());
    let small = least(c.close(), "weight_bytes").map(|r| (kind(ClaimKind::SmallestWithin, ClaimKind::Smallest), r));
    let fast = least(c.close(), "latency_p50").filter(|_| timed);
    let fast = fast.map(|r| (kind(ClaimKind::FastestWithin, ClaimKind::Fastest), r));
    let equal = least(c.equals(), "weight_bytes").map(|r| (ClaimKind::SmallestEqual, r));
    let mut out: Vec<(ClaimKind, &VariantRow)> = [small, fast].into_iter().flatten().collect();
    let sound =
        |kind, row: &VariantRow| row.dominated_by.is_none() && holds(c, kind, row.name()) && gains(c, row, kind);
    out.retain(|(kind, row)| sound(*kind, row));
    if let [(ClaimKind::SmallestWithin, a), (ClaimKind::FastestWithin, b)] = out.as_slice()
        && a.name() == b.name()
    {
        out = vec![(ClaimKind::LeastWithin, out[0].1)];
    }
    let equal = equal.filter(|(kind, row)| sound(*kind, row) && out.iter().all(|o| o.1.name() != row.name()));
    out.extend(equal);
    out
}

/// A recommendation must gain something on the reference.
fn gains(c: &Comparison, row: &VariantRow, kind: ClaimKind) -> bool {
    match kind {
        ClaimKind::FastestWithin | ClaimKind::Fastest => row.speed.is_some_and(|s| s.1 == Pace::Faster),
        _ => holds(c, ClaimKind::Smaller, row.name()),
    }
}

fn holds(c: &Comparison, kind: ClaimKind, subject: &str) -> bool {
    super::sentence::Claim { kind, subject: subject.into(), other: None }.holds(c)
}

/// What the threshold counts.
fn threshold_unit(c: &Comparison) -> &'static str {
    if c.quality().is_some() { " point of " } else { " % of the bits per byte of " }
}

/// "Smallest variant within a point of f32:".
pub(crate) fn pick_title(c: &Comparison, kind: ClaimKind, row: &VariantRow) -> Option<Sentence> {
    let start = Sentence::default().claim(kind, row.name());
    Some(match kind {
        ClaimKind::SmallestWithin | ClaimKind::FastestWithin | ClaimKind::LeastWithin => {
            let start = start.text(" of those shown within ").figure(c.fact(What::Threshold)?);
            start.text(threshold_unit(c)).name(c.reference()?.name())
        }
        ClaimKind::SmallestEqual => {
            start.text(" with ").claim(ClaimKind::NoLoss, row.name()).text(" against ").name(c.reference()?.name())
        }
        _ => start.text(" variant"),
    })
}

fn recommendations(c: &Comparison) -> Vec<Finding> {
    let mut out = Vec::new();
    for (kind, row) in picks(c) {
        let Some(title) = pick_title(c, kind, row) else {
            continue;
        };
        let mut sentence = title.text(": ").name(row.name()).text(", ");
        if let Some(short) = short_change(c, row) {
            sentence = sentence.then(short).text("; ");
        }
        let sentence = sentence.then(size_and_speed(c, row)).text(".");
        out.push(finding(c, Tone::Good, sentence, Some(row.name())));
    }
    let sound = c.standing != Some(Standing::NothingLearnt) && c.too_few_rows().is_none();
    if let Some(reference) = c.reference().filter(|r| sound && holds(c, ClaimKind::NoneClose, r.name())) {
        let others = c.networks().filter(|r| r.change.is_some() || r.bits.is_some()).count();
        let threshold = c.fact(What::Threshold).filter(|_| others > 0);
        if let Some(threshold) = threshold {
            let sentence = Sentence::default()
                .claim(ClaimKind::NoneClose, reference.name())
                .text(" is shown to stay within ")
                .figure(threshold)
                .text(threshold_unit(c))
                .name(reference.name())
                .text(".");
            out.push(finding(c, Tone::Warn, sentence, None));
        }
    }
    out
}

/// Said only where the threshold separates nothing.
fn spread(c: &Comparison) -> Option<Finding> {
    if threshold_says_something(c) || c.quality().is_none() {
        return None;
    }
    let sentence = Sentence::default()
        .text("Every variant lies within ")
        .figure(c.fact(What::WidestGap)?)
        .text(" points of ")
        .name(c.reference()?.name())
        .text(".");
    Some(finding(c, Tone::Neutral, sentence, None))
}

fn failure(c: &Comparison, row: &VariantRow) -> Option<Finding> {
    if row.verdict != Verdict::Fails {
        return None;
    }
    let mut sentence = Sentence::default()
        .name(row.name())
        .text(" ")
        .claim(ClaimKind::Fails, row.name())
        .text(": ")
        .text(c.noun())
        .text(" ")
        .asked(c, row.name(), quality_of(c))?
        .text(", chance ")
        .figure(c.fact(What::Chance)?);
    if row.record.detail.expected_to_fail {
        sentence = sentence.text("; its method was expected to fail");
    }
    Some(finding(c, Tone::Bad, sentence.text("."), None))
}

/// What can be had without a network, and the ceiling.
fn baselines(c: &Comparison) -> Option<Finding> {
    let reference = c.reference()?;
    let mut sentence = Sentence::default()
        .name(reference.name())
        .text(if c.quality() == Some("r2") { " explains " } else { " answers " })
        .asked(c, reference.name(), quality_of(c))?
        .text(if c.quality() == Some("r2") { " of the variance" } else { " right" });
    let mut plain =
        c.rows.iter().filter(|r| !r.network()).filter_map(|r| Some((r.name(), c.ask(r.name(), quality_of(c))?)));
    if let Some((name, figure)) = plain.next() {
        sentence = sentence.text("; without a network, ").name(name).text(" reaches ").figure(figure);
    }
    for (name, figure) in plain {
        sentence = sentence.text(", ").name(name).text(" ").figure(figure);
    }
    if let Some(ceiling) = c.fact(What::Ceiling) {
        sentence = sentence.text("; the ceiling is ").figure(ceiling);
    }
    Some(finding(c, Tone::Neutral, sentence.text("."), None))
}

/// One variant against the reference: quality, size, speed, dominance.
fn variant(c: &Comparison, row: &VariantRow) -> Option<Finding> {
    let mut sentence = Sentence::default().name(row.name()).text(": ").then(quality(c, row)?).text(" ");
    sentence = sentence.then(size_and_speed(c, row)).text(".");
    if let Some(by) = row.dominated_by {
        sentence = sentence
            .text(" It is ")
            .claim_against(ClaimKind::Dominated, row.name(), by)
            .text(" by ")
            .name(by)
            .text(".");
    }
    let below = |p: &&VariantRow| row.quality() < p.quality() && row.verdict != Verdict::Fails;
    if let Some(plain) = c.plain().filter(below) {
        sentence = sentence
            .text(" Its ")
            .text(c.noun())
            .text(" is ")
            .claim_against(ClaimKind::BelowBaseline, row.name(), plain.name())
            .text(" that of ")
            .name(plain.name())
            .text(".");
    }
    Some(finding(c, tone(row), sentence, None))
}

fn tone(row: &VariantRow) -> Tone {
    match (row.verdict, row.speed.map(|s| s.1)) {
        (Verdict::Fails, _) => Tone::Bad,
        (Verdict::Lower, _) | (_, Some(Pace::Slower)) => Tone::Warn,
        (Verdict::Same | Verdict::Higher, _) => Tone::Good,
        _ => Tone::Neutral,
    }
}

/// "+0.13 points, not distinguishable".
fn short_change(c: &Comparison, row: &VariantRow) -> Option<Sentence> {
    let start = Sentence::default();
    let sentence = match &row.change {
        Some(_) => start.asked(c, row.name(), What::Points)?.text(" points, "),
        None => start.asked(c, row.name(), What::Bits)?.text(" bits per byte, "),
    };
    Some(sentence.claim(quality_claim(row)?, row.name()))
}

/// What is shown of the quality.
fn quality_claim(row: &VariantRow) -> Option<ClaimKind> {
    let Some(change) = row.change.as_ref() else {
        let bits = row.bits.as_ref()?;
        return Some(match bits.distinguishable() {
            false => ClaimKind::NotDistinguishable,
            true if bits.bits > 0.0 => ClaimKind::MoreBits,
            true => ClaimKind::FewerBits,
        });
    };
    Some(match change.distinguishable() {
        false => ClaimKind::NotDistinguishable,
        true if change.points > 0.0 => ClaimKind::Higher,
        true => ClaimKind::Lower,
    })
}

/// Accuracy with absolute, relative and error-rate change, interval and test; else the task's own measure.
fn quality(c: &Comparison, row: &VariantRow) -> Option<Sentence> {
    let (name, start) = (row.name(), Sentence::default());
    let Some(claim) = quality_claim(row).filter(|_| row.change.is_some()) else {
        let measure = primary(c)?;
        let reference = c.reference()?.name();
        let sentence = start.asked(c, name, What::Measure(measure.into()))?.text(" against ");
        let sentence = sentence.asked(c, reference, What::Measure(measure.into()))?.text(" of ").name(reference);
        return Some(match quality_claim(row) {
            None => sentence.text("."),
            Some(claim) => sentence.text("; ").then(shown(c, row, [What::BitsLow, What::BitsHigh], claim)?).text("."),
        });
    };
    let mut sentence = start
        .text(c.noun())
        .text(" ")
        .asked(c, name, quality_of(c))?
        .text(", ")
        .asked(c, name, What::Points)?
        .text(" points");
    if let (Some(relative), Some(errors)) = (c.ask(name, What::Relative), c.ask(name, What::ErrorRate)) {
        sentence = sentence.text(" (relative ").figure(relative).text(", error rate ").figure(errors).text(")");
    }
    let sentence = sentence.text("; ").then(shown(c, row, [What::PointsLow, What::PointsHigh], claim)?);
    let link = if claim == ClaimKind::NotDistinguishable { " from " } else { " than " };
    Some(sentence.text(link).name(c.reference()?.name()).text("."))
}

/// "95 % interval -0.58 to +0.18, McNemar p = 0.424, after Holm p = 1.000: not distinguishable".
fn shown(c: &Comparison, row: &VariantRow, [low, high]: [What; 2], claim: ClaimKind) -> Option<Sentence> {
    let name = row.name();
    let test = match (c.quality(), &row.change) {
        (_, None) => ", paired bootstrap ",
        (Some("r2"), _) => ", paired errors ",
        _ => ", McNemar ",
    };
    let sentence = Sentence::default().figure(c.fact(What::Level)?).text(" % interval ").asked(c, name, low)?;
    let sentence = sentence.text(" to ").asked(c, name, high)?.text(test).asked(c, name, What::P)?;
    Some(sentence.text(", after Holm ").asked(c, name, What::Corrected)?.text(": ").claim(claim, name))
}

/// The measure of quality of a task without accuracies.
pub(crate) fn primary(c: &Comparison) -> Option<&'static str> {
    c.quality().or_else(|| ["exact_match", "bits_per_byte", "perplexity", "mse"].into_iter().find(|name| c.has(name)))
}

/// "3.94x smaller, 2.12x faster per example".
fn size_and_speed(c: &Comparison, row: &VariantRow) -> Sentence {
    let name = row.name();
    let mut out = Sentence::default();
    out = match (c.ask(name, What::Smaller), c.ask(name, What::Larger)) {
        (Some(ratio), _) if ratio.value > 1.0 => out.figure(ratio).text(" ").claim(ClaimKind::Smaller, name),
        (Some(_), Some(ratio)) if ratio.value > 1.0 => out.figure(ratio).text(" ").claim(ClaimKind::Larger, name),
        (Some(_), _) => out.claim(ClaimKind::SameSize, name),
        _ => out.text("size not measured"),
    };
    out = out.text(", ");
    match (row.speed.map(|s| s.1), c.ask(name, What::Faster), c.ask(name, What::Slower)) {
        (Some(Pace::Faster), Some(ratio), _) => out.figure(ratio).text(" ").claim(ClaimKind::Faster, name),
        (Some(Pace::Slower), _, Some(ratio)) => out.figure(ratio).text(" ").claim(ClaimKind::Slower, name),
        (Some(Pace::Same), ..) => out.claim(ClaimKind::SameSpeed, name),
        _ => out.text("speed not measured"),
    }
}

fn finding(c: &Comparison, tone: Tone, sentence: Sentence, recommends: Option<&str>) -> Finding {
    Finding { task: c.task.into(), tone, sentence, recommends: recommends.map(String::from) }
}
