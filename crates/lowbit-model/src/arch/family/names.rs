//! Names of tensors in files of the Hub, and how they lie there.

/// How the tensors of a family are called on the Hub, where that differs from the names here.
pub(crate) struct Names {
    /// What may stand before all names of the body.
    pub body: &'static str,
    /// What stands before the number of a layer.
    pub layers: &'static str,
    /// Parts of a layer: here, and on the Hub. Several parts of one tensor lie in it side by side, in this order.
    pub of_layer: &'static [(&'static str, &'static str)],
    /// All other parts, likewise.
    pub others: &'static [(&'static str, &'static str)],
    /// Whether matrices of layers are stored `[in, out]`, as transformers' `Conv1D` has them.
    pub transposed: bool,
    /// Ends of the names of tensors that are no parameters of the networks that are read.
    pub constants: &'static [&'static str],
}

/// How a parameter lies in a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether the tensor is `[in, out]`.
    pub transposed: bool,
    /// Which of so many equal parts of its outputs.
    pub part: (usize, usize),
}

impl View {
    /// The whole tensor as it is.
    pub const WHOLE: View = View { transposed: false, part: (0, 1) };
}

/// Where layers are called so here.
const LAYERS: &str = "model.layers.";

impl Names {
    /// The parameters that a stored tensor holds, and how; none if its name is unknown.
    pub fn params(&self, stored: &str) -> Vec<(String, View)> {
        let name = stored.strip_prefix(self.body).unwrap_or(stored);
        let Some((stem, kind)) = name.rsplit_once('.') else { return Vec::new() };
        let layer = stem.strip_prefix(self.layers).and_then(|rest| rest.split_once('.'));
        let (prefix, stem, parts, transposed) = match layer {
            Some((index, rest)) if index.parse::<usize>().is_ok() => {
                (format!("{LAYERS}{index}."), rest, self.of_layer, self.transposed && kind == "weight")
            }
            _ => (String::new(), stem, self.others, false),
        };
        let here: Vec<_> = parts.iter().filter(|(_, there)| *there == stem).map(|(here, _)| here).collect();
        let view =
            |part: usize| View { transposed: transposed && !here[part].ends_with("norm"), part: (part, here.len()) };
        here.iter().enumerate().map(|(i, name)| (format!("{prefix}{name}.{kind}"), view(i))).collect()
    }

    /// Whether a stored tensor is no parameter.
    pub fn is_constant(&self, stored: &str) -> bool {
        self.constants.iter().any(|end| stored.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::FAMILIES;

    fn names(model_type: &str) -> &'static Names {
        let family = FAMILIES.iter().find(|family| family.model_type == model_type).expect("a family");
        family.names.expect("names of its own")
    }

    #[test]
    fn fused_and_transposed_matrices_are_told() {
        let gpt2 = names("gpt2");
        let view = |part, of, transposed| View { transposed, part: (part, of) };
        for stored in ["transformer.h.11.attn.c_attn.weight", "h.11.attn.c_attn.weight"] {
            let found = gpt2.params(stored);
            assert_eq!(found[0], ("model.layers.11.self_attn.q_proj.weight".into(), view(0, 3, true)));
            assert_eq!(found[2], ("model.layers.11.self_attn.v_proj.weight".into(), view(2, 3, true)));
        }
        assert_eq!(gpt2.params("h.0.ln_1.weight"), [("model.layers.0.input_layernorm.weight".into(), View::WHOLE)]);
        assert_eq!(gpt2.params("h.0.mlp.c_fc.bias"), [("model.layers.0.mlp.up_proj.bias".into(), View::WHOLE)]);
        assert_eq!(gpt2.params("wte.weight"), [("model.embed_tokens.weight".into(), View::WHOLE)]);
        assert!(gpt2.params("h.x.ln_1.weight").is_empty() && gpt2.params("weight").is_empty());
        assert!(gpt2.is_constant("transformer.h.3.attn.bias") && !gpt2.is_constant("h.3.attn.c_attn.bias"));
    }

    #[test]
    fn no_two_tensors_are_one_parameter() {
        for names in FAMILIES.iter().filter_map(|family| family.names) {
            for parts in [names.of_layer, names.others] {
                let mut here: Vec<_> = parts.iter().map(|(here, _)| here).collect();
                here.sort_unstable();
                here.dedup();
                assert_eq!(here.len(), parts.len(), "{}", names.layers);
            }
        }
    }
}
