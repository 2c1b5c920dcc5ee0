//! Decompression of pages. No declared size reserves memory that the compressed bytes cannot fill.

use parquet::basic::Compression;
use std::io::{self, Read};

/// Most bytes that a byte of raw Snappy can stand for (a copy of 64 bytes takes 3).
const SNAPPY_RATIO: usize = 22;
/// Most bytes that a byte of an LZ4 block can stand for.
const LZ4_RATIO: usize = 256;
/// Bytes of the window of Brotli's reader.
const BUFFER: usize = 4096;

/// The content of a page that should have `size` bytes; the first `left` of it and one more when it is longer.
///
/// # Errors
/// A sentence when the bytes are damaged.
pub(super) fn decompress(codec: Compression, stored: &[u8], size: usize, left: u64) -> io::Result<Vec<u8>> {
    let most = left.min(size as u64).saturating_add(1);
    match codec {
        Compression::UNCOMPRESSED => Ok(stored.to_vec()),
        Compression::SNAPPY => snappy(stored, size),
        Compression::GZIP(_) => first(most, flate2::bufread::MultiGzDecoder::new(stored)),
        Compression::ZSTD(_) => first(most, zstd::stream::read::Decoder::with_buffer(stored)?),
        Compression::BROTLI(_) => first(most, brotli::Decompressor::new(stored, BUFFER)),
        Compression::LZ4_RAW => lz4(stored, size),
        Compression::LZ4 => hadoop(stored, size)
            .or_else(|_| first(most, lz4_flex::frame::FrameDecoder::new(stored)))
            .or_else(|_| lz4(stored, size)),
        Compression::LZO => Err(io::Error::other("LZO is not read: write it with zstd or snappy")),
    }
}

fn wrong(size: usize) -> io::Error {
    io::Error::other(format!("a page does not have the {size} bytes that its header says"))
}

/// The first bytes of a stream.
fn first(most: u64, stream: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    stream.take(most).read_to_end(&mut content)?;
    Ok(content)
}

fn snappy(stored: &[u8], size: usize) -> io::Result<Vec<u8>> {
    match snap::raw::decompress_len(stored) {
        Ok(said) if said == size && size <= stored.len().saturating_mul(SNAPPY_RATIO) => {
            snap::raw::Decoder::new().decompress_vec(stored).map_err(io::Error::other)
        }
        _ => Err(wrong(size)),
    }
}

fn lz4(stored: &[u8], size: usize) -> io::Result<Vec<u8>> {
    match size <= stored.len().saturating_mul(LZ4_RATIO) {
        true => lz4_flex::block::decompress(stored, size).map_err(io::Error::other),
        false => Err(wrong(size)),
    }
}

/// The frames of Hadoop's codec: both sizes as big-endian numbers, then a block.
fn hadoop(mut stored: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    while let Some((sizes, rest)) = stored.split_first_chunk::<8>() {
        let [full, packed] =
            [&sizes[..4], &sizes[4..]].map(|n| n.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte)));
        if packed > rest.len() || full > size - content.len() {
            return Err(wrong(size));
        }
        let block = lz4(&rest[..packed], full)?;
        content.extend_from_slice(&block);
        stored = &rest[packed..];
    }
    match stored.is_empty() && content.len() == size {
        true => Ok(content),
        false => Err(wrong(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_hadoop_are_blocks_with_their_sizes() {
        let parts: [&[u8]; 2] = [&[7; 1000], b"the end"];
        let mut stored = Vec::new();
        for part in parts {
            let block = lz4_flex::block::compress(part);
            stored.extend([part.len(), block.len()].into_iter().flat_map(|n| (n as u32).to_be_bytes()));
            stored.extend(block);
        }
        assert_eq!(decompress(Compression::LZ4, &stored, 1007, 9999).unwrap(), parts.concat());
        assert!(decompress(Compression::LZ4, &stored, 1006, 9999).is_err());
        let block = lz4_flex::block::compress(parts[0]);
        assert_eq!(decompress(Compression::LZ4, &block, 1000, 9999).unwrap(), parts[0]);
    }

    #[test]
    fn a_declared_size_reserves_nothing() {
        let huge = i32::MAX as usize;
        let said = [0xff, 0xff, 0xff, 0xff, 7, 0, 0];
        for codec in [Compression::SNAPPY, Compression::LZ4_RAW, Compression::LZ4] {
            assert!(decompress(codec, &said, huge, u64::MAX).is_err(), "{codec:?}");
        }
        let zeros = zstd::encode_all(&vec![0; 1_000_000][..], 1).unwrap();
        assert_eq!(decompress(Compression::ZSTD(Default::default()), &zeros, huge, 99).unwrap().len(), 100);
    }
}
