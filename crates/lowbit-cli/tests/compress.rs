//! `lowbit compress` and `lowbit decompress`.

mod common;

use common::*;
use std::fs;

#[test]
fn a_file_goes_there_and_back() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let review = "What a film: two hours, one room, and not a word too many. ".repeat(30);
    fs::write(at.join("review.txt"), &review).unwrap();
    let told = good(at, &["compress", "review.txt"]);
    let file = fs::read(at.join("review.txt.lowbit")).unwrap();
    assert!(told.contains(&format!("review.txt.lowbit: {} bytes of {}, ", file.len(), review.len())), "{told}");
    refused(at, &["compress", "review.txt"], 2, &["review.txt.lowbit is there already", "--force"]);
    refused(at, &["decompress", "review.txt.lowbit"], 2, &["review.txt is there already"]);
    good(at, &["decompress", "review.txt.lowbit", "--out", "again.txt"]);
    assert_eq!(fs::read_to_string(at.join("again.txt")).unwrap(), review);
    let json = good(at, &["compress", "review.txt", "--force", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let measures = &json["records"][0]["measures"];
    let product =
        measures["compression_ratio"]["value"].as_f64().unwrap() * measures["bits_per_byte"]["value"].as_f64().unwrap();
    assert!((product - 8.0).abs() < 1e-9 && measures["compressed_bytes"]["value"] == file.len() as f64, "{json}");

    // What is refused leaves nothing.
    let mut damaged = file.clone();
    damaged[60] ^= 1;
    fs::write(at.join("damaged.lowbit"), damaged).unwrap();
    refused(at, &["decompress", "damaged.lowbit"], 3, &["damaged.lowbit", "checksum"]);
    refused(at, &["decompress", "review.txt", "--out", "x"], 3, &["no file that `lowbit compress` wrote"]);
    refused(at, &["decompress", "review.txt"], 2, &["--out"]);
    let train = ["train", "text", "--text", "review.txt", "--steps", "2", "--warmup-steps", "1", "--out", "other"];
    good(at, &train);
    let other = ["decompress", "review.txt.lowbit", "--model", "other", "--recipe", "bitnet", "--out", "x"];
    refused(at, &other, 3, &["another model or recipe", "--model"]);
    assert!(!at.join("x").exists() && !at.join("damaged").exists());
    good(at, &["compress", "review.txt", "-m", "other", "--recipe", "bitnet", "--out", "other.lowbit"]);
    good(at, &["decompress", "other.lowbit", "-m", "other", "--recipe", "bitnet", "--out", "y"]);
    assert_eq!(fs::read_to_string(at.join("y")).unwrap(), review);
}
