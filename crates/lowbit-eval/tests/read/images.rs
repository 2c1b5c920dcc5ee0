//! Folders of PNG and JPEG images.

use super::*;
use lowbit_eval::read::images::{Folder, ImageSize, pixels};
use lowbit_model::Inputs;
use serde_json::Value;

/// Pillow converts and scales the same files. JPEG leaves decoders some freedom, and a half may round either way.
#[test]
fn pixels_are_those_of_pillow() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images");
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(home.join("pixels.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 9 * 3);
    for case in &cases {
        let name = case["file"].as_str().unwrap();
        let number = |at: usize| case["size"][at].as_u64().unwrap() as usize;
        let size = ImageSize { height: number(0), width: number(1), colours: number(2) };
        let found = pixels(&home.join(name), size).unwrap();
        let expected: Vec<u8> = serde_json::from_value(case["pixels"].clone()).unwrap();
        assert_eq!(found.len(), expected.len(), "{name} {size:?}");
        let most = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let allowed = if name.ends_with("g") && !name.ends_with("png") { 4 } else { 1 };
        assert!(most <= allowed, "{name} {size:?}: differs by {most}");
    }
}

fn golden_image(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)).unwrap()
}

/// A folder with two classes, of one and of two images.
fn folder(dir: &TempDir) -> PathBuf {
    for (class, name, image) in [
        ("cat", "a.png", "grey.png"),
        ("dog", "b.JPG", "rgb.jpg"),
        ("dog", "a.png", "rgb.png"),
        (".git", "x.png", "rgb.png"),
    ] {
        fs::create_dir_all(dir.path().join(class)).unwrap();
        fs::write(dir.path().join(class).join(name), golden_image(image)).unwrap();
    }
    fs::write(dir.path().join("dog/notes.txt"), "no image").unwrap();
    dir.path().into()
}

fn of_folder(path: &Path, size: ImageSize) -> Table {
    let target = Target::Class { labels: ["cat", "dog"].map(String::from).into() };
    Table { format: Some(Format::Images), input: Input::ImageFile(size), columns: Vec::new(), target, ..table(path) }
}

#[test]
fn a_folder_per_class_is_a_data_set() {
    let dir = TempDir::new().unwrap();
    let path = folder(&dir);
    assert!(Folder::is(&path) && !Folder::is(&path.join("cat")));
    let found = Folder::open(&path).unwrap();
    assert_eq!((found.classes.as_slice(), found.images), (["cat".to_string(), "dog".into()].as_slice(), 3));
    assert_eq!(found.size, ImageSize { height: 32, width: 32, colours: 3 });
    let size = ImageSize { height: 4, width: 6, colours: 3 };
    let rows = read(&of_folder(&path, size), &Limits::default()).unwrap();
    assert_eq!(rows.labels(), [0, 1, 1]);
    let Inputs::Features { width, values } = &rows.inputs else { panic!("images are numbers") };
    assert_eq!((*width, values.len()), (72, 3 * 72));
    let first: Vec<f32> =
        pixels(&path.join("cat/a.png"), size).unwrap().into_iter().map(|pixel| f32::from(pixel) / 255.0).collect();
    assert_eq!(values[..72], first);
}

#[test]
fn a_set_that_is_split_keeps_its_split() {
    let dir = TempDir::new().unwrap();
    for (split, class) in [("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")] {
        fs::create_dir_all(dir.path().join(split).join(class)).unwrap();
        fs::write(dir.path().join(split).join(class).join("x.png"), golden_image("grey.png")).unwrap();
    }
    assert!(Folder::is(dir.path()));
    let found = Folder::open(dir.path()).unwrap();
    assert_eq!((found.train, found.test, found.images), (dir.path().join("train"), Some(dir.path().join("test")), 2));
    assert_eq!((found.size, found.is_exact), (ImageSize { height: 7, width: 5, colours: 1 }, true));
}

#[test]
fn what_is_damaged_is_named_in_one_line() {
    let dir = TempDir::new().unwrap();
    let path = folder(&dir);
    let size = ImageSize { height: 4, width: 4, colours: 1 };
    let refused = |name: &str, content: &[u8]| {
        fs::write(path.join("cat").join(name), content).unwrap();
        let error = read(&of_folder(&path, size), &Limits::default()).unwrap_err();
        fs::remove_file(path.join("cat").join(name)).unwrap();
        assert_eq!(error.kind, Kind::Input, "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && !text.contains('\n'), "{text}");
        text
    };
    let (png, jpg, progressive) = (golden_image("rgb.png"), golden_image("rgb.jpg"), golden_image("progressive.jpeg"));
    for (name, content) in [
        ("cut.png", &png[..png.len() / 2]),
        ("cut.jpg", &jpg[..jpg.len() / 2]),
        ("cut.jpeg", &progressive[..progressive.len() / 2]),
        ("head.png", &png[..20]),
        ("head.jpg", &jpg[..20]),
    ] {
        assert!(refused(name, content).contains("damaged"), "{name}");
    }
    let mut flipped = png.clone();
    flipped[60] ^= 0xff;
    assert!(refused("flipped.png", &flipped).contains("damaged"));
    assert!(refused("text.png", b"no image at all").contains("is no PNG or JPEG image"));
    assert!(refused("empty.jpg", b"").contains("is no PNG or JPEG image"));
}

#[test]
fn folders_that_are_no_data_set_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = folder(&dir);
    let size = ImageSize { height: 4, width: 4, colours: 1 };
    fs::create_dir(path.join("bird")).unwrap();
    let error = Folder::open(&path).unwrap_err().to_string();
    assert!(error.contains("bird") && error.contains("holds no image"), "{error}");
    fs::write(path.join("bird/x.png"), golden_image("rgb.png")).unwrap();
    let error = read(&of_folder(&path, size), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("`bird`") && error.contains("\"cat\", \"dog\""), "{error}");
    let lone = TempDir::new().unwrap();
    fs::create_dir(lone.path().join("cat")).unwrap();
    fs::write(lone.path().join("cat/x.png"), golden_image("rgb.png")).unwrap();
    assert!(Folder::open(lone.path()).unwrap_err().to_string().contains("two at least"));
}
