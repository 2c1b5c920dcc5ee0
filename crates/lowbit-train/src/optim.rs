//! Updates of the weights from their gradients.

use crate::config::{Optimizer, TrainConfig};
use crate::muon;
use crate::params::Params;
use crate::tape::Tape;
use lowbit_kernels::ops;
use lowbit_model::source::Role;

/// What the optimizer keeps of each parameter, in their order.
#[derive(Debug, Default)]
pub(crate) struct OptimizerState {
    list: Vec<Moments>,
}

/// Of one parameter.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// First moment or momentum; empty before the first update.
    pub(crate) first: Vec<f32>,
    /// Second moment; empty before the first update, or when the optimizer has none.
    pub(crate) second: Vec<f32>,
}

impl OptimizerState {
    /// Nothing yet, for these parameters.
    pub(crate) fn new(params: &Params) -> Self {
        OptimizerState { list: params.iter().map(|_| Moments::default()).collect() }
    }

    /// Of all parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Moments> {
        self.list.iter()
    }

    /// Of all parameters.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Moments> {
        self.list.iter_mut()
    }

    /// Applies the gradients of one update (counted from 0) to the parameters of a tape, and clears the gradients.
    pub(crate) fn update(&mut self, tape: &mut Tape, config: &TrainConfig, step: u64, rate: f32, factor: f32) {
        let Tape { params, gradients_of_params: gradients, cpu, .. } = tape;
        let ids: Vec<_> = params.ids().collect();
        for (id, Moments { first, second }) in ids.into_iter().zip(&mut self.list) {
            let (param, Some(gradient)) = (params.get_mut(id), gradients.get(id)) else { continue };
            let weight_decay = if config.decay.contains(&param.spec.role) { config.weight_decay } else { 0.0 };
            let (matrix, cols) = (param.spec.role == Role::Body && param.spec.rows > 1, param.spec.cols);
            let rate = rate * param.rate;
            let Some(values) = param.trained_mut() else { continue };
            first.resize(values.len(), 0.0);
            match config.optimizer {
                Optimizer::Muon if matrix => {
                    muon::update(
                        cpu,
                        (values, cols),
                        gradient,
                        first,
                        muon::Settings { rate, weight_decay, factor, config },
                    );
                }
                Optimizer::Adamw | Optimizer::Muon => {
                    second.resize(values.len(), 0.0);
                    let settings = ops::AdamW {
                        lr: rate,
                        beta1: config.beta1,
                        beta2: config.beta2,
                        eps: config.epsilon,
                        weight_decay,
                        step: step + 1,
                        grad_scale: factor,
                    };
                    ops::adamw(cpu, values, gradient, first, second, settings);
                }
                Optimizer::Sgd => {
                    ops::sgd(cpu, values, gradient, first, rate, config.momentum, weight_decay, factor);
                }
            }
            param.changed();
        }
        gradients.clear();
    }
}

/// Euclidean norm of the gradients of all parameters together.
pub(crate) fn gradient_norm(tape: &Tape) -> f64 {
    tape.gradients_of_params.iter().map(|g| ops::sum_squares(&tape.cpu, g)).sum::<f64>().sqrt()
}

/// What gradients of this norm are multiplied with.
pub(crate) fn clip_factor(clip_norm: f32, norm: f64) -> f32 {
    if clip_norm > 0.0 && norm > clip_norm as f64 { (clip_norm as f64 / (norm + 1e-6)) as f32 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::Cpu;
    use lowbit_model::source::{Init, ParamSpec, Role};

    const START: [f32; 4] = [0.5, -1.25, 3.0, 0.0];

    fn params() -> Params {
        let mut params = Params::default();
        for (name, role) in [("matrix", Role::Body), ("norm", Role::Norm)] {
            let spec = ParamSpec { name: name.into(), rows: 2, cols: 2, role, init: Init::Constant(0.0), positions: 1 };
            params.push(spec, START.to_vec());
        }
        params
    }

    fn write_gradients(tape: &mut Tape, gradient: &[f32]) {
        for id in tape.params.ids().collect::<Vec<_>>() {
            tape.gradients_of_params.slot(id, gradient.len()).0.copy_from_slice(gradient);
        }
    }

    /// Three updates with gradients `[1, -2, 0.5, 0] * (step + 1)`, the closed form beside them in f64.
    fn check(config: &TrainConfig, decay: [f64; 2], mut reference: impl FnMut(f64, &mut [f64; 3], u64, f64) -> f64) {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let (mut tape, rate, factor) = (Tape::new(&cpu, params(), None), 0.01f32, 0.5f32);
        let mut state = OptimizerState::new(&tape.params);
        let mut expected = [START.map(f64::from); 2];
        let mut moments = [[[0.0f64; 3]; 4]; 2];
        for step in 0..3 {
            let gradient = [1.0, -2.0, 0.5, 0.0].map(|g: f32| g * (step + 1) as f32);
            write_gradients(&mut tape, &gradient);
            state.update(&mut tape, config, step, rate, factor);
            for (p, id) in tape.params.ids().enumerate() {
                let param = tape.params.get(id);
                for i in 0..4 {
                    let moments = &mut moments[p][i];
                    moments[2] = decay[p];
                    expected[p][i] -= reference(expected[p][i], moments, step + 1, gradient[i] as f64 * factor as f64);
                    let got = param.values()[i] as f64;
                    assert!(
                        (got - expected[p][i]).abs() < 2e-6,
                        "{} {i}: {got}, not {}",
                        param.spec.name,
                        expected[p][i]
                    );
                }
                assert!(tape.gradient(id).is_none(), "an update forgets the gradient");
            }
        }
    }

    #[test]
    fn adamw_follows_its_closed_form_and_spares_norms() {
        let config = TrainConfig { weight_decay: 0.1, beta1: 0.9, beta2: 0.95, ..TrainConfig::default() };
        check(&config, [0.1, 0.0], |w, [m, v, decay], step, g| {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.95 * *v + 0.05 * g * g;
            let (m, v) = (*m / (1.0 - 0.9f64.powi(step as i32)), *v / (1.0 - 0.95f64.powi(step as i32)));
            0.01 * (m / (v.sqrt() + 1e-8) + *decay * w)
        });
    }

    #[test]
    fn sgd_follows_its_closed_form() {
        let optimizer = Optimizer::Sgd;
        let config = TrainConfig { optimizer, momentum: 0.8, weight_decay: 0.1, ..TrainConfig::default() };
        check(&config, [0.1, 0.0], |w, [buffer, _, decay], _, g| {
            *buffer = 0.8 * *buffer + g + *decay * w;
            0.01 * *buffer
        });
    }

    #[test]
    fn clipping_limits_the_norm_of_all_gradients_together() {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let mut tape = Tape::new(&cpu, params(), None);
        write_gradients(&mut tape, &[1.0, -2.0, 2.0, 0.0]);
        let norm = gradient_norm(&tape);
        assert!((norm - 18f64.sqrt()).abs() < 1e-12);
        assert!((clip_factor(1.0, norm) as f64 * norm - 1.0).abs() < 1e-6);
        assert_eq!((clip_factor(5.0, norm), clip_factor(0.0, norm)), (1.0, 1.0));
    }
}
