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

/// Applies the gradients of an update, counted from 0, and forgets them.
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
