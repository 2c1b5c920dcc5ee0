//! Compression by the model inside the program: what is restored, what a file says, and what is refused.

use lowbit::base::SplitMix64;
use lowbit::eval::compress::Compressor;
use lowbit::eval::read::Limits;
use lowbit::kernels::{Cpu, Isa};
use lowbit::shipped;

fn compressor(cpu: &Cpu) -> Compressor {
    Compressor::new(&shipped::open().unwrap().on(cpu), cpu).unwrap()
}

fn random(bytes: usize) -> Vec<u8> {
    let mut random = SplitMix64::new(7);
    (0..bytes).map(|_| random.bits() as u8).collect()
}

/// Contents of many kinds; the last is longer than a window.
fn contents() -> Vec<Vec<u8>> {
    let review = "I went in with low hopes, and the first hour kept them. Then the old man opens the door, and nothing is as it was. ";
    let languages = "Größe · été · niño · tiếng · şeker · 雪国 · здравствуй · שלום · مرحبا · नमस्ते · ไทย · 한국어 · ελληνικά · ქართული · հայերեն · 🙂";
    vec![
        vec![],
        b"a".to_vec(),
        vec![0; 500],
        random(200),
        languages.into(),
        (0..=255).collect(),
        include_bytes!("data/grey.png").to_vec(),
        [review.repeat(6).as_bytes(), &random(20), languages.as_bytes()].concat(),
    ]
}

#[test]
fn what_is_restored_is_what_was_compressed() {
    let mut compressor = compressor(&Cpu::new(None, Some(2)).unwrap());
    for content in contents() {
        let mut seen = 0;
        let mut listener = |done| {
            assert!(done >= seen, "{done} after {seen}");
            seen = done;
            Ok(())
        };
        let compressed = compressor.compress(&content, &mut listener).unwrap();
        assert_eq!(seen, content.len() as u64);
        // The file has the size that the probabilities promise.
        let (scored, written) = (compressed.bits / 8.0, compressed.bytes.len() as f64);
        assert!(written >= scored && written <= scored * 1.001 + 64.0, "{written} bytes, {scored} promised");
        assert!(compressor.decompress(&compressed.bytes, &mut |_| Ok(())).unwrap() == content);
    }
}

/// With `LOWBIT_WHOLE=1` a megabyte each, and all of the text that is there: minutes. Else so much that lanes and windows follow one another.
#[test]
fn long_files_are_restored() {
    let is_whole = std::env::var("LOWBIT_WHOLE").is_ok_and(|value| value == "1");
    let bytes = if is_whole { 1 << 20 } else { 18 << 10 };
    let mut contents = vec![("random", random(bytes)), ("zeros", vec![0; bytes])];
    if let Some(path) = lowbit::base::testing::data("enwik8_prefix/enwik8.prefix.zst").filter(|_| is_whole) {
        contents.push(("enwik8", lowbit::eval::read::bytes(&path, &Limits::default()).unwrap()));
    }
    let mut compressor = compressor(&Cpu::new(None, Some(2)).unwrap());
    for (name, content) in contents {
        let file = compressor.compress(&content, &mut |_| Ok(())).unwrap().bytes;
        assert!(compressor.decompress(&file, &mut |_| Ok(())).unwrap() == content, "{name}");
        let ratio = content.len() as f64 / file.len() as f64;
        eprintln!("{name}: {} bytes of {}, {ratio:.2} to 1", file.len(), content.len());
        // What the model never saw is stored.
        assert!(if name == "enwik8" { ratio > 2.0 } else { file.len() <= content.len() + 64 }, "{name}: {ratio}");
    }
}

#[test]
fn files_are_the_same_on_every_machine() {
    let content = contents().pop().unwrap();
    let mut first = None;
    for (isa, threads) in Isa::available().into_iter().zip([1, 3, 2, 1].into_iter().cycle()) {
        let cpu = Cpu::new(Some(isa.name()), Some(threads)).unwrap();
        // Three lanes, the last of which is shorter.
        let mut compressor = compressor(&cpu).lanes(3);
        let compressed = compressor.compress(&content, &mut |_| Ok(())).unwrap();
        let first = first.get_or_insert_with(|| compressed.bytes.clone());
        assert!(compressed.bytes == *first, "{} on {threads} threads", isa.name());
        assert!(compressor.decompress(first, &mut |_| Ok(())).unwrap() == content, "{}", isa.name());
    }
}

#[test]
fn damaged_files_are_refused() {
    let mut compressor = compressor(&Cpu::new(None, Some(1)).unwrap());
    let file = compressor.compress(b"The film begins where others end.", &mut |_| Ok(())).unwrap().bytes;
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x40;
        let error = compressor.decompress(&damaged, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, lowbit::base::Kind::Input, "byte {at}: {error}");
        assert!(compressor.decompress(&file[..at], &mut |_| Ok(())).is_err(), "cut at {at}");
    }
    let stop = |_| Err(lowbit::base::Error::usage("enough"));
    assert!(compressor.compress(&[7; 100], &mut { stop }).is_err_and(|e| e.message == "enough"));
    // What failed leaves nothing behind.
    assert_eq!(compressor.decompress(&file, &mut |_| Ok(())).unwrap(), b"The film begins where others end.");
}
