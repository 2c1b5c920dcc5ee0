//! Folders of images as `train`, `compare` and `predict` take them.

mod common;

use common::{good, refused};
use std::fs;
use std::path::Path;

/// A grey image of 12 x 12 pixels, bright on one side.
fn image(path: &Path, is_left: bool, seed: usize) {
    let pixel = |at: usize| {
        let bright = (at % 12 < 6) == is_left;
        (if bright { 170 } else { 40 }) + ((at * 37 + seed * 101) % 60) as u8
    };
    let pixels: Vec<u8> = (0..144).map(pixel).collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 12, 12);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

fn photos(home: &Path) {
    for class in ["left", "right"] {
        fs::create_dir_all(home.join("photos").join(class)).unwrap();
        (0..60).for_each(|i| image(&home.join(format!("photos/{class}/{i:02}.png")), class == "left", i));
    }
}

#[test]
fn a_folder_per_class_is_trained_compared_and_answered() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    photos(at);
    let train =
        ["train", "--data", "photos", "--variant", "ternary_qat", "--steps", "80", "--out", "model", "--seed", "1"];
    good(at, &train);
    good(at, &["quantize", "model", "--out", "packed.safetensors"]);
    fs::create_dir(at.join("new")).unwrap();
    image(&at.join("new/a.png"), false, 900);
    image(&at.join("new/b.png"), true, 901);
    let answers = good(at, &["predict", "packed.safetensors", "new"]);
    let lines: Vec<&str> = answers.lines().collect();
    assert!(lines[0].starts_with("file,prediction,probability"), "{answers}");
    assert!(lines[1].starts_with("new/a.png,right,") && lines[2].starts_with("new/b.png,left,"), "{answers}");
    assert!(good(at, &["predict", "packed.safetensors", "new/b.png"]).contains("new/b.png,left,"));
    let report = good(at, &["compare", "model", "--data", "photos", "--out", "run", "--full"]);
    assert!(report.contains("Class of an image of photos") && report.contains("majority"), "{report}");
    good(at, &["report", "run", "--verify"]);
}

#[test]
fn what_is_wrong_is_named() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    photos(at);
    fs::write(at.join("photos/left/07.png"), b"\x89PNG\r\n\x1a\nbut no more").unwrap();
    refused(at, &["train", "--data", "photos", "--out", "model"], 3, &["07.png", "damaged"]);
    fs::remove_file(at.join("photos/left/07.png")).unwrap();
    fs::create_dir(at.join("photos/empty")).unwrap();
    refused(at, &["compare", "--data", "photos"], 3, &["empty", "holds no image"]);
    fs::remove_dir(at.join("photos/empty")).unwrap();
    refused(at, &["compare", "--data", "photos", "--label", "x"], 2, &["--label", "folder of images"]);
    // A suite that is named takes the directory of the data sets.
    refused(at, &["compare", "mnist", "--data", "photos"], 5, &["mnist/train-images-idx3-ubyte"]);
}
