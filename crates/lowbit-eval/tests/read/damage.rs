//! Limits, odd files and damaged ones.

use super::*;

#[test]
fn a_line_of_100_megabytes_and_a_bomb() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "long.csv", "");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000_000).unwrap();
    assert!(refusal(&table(&path)).starts_with("long.csv:1: record is longer than 16777216 bytes"));
    for (compressed, compress) in COMPRESS.into_iter().skip(1) {
        let path = file(&dir, &format!("bomb.csv{compressed}"), compress(&vec![0; 20_000_000]));
        assert!(refusal(&table(&path)).contains(":1: record is longer than"), "{compressed}");
    }
}

#[test]
fn limits_hold() {
    let dir = TempDir::new().unwrap();
    let many = "text,0\n".repeat(1000);
    for (compressed, compress) in COMPRESS {
        let path = file(&dir, &format!("x.csv{compressed}"), compress(many.as_bytes()));
        // A row takes 48 bytes, each of its two values 4 and its text.
        let exact = Limits { bytes: 61_000, rows: 1000, ..Limits::default() };
        assert_eq!(read(&table(&path), &exact).unwrap().len(), 1000);
        for bytes in [6999, 60_999] {
            let error = read(&table(&path), &Limits { bytes, ..exact }).unwrap_err();
            assert_eq!(error.kind, Kind::Memory);
            assert!(error.message.starts_with(&format!("more than {bytes} bytes of content")), "{error}");
        }
        let error = read(&table(&path), &Limits { rows: 999, ..exact }).unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (Some(1000), "more than 999 rows, the limit for one table"));
    }
    let bounded = Limits { line: 100, ..Limits::default() };
    let refused = |content: String| read(&table(file(&dir, "y.csv", content)), &bounded).unwrap_err();
    let error = refused(format!("a,0\n{},1\n", "x".repeat(200)));
    assert_eq!(error.line, Some(2));
    assert_eq!(error.message, "record is longer than 100 bytes: is it a text table, with matching quotes?");
    let error = refused(format!("a,0\n\"b,1\n{}", many));
    assert!(error.message.ends_with("(the record's quote opens on line 2)"), "{error}");
    assert!(read(&table(file(&dir, "y.csv", format!("{},1\n", "x".repeat(98)))), &bounded).is_err());
    assert!(read(&table(file(&dir, "y.csv", format!("{},1\n", "x".repeat(97)))), &bounded).is_ok());
}

#[test]
fn damaged_compression_is_named() {
    let dir = TempDir::new().unwrap();
    let mut state = 1u32;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    let content: String = (0..3000).map(|_| format!("{}{}{},0\n", letter(), letter(), letter())).collect();
    for (compressed, compress) in COMPRESS.into_iter().skip(1) {
        let bytes = compress(content.as_bytes());
        let name = format!("x.csv{compressed}");
        let cut = refusal(&table(file(&dir, &name, &bytes[..bytes.len() / 2])));
        assert!(cut.starts_with(&format!("{name}:")), "{cut}");
        assert!(cut.ends_with(": compressed stream ends too early: the file is truncated, fetch it again"), "{cut}");
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2..][..8].fill(0xff);
        // Without a checksum (zstd) the damage may show as a bad row.
        let message = refusal(&table(file(&dir, &name, &damaged)));
        assert!(message.starts_with(&format!("{name}:")), "{message}");
        let renamed = file(&dir, &format!("plain.csv{compressed}"), &content);
        assert!(refusal(&table(&renamed)).contains("but does not begin like one"));
    }
    let wrong = file(&dir, "x.csv.gz", zstd(content.as_bytes()));
    assert_eq!(refusal(&table(&wrong)), "x.csv.gz: is named .gz but is zstd: rename it");
}

const ROUNDS: usize = 300;

/// Random damage to whole files ends in rows or in one line of refusal.
#[test]
fn random_damage_never_panics() {
    let dir = TempDir::new().unwrap();
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut seeds: Vec<(String, Vec<u8>)> = Vec::new();
    for (extension, content) in samples() {
        for (compressed, compress) in COMPRESS {
            seeds.push((format!("x{extension}{compressed}"), compress(content.as_bytes())));
        }
    }
    let objects =
        samples().pop().expect("JSON lines are the last sample").1.trim().replace('\n', ",").replace(",,", ",");
    for text in [format!("[{objects}]"), format!("{{\"n\": [1], \"data\": [\n{objects}]}}")] {
        for (compressed, compress) in COMPRESS {
            seeds.push((format!("x.json{compressed}"), compress(text.as_bytes())));
        }
    }
    for name in ["snappy", "zstd", "lz4", "gzip", "brotli", "strings", "odd", "incremental", "lengths", "dictionary"] {
        let name = format!("{name}.parquet");
        let bytes = fs::read(golden(&name)).unwrap();
        seeds.push((name, bytes));
    }
    let mut refused = 0;
    for (name, bytes) in &seeds {
        for _ in 0..ROUNDS {
            let mut bytes = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"\"\n\t,\xff"[random(5)]),
                }
            }
            let path = file(&dir, name, &bytes);
            let bounded = Limits { bytes: 1 << 20, ..Limits::default() };
            let result = read(&named(&path, &["text"], "label"), &bounded);
            fs::remove_file(path).unwrap();
            match result {
                Ok(rows) => assert_eq!(rows.inputs.len(), rows.targets.len()),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
    assert!(refused > seeds.len() * ROUNDS / 10, "{refused}");
}

#[test]
fn what_is_no_regular_file() {
    let dir = TempDir::new().unwrap();
    let error = read(&table(dir.path().join("absent.csv")), &Limits::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Io);
    assert!(
        error
            .to_string()
            .ends_with("absent.csv: no such file: check the name, or the data directory (--data DIR, LOWBIT_DATA)")
    );
    let folder = dir.path().join("folder.csv");
    fs::create_dir(&folder).unwrap();
    assert_eq!(refusal(&table(&folder)), "folder.csv: is a directory, not a regular file");
    #[cfg(unix)]
    {
        let zero = dir.path().join("zero.csv");
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        assert_eq!(refusal(&table(&zero)), "zero.csv: is a device, not a regular file");
        let circle = dir.path().join("circle.csv");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert_eq!(read(&table(&circle), &Limits::default()).unwrap_err().kind, Kind::Io);
    }
}
