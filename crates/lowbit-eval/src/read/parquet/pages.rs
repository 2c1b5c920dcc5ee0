//! Pages of one column chunk, read and decompressed within a budget, for the decoder of the `parquet` crate.

use super::codec::decompress;
use super::header::{self, Header};
use crate::error::Error;
use crate::read::Budget;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Values of a dictionary at most. Writers leave dictionaries at a megabyte.
const DICTIONARY: i32 = 1 << 20;
/// Bytes of a page at most whose values repeat what stands before them (`DELTA_BYTE_ARRAY`).
const INCREMENTAL: usize = 4 << 20;

/// Where the pages of a column chunk are.
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) codec: Compression,
    pub(super) physical: Type,
    /// Bytes of a value of fixed length.
    pub(super) length: usize,
    /// Whether values may be missing.
    pub(super) optional: bool,
    /// Values of a page at most.
    pub(super) values: u64,
}

/// The pages of a column chunk in their order.
pub(super) struct Pages {
    pub(super) file: Arc<File>,
    pub(super) chunk: Chunk,
    pub(super) budget: Arc<Budget>,
}

fn damaged(text: &str) -> ParquetError {
    ParquetError::General(text.into())
}

impl Pages {
    fn next_page(&mut self) -> Result<Option<Page>> {
        while self.chunk.start < self.chunk.end {
            let header = self.header()?;
            let mut stored = Vec::new();
            (&*self.file).take(header.stored as u64).read_to_end(&mut stored)?;
            if stored.len() < header.stored as usize {
                return Err(damaged("a page ends too early"));
            }
            self.chunk.start += header.length + header.stored as u64;
            // A page of an index is passed over.
            if let 0 | 2 | 3 = header.kind {
                return self.page(&header, &stored).map(Some);
            }
        }
        Ok(None)
    }

    /// The header where the next page begins; the file is left at the content.
    fn header(&mut self) -> Result<Header> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.chunk.start))?;
        let header = header::read(BufReader::new(file))?;
        file.seek(SeekFrom::Start(self.chunk.start + header.length))?;
        Ok(header)
    }

    fn page(&self, header: &Header, stored: &[u8]) -> Result<Page> {
        let buf = self.content(header, stored)?;
        let (num_values, encoding) = (header.values as u32, encoding(header.encoding)?);
        if u64::from(num_values) > self.chunk.values {
            let text = format!("a page of {num_values} values, the limit for one table is {} rows", self.chunk.values);
            return Err(ParquetError::External(Box::new(Error::memory(text))));
        }
        let page = match header.kind {
            2 => {
                if header.values > DICTIONARY || u64::from(num_values) > buf.len() as u64 / self.least() {
                    return Err(damaged("a dictionary has more values than its page can hold"));
                }
                Page::DictionaryPage { buf: buf.into(), num_values, encoding, is_sorted: false }
            }
            0 => {
                let [definition, repetition] = header.levels;
                let (def_level_encoding, rep_level_encoding) =
                    (self::encoding(definition)?, self::encoding(repetition)?);
                let levels = match (self.chunk.optional, buf.first_chunk::<4>()) {
                    (false, _) => 0,
                    (true, Some(length)) => (u32::from_le_bytes(*length) as usize).saturating_add(4),
                    (true, None) => return Err(damaged("a page has no levels")),
                };
                check_lengths(encoding, buf.get(levels..), num_values)?;
                let buf = buf.into();
                Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics: None }
            }
            _ => {
                let [def_levels_byte_len, rep_levels_byte_len] = header.level_bytes.map(|bytes| bytes as u32);
                let levels = def_levels_byte_len as usize + rep_levels_byte_len as usize;
                check_lengths(encoding, buf.get(levels..), num_values)?;
                Page::DataPageV2 {
                    buf: buf.into(),
                    num_values,
                    encoding,
                    num_nulls: header.nulls as u32,
                    num_rows: header.rows as u32,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed: header.compressed,
                    statistics: None,
                }
            }
        };
        Ok(page)
    }

    /// The bytes of a page, decompressed but for the levels of the second version.
    fn content(&self, header: &Header, stored: &[u8]) -> Result<Vec<u8>> {
        let levels = match header.kind {
            3 => header.level_bytes.iter().map(|bytes| *bytes as usize).sum(),
            _ => 0,
        };
        let size = (header.size as usize).checked_sub(levels);
        let (Some(size), Some((levels, values))) = (size, stored.split_at_checked(levels)) else {
            return Err(damaged("the levels of a page are longer than the page"));
        };
        let codec = if header.compressed { self.chunk.codec } else { Compression::UNCOMPRESSED };
        let content = if size == 0 { Vec::new() } else { decompress(codec, values, size, self.budget.left())? };
        self.budget.take(content.len() as u64).map_err(|e| ParquetError::External(Box::new(Error::from(e))))?;
        if content.len() != size {
            return Err(damaged("a page has another size than its header says"));
        }
        Ok([levels, &content].concat())
    }

    /// Bytes of a plain value at least.
    fn least(&self) -> u64 {
        match self.chunk.physical {
            Type::BOOLEAN | Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => self.chunk.length.max(1) as u64,
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.next_page()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(damaged("pages are read in their order"))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.next_page().map(drop)
    }
}

fn encoding(number: i32) -> Result<Encoding> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        #[allow(deprecated)] // old writers
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return Err(ParquetError::General(format!("unknown encoding {number}"))),
    })
}

/// Sees that the lists of lengths that begin a page of byte arrays are as long as the page: their decoder believes them.
fn check_lengths(encoding: Encoding, values: Option<&[u8]>, most: u32) -> Result<()> {
    let wrong = || damaged("a page is damaged");
    let values = values.ok_or_else(wrong)?;
    let lists = match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        Encoding::DELTA_BYTE_ARRAY if values.len() > INCREMENTAL => {
            return Err(damaged("a page of incremental texts is larger than 4 MiB: write it with another encoding"));
        }
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return Ok(()),
    };
    let mut rest = values;
    for _ in 0..lists {
        rest = after_lengths(rest, most.into()).ok_or_else(wrong)?;
    }
    Ok(())
}

/// What follows a list in `DELTA_BINARY_PACKED` of at most so many numbers.
fn after_lengths(bytes: &[u8], most: u64) -> Option<&[u8]> {
    let mut rest = bytes;
    let [block, minis, count, _first] = [(); 4].map(|()| varint(&mut rest));
    let (block, minis, count) = (block?, minis?, count?);
    if minis == 0 || block == 0 || !block.is_multiple_of(minis) || count > most {
        return None;
    }
    let per_mini = block / minis;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(&mut rest)?;
        let (widths, after) = rest.split_at_checked(usize::try_from(minis).ok()?)?;
        rest = after;
        for width in widths {
            if left == 0 {
                break;
            }
            let bytes = per_mini.checked_mul((*width).into())?.div_ceil(8);
            rest = rest.get(usize::try_from(bytes).ok()?..)?;
            left = left.saturating_sub(per_mini);
        }
    }
    Some(rest)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}
