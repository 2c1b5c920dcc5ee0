//! The network that another one learns from.

use crate::data::BatchTargets;
use crate::distill::{Distill, Relations};
use crate::feed::Part;
use crate::network::Network;
use crate::params::{ParamId, Params};
use crate::tape::{Pass, Tape, Tensor};
use crate::trainer::{Job, vocabulary};
use crate::{Error, begin};
use lowbit_kernels::Cpu;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::{ParamSpec, Source};
use lowbit_model::{Checkpoint, Model};

/// A teacher, and how it teaches.
pub(crate) struct Teacher {
    network: Network,
    distill: Distill,
    /// Of its masters.
    pub(crate) hash: String,
    /// Its longest sequence, tokens; any if none.
    pub(crate) positions: Option<usize>,
}

/// What the parts of an update are divided by.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    /// Targets that count.
    pub(crate) targets: usize,
    /// Tokens.
    pub(crate) tokens: usize,
}

impl Teacher {
    /// The teacher of a job, if it has one; the layer of the network whose relations it learns is watched from now on.
    pub(crate) fn of(job: &Job, student: &mut Network, cpu: &Cpu) -> Result<Option<Self>, Error> {
        let (checkpoint, distill) = match (job.teacher, &job.config.distill) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Error::usage("train: `distill` is for a run with a teacher: name one")),
            (Some(_), None) => return Err(Error::usage("train: a teacher is named, and `distill` is not given")),
            (Some(checkpoint), Some(distill)) => (checkpoint, distill.clone()),
        };
        fits(job, checkpoint)?;
        let mut source = Masters { checkpoint, params: Params::default() };
        let model = Model::build(&checkpoint.model_config().config, &mut source)?;
        let (own, other) = (vocabulary(student.params()), vocabulary(&source.params));
        if own != other {
            return Err(wrong(checkpoint, &format!("a vocabulary of {other}, and the network one of {own}")));
        }
        let hash = begin::digest(source.params.iter().map(|param| param.master().unwrap_or_default()));
        let mut network = Network::of(model, Tape::new(cpu, source.params, None));
        let outputs = distill.hidden > 0.0;
        (student.tape.watch_outputs, network.tape.watch_outputs) = (outputs, outputs);
        if let Some(Relations { layer, teacher_layer, .. }) = &distill.attention {
            let layers = ParameterList::new(&job.model_config.config)?.attention_layers();
            student.tape.watch = Some(layer_of("layer", *layer, layers)?);
            let layers = checkpoint.parameters().attention_layers();
            network.tape.watch = Some(layer_of("teacher_layer", *teacher_layer, layers)?);
        }
        Ok(Some(Teacher { network, distill, hash, positions: checkpoint.parameters().positions() }))
    }

    /// Share of the teacher in the loss of the targets.
    pub(crate) fn weight(&self) -> f32 {
        self.distill.weight
    }

    /// Seeds the gradients of what a network answered to a batch; returns the loss, per target and per token of the update.
    pub(crate) fn teach(
        &mut self,
        student: &mut Network,
        output: &Tensor,
        part: &Part,
        counts: Counts,
    ) -> Result<f64, Error> {
        let taught = self.network.forward(&part.batch, Pass::Evaluate);
        let (answers, tape) = (self.network.tape.value(&taught), &mut student.tape);
        drop(taught);
        let Distill { weight, temperature, hidden, ref attention } = self.distill;
        let scale = weight / counts.targets as f32;
        let mut loss = match &part.targets {
            BatchTargets::Classes(targets) => tape.distill_logits(output, &answers, targets, temperature, scale),
            BatchTargets::Values(_) => tape.squared_error(output, &answers, scale),
        } * f64::from(weight)
            / counts.targets as f64;
        if hidden > 0.0 {
            let [own, other] = [tape.outputs(), self.network.tape.outputs()];
            alike(&own, &other)?;
            for (x, taught) in own.iter().zip(&other) {
                let taught = self.network.tape.value(taught);
                loss += f64::from(hidden) * tape.distill_outputs(x, &taught, counts.tokens, hidden);
            }
        }
        if let Some(Relations { weight, heads, .. }) = attention {
            let [own, other] = [tape.watched(), self.network.tape.watched()];
            let heads = heads.unwrap_or(own.kv_heads);
            if let Some(x) = own.all.iter().chain(&other.all).find(|x| !x.width().is_multiple_of(heads)) {
                let text = format!("is {heads}, which does not divide a width of {}", x.width());
                return Err(Error::usage(format!("train: `distill.attention.heads` {text}: name another number")));
            }
            let values = other.all.map(|x| self.network.tape.value(&x));
            let share = weight / (heads * counts.tokens) as f32;
            let sum = tape.distill_relations(&own.all, [&values[0], &values[1], &values[2]], heads, share);
            loss += f64::from(*weight) * sum / (heads * counts.tokens) as f64;
        }
        Ok(loss)
    }
}

/// Sees that a teacher answers what the network of a job is asked.
fn fits(job: &Job, checkpoint: &Checkpoint) -> Result<(), Error> {
    let (own, other) = (job.model_config, checkpoint.model_config());
    let labels = own.labels.is_empty() || other.labels.is_empty() || own.labels == other.labels;
    let text = match () {
        () if other.trained_for.is_some() => "weights that were trained to be quantized: take one in full precision",
        () if own.config.output() != other.config.output() => "answers of another kind or number",
        () if !labels => "other classes, or in another order",
        () if own.config.features() != other.config.features() => "inputs of another width",
        () if own.input_scaling != other.input_scaling || own.target_scaling != other.target_scaling => {
            "inputs or values of another scale: it was trained on other rows"
        }
        () => return Ok(()),
    };
    Err(wrong(checkpoint, text))
}

fn wrong(checkpoint: &Checkpoint, text: &str) -> Error {
    Error::usage(format!("train: the teacher {} has {text}", checkpoint.path().display()))
}

/// Sees that two networks have as many blocks of one width.
fn alike(own: &[Tensor], other: &[Tensor]) -> Result<(), Error> {
    let shape = |outputs: &[Tensor]| (outputs.len(), outputs.first().map_or(0, Tensor::width));
    let ((blocks, width), (taught, wide)) = (shape(own), shape(other));
    if blocks > 0 && (blocks, width) == (taught, wide) {
        return Ok(());
    }
    let text = format!("the network has {blocks} blocks, {width} wide, and the teacher {taught}, {wide} wide");
    Err(Error::usage(format!("train: `distill.hidden` is for blocks of one number and width; {text}: leave it out")))
}

/// A layer of so many.
fn layer_of(field: &str, layer: Option<usize>, layers: usize) -> Result<usize, Error> {
    match (layer, layers) {
        (_, 0) => Err(Error::usage("train: `distill.attention` is for networks with attention: leave it out")),
        (Some(layer), _) if layer >= layers => {
            let text = format!("is {layer}, and there are {layers} layers, counted from 0");
            Err(Error::usage(format!("train: `distill.attention.{field}` {text}")))
        }
        (layer, _) => Ok(layer.unwrap_or(layers - 1)),
    }
}

/// The masters of a checkpoint as parameters.
struct Masters<'a> {
    checkpoint: &'a Checkpoint,
    params: Params,
}

impl Source<ParamId> for Masters<'_> {
    fn param(&mut self, spec: &ParamSpec) -> Result<ParamId, lowbit_model::Error> {
        Ok(self.params.push(spec.clone(), self.checkpoint.master(spec)?))
    }
}
