//! Recipes put together: `BASE+PART=VALUE+..`, the base being a recipe with a name, or a format for the body.
//!
//! The spelling that is stored and shown names the parts that differ from the base, in the order of [`PARTS`], then the layers
//! that differ from the body.

use super::layers::{self, LayerFormat, Layers};
use super::{ActivationPrecision, RECIPES, Recipe, Rotation, WIDE, stored};
use crate::Error;
use crate::container::show;
use lowbit_base::alternatives;
use lowbit_kernels::format::{self, FORMATS, Format};
use std::sync::{Mutex, PoisonError};

/// A part of a recipe that may be named.
struct RecipePart {
    name: &'static str,
    /// Its value in a recipe.
    get: fn(&Recipe) -> &'static str,
    /// Changes it, or tells the values it may have.
    set: fn(&mut Recipe, &str) -> Result<(), Vec<&'static str>>,
}

/// The part that rotates.
const ROTATE: &str = "rotate";

/// Every part.
static PARTS: [RecipePart; 5] = [
    RecipePart {
        name: "embed",
        get: |recipe| recipe.embedding,
        set: |recipe, value| {
            recipe.embedding = known_format(value)?.name();
            Ok(())
        },
    },
    RecipePart {
        name: "head",
        get: |recipe| recipe.head,
        set: |recipe, value| {
            let format = known_format(value)?;
            (recipe.head, recipe.head_activations) = (format.name(), head_activations(format, recipe.head_activations));
            Ok(())
        },
    },
    RecipePart {
        name: "act",
        get: |recipe| recipe.activations.name(),
        set: |recipe, value| {
            recipe.activations = known_activations(value)?;
            Ok(())
        },
    },
    RecipePart {
        name: "head_act",
        get: |recipe| recipe.head_activations.name(),
        set: |recipe, value| {
            recipe.head_activations = known_activations(value)?;
            Ok(())
        },
    },
    RecipePart {
        name: ROTATE,
        get: |recipe| recipe.rotation.name(),
        set: |recipe, value| {
            let known = Rotation::ALL.into_iter().find(|rotation| rotation.name() == value);
            recipe.rotation = known.ok_or(Rotation::ALL.map(Rotation::name).to_vec())?;
            Ok(())
        },
    },
];

fn known_format(name: &str) -> Result<&'static dyn Format, Vec<&'static str>> {
    format::find(name).map_err(|_| FORMATS.iter().map(|format| format.name()).collect())
}

fn known_activations(name: &str) -> Result<ActivationPrecision, Vec<&'static str>> {
    let all = ActivationPrecision::ALL;
    all.into_iter().find(|a| a.name() == name).ok_or_else(|| all.map(ActivationPrecision::name).to_vec())
}

/// How a head of a format gets its activations: as 8 bits where its weights have fewer.
fn head_activations(format: &dyn Format, otherwise: ActivationPrecision) -> ActivationPrecision {
    let spec = format.spec();
    match spec.activations {
        format::ActivationType::Int8 if spec.bits < 8.0 => ActivationPrecision::of(format),
        format::ActivationType::Int8 => otherwise,
        format::ActivationType::Float | format::ActivationType::Mixed => ActivationPrecision::F32,
    }
}

/// A recipe of one format; below 8 bits, table and head have 8.
fn of_format(format: &'static dyn Format) -> Recipe {
    let (spec, name) = (format.spec(), format.name());
    let activations = ActivationPrecision::of(format);
    let [embedding, head] = if spec.is_low_bit() { WIDE } else { [name; 2] };
    let head_activations = ActivationPrecision::F32;
    let summary = "put together";
    Recipe {
        name,
        summary,
        body: name,
        embedding,
        head,
        activations,
        head_activations,
        rotation: Rotation::None,
        layers: &[],
    }
}

/// The recipe of a spelling.
///
/// # Errors
/// A sentence naming what is wrong in it, with the nearest.
pub(super) fn parse(text: &str) -> Result<&'static Recipe, Error> {
    let failed = |what: String| Error::usage(format!("recipe `{}`: {what}", show(text)));
    let wrong = |what: String| Err(failed(what));
    let mut pieces = text.split('+');
    let name = pieces.next().unwrap_or_default();
    let named = RECIPES.iter().chain([&stored::RECIPE]).find(|recipe| recipe.name == name);
    let base = match named {
        Some(recipe) => *recipe,
        None => match format::find(name) {
            Ok(format) => of_format(format),
            Err(_) => return Err(unknown(name)),
        },
    };
    let mut asked: [Option<&str>; PARTS.len()] = [None; PARTS.len()];
    let mut layers = Layers::default();
    for piece in pieces {
        let Some((part, value)) = piece.split_once('=') else {
            return wrong(format!("`{}` is not PART=VALUE; parts: {}", show(piece), names().join(", ")));
        };
        if let Some(place) = part.strip_prefix(layers::PART) {
            if name == stored::STORED {
                return wrong(format!(
                    "`{name}` keeps all layers; parts: {}",
                    PARTS.each_ref().map(|p| p.name).join(", ")
                ));
            }
            match known_format(value) {
                Ok(format) => layers.add(place, format).map_err(failed)?,
                Err(known) => return wrong(refused(part, value, &known)),
            }
            continue;
        }
        let Some(at) = PARTS.iter().position(|p| p.name == part) else {
            return wrong(format!("unknown part `{}`{}", show(part), alternatives(part, names())));
        };
        if (part, name) == (ROTATE, stored::STORED) {
            return wrong(format!("`{name}` keeps matrices as they are, and `{part}` makes others: name a format"));
        }
        if asked[at].replace(value).is_some() {
            return wrong(format!("part `{part}` stands twice"));
        }
    }
    let mut recipe = base;
    for (part, value) in PARTS.iter().zip(asked) {
        if let Some(Err(known)) = value.map(|value| (part.set)(&mut recipe, value)) {
            return wrong(refused(part.name, value.unwrap_or_default(), &known));
        }
    }
    let spelling = match name == stored::STORED {
        // What a model has is not known yet: every part that is asked for counts.
        true => {
            let asked = PARTS.iter().zip(asked).filter_map(|(part, value)| Some(format!("+{}={}", part.name, value?)));
            (asked.fold(name.to_string(), |text, part| text + &part), recipe)
        }
        false => spelled(name, &base, recipe),
    };
    Ok(interned(spelling, layers.runs(&recipe)))
}

/// What a value is refused with.
fn refused(part: &str, value: &str, known: &[&str]) -> String {
    let known = alternatives(value, known.iter().copied());
    format!("part `{}` cannot be `{}`{known}", show(part), show(value))
}

fn names() -> [&'static str; 6] {
    let [a, b, c, d, e] = PARTS.each_ref().map(|part| part.name);
    [a, b, c, d, e, "layers.FIRST-LAST"]
}

/// The recipe with its spelling as its name.
fn spelled(name: &str, base: &Recipe, recipe: Recipe) -> (String, Recipe) {
    let mut text = name.to_string();
    let mut told = *base;
    for part in &PARTS {
        let value = (part.get)(&recipe);
        // What a part said before implies.
        if (part.get)(&told) != value {
            (part.set)(&mut told, value).expect("a value it has");
            text += &format!("+{}={value}", part.name);
        }
    }
    (text, recipe)
}

/// The one recipe of this name and of layers in other formats: names are few, and live as long as the program.
fn interned((mut name, recipe): (String, Recipe), layers: Vec<layers::Run<'_>>) -> &'static Recipe {
    static MADE: Mutex<Vec<&'static Recipe>> = Mutex::new(Vec::new());
    layers.iter().for_each(|run| name += &run.to_string());
    if let Some(recipe) = RECIPES.iter().chain([&stored::RECIPE]).find(|recipe| recipe.name == name) {
        return recipe;
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(recipe) = made.iter().find(|recipe| recipe.name == name) {
        return recipe;
    }
    let layers: Vec<LayerFormat> = layers.into_iter().map(|run| run.leak(recipe.activations)).collect();
    let recipe: &'static Recipe = Box::leak(Box::new(Recipe { name: name.leak(), layers: layers.leak(), ..recipe }));
    made.push(recipe);
    recipe
}

fn unknown(name: &str) -> Error {
    let formats = FORMATS.iter().map(|f| f.name()).filter(|name| RECIPES.iter().all(|r| r.name != *name));
    let known = alternatives(name, RECIPES.iter().map(|r| r.name).chain(formats).chain([stored::STORED]));
    Error::usage(format!(
        "unknown recipe `{}`{known}; `+head=int4` and the like change parts, `+layers.0-3=int8_channel` layers",
        show(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_name_what_differs_from_their_base() {
        for (text, canonical) in [
            ("bitnet", "bitnet"),
            ("ternary+embed=int8+head=int4", "ternary+embed=int8+head=int4"),
            ("ternary+head=int4+embed=int8", "ternary+embed=int8+head=int4"),
            ("ternary+embed=int8_channel", "ternary"),
            ("int4+head=int4+head_act=f32", "int4+head=int4+head_act=f32"),
            ("int4+head_act=f32+head=int4", "int4+head=int4+head_act=f32"),
            ("int4+head=int4+head_act=int8", "int4+head=int4"),
            ("ternary_channel", "ternary_channel"),
            ("ternary_g128+act=f32", "ternary_g128+act=f32"),
            ("bf16_scan", "bf16_scan"),
            ("int8_channel+act=int8_block", "int8_channel+act=int8_block"),
            ("int4_g64+act=int8_block64+head_act=int8_block128", "int4_g64+act=int8_block64+head_act=int8_block128"),
            ("nf4+head=nf4+act=f32", "nf4+head=nf4"),
            ("nf4+rotate=hadamard+head=nf4", "nf4+head=nf4+rotate=hadamard"),
            ("nf4+rotate=none", "nf4"),
        ] {
            let recipe = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(recipe.name, canonical, "{text}");
            assert!(std::ptr::eq(recipe, parse(canonical).unwrap()), "{text}: one recipe for each spelling");
        }
        let aliased = |text: &str, name: &str| {
            let (a, b) = (parse(text).unwrap(), parse(name).unwrap());
            let plain = |recipe: &Recipe| Recipe { name: "", summary: "", ..*recipe };
            assert_eq!(plain(a), plain(b), "{text} is {name}");
        };
        aliased("ternary+embed=int4+head=int4", "bitnet_head4");
        aliased("int4+embed=int4+head=int4", "int4_head4");
        aliased("ternary+embed=bf16+head=bf16", "bitnet_bf16");
        aliased("ternary_b3+embed=int4+head=int4", "bitnet_b3_head4");
        aliased("ternary_channel", "bitnet_channel");
        aliased("int8_channel+act=int8_block+head_act=int8_block", "int8_block");
        let mixed = parse("int8_block+layers.0=int4+layers.1=int8_channel+layers.2=nf4").unwrap();
        assert_eq!(mixed.name, "int8_block+layers.0=int4+layers.2=nf4");
        let of_layers: Vec<ActivationPrecision> = mixed.layers.iter().map(|layer| layer.activations).collect();
        assert_eq!(of_layers, [ActivationPrecision::Int8Block, ActivationPrecision::F32]);
        // Layers have the blocks of the body.
        for (body, layer) in [("int4_g128", "int8_channel"), ("int8_channel", "q6_k")] {
            let mixed = parse(&format!("{body}+act=int8_block128+layers.0={layer}+layers.1=nf4")).unwrap();
            let of_layers: Vec<ActivationPrecision> = mixed.layers.iter().map(|layer| layer.activations).collect();
            assert_eq!(of_layers, [ActivationPrecision::Int8Block128, ActivationPrecision::F32]);
        }
        aliased("int4+act=int8_block+head_act=int8_block", "int4_block");
    }

    #[test]
    fn what_is_wrong_in_a_spelling_is_named_with_the_nearest() {
        for (text, said) in [
            ("ternery", vec!["unknown recipe `ternery`; did you mean `ternary`?", "ternary_g128"]),
            ("", vec!["unknown recipe ``"]),
            (
                "ternary+haed=int4",
                vec![
                    "unknown part `haed`; did you mean `head`?",
                    "known: embed, head, act, head_act, rotate, layers.FIRST-LAST",
                ],
            ),
            ("ternary+head=int_4", vec!["part `head` cannot be `int_4`; did you mean `int4`?", "nf4_dq"]),
            (
                "ternary+act=int4",
                vec!["part `act` cannot be `int4`", "known: f32, int8, int8_block, int8_block64, int8_block128"],
            ),
            ("ternary+head=int4+head=int8", vec!["part `head` stands twice"]),
            ("ternary+int4", vec!["`int4` is not PART=VALUE"]),
            ("nf4+rotate=on", vec!["part `rotate` cannot be `on`", "known: none, hadamard"]),
            ("stored+rotate=hadamard", vec!["`stored` keeps matrices as they are"]),
            ("ternary+", vec!["`` is not PART=VALUE"]),
            ("bitnet+embed=", vec!["part `embed` cannot be ``"]),
            ("Ternary", vec!["unknown recipe `Ternary`; did you mean `ternary`?"]),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(said.iter().all(|said| error.contains(said)), "{text}: {error}");
        }
    }

    #[test]
    fn formats_of_groups_get_their_activations_in_blocks() {
        use ActivationPrecision::{F32, Int8, Int8Block};
        for format in FORMATS.iter().filter(|format| format.spec().in_blocks) {
            let name = format.name();
            let of = |text: &str| {
                parse(&format!("{name}{text}")).map(|recipe| (recipe.activations, recipe.head_activations))
            };
            assert_eq!(of("").unwrap().0, Int8Block, "{name}");
            assert_eq!(of("+act=f32").unwrap().0, F32, "{name}");
            if format.spec().bits < 8.0 {
                assert_eq!(of(&format!("+head={name}")).unwrap().1, Int8Block, "{name}");
            }
        }
        assert_eq!(parse("int4").unwrap().activations, Int8);
    }
}
