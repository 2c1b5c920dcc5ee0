//! Numbers as inputs and targets, and images.

use super::{file, refusal, table};
use lowbit_eval::read::{Column, Format, Input, Limits, Table, Target, Targets, read};
use lowbit_model::Inputs;
use std::path::Path;
use tempfile::TempDir;

fn numbers(path: impl AsRef<Path>) -> Table {
    let name = |name: &str| Column::Name(name.into());
    let (columns, target_column) = (vec![name("rooms"), name("age")], name("price"));
    Table { header: true, input: Input::Features, columns, target: Target::Value, target_column, ..table(path) }
}

#[test]
fn numbers_of_every_format_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let csv = "rooms,price,age\n1.5,10,-2\n,2.5e3,4\n";
    let jsonl = "{\"rooms\": 1.5, \"price\": 10, \"age\": -2}\n{\"rooms\": null, \"price\": 2500.0, \"age\": 4}\n";
    for (name, content) in [("a.csv", csv), ("a.jsonl", jsonl)] {
        let rows = read(&numbers(file(&dir, name, content)), &Limits::default()).unwrap();
        assert_eq!(rows.targets, Targets::Values(vec![10.0, 2500.0]), "{name}");
        assert_eq!((rows.inputs.width(), rows.inputs.features(0)), (2, &[1.5, -2.0][..]), "{name}");
        assert!(rows.inputs.features(1)[0].is_nan() && rows.inputs.features(1)[1] == 4.0, "an empty field is unknown");
    }
}

#[test]
fn what_is_no_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (row, said) in [
        ("x,1,2", "a.csv:2: \"x\" in column `rooms` is no number"),
        ("1,y,2", "a.csv:2: value \"y\" in column `price` is no number"),
        ("1,,2", "a.csv:2: value \"\" in column `price` is no number"),
        ("1,inf,2", "a.csv:2: value \"inf\" in column `price` is no number"),
        ("1e99,1,2", "a.csv:2: \"1e99\" in column `rooms` is no number"),
        ("nan,1,2", "a.csv:2: \"nan\" in column `rooms` is no number"),
    ] {
        assert_eq!(refusal(&numbers(file(&dir, "a.csv", format!("rooms,price,age\n{row}\n")))), said);
    }
}

/// Two images of 2 x 3 pixels and their labels.
fn idx(dir: &TempDir) -> (Vec<u8>, Vec<u8>) {
    let images =
        [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3][..], &[0, 51, 102, 153, 204, 255], &[9; 6]].concat();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 2, 3, 1];
    file(dir, "images", &images);
    file(dir, "labels", &labels);
    (images, labels)
}

fn images(dir: &TempDir) -> Table {
    let labels = Some(dir.path().join("labels"));
    Table {
        format: Some(Format::Idx),
        input: Input::Image,
        columns: vec![],
        labels,
        ..table(dir.path().join("images"))
    }
}

#[test]
fn images_and_their_labels() {
    let dir = tempfile::tempdir().unwrap();
    idx(&dir);
    let rows = read(&images(&dir), &Limits::default()).unwrap();
    assert_eq!(rows.labels(), [3, 1]);
    let Inputs::Features { width: 6, .. } = rows.inputs else { panic!("{:?}", rows.inputs) };
    assert_eq!(rows.inputs.features(0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
}

#[test]
fn damaged_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, labels) = idx(&dir);
    type Damage = fn(&mut Vec<u8>, &mut Vec<u8>);
    let damages: [(Damage, &str); 8] = [
        (|i, _| i[2] = 9, "images: is no IDX file of unsigned bytes in 3 dimensions"),
        (|i, _| i.truncate(9), "images: is no IDX file"),
        (|i, _| i.truncate(27), "images: its sizes promise 12 bytes, it holds less: fetch it again"),
        (|i, _| i.push(0), "images: its sizes promise 12 bytes, it holds more than that"),
        (|i, _| i[8..16].fill(255), "at most 16777216 images of 1 to 1048576 pixels are read"),
        (|i, _| i[4..8].fill(0), "at most 16777216 images"),
        (|_, l| l[9] = 4, "labels: label 4 of image 1 is not below the number of classes, 4"),
        (|_, l| (l[7], _) = (1, l.pop()), "labels: 1 labels for the 2 images of "),
    ];
    for (damage, said) in damages {
        let (mut a, mut b) = (whole.clone(), labels.clone());
        damage(&mut a, &mut b);
        file(&dir, "images", &a);
        file(&dir, "labels", &b);
        let refused = refusal(&images(&dir));
        assert!(refused.contains(said), "{said}: {refused}");
    }
    idx(&dir);
    let error = read(&Table { labels: None, ..images(&dir) }, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("label_paths"), "{error}");
}
