//! One linear layer: memory, latency by batch and by size, what a scale is shared by, and activations.

use super::turns::{Turn, passes, time};
use super::{Bench, Column, Side, Study, TERNARY, describe, numbers};
use crate::Error;
use crate::record::Record;
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Config, Model, Param, recipe};
use serde_json::json;
use std::sync::Arc;

/// Side of the layer that is compared where its size is not what varies.
const WIDTH: usize = 1000;
/// Examples of a pass that are compared where the batch is not what varies.
const FEW: [usize; 2] = [1, 32];

pub(super) static MEMORY: Study = Study {
    name: "layer_memory",
    title: "Memory by layer size",
    about: "Bytes of a linear layer with its bias as they are stored: codes, scales, padding to the units of the kernels.",
    head: "Layer",
    columns: &[
        Column::Parameters,
        Column::Each("weight_bytes"),
        Column::Reduction,
        Column::MatrixReduction,
        Column::Bits,
    ],
    further: &[],
    run: |study, bench| {
        let mut records = Vec::new();
        for width in [100, 500, 1000, 2000] {
            let layers = Layers::new(study, bench, &square(width), width, TERNARY)?;
            records.extend(layers.sides.into_iter().map(|(record, ..)| record));
        }
        Ok(records)
    },
};

pub(super) static BATCHES: Study = Study {
    name: "batch_size",
    title: "Latency by batch size",
    about: "A pass of a linear layer of 1,000 inputs and 1,000 outputs with bias, quantization of its activations included.",
    head: "Batch",
    columns: &[Column::Each("latency_p50"), Column::Faster],
    further: &[],
    run: |study, bench| {
        let mut layers = Layers::new(study, bench, "", WIDTH, TERNARY)?;
        let mut records = Vec::new();
        for batch in [1, 8, 32, 64, 128] {
            records.extend(layers.timed(study, bench, &batch.to_string(), batch)?);
        }
        Ok(records)
    },
};

pub(super) static SIZES: Study = Study {
    name: "layer_size",
    title: "Latency by layer size",
    about: "A pass of a linear layer with bias, quantization of its activations included.",
    head: "Layer",
    columns: &[Column::Each("latency_p50"), Column::Faster],
    further: &[],
    run: |study, bench| {
        let mut records = Vec::new();
        for width in [100, 200, 500, 1000, 1500, 2000] {
            let mut layers = Layers::new(study, bench, "", width, TERNARY)?;
            for batch in FEW {
                records.extend(layers.timed(study, bench, &format!("{}, batch {batch}", square(width)), batch)?);
            }
        }
        Ok(records)
    },
};

pub(super) static GRANULARITY: Study = Study {
    name: "granularity",
    title: "What shares a scale",
    about: "A pass of a linear layer of 1,000 inputs and 1,000 outputs; what granularity does to accuracy stands where networks \
            are trained.",
    head: "Batch",
    columns: &[Column::Each("latency_p50"), Column::Faster, Column::Reduction],
    further: &[],
    run: |study, bench| {
        let sides = [
            Side { name: "f32", recipe: "f32" },
            Side { name: "per tensor", recipe: "bitnet" },
            Side { name: "per channel", recipe: "bitnet_channel" },
            Side { name: "per group", recipe: "ternary_g128" },
        ];
        few(study, bench, &sides)
    },
};

pub(super) static ACTIVATIONS: Study = Study {
    name: "activations",
    title: "How activations enter",
    about: "A pass of a linear layer of 1,000 inputs and 1,000 outputs; what activations do to accuracy stands where networks are \
            trained.",
    head: "Batch",
    columns: &[Column::Each("latency_p50"), Column::Faster, Column::Reduction],
    further: &[],
    run: |study, bench| {
        let sides = [
            Side { name: "f32, f32 activations", recipe: "f32" },
            Side { name: "ternary, f32 activations", recipe: "bitnet+act=f32" },
            Side { name: "ternary, int8 activations", recipe: "bitnet" },
            Side { name: "int8, int8 activations", recipe: "int8_channel" },
        ];
        few(study, bench, &sides)
    },
};

fn few(study: &Study, bench: &mut Bench, sides: &[Side]) -> Result<Vec<Record>, Error> {
    let mut layers = Layers::new(study, bench, "", WIDTH, sides)?;
    let mut records = Vec::new();
    for batch in FEW {
        records.extend(layers.timed(study, bench, &batch.to_string(), batch)?);
    }
    Ok(records)
}

fn square(width: usize) -> String {
    format!("{width} x {width}")
}

/// One layer under each recipe, with a described record.
struct Layers {
    width: usize,
    sides: Vec<(Record, Side, Arc<Model<Param>>)>,
}

impl Layers {
    fn new(study: &Study, bench: &Bench, row: &str, width: usize, sides: &[Side]) -> Result<Self, Error> {
        let layer = json!({"architecture": "sequential", "features": width, "layers": [{"layer": "bit_linear"}],
            "classes": width});
        let config: Config = serde_json::from_value(layer).expect("a valid configuration");
        let side = |side: &Side| {
            let recipe = recipe::find(side.recipe)?;
            let checkpoint: Checkpoint = bench.written(&format!("{width}-{}", side.name), &config, recipe)?;
            let mut record = study.record(row, side.name, side.recipe);
            describe(&mut record, &checkpoint)?;
            Ok((record, *side, Arc::new(checkpoint.model()?)))
        };
        Ok(Layers { width, sides: sides.iter().map(side).collect::<Result<_, Error>>()? })
    }

    /// The records of a row, timed with so many examples in a pass.
    fn timed(&mut self, study: &Study, bench: &Bench, row: &str, examples: usize) -> Result<Vec<Record>, Error> {
        let mut batch = Batch::default();
        numbers(examples * self.width).chunks(self.width).for_each(|x| batch.push_features(x.iter().copied()));
        let named = |(record, side, _): &(Record, Side, _)| {
            let empty = study.record(row, side.name, side.recipe);
            let detail = crate::record::Detail { place: empty.detail.place, ..record.detail.clone() };
            Record { model: empty.model, detail, ..record.clone() }
        };
        let mut records: Vec<Record> = self.sides.iter().map(named).collect();
        let turns = records
            .iter_mut()
            .zip(&self.sides)
            .map(|(record, (.., model))| Turn { record, work: passes(model, bench.cpu, &batch) });
        time(turns.collect(), bench)?;
        Ok(records)
    }
}
