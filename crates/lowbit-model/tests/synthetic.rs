//! Random networks of known shapes.

mod common;

use common::{LM, TIED, cpu, decoder};
use lowbit_kernels::FORMATS;
use lowbit_model::exec::Batch;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::recipe::{ActivationPrecision, RECIPES, Recipe};
use lowbit_model::{Config, CpuExec, Param, recipe, synthetic};

fn logits(config: &Config, recipe: &'static Recipe, seed: u64) -> Vec<f32> {
    let model = synthetic::model(config, recipe, seed).expect("every recipe can be made");
    CpuExec::new(cpu()).forward(&model, &Batch::new([&[1, 2, 250, 7][..]])).expect("runs").to_vec()
}

#[test]
fn every_recipe_gives_finite_logits_that_depend_on_the_seed_alone() {
    for head in [LM, TIED] {
        let config = Config::Decoder(decoder(head));
        for recipe in RECIPES {
            let (one, again, other) =
                (logits(&config, recipe, 1), logits(&config, recipe, 1), logits(&config, recipe, 2));
            assert!(one.iter().all(|v| v.is_finite()), "{}", recipe.name);
            let spread = one.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!((0.1..100.0).contains(&spread), "{}: logits up to {spread}", recipe.name);
            assert_eq!(one, again, "{}", recipe.name);
            assert_ne!(one, other, "{}", recipe.name);
        }
    }
}

#[test]
fn every_format_gets_different_rows_of_the_spread_asked_for() {
    for format in FORMATS {
        let name = format.name();
        let recipe = Recipe {
            name: "one format",
            summary: "",
            body: name,
            embedding: name,
            head: name,
            activations: ActivationPrecision::F32,
            head_activations: ActivationPrecision::F32,
            rotation: lowbit_model::recipe::Rotation::None,
            layers: &[],
        };
        let mut source = synthetic::Synthetic::new(Box::leak(Box::new(recipe)), 3);
        let parameters = ParameterList::new(&Config::Decoder(decoder(LM))).expect("valid");
        for spec in parameters.params() {
            let lowbit_model::source::Init::Normal(std) = spec.init else { continue };
            let param = lowbit_model::source::Source::param(&mut source, spec).expect("made");
            let Param::Matrix { packed, .. } = param else { panic!("`{}` is a matrix", spec.name) };
            let values = packed.dequantize();
            let found = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
            assert!((0.6..1.3).contains(&(found / std)), "{name} `{}`: {found}, not {std}", spec.name);
            let rows: Vec<_> = values.chunks_exact(spec.cols).collect();
            assert_ne!(rows[0], rows[spec.rows - 1], "{name} `{}`", spec.name);
        }
    }
}

#[test]
fn the_shapes_are_the_published_ones() {
    let published = [
        ("bitnet-2b", 2_412_820_480),
        ("bitnet-700m", 728_842_752),
        ("llama-1b", 1_235_814_400),
        ("llama-3b", 3_212_749_824),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("gpt2", 124_439_808),
        ("gpt2-classifier", 124_442_880),
        ("gpt-neo-1.3b", 1_315_575_808),
        ("gpt-neo-2.7b", 2_651_307_520),
        ("distilbert-classifier", 66_955_010),
        ("distilbert-multilingual-classifier", 135_326_979),
        ("minilm", 22_565_376),
        ("mlp-100k", 784 * 128 + 128 + 128 * 10 + 10),
        ("mlp-1m", 1_002_378),
        ("mlp-10m", 10_080_778),
        ("mlp-100m", 100_290_826),
        // Torchvision's parameters, and the running means and variances of its batch normalization.
        ("resnet18-cifar", 11_173_962 + 9_600),
        ("resnet18", 11_689_512 + 9_600),
        ("resnet50", 25_557_032 + 53_120),
        ("vgg16", 138_357_544),
    ];
    assert_eq!(published.len(), synthetic::SHAPES.len());
    for (shape, (name, params)) in synthetic::SHAPES.iter().zip(published) {
        assert_eq!((shape.name, ParameterList::new(&shape.config()).expect("valid").count()), (name, params));
        recipe::find(shape.recipe).expect("listed");
        assert_eq!(synthetic::find(name).expect("listed").name, name);
    }
    let error = synthetic::find("bitnet-2B").expect_err("refused").to_string();
    assert!(error.contains("did you mean `bitnet-2b`") && error.contains("llama-3b"), "{error}");
}

#[test]
fn a_pass_reads_what_the_listing_counts() {
    use lowbit_kernels::ops::CacheKind;
    use lowbit_model::work::{Pass, PassCost, count};
    for head in [LM, TIED] {
        let config = Config::Decoder(decoder(head));
        let parameters = ParameterList::new(&config).expect("valid");
        for recipe in RECIPES {
            let model = synthetic::model(&config, recipe, 1).expect("made");
            let stored = parameters.bytes(recipe).expect("known formats");
            let pass = |sequences, past, new| Pass { sequences, past, new, cache: CacheKind::F16, head_bytes: None };
            let one = count(&model, pass(1, 0, 1));
            assert_eq!(one.stored_bytes, stored, "{}", recipe.name);
            // Of an untied table one row is read, of a tied one a row more; keys and values are 2 layers of 2 x 24 halves.
            let table = parameters.params()[0].clone();
            let format = recipe.format(table.role).expect("known").expect("a matrix");
            let parts = format.parts(table.rows, table.cols, &[]);
            let all = parts.iter().map(|part| part.bytes as u64).sum::<u64>();
            // Of parts that tell the same, a product reads the first; an untied head is as large as the table.
            let table = if format.spec().redundant { parts[0].bytes as u64 } else { all };
            let whole = stored - (all - table) - if head == LM { all } else { 0 };
            assert_eq!(one.read_bytes, whole + table / 258 + 2 * 2 * 24 * 2, "{}", recipe.name);
            let (eight, longer) = (count(&model, pass(8, 0, 1)), count(&model, pass(1, 10, 1)));
            assert_eq!(eight.read_bytes, whole + 8 * (table / 258 + 192));
            assert_eq!(longer.read_bytes, one.read_bytes + 10 * 192);
            assert_eq!(one.int8_ops + one.float_ops, parameters.flops(&Batch::new([&[1][..]])));
            assert_eq!(eight.int8_ops, 8 * one.int8_ops);
            let head_ops = 2 * 258 * 48;
            let three = PassCost { ..count(&model, pass(1, 0, 3)) };
            assert_eq!(
                three.int8_ops + three.float_ops,
                parameters.flops(&Batch::new([&[1, 2, 3][..]])) - 2 * head_ops
            );
        }
    }
}
