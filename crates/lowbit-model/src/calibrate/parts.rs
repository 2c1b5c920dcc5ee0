//! Activations of all calibration tokens, most of which are not in memory: the tokens go through the operations in parts, a few sequences
//! at a time, and only some activations are held from one matrix to the next, the residual stream above all. What is not held is computed
//! again, part by part, whenever it is read.

use super::pass::Pass;
use crate::cpu::Tensor;
use crate::exec::Batch;
use crate::source::ParamSpec;
use crate::{CpuExec, Error, Param};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What is in memory of the calibration tokens.
pub(super) struct Limits {
    /// Tokens of a part, roughly: whole sequences.
    pub part: usize,
    /// Bytes up to which inputs of a matrix are held that would else be computed three times.
    pub held: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { part: 512, held: 1 << 28 }
    }
}

/// The sequences of a batch in parts. Images are one: windows of convolutions are drawn from all of them.
pub(super) fn cut(batch: &Batch, limits: &Limits) -> Vec<Batch> {
    if batch.features.is_empty() { batch.pieces(limits.part) } else { vec![batch.clone()] }
}

/// An activation of all tokens.
pub(super) type Value = Rc<Node>;

/// An activation that is held, or how it is computed.
pub(super) struct Node {
    state: RefCell<State>,
}

enum State {
    /// Part by part.
    Held(Vec<Held>),
    Waiting(Rc<Waiting>),
}

/// An operation that has not run.
struct Waiting {
    inputs: Vec<Value>,
    params: Vec<ParamSpec>,
    /// Whether it is a product whose matrix, the first parameter, is rounded by what is read.
    is_product: bool,
    run: Run,
}

/// Computes an operation of tensors with parameters.
pub(super) type Run = Box<dyn Fn(&mut CpuExec, &[&Tensor], &[&Param]) -> Tensor>;

/// One part of an activation of the rounded network, and the same in full precision where a method follows it.
#[derive(Clone)]
pub(super) struct Both {
    pub rounded: Tensor,
    pub exact: Option<Tensor>,
}

/// A part that is held: rows, and values, of both networks.
struct Held {
    rounded: (usize, Vec<f32>),
    exact: Option<(usize, Vec<f32>)>,
}

impl Node {
    /// An operation that is computed when it is read.
    pub fn waiting(inputs: &[&Value], params: &[&ParamSpec], is_product: bool, run: Run) -> Value {
        let inputs = inputs.iter().map(|value| Rc::clone(value)).collect();
        let params = params.iter().map(|spec| (*spec).clone()).collect();
        let waiting = Rc::new(Waiting { inputs, params, is_product, run });
        Rc::new(Node { state: RefCell::new(State::Waiting(waiting)) })
    }

    fn held(parts: Vec<Held>) -> Value {
        Rc::new(Node { state: RefCell::new(State::Held(parts)) })
    }

    /// What stands in place of an activation once something went wrong: nothing reads it.
    pub fn nothing() -> Value {
        Node::held(Vec::new())
    }

    fn operation(&self) -> Option<Rc<Waiting>> {
        match &*self.state.borrow() {
            State::Held(_) => None,
            State::Waiting(waiting) => Some(waiting.clone()),
        }
    }

    /// Matrix and bias of a product that has not run, and what it reads.
    pub fn product(&self) -> Option<(ParamSpec, Value)> {
        let waiting = self.operation().filter(|waiting| waiting.is_product)?;
        Some((waiting.params[0].clone(), waiting.inputs[0].clone()))
    }

    /// Products one after another that computing it takes.
    fn depth(&self) -> usize {
        self.operation().map_or(0, |waiting| {
            let before = waiting.inputs.iter().map(|input| input.depth()).max();
            before.unwrap_or(0) + usize::from(waiting.is_product)
        })
    }
}

impl Held {
    fn of(both: &Both) -> Self {
        let copy = |tensor: &Tensor| (tensor.rows(), tensor.to_vec());
        let held = Held { rounded: copy(&both.rounded), exact: both.exact.as_ref().map(copy) };
        #[cfg(test)]
        tests::count(held.rounded.1.len() as isize);
        held
    }
}

#[cfg(test)]
impl Drop for Held {
    fn drop(&mut self) {
        tests::count(-(self.rounded.1.len() as isize));
    }
}

/// Activations of one part that were computed already.
type Made = BTreeMap<*const Node, Both>;

impl Pass<'_> {
    /// Computes activations part by part, whose products are ready, and gives those of each part to `take`.
    ///
    /// # Errors
    /// When tokens do not fit the network, the work is to end, or one that `take` gives.
    pub(super) fn stream(
        &mut self,
        values: &[&Value],
        mut take: impl FnMut(&mut Self, &[Both]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let result = (0..self.parts.len()).try_for_each(|at| {
            self.exec.begin(&self.parts[at])?;
            let mut made = Made::new();
            let all: Vec<Both> =
                values.iter().map(|value| self.part(value, at, &mut made)).collect::<Result<_, Error>>()?;
            drop(made);
            let all: Vec<Both> = all.into_iter().map(|both| self.forced(both)).collect();
            take(self, &all)?;
            self.exec.end()
        });
        self.full.clear();
        result
    }

    fn forced(&mut self, both: Both) -> Both {
        Both { rounded: self.exec.force(&both.rounded), exact: both.exact.map(|exact| self.exec.force(&exact)) }
    }

    /// One part of an activation.
    fn part(&mut self, value: &Value, at: usize, made: &mut Made) -> Result<Both, Error> {
        let key = Rc::as_ptr(value);
        if let Some(both) = made.get(&key) {
            return Ok(both.clone());
        }
        let both = match &*value.state.borrow() {
            State::Held(parts) => {
                let mut copy = |(rows, values): &(usize, Vec<f32>)| self.exec.copied(*rows, values);
                Both { rounded: copy(&parts[at].rounded), exact: parts[at].exact.as_ref().map(copy) }
            }
            State::Waiting(waiting) => {
                let inputs: Vec<Both> =
                    waiting.inputs.iter().map(|input| self.part(input, at, made)).collect::<Result<_, Error>>()?;
                self.computed(&inputs, &waiting.params.iter().collect::<Vec<_>>(), &waiting.run)?
            }
        };
        made.insert(key, both.clone());
        Ok(both)
    }

    fn computed(
        &mut self,
        inputs: &[Both],
        params: &[&ParamSpec],
        run: impl Fn(&mut CpuExec, &[&Tensor], &[&Param]) -> Tensor,
    ) -> Result<Both, Error> {
        let exact: Option<Vec<&Tensor>> = inputs.iter().map(|both| both.exact.as_ref()).collect();
        let exact = match exact.filter(|_| self.method.learned) {
            None => None,
            Some(exact) => {
                params.iter().try_for_each(|spec| self.load_full(spec))?;
                let params: Vec<&Param> =
                    params.iter().map(|spec| self.full.get(&spec.name).unwrap_or(&self.params[&spec.name])).collect();
                Some(run(&mut self.exec, &exact, &params))
            }
        };
        let rounded: Vec<&Tensor> = inputs.iter().map(|both| &both.rounded).collect();
        let params: Vec<&Param> = params.iter().map(|spec| &self.params[&spec.name]).collect();
        Ok(Both { rounded: run(&mut self.exec, &rounded, &params), exact })
    }

    /// An operation that runs now, on all parts, and is held.
    pub(super) fn now(
        &mut self,
        inputs: &[&Value],
        params: &[&ParamSpec],
        run: impl Fn(&mut CpuExec, &[&Tensor], &[&Param]) -> Tensor,
    ) -> Result<Value, Error> {
        inputs.iter().try_for_each(|input| self.ready(input))?;
        let mut parts = Vec::with_capacity(self.parts.len());
        self.stream(inputs, |pass, inputs| {
            parts.push(Held::of(&pass.computed(inputs, params, &run)?));
            Ok(())
        })?;
        Ok(Node::held(parts))
    }

    /// Holds an activation from now on; what it was made of may go.
    pub(super) fn hold(&mut self, value: &Value) -> Result<(), Error> {
        if value.operation().is_none() {
            return Ok(());
        }
        let held = self.now(&[value], &[], |_, x, _| x[0].clone())?;
        value.state.swap(&held.state);
        Ok(())
    }

    /// Holds what a matrix of so many columns reads, if that saves products and takes little memory.
    pub(super) fn hold_inputs(&mut self, x: &Value, cols: usize) -> Result<(), Error> {
        let tokens: usize = self.parts.iter().map(|part| part.tokens.len()).sum();
        match (x.depth(), self.parts.len()) {
            (0, _) => Ok(()),
            (1, 2..) if tokens * cols * size_of::<f32>() > self.limits.held => Ok(()),
            _ => self.hold(x),
        }
    }

    /// Rounds the matrices of all products that an activation is computed by.
    pub(super) fn ready(&mut self, value: &Value) -> Result<(), Error> {
        let Some(waiting) = value.operation() else { return Ok(()) };
        waiting.inputs.iter().try_for_each(|input| self.ready(input))?;
        match waiting.is_product {
            true => self.round(&waiting.params[0], &waiting.inputs[0], None),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::masters::Masters;
    use super::*;
    use crate::arch::{Head, decoder};
    use crate::calibrate::{METHODS, Rounded};
    use crate::exec::Activation;
    use crate::parameter_list::ParameterList;
    use crate::source::{Init, Role};
    use crate::{Checkpoint, Config, ModelConfig, recipe};
    use lowbit_kernels::Cpu;
    use std::cell::Cell;

    thread_local! {
        /// Floats of the rounded network that are held, and the most there were.
        static HELD: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
    }

    pub fn count(by: isize) {
        let [now, most] = HELD.get();
        HELD.set([now + by, most.max(now + by)]);
    }

    const HIDDEN: usize = 24;
    const WIDE: usize = 400;

    fn network(home: &std::path::Path) -> Checkpoint {
        let config = Config::Decoder(decoder::Config {
            vocab_size: 50,
            hidden_size: HIDDEN,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 6,
            intermediate_size: WIDE,
            hidden_act: Activation::Silu,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            sub_norm: true,
            qk_norm: false,
            qkv_bias: true,
            output_bias: false,
            mlp_bias: false,
            sliding_window: None,
            full_attention_layers: Vec::new(),
            causal: true,
            bigram_buckets: 0,
            dropout: 0.0,
            head: Head::Lm { tied: true },
        });
        let mut random = lowbit_base::SplitMix64::new(5);
        let mut values = |spec: &ParamSpec| {
            let middle = f32::from(u8::from(spec.role == Role::Norm && spec.init == Init::Constant(1.0)));
            (0..spec.rows * spec.cols).map(|_| middle + 0.4 * (random.unit() as f32 - 0.5)).collect()
        };
        let list = ParameterList::new(&config).expect("valid");
        let params: Vec<(ParamSpec, Vec<f32>)> =
            list.params().iter().map(|spec| (spec.clone(), values(spec))).collect();
        let values = params.iter().map(|(spec, values)| (spec, &values[..]));
        crate::checkpoint::save_masters(home, &ModelConfig::new(config, 40), None, values).expect("written");
        Checkpoint::open(home).expect("valid")
    }

    fn text(sequences: u32) -> Batch {
        let sequences: Vec<Vec<u32>> =
            (0..sequences).map(|s| (0..20).map(|i| (s * 7 + i * i * (s % 5 + 1)) % 50).collect()).collect();
        Batch::new(sequences.iter().map(|tokens| &tokens[..]))
    }

    #[test]
    fn what_is_held_does_not_change_what_is_stored() {
        let home = tempfile::tempdir().expect("a directory");
        let checkpoint = network(home.path());
        let masters = Masters { checkpoint: &checkpoint, folds: BTreeMap::new() };
        let cpu = Cpu::new(None, Some(2)).expect("a CPU");
        let recipe = recipe::find("int3_g32+embed=int4_g32+head=int4_g32+rotate=hadamard").expect("spelled");
        let plain = recipe::find("int4_g32+embed=int8+head=int4_g32+layers.1=int8_channel").expect("spelled");
        for (method, recipe) in METHODS.iter().filter(|method| !method.channels).flat_map(|m| [(m, recipe), (m, plain)])
        {
            let run = |part: usize, held: usize| -> (Vec<Vec<u8>>, Vec<Rounded>) {
                let mut done = 0;
                let mut tell = |now| done = now;
                let mut pass = Pass::new(&masters, recipe, method, cpu.clone(), &mut tell);
                pass.limits = Limits { part, held };
                let (params, rounded) = pass.run(&text(40)).expect("runs");
                assert_eq!(done, rounded.len());
                let bytes = params.into_values().map(|param| match param {
                    Param::Matrix { packed, .. } => {
                        packed.parts().iter().flat_map(|part| part.iter()).copied().collect()
                    }
                    Param::Vector(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                });
                (bytes.collect(), rounded)
            };
            let whole = run(usize::MAX, usize::MAX);
            assert!(run(64, 0) == whole, "{}, {}: nothing is held", method.name, recipe.name);
            assert!(run(100, usize::MAX) == whole, "{}, {}: inputs are held", method.name, recipe.name);
        }
    }

    #[test]
    fn wide_activations_are_never_there_as_a_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let checkpoint = network(home.path());
        let masters = Masters { checkpoint: &checkpoint, folds: BTreeMap::new() };
        let cpu = Cpu::new(None, Some(1)).expect("a CPU");
        let (recipe, batch) = (recipe::find("int4_g32").expect("listed"), text(100));
        let tokens = batch.tokens.len();
        let most = |part: usize, held: usize| {
            HELD.set([0; 2]);
            let mut tell = |_| ();
            let mut pass = Pass::new(
                &masters,
                recipe,
                super::super::Method::find("gptq").expect("listed"),
                cpu.clone(),
                &mut tell,
            );
            pass.limits = Limits { part, held };
            pass.parts = cut(&batch, &pass.limits);
            checkpoint.parameters().model().forward(&mut pass);
            let [left, most] = HELD.get();
            assert_eq!(left, 0, "nothing is held in the end");
            (most as usize, pass.exec.buffered())
        };
        let (held, buffered) = most(40, 0);
        // What goes into a block and what comes out, what attention gives; the activations of a block for one part.
        assert_eq!(held as u64 * 4, checkpoint.parameters().held_bytes(tokens), "{held}");
        assert!(buffered as u64 * 4 <= checkpoint.parameters().pass_bytes(2 * 40, 0), "{buffered}");
        let (whole, _) = most(40, usize::MAX);
        assert!(whole >= tokens * WIDE, "{whole}");
    }
}
