//! Files that are something else than what they are taken for.

use std::path::Path;

const PICKLE: &str = "pickle is executable code and is never loaded; convert it to safetensors";
const MODELS: &str =
    "a model is a directory of the Hub, a GGUF or safetensors file, or an `org/name` that was downloaded";
/// Bytes that tell text from other content.
const SAMPLE: usize = 512;
/// What files begin with.
const BEGINS: &[(&[u8], &str)] = &[
    (b"<!DOCTYPE html", "is a web page, perhaps one of an error or a login; fetch the file again"),
    (b"<!doctype html", "is a web page, perhaps one of an error or a login; fetch the file again"),
    (b"<html", "is a web page, perhaps one of an error or a login; fetch the file again"),
    (b"\x89HDF\r\n", "is an HDF5 file (Keras), which is not read; fetch the safetensors of the model"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"),
    (b"\xfd7zXZ\0", "is compressed by xz; unpack it first"),
    (b"BZh", "is compressed by bzip2; unpack it first"),
    (b"PAR1", "is a Parquet file, which holds data and no model"),
    (b"ARROW1", "is an Arrow file, which holds data and no model"),
    (b"%PDF", "is a PDF document, not a model"),
];
/// What names of files end in.
const ENDS: &[(&[&str], &str)] = &[
    (&["onnx"], "is an ONNX graph, which is not read; fetch the safetensors of the model, or a GGUF file"),
    (&["tflite"], "is a TensorFlow Lite file, which is not read; fetch the safetensors of the model"),
    (&["h5", "keras"], "is a Keras file, which is not read; fetch the safetensors of the model"),
    (&["msgpack"], "is a Flax file, which is not read; fetch the safetensors of the model"),
    (&["pb"], "is a TensorFlow graph, which is not read; fetch the safetensors of the model"),
    (&["mlmodel", "mlpackage"], "is a Core ML file, which is not read; fetch the safetensors of the model"),
    (&["engine", "plan"], "is a TensorRT engine, which is not read; fetch the safetensors of the model"),
];

/// Why the content of a file is not the file itself, if it stands for one.
pub(crate) fn pointer(bytes: &[u8]) -> Option<&'static str> {
    let text = "is a pointer of git-lfs, not the file itself; run `git lfs pull` in its repository, or fetch the model with \
                `hf download`";
    bytes.starts_with(b"version https://git-lfs").then_some(text)
}

/// What a file is that should hold tensors, if it is known and no container of them.
pub(super) fn instead_of_tensors(path: &Path, bytes: &[u8]) -> Option<String> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let extension = extension.as_str();
    if let Some(text) = pointer(bytes) {
        return Some(text.into());
    }
    match bytes {
        [b'P', b'K', 3 | 5, ..] => return Some(format!("is a zip archive, which may hold a pickle: {PICKLE}")),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            return Some(format!("is a NumPy array, which may hold a pickle: {PICKLE}"));
        }
        [b'G', b'G', b'U', b'F', ..] => return Some("is a GGUF file, not safetensors; convert it first".into()),
        [_, _, _, _, _, _, _, _, b'{', ..] if extension == "safetensors" || !is_text(bytes) => return None,
        [0x80, 2..=5, ..] => return Some(format!("is a pickle: {PICKLE}")),
        _ => {}
    }
    if ["bin", "pt", "pth", "ckpt", "pkl", "npy"].contains(&extension) {
        return Some(format!("is named like a pickle: {PICKLE}"));
    }
    let begin = BEGINS.iter().find(|(begin, _)| bytes.starts_with(begin));
    let end = || ENDS.iter().find(|(names, _)| names.contains(&extension)).map(|(_, text)| *text);
    if let Some(text) = begin.map(|(_, text)| *text).or_else(end) {
        return Some(text.into());
    }
    match extension {
        "safetensors" => None,
        "json" => Some("is JSON beside the weights of a model; name its directory".into()),
        _ if is_text(bytes) => Some(format!("is a text, not a model; {MODELS}")),
        _ => None,
    }
}

/// Whether content begins like a text.
fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let valid = match std::str::from_utf8(sample) {
        Ok(text) => text,
        // A character may be cut at the end.
        Err(e) if sample.len() - e.valid_up_to() < 4 => std::str::from_utf8(&sample[..e.valid_up_to()]).unwrap_or(""),
        Err(_) => return false,
    };
    !valid.is_empty() && valid.chars().all(|c| !c.is_control() || "\n\r\t\u{c}".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_content_and_name() {
        let cases: [(&str, &[u8], &str); 17] = [
            ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            ("a.gguf", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
            ("model.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
            ("MODEL.ONNX", b"\x08\x07", "ONNX"),
            ("README.md", b"# A model\n\nWith words.\n", "is a text"),
            ("LICENSE", "Ein sch\u{f6}ner Text".as_bytes(), "is a text"),
            ("config.json", b"{\"model_type\": \"llama\"}", "name its directory"),
            ("pytorch_model.bin", b"\x80\x02}q\x00.", "is a pickle"),
            ("model.pt", b"PK\x03\x04", "zip archive"),
            ("model.zip", b"PK\x03\x04", "zip archive"),
            ("weights.npy", b"\x93NUMPY", "NumPy"),
            ("odd.bin", b"\x00\x01\x02", "named like a pickle"),
            ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
            ("flax_model.msgpack", b"\xde\x00\x01", "Flax"),
            ("model.safetensors", b"<!DOCTYPE html><html>", "web page"),
            ("train.parquet", b"PAR1\x15", "holds data"),
            ("model.tar.gz", b"\x1f\x8b\x08", "gzip"),
        ];
        for (name, bytes, word) in cases {
            let text = instead_of_tensors(Path::new(name), bytes).unwrap_or_else(|| panic!("{name} passes"));
            assert!(text.contains(word), "{name}: {text}");
        }
        let tensors: [(&str, &[u8]); 3] = [
            ("model.safetensors", b"\x10\0\0\0\0\0\0\0{\"a\":1}"),
            ("weights", b"\x10\0\0\0\0\0\0\0{\"a\":1}"),
            ("x", b"\xff\xfe\0"),
        ];
        for (name, bytes) in tensors {
            assert_eq!(instead_of_tensors(Path::new(name), bytes), None, "{name}");
        }
    }
}
