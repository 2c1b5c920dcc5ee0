//! Checkpoints: what is written is read back, under every format and recipe, and other programs can read it.

mod common;

use common::*;
use lowbit_kernels::format::Scales;
use lowbit_kernels::{FORMATS, Pool, QuantizeOptions};
use lowbit_model::checkpoint::{Options, WEIGHTS_FILE, ledger, quantize};
use lowbit_model::container::{Dtype, Tensors, Writer};
use lowbit_model::recipe::{self, RECIPES};
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Config, CpuExec, ModelConfig, Recipe};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_recipe_names_formats_that_exist() {
    for recipe in RECIPES {
        for role in [Role::Body, Role::Embedding, Role::Head] {
            assert!(recipe.format(role).expect(recipe.name).is_some());
        }
        assert!(recipe.format(Role::Norm).expect("no format").is_none());
        assert_eq!(recipe::find(recipe.name).expect("listed"), recipe);
    }
    let error = recipe::find("bitnett").expect_err("unknown").to_string();
    assert!(error.contains("did you mean `bitnet`") && error.contains("nf4_dq"), "{error}");
}

#[test]
fn masters_come_back_bit_for_bit() {
    for config in configs() {
        let directory = tempfile::tempdir().expect("a directory");
        let masters = write(directory.path(), &config);
        let checkpoint = Checkpoint::open(directory.path()).expect("valid");
        assert_eq!(checkpoint.model_config(), &model_config(config));
        assert_eq!(checkpoint.recipe().name, "f32");
        for (spec, values) in &masters {
            assert_eq!(&checkpoint.master(spec).expect("stored"), values, "{}", spec.name);
        }
        let weights = Tensors::open(&directory.path().join(WEIGHTS_FILE)).expect("valid");
        assert!(weights.verify(&Pool::new(1)).expect("undamaged"));
        assert_eq!(weights.sha256().len(), 64);
        let from_file = Checkpoint::open(&directory.path().join(WEIGHTS_FILE)).expect("a file is accepted, too");
        assert_eq!(from_file.directory(), directory.path());
    }
}

/// A file whose name ends in `.safetensors` is the whole model: configuration, tokenizer and weights.
#[test]
fn a_model_fits_into_one_file() {
    for (config, recipe) in configs().iter().zip(["bitnet_b3", "int4", "f32"].iter().cycle()) {
        let home = tempfile::tempdir().expect("a directory");
        write(&home.path().join("masters"), config);
        let masters = Checkpoint::open(&home.path().join("masters")).expect("valid");
        let recipe = recipe::find(recipe).expect("listed");
        let (folder, file) = (home.path().join("folder"), home.path().join("alone/model.safetensors"));
        std::fs::create_dir(home.path().join("alone")).expect("made");
        quantize(&masters, recipe, &Options::new(), &folder).expect("written");
        quantize(&masters, recipe, &Options::new(), &file).expect("written");
        let (whole, parts) = (Checkpoint::open(&file).expect("valid"), Checkpoint::open(&folder).expect("valid"));
        assert_eq!(std::fs::read_dir(home.path().join("alone")).expect("there").count(), 1);
        assert_eq!((whole.model_config(), whole.recipe()), (parts.model_config(), parts.recipe()));
        assert!(whole.verify().expect("undamaged"));
        for spec in parts.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
            let [a, b] = [&whole, &parts].map(|from| from.packed(spec).expect("stored").dequantize());
            assert_eq!(a, b, "{}", spec.name);
        }
        let ids = |from: &Checkpoint| {
            from.tokenizer().map(|t| t.encode("one file", 64).expect("encoded")).map_err(|e| e.kind)
        };
        assert_eq!(ids(&whole), ids(&parts));
        let error = quantize(&whole, recipe, &Options::new(), &file).expect_err("refused").to_string();
        assert!(error.contains("would replace its own masters"), "{error}");
    }
}

#[test]
fn a_damaged_configuration_in_a_file_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    write(&home.path().join("masters"), &configs()[0]);
    let masters = Checkpoint::open(&home.path().join("masters")).expect("valid");
    let file = home.path().join("model.safetensors");
    quantize(&masters, recipe::find("int8").expect("listed"), &Options::new(), &file).expect("written");
    let good = std::fs::read(&file).expect("read");
    let at = good.windows(12).position(|w| w == b"architecture").expect("in the header");
    let mut bad = good.clone();
    bad[at..at + 12].copy_from_slice(b"architecturf");
    std::fs::write(&file, bad).expect("written");
    let error = Checkpoint::open(&file).err().expect("refused").to_string();
    assert!(error.contains("model.safetensors") && error.contains("architectur"), "{error}");
}

/// Quantizes to disk and in memory; both must give the same logits, and the ledger must add up.
fn round_trip(recipe: &'static Recipe, config: &Config) {
    let source = tempfile::tempdir().expect("a directory");
    let target = source.path().join("out");
    write(source.path(), config);
    let masters = Checkpoint::open(source.path()).expect("valid");
    let mut options = Options::new();
    let outliers = QuantizeOptions { outlier_columns: vec![1, 5], ..Default::default() };
    options.insert(masters.parameters().params()[3].name.clone(), outliers);
    quantize(&masters, recipe, &options, &target).unwrap_or_else(|e| panic!("{}: {e}", recipe.name));
    let packed = Checkpoint::open(&target).unwrap_or_else(|e| panic!("{}: {e}", recipe.name));
    assert_eq!(packed.recipe().body, recipe::find(packed.recipe().name).expect("listed").body);
    let weights = Tensors::open(&target.join(WEIGHTS_FILE)).expect("valid");
    assert!(weights.verify(&Pool::new(1)).expect("undamaged"));
    assert_eq!(packed.tokenizer().expect("copied").vocab_size(), 258);
    let run = |model| CpuExec::new(cpu()).forward(&model, &batch()).expect("runs").to_vec();
    let stored = run(packed.model().expect("loads"));
    let direct = run(masters.model_as(recipe, &options).expect("quantizes"));
    assert_eq!(stored, direct, "{}", recipe.name);
    assert!(stored.iter().all(|v| v.is_finite()));
    let rows = ledger(&packed).expect("readable");
    let sum: usize = rows.iter().flat_map(|row| row.parts.values()).sum();
    let file = weights.file_bytes();
    assert!(sum <= file && file <= sum + 200 * weights.names().len() + 16_384, "{}", recipe.name);
    let listed = packed.parameters().bytes(recipe).expect("known formats") as usize;
    assert!(listed <= sum && sum <= listed + 8192, "{}: listed {listed}, stored {sum}", recipe.name);
    if recipe.body.starts_with("ternary") {
        let row = rows.iter().find(|row| row.role == Role::Body).expect("a body");
        assert!((0.2..0.5).contains(&row.zero_fraction), "{}", row.zero_fraction);
        let format = recipe.format(Role::Body).expect("known").expect("a matrix");
        let one_scale = format.spec().scales == Scales::Tensor;
        assert!(row.levels.is_none_or(|n| n == 3 || !one_scale), "{:?}", row.levels);
    }
}

#[test]
fn every_recipe_round_trips() {
    for recipe in RECIPES {
        for config in [&configs()[0], &configs()[1]] {
            round_trip(recipe, config);
        }
    }
}

#[test]
fn every_format_round_trips_in_every_architecture() {
    for format in FORMATS {
        let name = format.name();
        let recipe = recipe::find(&format!("{name}+embed={name}+head={name}")).expect("a spelling");
        for config in configs() {
            round_trip(recipe, &config);
        }
    }
}

/// Every matrix of a mix has the values that a uniform recipe gives it, in memory and read back, and inputs as there.
#[test]
fn layers_of_a_mix_are_those_of_uniform_recipes_bit_for_bit() {
    for config in configs() {
        let several = !matches!(config, Config::Mlp(_));
        let text = "nf4+layers.0=int8_channel+layers.1=f32";
        let mix = recipe::find(&if several { format!("{text}+layers.1.up_proj=ternary") } else { text.into() });
        let mix = mix.expect("a spelling");
        let of = |place: Option<(usize, &str)>| match place {
            Some((1, "up_proj")) if several => "ternary",
            Some((0, _)) => "int8_channel",
            Some((1, _)) => "f32",
            _ => "nf4",
        };
        let source = tempfile::tempdir().expect("a directory");
        let target = source.path().join("out");
        write(source.path(), &config);
        let masters = Checkpoint::open(source.path()).expect("valid");
        quantize(&masters, mix, &Options::new(), &target).unwrap_or_else(|e| panic!("{e}"));
        let stored = Checkpoint::open(&target).expect("valid");
        assert!(std::ptr::eq(stored.recipe(), mix), "read back from the metadata");
        let mut formats = std::collections::BTreeSet::new();
        for spec in masters.parameters().params().iter().filter(|p| !p.role.is_vector()) {
            let name = if spec.role == Role::Body { of(spec.place()) } else { "nf4" };
            let uniform = recipe::find(name).expect("listed");
            let expected = Checkpoint::open(source.path()).expect("valid").under(Some(uniform)).packed(spec);
            let (expected, found) = (expected.expect("made"), stored.packed(spec).expect("stored"));
            assert_eq!(found.dequantize(), expected.dequantize(), "{} in {name}", spec.name);
            assert_eq!(found.format().name(), expected.format().name(), "{}", spec.name);
            assert_eq!(mix.activations_of(spec), uniform.activations_of(spec), "{}", spec.name);
            if spec.role == Role::Body {
                formats.insert(found.format().name());
            }
        }
        assert!(formats.contains("int8_channel") && formats.contains("f32"), "{formats:?}");
        assert!(!several || formats.contains("ternary"), "{formats:?}");
        round_trip(mix, &config);
    }
}

#[test]
fn layers_that_a_model_has_not_are_refused_with_its_number() {
    let source = tempfile::tempdir().expect("a directory");
    let refused = |config: &Config, text: &str| {
        write(source.path(), config);
        let (out, recipe) = (source.path().join("out"), recipe::find(text).expect("a spelling"));
        let masters = Checkpoint::open(source.path()).expect("valid");
        let error = quantize(&masters, recipe, &Options::new(), &out).expect_err("refused");
        assert_eq!((error.kind, out.exists()), (lowbit_model::Kind::Usage, false));
        let error = masters.model_as(recipe, &Options::new()).err().expect("refused").to_string();
        let masters = Checkpoint::open(source.path()).expect("valid").under(Some(recipe));
        assert_eq!(masters.model().err().expect("refused").to_string(), error);
        assert_eq!(lowbit_model::synthetic::model(config, recipe, 1).err().expect("refused").to_string(), error);
        error
    };
    let decoder = Config::Decoder(decoder(LM));
    let said = refused(&decoder, "nf4+layers.1-2=f32");
    assert_eq!(said, "recipe `nf4+layers.1-2=f32`: `layers.1-2=f32`: the model has 2 layers, 0 to 1");
    let said = refused(&decoder, "nf4+layers.0.down_prj=f32");
    assert!(
        said.contains("its layers have no matrix `down_prj`; did you mean `down_proj`? known: down_proj"),
        "{said}"
    );
    let Config::Mlp(mlp) = configs().into_iter().find(|c| matches!(c, Config::Mlp(_))).expect("one") else { return };
    let said = refused(&Config::Mlp(mlp.clone()), "nf4+layers.0.up_proj=f32");
    assert!(said.contains("a layer of the model is one matrix: leave its name out"), "{said}");
    let mut flat = mlp;
    flat.layers.clear();
    assert!(refused(&Config::Mlp(flat), "nf4+layers.0=f32").ends_with("the model has no layers"));
}

#[test]
fn quantizing_needs_masters_and_another_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &configs()[0]);
    let masters = Checkpoint::open(directory.path()).expect("valid");
    let int8 = recipe::find("int8").expect("listed");
    let error = quantize(&masters, int8, &Options::new(), directory.path()).expect_err("same directory");
    assert!(error.to_string().contains("own masters"), "{error}");
    let (packed, again) = (directory.path().join("a"), directory.path().join("b"));
    quantize(&masters, int8, &Options::new(), &packed).expect("written");
    let packed = Checkpoint::open(&packed).expect("valid");
    let int4 = recipe::find("int4").expect("listed");
    let error = quantize(&packed, int4, &Options::new(), &again).expect_err("no masters").to_string();
    assert!(error.contains("is stored as int8") && error.contains("f32 masters"), "{error}");
    assert!(!again.join(WEIGHTS_FILE).exists() && !again.join("model.safetensors.tmp").exists());
    // What lost nothing is as good as masters.
    let exact = directory.path().join("f32");
    quantize(&masters, recipe::find("f32").expect("listed"), &Options::new(), &exact).expect("written");
    let exact = Checkpoint::open(&exact).expect("valid").under(Some(int4));
    let asked = Checkpoint::open(directory.path()).expect("valid").under(Some(int4));
    for spec in masters.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
        let [a, b] = [&exact, &asked].map(|model| model.packed(spec).expect("made"));
        assert!(a.parts().iter().zip(b.parts()).all(|(a, b)| a[..] == b[..]), "{}", spec.name);
    }
    // What is in the format already is copied.
    let stored = packed.resolve(recipe::find("stored+act=f32").expect("a spelling"));
    assert_eq!(stored.name, "int8+act=f32");
    quantize(&packed, stored, &Options::new(), &again).expect("written");
    let again = Checkpoint::open(&again).expect("valid");
    assert_eq!(again.recipe().name, "int8+act=f32");
    for spec in packed.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
        let [a, b] = [&packed, &again].map(|model| model.packed(spec).expect("stored"));
        assert!(a.parts().iter().zip(b.parts()).all(|(a, b)| a[..] == b[..]), "{}", spec.name);
    }
}

#[test]
fn sixteen_bit_masters_are_accepted() {
    let directory = tempfile::tempdir().expect("a directory");
    let masters = write(directory.path(), &configs()[0]);
    let path = directory.path().join(WEIGHTS_FILE);
    let plan = plan(&path, Dtype::BF16);
    let mut writer = Writer::create(&path, BTreeMap::new(), &plan).expect("created");
    for p in &plan {
        let values = &masters.iter().find(|(spec, _)| spec.name == p.name).expect("listed").1;
        let bytes: Vec<u8> = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        writer.tensor(&p.name, Dtype::BF16, &p.shape, &bytes).expect("written");
    }
    writer.finish().expect("renamed");
    let checkpoint = Checkpoint::open(directory.path()).expect("valid");
    for (spec, values) in &masters {
        let cut: Vec<f32> = values.iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect();
        assert_eq!(checkpoint.master(spec).expect("stored"), cut);
    }
    assert!(!Tensors::open(&path).expect("valid").metadata().contains_key("lowbit.recipe"));
}

fn plan(path: &Path, dtype: Dtype) -> Vec<lowbit_model::container::Planned> {
    let tensors = Tensors::open(path).expect("valid");
    let planned = |name: &String| {
        let shape = tensors.entry(name).expect("listed").shape.clone();
        lowbit_model::container::Planned { name: name.clone(), dtype, shape }
    };
    tensors.names().iter().map(planned).collect()
}

#[test]
fn the_safetensors_crate_reads_ours_and_we_read_its() {
    let directory = tempfile::tempdir().expect("a directory");
    let masters = write(directory.path(), &configs()[0]);
    let path = directory.path().join(WEIGHTS_FILE);
    let file = std::fs::read(&path).expect("readable");
    let theirs = safetensors::SafeTensors::deserialize(&file).expect("valid for the reference implementation");
    assert_eq!(theirs.len(), masters.len());
    let ours = Tensors::open(&path).expect("valid");
    for (name, view) in theirs.iter() {
        assert_eq!(&ours.bytes(name).expect("listed")[..], view.data());
        assert_eq!(ours.entry(name).expect("listed").shape, view.shape());
    }
    let written = safetensors::serialize(theirs.iter(), None).expect("serialized");
    std::fs::write(&path, written).expect("written");
    let again = Tensors::open(&path).expect("valid");
    assert_eq!(again.names().len(), masters.len());
    assert!(!again.verify(&Pool::new(1)).expect("nothing to compare"), "without checksums it is unverified");
}

#[test]
fn the_card_round_trips() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    for config in configs() {
        let model_config = ModelConfig { trained_for: Some("bitnet".into()), ..model_config(config) };
        model_config.save(&path).expect("written");
        assert_eq!(ModelConfig::load(&path).expect("valid"), (model_config, vec![]));
    }
}
