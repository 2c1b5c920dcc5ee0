//! Convolution, batch normalization and pooling against PyTorch: outputs, running statistics, gradients. The vectors are made by
//! `tools/golden/images.py`.

mod common;

use common::cpu;
use lowbit_model::exec::{Activation, Batch, BatchNorm, Exec, Index, Window, WindowPooling};
use lowbit_model::source::{Init, ParamSpec, Role};
use lowbit_train::{ParamId, Params, Pass, Qat, Tape, Tensor};
use safetensors::SafeTensors;

/// Largest difference, relative to the largest magnitude, or to 0.1: a bias before a batch normalization has the gradient 0.
const TOLERANCE: f32 = 2e-5;

struct Golden(SafeTensors<'static>);

impl Golden {
    fn open() -> Self {
        Golden(SafeTensors::deserialize(include_bytes!("golden_images.safetensors")).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let view = self.0.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn spec(&self, name: &str, role: Role, positions: usize) -> ParamSpec {
        let shape = self.0.tensor(name).unwrap().shape().to_vec();
        let rows = if role.is_vector() { 1 } else { shape[0] };
        let cols = shape.iter().product::<usize>() / rows;
        ParamSpec { name: name.into(), rows, cols, role, init: Init::Constant(0.0), positions }
    }

    fn param(&self, params: &mut Params, name: &str, role: Role, positions: usize) -> ParamId {
        let spec = self.spec(name, role, positions);
        let values = spec.channels_last(self.floats(name));
        params.push(spec, values)
    }
}

fn assert_close(label: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{label}");
    let most = expected.iter().fold(0.1f32, |most, v| most.max(v.abs()));
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error <= TOLERANCE * most, "{label}: {error} of {most}");
}

fn batch(images: usize, x: &[f32]) -> Batch {
    let mut batch = Batch::default();
    x.chunks_exact(x.len() / images).for_each(|image| batch.push_features(image.iter().copied()));
    batch
}

struct Net {
    /// Weights and biases.
    conv: [(ParamId, Option<ParamId>); 2],
    fc: (ParamId, ParamId),
    norms: [BatchNorm<ParamId>; 3],
}

impl Net {
    fn new(golden: &Golden, params: &mut Params) -> Self {
        let norm = |params: &mut Params, name: &str, eps, momentum| {
            let mut of = |part: &str, role| golden.param(params, &format!("{name}.{part}"), role, 1);
            let [weight, bias] = ["weight", "bias"].map(|part| of(part, Role::Norm));
            let width = params.get(weight).spec.cols;
            let [mean, variance] = [("running_mean", 0.0), ("running_var", 1.0)].map(|(part, value)| {
                let spec = ParamSpec {
                    name: format!("{name}.{part}"),
                    role: Role::Statistics,
                    ..params.get(bias).spec.clone()
                };
                params.push(spec, vec![value; width])
            });
            BatchNorm { weight, bias, mean, variance, eps, momentum }
        };
        let norms = [norm(params, "bn1", 1e-5, 0.1), norm(params, "bn2", 1e-3, 0.3), norm(params, "bn3", 1e-5, 0.1)];
        let mut of = |name: &str, role, positions| golden.param(params, name, role, positions);
        let conv = [
            (of("conv1.weight", Role::Body, 9), Some(of("conv1.bias", Role::Bias, 1))),
            (of("conv2.weight", Role::Body, 15), None),
        ];
        Net { conv, fc: (of("fc.weight", Role::Body, 12), of("fc.bias", Role::Bias, 1)), norms }
    }

    fn forward(&self, e: &mut Tape) -> Tensor {
        let x = e.features(7 * 9 * 3);
        let x = e.conv(&x, &self.conv[0].0, self.conv[0].1.as_ref(), &Window::square([7, 9], 3, 3, 1, 1));
        let x = e.batch_norm(&x, &self.norms[0]);
        let x = e.activate(&x, Activation::Relu);
        let x = e.pool_windows(&x, WindowPooling::Max, &Window::square([7, 9], 6, 3, 2, 1));
        let window = Window { input: [4, 5], channels: 6, kernel: [5, 3], stride: [2, 1], padding: [2, 0] };
        let x = e.conv(&x, &self.conv[1].0, None, &window);
        let x = e.batch_norm(&x, &self.norms[1]);
        let x = e.activate(&x, Activation::Tanh);
        let x = e.pool_windows(&x, WindowPooling::Mean, &Window::square([2, 3], 5, 2, 1, 1));
        let x = e.conv(&x, &self.fc.0, Some(&self.fc.1), &Window::whole([3, 4], 5));
        e.batch_norm(&x, &self.norms[2])
    }
}

#[test]
fn a_network_has_the_outputs_statistics_and_gradients_of_torch() {
    let golden = Golden::open();
    for threads in [1, 3] {
        let mut params = Params::default();
        let net = Net::new(&golden, &mut params);
        let mut tape = Tape::new(&cpu(threads), params, None);
        for seed in 0..2 {
            let at = |name: &str| golden.floats(&format!("{seed}.{name}"));
            tape.begin(&batch(4, &at("x")), Pass::Train(1));
            let y = net.forward(&mut tape);
            assert_close("y", &tape.read(&y), &at("y"));
            tape.seed_gradient(&y, &at("g"));
            tape.backward();
            for param in tape.params.ids().collect::<Vec<_>>() {
                let spec = tape.params.get(param).spec.clone();
                match spec.role {
                    Role::Statistics => {
                        assert_close(&spec.name, &tape.params.get(param).values(), &at(&spec.name));
                        assert!(tape.gradient(param).is_none());
                    }
                    _ => {
                        // Gradients add up until an update.
                        let mut expected = golden.floats(&format!("0.d.{}", spec.name));
                        if seed == 1 {
                            let second = at(&format!("d.{}", spec.name));
                            expected.iter_mut().zip(second).for_each(|(sum, d)| *sum += d);
                        }
                        let found = tape.gradient(param).unwrap();
                        assert_close(&spec.name, found, &spec.channels_last(expected));
                    }
                }
            }
        }
        tape.begin(&batch(4, &golden.floats("1.x")), Pass::Evaluate);
        let y = net.forward(&mut tape);
        assert_close("eval", &tape.read(&y), &golden.floats("eval"));
    }
}

#[test]
fn gradients_pass_straight_through_quantized_windows() {
    let golden = Golden::open();
    let mut params = Params::default();
    let weight = golden.param(&mut params, "qat.w", Role::Body, 9);
    // Images as a table, so that they have a gradient.
    let table = params.push(golden.spec("qat.x", Role::Embedding, 1), golden.floats("qat.x"));
    let mut tape = Tape::new(&cpu(2), params, Some(Qat::default()));
    tape.begin(&Batch::new([&[0u32, 1][..]]), Pass::Train(1));
    let x = tape.embed(&table, Index::Tokens);
    let y = tape.conv(&x, &weight, None, &Window::square([5, 6], 4, 3, 1, 1));
    assert_close("y", &tape.read(&y), &golden.floats("qat.y"));
    tape.seed_gradient(&y, &golden.floats("qat.g"));
    tape.backward();
    assert_close("dx", tape.gradient(table).unwrap(), &golden.floats("qat.dx"));
    let spec = tape.params.get(weight).spec.clone();
    assert_close("dw", tape.gradient(weight).unwrap(), &spec.channels_last(golden.floats("qat.dw")));
}
