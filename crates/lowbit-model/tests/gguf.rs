//! GGUF files: types against gguf-py (`tools/golden/gguf_types.py`), written files, hostile and mutated ones.

mod common;

use common::{refusal, refused_file};
use lowbit_kernels::Bytes;
use lowbit_model::Kind;
use lowbit_model::container::gguf::{Field, Gguf, GgufWriter, Planned, TYPES, Type, Value, find};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// A file built byte by byte.
#[derive(Clone)]
struct Build(Vec<u8>);

impl Build {
    fn new(version: u32, tensors: u64, pairs: u64) -> Self {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        Build(file)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &[u8]) -> Self {
        self.raw(&(text.len() as u64).to_le_bytes()).raw(text)
    }

    fn pair(self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.text(key.as_bytes()).raw(&kind.to_le_bytes()).raw(value)
    }

    fn list(self, key: &str, kind: u32, len: u64, values: &[u8]) -> Self {
        self.pair(key, 9, &[&kind.to_le_bytes()[..], &len.to_le_bytes(), values].concat())
    }

    fn tensor(self, name: &[u8], dims: &[u64], kind: u32, offset: u64) -> Self {
        let file = self.text(name).raw(&(dims.len() as u32).to_le_bytes());
        let file = dims.iter().fold(file, |file, dim| file.raw(&dim.to_le_bytes()));
        file.raw(&kind.to_le_bytes()).raw(&offset.to_le_bytes())
    }

    fn data(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self.0.extend(bytes);
        self.0
    }
}

fn parse(file: Vec<u8>) -> Result<Gguf, lowbit_model::Error> {
    Gguf::parse(Path::new("x.gguf"), Bytes::new(file))
}

/// A file of one tensor.
fn one(kind: &Type, rows: u64, cols: u64, data: &[u8]) -> Gguf {
    parse(Build::new(3, 1, 0).tensor(b"w", &[cols, rows], kind.number, 0).data(data)).expect("valid")
}

#[test]
fn every_type_means_what_the_reference_says() {
    let bytes = std::fs::read(golden("gguf_types.safetensors")).expect("part of the repository");
    let file = SafeTensors::deserialize(&bytes).expect("valid");
    for kind in TYPES {
        let cases: Vec<_> = [kind.name.to_string(), format!("{}_written", kind.name)]
            .into_iter()
            .filter(|name| file.tensor(&format!("{name}.bytes")).is_ok())
            .collect();
        assert!(!cases.is_empty(), "{} has golden vectors", kind.name);
        let mut sourced = false;
        for name in cases {
            let data = file.tensor(&format!("{name}.bytes")).expect("just found").data();
            let values = floats(&file, &format!("{name}.values"));
            let gguf = one(kind, 3, values.len() as u64 / 3, data);
            let tensor = gguf.tensor("w").expect("there");
            let read = gguf.floats(tensor).expect("valid");
            let differs =
                read.iter().zip(&values).position(|(a, b)| a.to_bits() != b.to_bits() && !(*a == 0.0 && *b == 0.0));
            assert_eq!(differs, None, "{name}");
            let source = format!("{name}.source");
            if file.tensor(&source).is_err() {
                continue;
            }
            sourced = true;
            let source = floats(&file, &source);
            let mut written = Vec::new();
            kind.encode(&source, &mut written).expect("fits");
            assert!(written == data, "{name} is written as the reference writes it");
            let ternary = gguf.ternary(tensor).expect("valid");
            assert_eq!(ternary.is_some(), kind.is_ternary(), "{name}");
            if let Some(ternary) = ternary {
                let again: Vec<f32> = ternary.signs.iter().map(|s| f32::from(*s) * ternary.scale).collect();
                assert_eq!(again, values, "{name}");
            }
        }
        assert_eq!(sourced, kind.is_written() && !kind.is_searched(), "{}: what is written has a source", kind.name);
    }
}

/// The squared error of each row of 256 values after a type.
fn errors(kind: &Type, source: &[f32]) -> Vec<f64> {
    let mut bytes = Vec::new();
    kind.encode(source, &mut bytes).expect("fits");
    let gguf = one(kind, source.len() as u64 / 256, 256, &bytes);
    let read = gguf.floats(&gguf.tensors()[0]).expect("valid");
    let row = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    source.chunks_exact(256).zip(read.chunks_exact(256)).map(row).collect()
}

#[test]
fn searched_scales_round_no_worse_than_the_reference() {
    let bytes = std::fs::read(golden("gguf_types.safetensors")).expect("part of the repository");
    let file = SafeTensors::deserialize(&bytes).expect("valid");
    let source = floats(&file, "rounded.source");
    let mut compared = 0;
    for kind in TYPES.iter().filter(|kind| file.tensor(&format!("{}.rounded", kind.name)).is_ok()) {
        let reference = floats(&file, &format!("{}.rounded", kind.name));
        for (row, (found, reference)) in errors(kind, &source).into_iter().zip(reference).enumerate() {
            let ratio = found / f64::from(reference);
            assert!(ratio <= 1.0 + 1e-5, "{}, row {row}: {ratio}", kind.name);
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 6);
    let of = |name: &str| errors(find(name).expect("known"), &source).iter().sum::<f64>();
    let falling = ["q2_k", "q3_k", "q4_0", "q4_k", "q5_k", "q6_k", "q8_0"].map(of);
    assert!(falling.is_sorted_by(|a, b| *a > 1.1 * b), "more bits lose less: {falling:?}");
}

#[test]
fn blocks_of_one_value_are_exact() {
    for kind in TYPES.iter().filter(|kind| kind.is_searched()) {
        let zeros = vec![0.0; kind.block];
        assert!(kind.holds(&zeros), "{}", kind.name);
        for bad in [1e30, 1e-30] {
            let refused = kind.encode(&vec![bad; kind.block], &mut Vec::new()).expect_err("out of range");
            assert!(refused.contains("F16"), "{}: {refused}", kind.name);
        }
        // What is small beside others may vanish.
        let mixed: Vec<f32> = [vec![1.0; kind.block], vec![1e-30; kind.block]].concat();
        kind.encode(&mixed, &mut Vec::new()).expect("in range");
    }
}

#[test]
fn scalars_have_no_dimensions() {
    let file = Build::new(3, 2, 0).tensor(b"s", &[], 0, 0).tensor(b"w", &[2], 0, 32);
    let data = [&2f32.to_le_bytes()[..], &[0; 28], &[0; 8]].concat();
    let gguf = parse(file.data(&data)).expect("valid");
    let scalar = gguf.tensor("s").expect("there");
    assert_eq!((&scalar.shape[..], scalar.len(), scalar.bytes()), (&[][..], 1, 4));
    assert_eq!(gguf.floats(scalar).expect("valid"), [2.0]);
    let error = parse(Build::new(3, 1, 0).tensor(b"s", &[], 8, 0).data(&[0; 34])).expect_err("part of a block");
    assert!(error.to_string().contains("rows of 1 elements do not fill blocks of 32"), "{error}");
}

/// Number 42 has had blocks of 64 and of 128.
#[test]
fn a_number_of_two_meanings_is_read_by_its_bytes() {
    for (name, bytes) in [("Q2_0", 18 * 128), ("Q2_0_G128", 34 * 64)] {
        let build = |gap: usize| {
            let file = Build::new(3, 2, 0).tensor(b"a", &[128, 64], 42, 0);
            file.tensor(b"b", &[128, 64], 42, gap as u64).data(&vec![0; gap + bytes])
        };
        let gguf = parse(build(bytes.next_multiple_of(32))).expect("valid");
        assert_eq!(gguf.tensors().iter().map(|t| (t.kind.name, t.bytes())).collect::<Vec<_>>(), [(name, bytes); 2]);
    }
}

#[test]
fn written_types_keep_what_they_say_they_keep() {
    let source: Vec<f32> = (0..512).map(|i: i32| [0.0, 0.3, -0.3, 0.0, 0.3][(i * i % 17 % 5) as usize]).collect();
    for kind in TYPES.iter().filter(|t| t.is_ternary()) {
        let exact: Vec<f32> = source.iter().map(|v| v.signum() * f32::from(*v != 0.0) * 0.5).collect();
        let mut bytes = Vec::new();
        kind.encode(&exact, &mut bytes).expect("0.5 is exact everywhere");
        assert_eq!(one(kind, 2, 256, &bytes).floats(&one(kind, 2, 256, &bytes).tensors()[0]).expect("valid"), exact);
        let rounded = kind.encode(&source, &mut Vec::new());
        match kind.name {
            "I2_S" => rounded.expect("its scale is an f32"),
            _ => assert!(rounded.expect_err("0.3 is not exact").contains("F16 does not hold exactly"), "{}", kind.name),
        }
        let mut other = exact.clone();
        other[77] = 0.25;
        let error = kind.encode(&other, &mut Vec::new()).expect_err("two magnitudes");
        assert!(error.contains("not ternary: index"), "{error}");
        other[77] = f32::NAN;
        assert!(kind.encode(&other, &mut Vec::new()).expect_err("NaN").contains("index 77"));
    }
    let f16 = find("f16").expect("known");
    assert!(f16.encode(&[70_000.0], &mut Vec::new()).expect_err("too large").contains("too large"));
    assert!(
        find("iq4_xs")
            .expect("known")
            .encode(&[0.0; 256], &mut Vec::new())
            .expect_err("read only")
            .contains("not written")
    );
}

#[test]
fn several_scales_are_no_single_one() {
    let kind = find("tq2_0").expect("known");
    let mut bytes = Vec::new();
    kind.encode(&[[0.5; 256], [-0.5; 256]].concat(), &mut bytes).expect("ternary");
    let zero = bytes.clone();
    bytes[64..66].copy_from_slice(&half::f16::from_f32(0.25).to_le_bytes());
    let gguf = one(kind, 1, 512, &bytes);
    assert_eq!(gguf.ternary(&gguf.tensors()[0]).expect("valid"), None);
    assert_eq!(gguf.floats(&gguf.tensors()[0]).expect("valid")[..2], [0.25, 0.25]);
    // A block of zeros has no scale to agree with.
    let mut zeros = zero;
    zeros[..64].fill(0b0101_0101);
    zeros[64..66].fill(0);
    let gguf = one(kind, 1, 512, &zeros);
    let ternary = gguf.ternary(&gguf.tensors()[0]).expect("valid").expect("one scale");
    assert_eq!((ternary.scale, ternary.signs[0], ternary.signs[300]), (0.5, 0, -1));
}

#[test]
fn files_of_the_reference_are_read() {
    let gguf = Gguf::open(&golden("small.gguf")).expect("valid");
    assert_eq!((gguf.version(), gguf.text("general.architecture").unwrap()), (3, Some("llama")));
    assert_eq!(gguf.count("llama.block_count").unwrap(), Some(7));
    assert_eq!(gguf.number("llama.rope.freq_base").unwrap(), Some(500_000.0));
    assert_eq!(gguf.flag("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(gguf.metadata()["a.negative"], Value::Int(-(1 << 40)));
    assert_eq!(gguf.texts("tokenizer.ggml.tokens", 3).unwrap().unwrap(), ["<unk>", "\u{2581}a", "b"]);
    assert_eq!(gguf.numbers("a.numbers", 9).unwrap().unwrap(), [1.5, -2.0]);
    let matrix = gguf.tensor("matrix").expect("there");
    assert_eq!((&matrix.shape[..], matrix.kind.name, matrix.bytes()), (&[3, 4][..], "F32", 48));
    assert_eq!(gguf.floats(matrix).unwrap()[4..6], [4.0, 5.0]);
    assert_eq!(gguf.tensor("packed").expect("there").shape, [3, 512]);
    let refused = [
        gguf.count("a.negative").unwrap_err(),
        gguf.text("llama.block_count").unwrap_err(),
        gguf.flag("a.numbers").unwrap_err(),
        gguf.texts("a.numbers", 9).unwrap_err(),
        gguf.texts("tokenizer.ggml.tokens", 2).unwrap_err(),
        gguf.numbers("tokenizer.ggml.tokens", 9).unwrap_err(),
    ];
    for error in refused {
        assert!(error.kind == Kind::Input && error.to_string().contains("metadata `"), "{error}");
    }
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("out.gguf");
    let plan = |name: &str, kind: &str, shape: &[usize]| Planned {
        name: name.into(),
        kind: find(kind).expect("known"),
        shape: shape.into(),
    };
    let metadata = vec![
        ("general.architecture".to_string(), Field::Text("llama".into())),
        ("n".to_string(), Field::U32(7)),
        ("list".to_string(), Field::Texts(vec!["a".into(), "\u{1f600}".into()])),
        ("floats".to_string(), Field::Floats(vec![0.5])),
        ("ints".to_string(), Field::Ints(vec![-3])),
        ("yes".to_string(), Field::Bool(true)),
        ("x".to_string(), Field::F32(1.25)),
    ];
    let write = |values: &[f32]| {
        let plans = vec![plan("a", "f32", &[3]), plan("b", "i2_s", &[2, 128]), plan("c", "f16", &[1, 5])];
        let mut writer = GgufWriter::create(&path, &metadata, plans)?;
        writer.tensor(&[1.0, 2.0, 3.0])?;
        writer.tensor(values)?;
        writer.tensor(&[0.5; 5])?;
        writer.finish()
    };
    write(&[0.3; 256]).expect("written");
    let first = std::fs::read(&path).expect("readable");
    let gguf = Gguf::open(&path).expect("valid");
    assert_eq!(gguf.tensors().iter().map(|t| gguf.floats(t).expect("valid").len()).collect::<Vec<_>>(), [3, 256, 5]);
    assert_eq!(gguf.texts("list", 2).unwrap().unwrap()[1], "\u{1f600}");
    assert_eq!(gguf.metadata().len(), metadata.len());
    write(&[0.3; 256]).expect("written");
    assert!(std::fs::read(&path).expect("readable") == first, "the same bytes again");
    let in_rows = |step: usize| {
        let plans = vec![plan("e", "q8_0", &[5, 32]), plan("f", "f16", &[3])];
        let values: Vec<f32> = (0..5 * 32).map(|i| (i * i % 31) as f32 - 7.0).collect();
        let mut writer = GgufWriter::create(&path, &metadata, plans)?;
        let exact = values.chunks(step * 32).map(|rows| writer.rows(rows)).collect::<Result<Vec<_>, _>>()?;
        writer.tensor(&[0.5; 3])?;
        writer.finish()?;
        assert_eq!(exact.len(), 5_usize.div_ceil(step));
        Ok::<_, lowbit_model::Error>(std::fs::read(&path).expect("readable"))
    };
    let whole = in_rows(5).expect("written");
    assert!(in_rows(1).expect("written") == whole && in_rows(2).expect("written") == whole, "row by row is the same");
    write(&[0.3; 256]).expect("written");
    let mut values = [0.3; 256];
    values[9] = 0.1;
    let error = write(&values).expect_err("not ternary").to_string();
    assert!(error.contains("tensor `b` is not ternary: index 9"), "{error}");
    assert!(std::fs::read(&path).expect("readable") == first, "the earlier file is as it was");
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1, "nothing is left over");
    let error = GgufWriter::create(&path, &[], vec![plan("d", "tq2_0", &[2, 128])]).expect_err("half a block");
    assert!(error.to_string().contains("tensor `d`: rows of 128 elements do not fill blocks of 256"), "{error}");
}

/// Name, content, and what the message must hold.
type Bad = (&'static str, Vec<u8>, Vec<&'static str>);

fn build(tensors: u64, pairs: u64) -> Build {
    Build::new(3, tensors, pairs)
}

fn bad_headers() -> Vec<Bad> {
    vec![
        ("M1 empty", vec![], vec!["truncated header: 0 of 24 bytes"]),
        ("M1 magic only", b"GGUF".to_vec(), vec!["truncated header: 4 of 24 bytes"]),
        ("other magic", [0; 64].to_vec(), vec!["does not begin with `GGUF`"]),
        ("version 1", Build::new(1, 0, 0).0, vec!["GGUF version 1", "2 and 3"]),
        ("version 4", Build::new(4, 0, 0).0, vec!["GGUF version 4"]),
        ("big-endian", Build::new(3u32.swap_bytes(), 0, 0).0, vec!["big-endian"]),
        ("M9 n_tensors 2^63", build(1 << 63, 0).0, vec!["`n_tensors` is 9223372036854775808", "262144"]),
        ("M9 n_tensors 2^40", build(1 << 40, 0).0, vec!["`n_tensors` is 1099511627776"]),
        ("M9 n_kv 2^63", build(0, 1 << 63).0, vec!["`n_kv` is 9223372036854775808", "65536"]),
        ("M9 n_kv 0xFFFFFFFF", build(0, 0xffff_ffff).0, vec!["`n_kv` is 4294967295"]),
        ("M9 more than there are", build(200_000, 0).0, vec!["tensor 0", "asks for 8 bytes"]),
    ]
}

fn bad_values() -> Vec<Bad> {
    let align = |kind, value: &[u8]| build(0, 1).pair("general.alignment", kind, value).0;
    let u32s = |n: u32| n.to_le_bytes();
    vec![
        (
            "M10 key 2^63",
            build(0, 1).raw(&[0, 0, 0, 0, 0, 0, 0, 0x80]).0,
            vec!["metadata key 0", "9223372036854775808 bytes"],
        ),
        (
            "M10 string 900 MB",
            build(0, 1).pair("k", 8, &900_000_000u64.to_le_bytes()).0,
            vec!["`k`", "900000000 bytes"],
        ),
        ("M10 string past the end", build(0, 1).pair("k", 8, &99u64.to_le_bytes()).0, vec!["`k`", "asks for 99 bytes"]),
        ("M10 2^30 strings", build(0, 1).list("k", 8, 1 << 30, &[]).0, vec!["`k`", "a list of 1073741824 strings"]),
        ("M10 2^63 floats", build(0, 1).list("k", 6, 1 << 63, &[]).0, vec!["`k`", "a list of 9223372036854775808"]),
        ("M10 nested", build(0, 1).list("k", 9, 1, &[0; 12]).0, vec!["`k`", "a list of lists"]),
        ("M10 bool 7", build(0, 1).pair("k", 7, &[7]).0, vec!["`k`", "a bool is 7"]),
        ("M10 bool 7 in a list", build(0, 1).list("k", 7, 2, &[1, 7]).0, vec!["`k`", "element 1", "a bool is 7"]),
        ("M10 type 99", build(0, 1).pair("k", 99, &[]).0, vec!["`k`", "unknown type 99"]),
        ("M10 list of type 99", build(0, 1).list("k", 99, 1, &[]).0, vec!["`k`", "unknown type 99"]),
        ("key twice", build(0, 2).pair("k", 4, &u32s(1)).pair("k", 4, &u32s(1)).0, vec!["metadata `k` occurs twice"]),
        ("key not UTF-8", build(0, 1).text(b"\xff").0, vec!["metadata key 0", "not UTF-8"]),
        ("text not UTF-8", build(0, 1).pair("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).0, vec!["`k`", "not UTF-8"]),
        ("M11 alignment 0", align(4, &u32s(0)), vec!["`general.alignment` is 0", "power of two"]),
        ("M11 alignment 3", align(4, &u32s(3)), vec!["`general.alignment` is 3"]),
        ("M11 alignment 2^31", align(4, &u32s(1 << 31)), vec!["`general.alignment` is 2147483648"]),
        ("M11 alignment of text", align(8, &[0; 8]), vec!["`general.alignment` is not a whole number"]),
    ]
}

fn bad_tensors() -> Vec<Bad> {
    let tensor = |dims: &[u64], kind| build(1, 0).tensor(b"w", dims, kind, 0).data(&[0; 64]);
    let named = |name: &[u8]| build(1, 0).tensor(name, &[4], 0, 0).data(&[0; 64]);
    let long = "n".repeat(1 << 20);
    vec![
        ("M12 five", tensor(&[1; 5], 0), vec!["`w`", "has 5 dimensions"]),
        (
            "M12 2^32 - 1",
            build(1, 0).text(b"w").raw(&[0xff; 4]).raw(&[0; 64]).0,
            vec!["`w`", "has 4294967295 dimensions"],
        ),
        ("M12 zero", tensor(&[4, 0], 0), vec!["`w`", "[4, 0]"]),
        ("M12 minus one", tensor(&[u64::MAX], 0), vec!["`w`", "2^40"]),
        ("M12 product", tensor(&[i64::MAX as u64, 2], 0), vec!["`w`", "2^40"]),
        (
            "M12 sum of sizes",
            build(2, 0).tensor(b"a", &[4], 0, 0).tensor(b"b", &[4], 0, u64::MAX - 31).data(&[0; 64]),
            vec!["`b`", "end past the file"],
        ),
        ("M13 removed", tensor(&[32], 4), vec!["`w`", "type 4 (Q4_2, removed", "TQ2_0"]),
        ("M13 9999", tensor(&[32], 9999), vec!["`w`", "type 9999 (unknown)"]),
        ("M13 -1", tensor(&[32], u32::MAX), vec!["`w`", "type 4294967295"]),
        ("not read", tensor(&[256], 16), vec!["`w`", "type 16 (IQ2_XXS) is not supported; supported: F32"]),
        ("whole numbers", tensor(&[8], 26), vec!["`w`", "type 26 (I32) is not supported"]),
        ("M13 part of a block", tensor(&[33, 32], 8), vec!["`w`", "rows of 33", "blocks of 32"]),
        ("M14 1 TiB", tensor(&[1 << 38], 0), vec!["`w`", "1099511627776 bytes", "end past the file"]),
        (
            "M15 past the end",
            build(1, 0).tensor(b"w", &[17], 0, 0).data(&[0; 64]),
            vec!["`w`", "68 bytes", "truncated"],
        ),
        ("offset", build(1, 0).tensor(b"w", &[4], 0, 4).data(&[0; 64]), vec!["`w`", "offset 4", "alignment 32"]),
        (
            "overlap",
            build(2, 0).tensor(b"a", &[12], 0, 0).tensor(b"b", &[4], 0, 32).data(&[0; 64]),
            vec!["`b`", "overlaps that of `a`"],
        ),
        (
            "tensor twice",
            build(2, 0).tensor(b"a", &[4], 0, 0).tensor(b"a", &[4], 0, 32).data(&[0; 64]),
            vec!["`a` occurs twice, as entries 0 and 1"],
        ),
        ("M8 NUL", named(b"a\0"), vec!["`a\\0`", "control character"]),
        ("M8 ESC", named(b"\x1b[31m"), vec!["`\\u{1b}[31m`", "control character"]),
        ("M8 path", named(b"../../etc/passwd"), vec!["looks like a path"]),
        ("M8 long", named(long.as_bytes()), vec!["1048576 bytes, more than 512"]),
        ("no name", named(b""), vec!["is empty"]),
    ]
}

#[test]
fn bad_files_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.gguf");
    for (name, content, words) in [bad_headers(), bad_values(), bad_tensors()].concat() {
        std::fs::write(&path, content).expect("written");
        let start = Instant::now();
        let error = Gguf::open(&path).expect_err(name);
        assert!(start.elapsed() < Duration::from_secs(1), "{name}: {:?}", start.elapsed());
        refused_file(name, &path, &error, &words);
    }
    assert!(Gguf::open(directory.path()).expect_err("directory").to_string().contains("not a regular file"));
}

/// M18.
#[test]
fn bad_codes_are_refused() {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let blocks = |codes: Vec<u8>, scale: f32| [codes, half(scale).to_vec()].concat();
    let i2_s = |code: u8, scale: f32| [vec![code; 32], scale.to_le_bytes().to_vec(), vec![0; 28]].concat();
    let mut three = vec![0; 64];
    three[33] = 0b0011_0000;
    let cases: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("tq2_0", blocks(three, 1.0), 256, "no code of the type at index 193"),
        ("tq2_0", blocks(vec![0; 64], f32::NAN), 256, "scale at index 0 is NaN"),
        ("tq2_0", blocks(vec![0; 64], f32::INFINITY), 256, "scale at index 0 is inf"),
        ("tq1_0", blocks([vec![0; 40], vec![1], vec![0; 11]].concat(), 1.0), 256, "at index 168"),
        ("i2_s", i2_s(0xff, 1.0), 128, "no code of the type at index 0"),
        ("i2_s", i2_s(0, f32::NAN), 128, "scale at index 0 is NaN"),
        ("f16", half(f32::NAN).to_vec(), 1, "holds NaN at index 0"),
        ("f32", [1f32, f32::NEG_INFINITY].map(f32::to_le_bytes).concat(), 2, "holds -inf at index 1"),
        ("q8_0", [&half(f32::INFINITY)[..], &[1; 32]].concat(), 32, "holds inf at index 0"),
    ];
    for (kind, data, cols, word) in cases {
        let gguf = one(find(kind).expect("known"), 1, cols, &data);
        let error = gguf.floats(&gguf.tensors()[0]).expect_err(kind).to_string();
        assert!(error.contains("tensor `w`") && error.contains(word), "{kind}: {error}");
        if find(kind).expect("known").is_ternary() {
            let error = gguf.ternary(&gguf.tensors()[0]).expect_err(kind).to_string();
            assert!(error.contains(word), "{kind}: {error}");
        }
    }
    let gguf = one(find("i2_s").expect("known"), 1, 128, &i2_s(0, 0.0));
    assert!(gguf.ternary(&gguf.tensors()[0]).expect_err("scale 0").to_string().contains("scale is 0"));
}

/// Every access a program makes to a file, on one that may be anything.
fn exercise(gguf: &Gguf) {
    for key in gguf.metadata().keys() {
        let _ = (gguf.text(key), gguf.count(key), gguf.number(key), gguf.flag(key));
        let _ = (gguf.texts(key, 1000), gguf.numbers(key, 1000));
    }
    for tensor in gguf.tensors() {
        assert!(tensor.bytes() <= gguf.file_bytes());
        let _ = (gguf.floats(tensor), gguf.ternary(tensor));
    }
}

#[test]
fn mutated_files_are_read_or_refused() {
    let seeds = [std::fs::read(golden("small.gguf")).expect("part of the repository")];
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) as usize % below
    };
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let mut file = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random(4) {
            let at = random(file.len());
            match random(5) {
                0 => file[at] ^= 1 << random(8),
                1 => file[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                2 => file.truncate(at.max(1)),
                3 => {
                    let end = (at + 8).min(file.len());
                    let value = [0, 1, u64::MAX, 1 << 63, 1 << 40, 0xffff_ffff][random(6)].to_le_bytes();
                    file[at..end].copy_from_slice(&value[..end - at]);
                }
                _ => {
                    let part: Vec<u8> = file[at..(at + 16).min(file.len())].to_vec();
                    let to = random(file.len());
                    file.splice(to..to, part);
                }
            }
        }
        match parse(file) {
            Ok(gguf) => {
                good += 1;
                exercise(&gguf);
            }
            Err(error) => {
                bad += 1;
                refusal("a mutation", &error, &[""]);
            }
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} read, {bad} refused");
}
