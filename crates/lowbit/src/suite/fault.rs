//! What may be wrong with the other variants that a variant of a suite is made with.

use super::{PRETRAINED, Suite, Variant};
use lowbit_model::calibrate::Method;
use std::collections::HashMap;

impl Suite {
    /// What is wrong with where a variant begins, what it learns from, or how it is rounded, if anything is; `trained` tells of those before
    /// it whether they are trained.
    pub(super) fn variant_fault(&self, variant: &Variant, trained: &HashMap<&String, bool>) -> Option<String> {
        let others = self.init_fault(variant, trained).or_else(|| self.teacher_fault(variant, trained));
        others.or_else(|| self.method_fault(variant))
    }

    /// What is wrong with the variant that another begins from.
    fn init_fault(&self, variant: &Variant, trained: &HashMap<&String, bool>) -> Option<String> {
        let init = variant.init.as_ref()?;
        let fits = trained.get(init) == Some(&true)
            && self.variant.iter().any(|v| v.name == *init && v.network == variant.network);
        match () {
            () if !self.is_trained() => Some("`init` is for suites with [train], and this one trains nothing".into()),
            () if variant.from.is_some() => {
                Some("`init` is for variants that are trained, and this one has `from`".into())
            }
            () if !fits => Some(format!("`init` names `{init}`, which is no trained variant of its network before it")),
            () => None,
        }
    }

    /// What is wrong with how the weights of a variant are rounded, if anything is.
    fn method_fault(&self, variant: &Variant) -> Option<String> {
        match variant.method.as_deref().map(Method::find) {
            None if variant.calibration_tokens.is_some() => {
                Some("`calibration_tokens` are read by a `method`: name one".into())
            }
            Some(_) if variant.calibration_tokens == Some(0) => {
                Some("`calibration_tokens` is 0; give at least 1".into())
            }
            Some(_) if variant.from.is_none() && self.is_trained() => Some(
                "`method` is for variants that are made from another, and this one is trained: name it by `from`"
                    .into(),
            ),
            Some(Err(error)) => Some(error.message),
            _ => None,
        }
    }

    /// What is wrong with the teacher of a variant.
    fn teacher_fault(&self, variant: &Variant, trained: &HashMap<&String, bool>) -> Option<String> {
        let teacher = variant.teacher.as_ref()?;
        match (trained.get(teacher), teacher.as_str()) {
            _ if !self.is_trained() => Some("`teacher` is for suites with [train], and this one trains nothing".into()),
            _ if variant.from.is_some() => {
                Some("`teacher` is for variants that are trained, and this one has `from`".into())
            }
            (Some(true), _) if self.variant.iter().any(|v| v.name == *teacher && v.network == variant.network) => None,
            (None, PRETRAINED) if self.of(variant).pretrained.is_some() => None,
            _ => Some(format!(
                "`teacher` names `{teacher}`, which is no trained variant of its network before it, nor `{PRETRAINED}`"
            )),
        }
    }
}
