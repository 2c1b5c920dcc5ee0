//! The five studies that this program answers: each fault of the catalogue is raised by a check, at its lines.

use super::*;

/// A fault: its tag, the checks that may raise it, and lines of which one finding holds at least one.
type Known = (&'static str, &'static [u32], &'static [usize]);

const NEO: &[Known] = &[
    ("Neo-1", &[3], &[65]),
    ("Neo-2", &[3], &[67]),
    ("Neo-3", &[17], &[32, 33, 34]),
    ("Neo-4", &[16], &[20]),
    ("Neo-4, 8 bits", &[16], &[22]),
    ("Neo-4, three meanings", &[16], &[21]),
    ("Neo-5", &[3], &[13]),
    ("Neo-5, advice", &[26], &[102]),
    ("Neo-6", &[4], &[26]),
    ("Neo-6, noise", &[12], &[25]),
    ("Neo-7", &[10], &[20]),
    ("Neo-7", &[10], &[21]),
    ("Neo-7", &[10], &[22]),
    ("Neo-8", &[10], &[46]),
    ("Neo-8", &[10], &[53]),
    ("Neo-9", &[11], &[53]),
    ("Neo-10", &[3], &[59]),
    ("Neo-10, transfer", &[3], &[95]),
    ("Neo-11", &[7], &[54]),
    ("Neo-12, model", &[29], &[7]),
    ("Neo-12, correlation", &[12], &[39]),
    ("Neo-12, correlation", &[12], &[75]),
    ("Neo-12, energy", &[22], &[77]),
    ("Neo-12, digits", &[37], &[33, 34]),
    ("Neo-13, F1", &[32], &[18]),
    ("Neo-13, bits", &[30], &[107]),
];

const SU: &[Known] = &[
    ("SU-1", &[5], &[4]),
    ("SU-1", &[5], &[5]),
    ("SU-1", &[5], &[8]),
    ("SU-1", &[5], &[9]),
    ("SU-1", &[5], &[16]),
    ("SU-1", &[5], &[17]),
    ("SU-1", &[5], &[20]),
    ("SU-1", &[5], &[21]),
    ("SU-2", &[8], &[4]),
    ("SU-2", &[8], &[17]),
    ("SU-2", &[8], &[32]),
    ("SU-3", &[9], &[6]),
    ("SU-3, cause", &[9], &[6]),
    ("SU-4, n", &[12], &[6]),
    ("SU-4, sample", &[13], &[4]),
    ("SU-5", &[31], &[16]),
    ("SU-5, praise", &[31], &[27]),
    ("SU-6", &[14], &[42]),
    ("SU-7", &[8], &[8]),
    ("SU-8", &[9], &[10, 22]),
    ("SU-9", &[14], &[11]),
    ("SU-9", &[14], &[23]),
    ("SU-10", &[29], &[36]),
    ("SU-10, file", &[29], &[2]),
    ("SU-11", &[30], &[2]),
    ("SU-12", &[39, 15], &[30]),
    ("SU-13", &[38], &[66]),
];

const LAPTOP: &[Known] = &[
    ("Laptop-1", &[24, 3], &[21]),
    ("Laptop-1", &[24, 3], &[159]),
    ("Laptop-2, unit", &[4], &[71]),
    ("Laptop-2, ranges", &[24], &[71]),
    ("Laptop-3, power", &[24], &[34]),
    ("Laptop-3, power", &[24, 3], &[46]),
    ("Laptop-4, memory", &[21], &[25]),
    ("Laptop-4, bandwidth", &[21], &[26]),
    ("Laptop-4, power", &[21], &[28]),
    ("Laptop-5", &[3], &[47]),
    ("Laptop-5, quality", &[39], &[47]),
    ("Laptop-6", &[1], &[58]),
    ("Laptop-6, instant", &[1], &[120]),
    ("Laptop-7", &[33], &[72]),
    ("Laptop-7, said", &[33], &[35]),
    ("Laptop-8", &[29], &[17]),
    ("Laptop-9", &[24, 3], &[80]),
    ("Laptop-10, no value", &[1], &[103]),
    ("Laptop-10, copied", &[38], &[103]),
    ("Laptop-11", &[16], &[15]),
    ("Laptop-11, source", &[38], &[14, 15, 16, 17]),
    ("Laptop-12", &[36], &[85]),
    ("Laptop-12, no values", &[36], &[93]),
    ("Laptop-13", &[21], &[153]),
    ("Laptop-14, threads", &[29], &[5]),
    ("Laptop-14, power", &[22], &[8]),
    ("Laptop-14, cooling", &[1], &[105]),
    ("Laptop-14, unlimited", &[1], &[57]),
    ("Laptop-14, limits", &[1], &[123]),
    ("Laptop-15", &[23], &[67]),
];

const BITLAB: &[Known] = &[
    ("BitLab-1", &[16], &[11]),
    ("BitLab-1, models", &[16], &[20]),
    ("BitLab-2", &[20], &[32]),
    ("BitLab-2", &[20], &[98]),
    ("BitLab-3", &[34], &[73]),
    ("BitLab-3", &[34], &[92]),
    ("BitLab-4", &[15], &[123]),
    ("BitLab-4, linear", &[20], &[124]),
    ("BitLab-5", &[15], &[131]),
    ("BitLab-5, saved", &[15], &[139]),
    ("BitLab-6", &[18], &[186]),
    ("BitLab-6, formula", &[18], &[20]),
    ("BitLab-7", &[23], &[52, 59]),
    ("BitLab-7, loss", &[27], &[202]),
    ("BitLab-8", &[23], &[59]),
    ("BitLab-9", &[23], &[43, 69]),
    ("BitLab-9, channels", &[2], &[156]),
    ("BitLab-10", &[7], &[107]),
    ("BitLab-10, losses", &[27], &[114]),
    ("BitLab-11", &[21], &[165]),
    ("BitLab-11, devices", &[23], &[173]),
    ("BitLab-12, runs", &[19], &[183]),
    ("BitLab-12, date", &[35], &[213]),
];

const AGNEWS: &[Known] = &[
    ("AGNews-1", &[26], &[144]),
    ("AGNews-1, improvements", &[3], &[153]),
    ("AGNews-2", &[26], &[143]),
    ("AGNews-3", &[12], &[57, 34]),
    ("AGNews-4", &[4], &[27]),
    ("AGNews-5", &[16], &[50]),
    ("AGNews-5, bnb", &[16], &[73]),
    ("AGNews-6", &[15], &[96]),
    ("AGNews-6, bits", &[16], &[96]),
    ("AGNews-7", &[28], &[130]),
    ("AGNews-7", &[28], &[151]),
    ("AGNews-7, zero", &[35], &[34]),
    ("AGNews-8", &[25], &[31]),
];

/// Lines of parts that are consistent, and checks that must not speak of them.
const CONSISTENT: &[(&str, &[u32], &[usize])] = &[
    ("gpt2-agnews", &[2, 3], &[27, 28, 29, 50, 51, 52, 73, 74, 75, 96, 97, 98]),
    ("gpt2-agnews", &[10, 32], &[34, 37, 40, 41, 42, 43, 57, 60, 80, 83, 103, 106]),
    ("neo", &[11], &[54, 55]),
    ("neo", &[3], &[37, 38]),
    ("bitnet-laptop", &[3], &[20, 32]),
    ("bitlab", &[2], &[31, 32, 33, 34, 35, 41, 42, 43, 44, 68, 87, 106, 107, 108, 146]),
];

const STUDIES: &[(&str, &[Known])] =
    &[("neo", NEO), ("su-bitnet", SU), ("bitnet-laptop", LAPTOP), ("bitlab", BITLAB), ("gpt2-agnews", AGNEWS)];

/// The audit of a study by its facts; none where the reports are not here.
fn of_study(name: &str) -> Option<Audit> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let seeds = std::env::var_os("LOWBIT_SEEDS").map_or_else(|| root.join("../shared/reference/seeds"), PathBuf::from);
    if !seeds.is_dir() {
        skipped(Need::Data, &format!("no seeds in {}", seeds.display()));
        return None;
    }
    Some(audit(&root.join(format!("audits/{name}.toml")), None, &[seeds]).unwrap())
}

#[test]
fn every_fault_of_the_studies_is_found() {
    let mut wrong = Vec::new();
    for (name, faults) in STUDIES {
        let Some(made) = of_study(name) else { return };
        let text = told(&made.findings);
        if std::env::var_os("LOWBIT_SHOW").is_some() {
            println!("== {name}\n{text}\n");
        }
        for (tag, checks, lines) in *faults {
            let holds = |f: &Finding| checks.contains(&f.check) && f.lines.iter().any(|line| lines.contains(line));
            if !made.findings.iter().any(holds) {
                wrong.push(format!("{tag}: no finding of check {checks:?} at lines {lines:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn consistent_parts_of_the_studies_raise_nothing() {
    for (name, checks, lines) in CONSISTENT {
        let Some(made) = of_study(name) else { return };
        let holds = |f: &&Finding| checks.contains(&f.check) && f.lines.iter().any(|line| lines.contains(line));
        let found: Vec<Finding> = made.findings.iter().filter(holds).cloned().collect();
        assert!(found.is_empty(), "{name}:\n{}", told(&found));
    }
}
