//! Networks of known shapes: memory, latency, load time, and the start of a fresh process.

use super::turns::{Turn, passes, rates, samples, time};
use super::{Bench, Column, Side, Study, TERNARY, describe, numbers};
use crate::record::{Measure, Record};
use crate::{Error, speed};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Config, Inputs, Model, Param, recipe, synthetic};
use std::sync::Arc;

/// Examples of a pass that is timed for its throughput.
const TOGETHER: usize = 32;
/// Operations of such a pass at most.
const OPERATIONS: u64 = 400_000_000_000;
const QUICK_OPERATIONS: u64 = 50_000_000_000;
/// Fresh processes of each side.
const PROBES: usize = 5;
const QUICK_PROBES: usize = 3;

pub(super) static PERCEPTRONS: Study = Study {
    name: "mlp",
    title: "Perceptrons of two to five layers",
    about: "Inputs of 784 numbers, ten classes. Peak memory, load time and cold start are of fresh processes; the head has 8 bits.",
    head: "Network",
    columns: NETWORK,
    further: &[],
    run: |study, bench| all(study, bench, &["mlp-100k", "mlp-1m", "mlp-10m", "mlp-100m"]),
};

pub(super) static IMAGES: Study = Study {
    name: "cnn",
    title: "Convolutional networks",
    about: "One image in a pass, and 32 where a pass does not take too long. The first convolution and the head have 8 bits.",
    head: "Network",
    columns: NETWORK,
    further: &[],
    run: |study, bench| all(study, bench, &["resnet18-cifar", "resnet18", "resnet50", "vgg16"]),
};

pub(super) static EDGE: Study = Study {
    name: "edge",
    title: "Small devices",
    about: "Fresh processes of the program itself, one example each: the file of the program, its start with the first answer, and \
            what it takes.",
    head: "Network",
    columns: &[
        Column::Once("program_bytes"),
        Column::Each("weight_bytes"),
        Column::Each("cold_start_seconds"),
        Column::Each("load_seconds"),
        Column::Each("peak_rss_bytes"),
    ],
    further: &[],
    run: |study, bench| {
        let mut records = Vec::new();
        for shape in ["mlp-1m", "mlp-10m"] {
            bench.cpu.stop.check()?;
            let networks = Networks::new(study, bench, shape, &[TERNARY[0], TERNARY[2]])?;
            records.extend(networks.probed(bench)?);
        }
        Ok(records)
    },
};

const NETWORK: &[Column] = &[
    Column::Parameters,
    Column::Each("weight_bytes"),
    Column::Reduction,
    Column::Each("latency_p50"),
    Column::Faster,
    Column::Each("throughput/32"),
    Column::Each("load_seconds"),
    Column::Each("peak_rss_bytes"),
];

fn all(study: &Study, bench: &mut Bench, shapes: &[&str]) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    for shape in shapes {
        bench.cpu.stop.check()?;
        (bench.note)(&format!("  {shape}"));
        let mut networks = Networks::new(study, bench, shape, TERNARY)?;
        networks.time(bench)?;
        records.extend(networks.probed(bench)?);
    }
    Ok(records)
}

/// A network under each recipe.
struct Networks {
    config: Config,
    sides: Vec<(Record, Checkpoint, Arc<Model<Param>>)>,
}

impl Networks {
    fn new(study: &Study, bench: &Bench, shape: &str, sides: &[Side]) -> Result<Self, Error> {
        let config = synthetic::find(shape)?.config();
        let side = |side: &Side| {
            let checkpoint = bench.written(&format!("{shape}-{}", side.name), &config, recipe::find(side.recipe)?)?;
            checkpoint.need("measure smaller networks")?.check()?;
            let mut record = study.record(shape, side.name, side.recipe);
            describe(&mut record, &checkpoint)?;
            let model = Arc::new(checkpoint.model()?);
            Ok((record, checkpoint, model))
        };
        Ok(Networks { sides: sides.iter().map(side).collect::<Result<_, Error>>()?, config })
    }

    fn batch(&self, examples: usize) -> Batch {
        let (mut batch, width) = (Batch::default(), self.config.features());
        numbers(examples * width).chunks(width).for_each(|x| batch.push_features(x.iter().copied()));
        batch
    }

    /// Latency of one example; throughput of several in a pass, where that does not take too long.
    fn time(&mut self, bench: &Bench) -> Result<(), Error> {
        let batch = self.batch(1);
        let parts = self.sides.iter_mut();
        let turns = parts.map(|(record, _, model)| Turn { record, work: passes(model, bench.cpu, &batch) }).collect();
        time(turns, bench)?;
        let batch = self.batch(TOGETHER);
        let operations = self.sides[0].1.parameters().flops(&batch);
        if operations > if bench.quick { QUICK_OPERATIONS } else { OPERATIONS } {
            return Ok(());
        }
        let work = self.sides.iter().map(|(.., model)| passes(model, bench.cpu, &batch)).collect();
        let (name, measured) = (format!("throughput/{TOGETHER}"), samples(work, bench)?);
        for ((record, ..), samples) in self.sides.iter_mut().zip(measured) {
            record.measures.extend(rates(&samples, TOGETHER).map(|rate| (name.clone(), rate)));
        }
        Ok(())
    }

    /// The records with what fresh processes tell, in alternating order.
    fn probed(self, bench: &Bench) -> Result<Vec<Record>, Error> {
        let width = self.config.features();
        let inputs = Inputs::Features { width, values: numbers(width) };
        let mut sides: Vec<(Record, Checkpoint)> =
            self.sides.into_iter().map(|(r, checkpoint, _)| (r, checkpoint)).collect();
        for _ in 0..if bench.quick { QUICK_PROBES } else { PROBES } {
            for (record, checkpoint) in &mut sides {
                let mut command = || (bench.probe)(checkpoint, bench.cpu);
                let (probe, wall) = speed::fresh_process(&mut command, &inputs, &bench.cpu.stop)?;
                let mut keep = |name: &str, value: f64| {
                    record.detail.samples.entry(name.into()).or_default().push(value);
                };
                keep("cold_start_seconds", wall);
                keep("load_seconds", probe.load_seconds);
                probe.peak_rss_bytes.into_iter().for_each(|bytes| keep("peak_rss_bytes", bytes as f64));
            }
        }
        for (record, checkpoint) in &mut sides {
            for (name, unit) in
                [("cold_start_seconds", "seconds"), ("load_seconds", "seconds"), ("peak_rss_bytes", "bytes")]
            {
                let measure = record.detail.samples.get(name).and_then(|samples| speed::spread(samples, unit));
                record.measures.extend(measure.map(|m| (name.to_string(), m)));
            }
            let program = (bench.probe)(checkpoint, bench.cpu).ok();
            let size = program.and_then(|command| std::fs::metadata(command.get_program()).ok());
            let measure = size.map(|facts| Measure::measured(facts.len() as f64, "bytes", 1));
            record.measures.extend(measure.map(|m| ("program_bytes".to_string(), m)));
        }
        Ok(sides.into_iter().map(|(record, _)| record).collect())
    }
}
