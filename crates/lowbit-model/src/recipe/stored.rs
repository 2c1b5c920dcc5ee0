//! Recipes of matrices as they are stored: `stored` on the command line, and the spelling that tells the format of each.

use super::{ActivationPrecision, Recipe, Rotation, find, layers, spelling};
use crate::Error;
use crate::source::{ParamSpec, Role};
use lowbit_kernels::Format;
use std::collections::BTreeMap;

/// The name that stands for the recipe a model is stored under.
pub const STORED: &str = "stored";

/// [`STORED`] before the model is known.
pub(super) static RECIPE: Recipe = Recipe {
    name: STORED,
    summary: "as the model is stored",
    body: STORED,
    embedding: STORED,
    head: STORED,
    activations: ActivationPrecision::F32,
    head_activations: ActivationPrecision::F32,
    rotation: Rotation::None,
    layers: &[],
};

/// The recipe under which every matrix has the format that is told for it, 8-bit activations being in blocks; `None` where no
/// recipe says so, as of matrices outside of layers that differ.
///
/// # Errors
/// When the kernels lack a format.
pub(crate) fn of_formats<'a>(
    params: &'a [ParamSpec],
    format_of: impl Fn(&'a ParamSpec) -> &'static dyn Format,
) -> Result<Option<&'static Recipe>, Error> {
    let of_role = |role: Role| params.iter().filter(move |spec| spec.role == role);
    let mut weights: BTreeMap<&str, (usize, &'static dyn Format)> = BTreeMap::new();
    for spec in of_role(Role::Body) {
        let format = format_of(spec);
        weights.entry(format.name()).or_insert((0, format)).0 += spec.rows * spec.cols;
    }
    let Some((_, body)) = weights.into_values().max_by_key(|(count, _)| *count) else { return Ok(None) };
    let in_blocks = |format: &dyn Format| match ActivationPrecision::of(format) {
        ActivationPrecision::F32 => ActivationPrecision::F32,
        _ => ActivationPrecision::Int8Block,
    };
    let mut text = format!("{}+act={}", body.name(), in_blocks(body).name());
    let mut last = None;
    for (role, part) in [(Role::Embedding, "embed"), (Role::Head, "head")] {
        let formats: Vec<_> = of_role(role).map(&format_of).collect();
        let Some(first) = formats.first() else { continue };
        if formats.iter().any(|format| format.name() != first.name()) {
            return Ok(None);
        }
        text += &format!("+{part}={}", first.name());
        last = Some(*first);
    }
    if let Some(head) = last {
        text += &format!("+head_act={}", in_blocks(head).name());
    }
    for spec in of_role(Role::Body) {
        let format = format_of(spec);
        match spec.place() {
            _ if format.name() == body.name() => {}
            Some((layer, matrix)) if !matrix.is_empty() => {
                text += &format!("+{}{layer}.{matrix}={}", layers::PART, format.name());
            }
            Some((layer, _)) => text += &format!("+{}{layer}={}", layers::PART, format.name()),
            None => return Ok(None),
        }
    }
    find(&text).map(Some)
}

/// The recipe that is asked for of a model stored under `own`: where it is [`STORED`], `own` with the parts that are named.
pub(crate) fn resolve(own: &'static Recipe, asked: &'static Recipe) -> &'static Recipe {
    let mut pieces = asked.name.split('+');
    if pieces.next() != Some(STORED) {
        return asked;
    }
    let part = |piece: &str| piece.split_once('=').map(|(part, _)| part.to_string());
    let named: Vec<&str> = pieces.collect();
    let kept = own
        .name
        .split('+')
        .filter(|piece| part(piece).is_none_or(|p| named.iter().all(|n| part(n) != Some(p.clone()))));
    let text: Vec<&str> = kept.chain(named.iter().copied()).collect();
    spelling::parse(&text.join("+")).expect("parts of valid spellings, each once")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Init;
    use lowbit_kernels::format;

    fn spec(name: &str, role: Role) -> ParamSpec {
        ParamSpec { name: name.into(), rows: 64, cols: 64, role, init: Init::Constant(0.0), positions: 1 }
    }

    #[test]
    fn a_spelling_tells_the_format_of_every_matrix() {
        let params = [
            spec("model.embed_tokens.weight", Role::Embedding),
            spec("model.layers.0.self_attn.q_proj.weight", Role::Body),
            spec("model.layers.0.mlp.down_proj.weight", Role::Body),
            spec("model.layers.1.self_attn.q_proj.weight", Role::Body),
            spec("model.layers.1.mlp.down_proj.weight", Role::Body),
            spec("model.layers.2.self_attn.q_proj.weight", Role::Body),
            spec("model.norm.weight", Role::Norm),
        ];
        let format_of = |spec: &ParamSpec| {
            let name = match spec.name.as_str() {
                name if name.contains("down_proj") => "int8_channel",
                name if name.contains("embed") => "bf16",
                _ => "int4",
            };
            format::find(name).expect("known")
        };
        let recipe = of_formats(&params, format_of).unwrap().expect("one");
        assert_eq!(recipe.name, "int4+embed=bf16+act=int8_block+layers.0-1.down_proj=int8_channel");
        for spec in params.iter().filter(|spec| spec.role != Role::Norm) {
            assert_eq!(recipe.format_of(spec).unwrap().unwrap().name(), format_of(spec).name(), "{}", spec.name);
        }
        let outside = [spec("model.layers.0.up.weight", Role::Body), spec("pooler.weight", Role::Body)];
        let differ =
            |spec: &ParamSpec| format::find(if spec.name.contains("pooler") { "bf16" } else { "f32" }).unwrap();
        assert!(of_formats(&outside, differ).unwrap().is_none());
        assert!(of_formats(&[], differ).unwrap().is_none());
    }

    #[test]
    fn stored_is_the_recipe_of_the_model() {
        let own = find("int4+act=int8_block+embed=bf16+layers.0-1.down_proj=nf4").unwrap();
        let asked = |text: &str| resolve(own, find(text).unwrap()).name;
        assert_eq!(asked("stored"), own.name);
        assert_eq!(asked("stored+act=f32"), "int4+embed=bf16+act=f32+layers.0-1.down_proj=nf4");
        let parts = "int4+embed=f32+act=int8_block+head_act=int8+layers.0-1.down_proj=nf4";
        assert_eq!(asked("stored+head_act=int8+embed=f32"), parts);
        assert_eq!(asked("nf4"), "nf4");
        let refused = find("stored+layers.0=nf4").expect_err("refused").to_string();
        assert!(refused.contains("`stored`") && refused.contains("layers"), "{refused}");
    }
}
