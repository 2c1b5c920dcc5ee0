//! Rows of CIFAR-10 in its binary version.

use super::*;
use lowbit_model::Inputs;

fn images(path: impl AsRef<Path>) -> Table {
    Table { format: Some(Format::Cifar), ..table(path) }
}

/// A row whose pixel `i` of plane `c` is `16 c + i % 16`.
fn row(class: u8) -> Vec<u8> {
    let planes = (0..3u32).flat_map(|plane| (0..1024u32).map(move |i| (16 * plane + i % 16) as u8));
    std::iter::once(class).chain(planes).collect()
}

#[test]
fn parts_of_a_directory_are_read_in_order() {
    let dir = TempDir::new().unwrap();
    file(&dir, "data_batch_2.bin", row(1));
    file(&dir, "data_batch_1.bin", [row(3), row(0)].concat());
    file(&dir, "batches.meta.txt", "not a part");
    let found = read(&images(dir.path()), &Limits::default()).unwrap();
    assert_eq!(found.labels(), [3, 0, 1]);
    let Inputs::Features { values, width } = &found.inputs else { panic!("images are numbers") };
    assert_eq!((*width, values.len()), (3072, 3 * 3072));
    // The colours of a pixel lie side by side, from 0 to 1.
    assert_eq!(values[..6], [0.0, 16.0, 32.0, 1.0, 17.0, 33.0].map(|pixel: f32| pixel / 255.0));
    let packed = file(&dir, "test.bin.gz", gzip(&row(2)));
    assert_eq!(read(&images(packed), &Limits::default()).unwrap().labels(), [2]);
}

#[test]
fn other_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let cut = file(&dir, "cut.bin", &[row(1), row(2)].concat()[..4000]);
    assert_eq!(
        refusal(&images(cut)),
        "cut.bin: has 4000 bytes, no whole number of rows of 3073: fetch the binary version of CIFAR-10 again"
    );
    let empty = file(&dir, "empty.bin", "");
    assert!(refusal(&images(empty)).starts_with("empty.bin: has 0 bytes"));
    let classes = file(&dir, "classes.bin", [row(1), row(4)].concat());
    assert_eq!(refusal(&images(classes)), "classes.bin: label 4 of image 1 is not below the number of classes, 4");
    fs::create_dir(dir.path().join("none")).unwrap();
    assert!(refusal(&images(dir.path().join("none"))).starts_with("none: holds no data_batch_1.bin"));
}
