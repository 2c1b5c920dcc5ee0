//! Updates of the weights from their gradients.

use crate::config::{Optimizer, TrainConfig};
use crate::params::Params;
use lowbit_kernels::{Cpu, ops};

/// Euclidean norm of all gradients together.
pub(crate) fn gradient_norm(cpu: &Cpu, params: &Params) -> f64 {
    params.iter().filter_map(|p| p.gradient()).map(|g| ops::sum_squares(cpu, g)).sum::<f64>().sqrt()
}

/// What gradients of this norm are multiplied with.
pub(crate) fn clip_factor(clip_norm: f32, norm: f64) -> f32 {
    if clip_norm > 0.0 && norm > clip_norm as f64 { (clip_norm as f64 / (norm + 1e-6)) as f32 } else { 1.0 }
}

/// Applies the gradients of one update (counted from 0) to the parameters, and clears the gradients.
pub(crate) fn update(cpu: &Cpu, params: &mut Params, config: &TrainConfig, step: u64, rate: f32, factor: f32) {
    for param in params.iter_mut().filter(|p| p.touched) {
        let weight_decay = if config.decay.contains(&param.spec.role) { config.weight_decay } else { 0.0 };
        let len = param.value.len();
        param.m.resize(len, 0.0);
        match config.optimizer {
            Optimizer::Adamw => {
                param.v.resize(len, 0.0);
                let settings = ops::AdamW {
                    lr: rate,
                    beta1: config.beta1,
                    beta2: config.beta2,
                    eps: config.epsilon,
                    weight_decay,
                    step: step + 1,
                    grad_scale: factor,
                };
                ops::adamw(cpu, &mut param.value, &param.grad, &mut param.m, &mut param.v, settings);
            }
            Optimizer::Sgd => {
                let buffer = &mut param.m;
                ops::sgd(cpu, &mut param.value, &param.grad, buffer, rate, config.momentum, weight_decay, factor);
            }
        }
        param.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_model::source::{Init, ParamSpec, Role};

    const START: [f32; 4] = [0.5, -1.25, 3.0, 0.0];

    fn params() -> Params {
        let mut params = Params::default();
        for (name, role) in [("matrix", Role::Body), ("norm", Role::Norm)] {
            let spec = ParamSpec { name: name.into(), rows: 2, cols: 2, role, init: Init::Constant(0.0) };
            params.push(spec, START.to_vec());
        }
        params
    }

    /// Three updates with gradients `[1, -2, 0.5, 0] * (step + 1)`, the closed form beside them in f64.
    fn check(config: &TrainConfig, decay: [f64; 2], mut reference: impl FnMut(f64, &mut [f64; 3], u64, f64) -> f64) {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let (mut params, rate, factor) = (params(), 0.01f32, 0.5f32);
        let mut want = [START.map(f64::from); 2];
        let mut moments = [[[0.0f64; 3]; 4]; 2];
        for step in 0..3 {
            let gradient = [1.0, -2.0, 0.5, 0.0].map(|g: f32| g * (step + 1) as f32);
            params.iter_mut().for_each(|p| p.gradient_slot().0.copy_from_slice(&gradient));
            update(&cpu, &mut params, config, step, rate, factor);
            for (p, param) in params.iter().enumerate() {
                for i in 0..4 {
                    let state = &mut moments[p][i];
                    state[2] = decay[p];
                    want[p][i] -= reference(want[p][i], state, step + 1, gradient[i] as f64 * factor as f64);
                    let got = param.value[i] as f64;
                    assert!((got - want[p][i]).abs() < 2e-6, "{} {i}: {got}, not {}", param.spec.name, want[p][i]);
                }
                assert!(param.gradient().is_none(), "an update forgets the gradient");
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
        let mut params = params();
        params.iter_mut().for_each(|p| p.gradient_slot().0.copy_from_slice(&[1.0, -2.0, 2.0, 0.0]));
        let norm = gradient_norm(&cpu, &params);
        assert!((norm - 18f64.sqrt()).abs() < 1e-12);
        assert!((clip_factor(1.0, norm) as f64 * norm - 1.0).abs() < 1e-6);
        assert_eq!((clip_factor(5.0, norm), clip_factor(0.0, norm)), (1.0, 1.0));
    }
}
