use super::*;

#[test]
fn every_suite_parses_and_its_settings_are_valid() {
    for text in SUITES {
        let suite = parse(text, Path::new("built-in suite")).unwrap();
        let task = suite.task().unwrap();
        for variant in &suite.variant {
            let suite = suite.of(variant);
            suite.train_config(variant).unwrap().validate(30_000).unwrap();
            if suite.pretrained.is_some() {
                continue;
            }
            let rows = match &suite.tokenizer {
                Some(_) => Rows::of_texts(vec!["a text".into()], vec![0]),
                None => {
                    // As many numbers as the image has, where one is read.
                    let image = suite.model.get("image").and_then(|image| image.as_array());
                    let sizes = image.into_iter().flatten().filter_map(|size| size.as_integer());
                    let width = if image.is_some() { sizes.product::<i64>() as usize } else { 3 };
                    Rows { inputs: Inputs::Features { width, values: vec![0.5; width] }, ..Rows::default() }
                }
            };
            let bytes = Encoder::Text { tokenizer: Tokenizer::bytes(), max_length: suite.max_length };
            let encoder = if suite.tokenizer.is_some() { bytes } else { suite.encoder(&task, &rows, None).unwrap() };
            suite.model_config(&task, &encoder, &rows, variant, None).unwrap();
            if !suite.network.is_empty() {
                continue;
            }
            let last = suite.variant.last().unwrap().recipe.clone();
            let mut deep = Suite { variant: suite.variant.clone(), ..parse(text, Path::new("again")).unwrap() };
            deep.variant.last_mut().unwrap().recipe = format!("{last}+layers.99=f32");
            let last = deep.variant.last().unwrap();
            let parent = last.from.as_ref().map_or(last, |name| deep.variant(name).unwrap());
            let refused = deep.model_config(&task, &encoder, &rows, parent, None).unwrap_err().to_string();
            assert!(refused.contains("`layers.99=f32`: the model has"), "{refused}");
        }
    }
}

/// Networks that stand in for models that are not there make sense, too.
#[test]
fn a_network_takes_the_place_of_a_model_that_is_not_there() {
    let places = SUITES.iter().map(|text| parse(text, Path::new("built-in suite")).unwrap());
    let several: Vec<Suite> = places.filter(|suite| !suite.network.is_empty()).collect();
    assert!(several.len() >= 3);
    for suite in several {
        let empty = tempfile::tempdir().unwrap();
        let resolved = suite.clone().resolved(Some(empty.path())).unwrap();
        assert_eq!(resolved.network_fault(), None, "{}", suite.name);
        let said = resolved.networks().join(" ");
        for (name, network) in suite.network.iter().filter(|(_, network)| network.otherwise.is_some()) {
            let pretrained = network.pretrained.as_ref().expect("what is not there");
            assert!(resolved.network[name].pretrained.as_ref() != Some(pretrained));
            assert!(said.contains(&format!("in place of {pretrained}, which is not here")), "{said}");
        }
    }
}

#[test]
fn every_group_is_of_built_in_suites() {
    for group in groups().unwrap() {
        assert!(group.suites.iter().all(|name| find(name, None).is_ok()), "{group:?}");
        assert!(find(&group.name, None).is_err(), "{}: a suite or task has this name", group.name);
    }
}

#[test]
fn wrong_suites_are_refused_with_the_place() {
    let good = SUITES[0];
    for (from, to, word) in [
        ("recipe = \"nf4\"", "recipe = \"nf5\"", "did you mean `nf4`"),
        ("from = \"f32\"", "from = \"nobody\"", "nobody"),
        ("baseline = \"f32\"", "baseline = \"x\"", "`baseline`"),
        ("name = \"int8\"", "name = \"../int8\"", "letters"),
        ("name = \"int8\"", "name = \"mean\"", "variant `mean` has the name of a baseline"),
        ("max_length = 48", "max_len = 48", "x.toml:5: "),
        ("from = \"f32\"", "from = \"f32\"\nteacher = \"f32\"", "`teacher` is for variants that are trained"),
        ("from = \"f32\"", "from = \"f32\"\nmodel = { dropout = 0.0 }", "`model` is for variants that are trained"),
        ("from = \"f32\"", "from = \"f32\"\nmethod = \"gptk\"", "no method `gptk`; did you mean `gptq`?"),
        ("from = \"f32\"", "from = \"f32\"\ncalibration_tokens = 9", "`calibration_tokens` are read by a `method`"),
        ("from = \"f32\"", "from = \"f32\"\nmethod = \"gptq\"\ncalibration_tokens = 0", "give at least 1"),
        ("train = { qat = {} }", "train = { qat = {} }\nmethod = \"gptq\"", "`method` is for variants that are made"),
        ("train = { qat = {} }", "train = { qat = {} }\ninit = \"int8\"", "`init` names `int8`, which is no trained"),
        ("from = \"f32\"", "from = \"f32\"\ninit = \"f32\"", "`init` is for variants that are trained"),
        ("train = { qat = {} }", "train = { qat = {} }\nteacher = \"int8\"", "`teacher` names `int8`"),
        (
            "train = { qat = {} }",
            "train = { qat = {} }\nteacher = \"pretrained\"",
            "no trained variant of its network before it",
        ),
    ] {
        let refused = parse(&good.replacen(from, to, 1), Path::new("x.toml")).unwrap_err().to_string();
        assert!(refused.contains(word) && refused.starts_with("x.toml:"), "{refused}");
    }
    let header = good.split("[[variant]]").next().unwrap();
    let many = (0..60_000).map(|i| format!("[[variant]]\nname = \"v{i}\"\nrecipe = \"f32\"\n")).collect::<String>();
    let refused = parse(&format!("{header}{many}"), Path::new("x.toml")).unwrap_err().to_string();
    assert!(refused.contains("60000 variants: a suite has 1000 at most"), "{refused}");
    assert!(find("quickstrat", None).unwrap_err().to_string().contains("did you mean `quickstart`"));
}

#[test]
fn groups_name_suites_and_studies_that_exist() {
    for group in groups().unwrap() {
        let has_parts = !(group.suites.is_empty() && group.benches.is_empty());
        assert!(has_parts && !group.about.is_empty() && !group.reduced.is_empty(), "{}", group.name);
        for name in &group.suites {
            find(name, None).unwrap();
        }
        group.benches.iter().for_each(|name| assert_eq!(lowbit_eval::study::find(name).unwrap().name, name));
    }
    let all = groups().unwrap();
    let mut benches: Vec<&String> = all.iter().flat_map(|group| &group.benches).collect();
    benches.sort();
    benches.dedup();
    assert_eq!(benches.len(), lowbit_eval::study::STUDIES.len(), "every study is in a report");
}

#[test]
fn a_quick_run_takes_its_settings_over_all_others() {
    let bitlab = group("bitlab").unwrap().expect("a group");
    for name in &bitlab.suites {
        let whole = find(name, None).unwrap();
        let quick = whole.clone().quickly().unwrap();
        let again = parse(&quick.text, Path::new("suite.toml")).unwrap();
        for variant in &whole.variant {
            let epochs = |suite: &Suite| suite.train_config(suite.variant(&variant.name).unwrap()).unwrap().epochs;
            assert!(epochs(&quick) < epochs(&whole), "{name} {}", variant.name);
            assert_eq!(epochs(&again), epochs(&quick));
        }
    }
    let refused = find("ag_news", None).unwrap().quickly().unwrap_err().to_string();
    assert!(refused.contains("no [quick]"), "{refused}");
}
