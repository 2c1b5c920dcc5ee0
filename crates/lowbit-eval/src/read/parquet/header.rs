//! Headers of pages: `PageHeader` of the Parquet format in the compact protocol of Thrift.

use std::io::{self, Read};

/// Bytes of a header at most; statistics may quote values.
const HEADER: u64 = 1 << 20;
/// Structures within structures at most.
const DEPTH: usize = 16;

/// What a page is; counts of values as the header says them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// 0: data, 1: index, 2: dictionary, 3: data in the second version.
    pub(super) kind: i32,
    /// Bytes after decompression, levels included.
    pub(super) size: i32,
    /// Bytes in the file.
    pub(super) stored: i32,
    pub(super) values: i32,
    pub(super) encoding: i32,
    /// Encodings of definition and repetition levels, of the first version.
    pub(super) levels: [i32; 2],
    pub(super) nulls: i32,
    pub(super) rows: i32,
    /// Bytes of definition and repetition levels, which are not compressed, of the second version.
    pub(super) level_bytes: [i32; 2],
    /// Whether the values are compressed, of the second version.
    pub(super) compressed: bool,
    /// Bytes of the header itself.
    pub(super) length: u64,
}

impl Header {
    /// Reads a field of the inner header: of data (5), of a dictionary (7), or of data in the second version (8).
    fn inner<R: Read>(&mut self, compact: &mut Compact<R>, outer: i16, field: i16, kind: u8) -> io::Result<()> {
        let place = match (outer, field, kind) {
            (8, 7, TRUE | FALSE) => {
                self.compressed = kind == TRUE;
                return Ok(());
            }
            (_, 1, I32) => &mut self.values,
            (5 | 7, 2, I32) | (8, 4, I32) => &mut self.encoding,
            (5, 3 | 4, I32) => &mut self.levels[usize::from(field == 4)],
            (8, 2, I32) => &mut self.nulls,
            (8, 3, I32) => &mut self.rows,
            (8, 5 | 6, I32) => &mut self.level_bytes[usize::from(field == 6)],
            _ => return compact.skip(kind, 0),
        };
        *place = compact.number()?;
        Ok(())
    }
}

/// Reads a header.
///
/// # Errors
/// When the bytes are no header.
pub(super) fn read(input: impl Read) -> io::Result<Header> {
    let mut compact = Compact { input, read: 0 };
    let mut header = Header { compressed: true, ..Header::default() };
    compact.fields(|compact, field, kind| {
        let place = match (field, kind) {
            (1, I32) => &mut header.kind,
            (2, I32) => &mut header.size,
            (3, I32) => &mut header.stored,
            (5 | 7 | 8, STRUCT) => {
                return compact.fields(|compact, inner, kind| header.inner(compact, field, inner, kind));
            }
            _ => return compact.skip(kind, 0),
        };
        *place = compact.number()?;
        Ok(())
    })?;
    let counts = [header.size, header.stored, header.values, header.nulls, header.rows];
    match counts.iter().chain(&header.level_bytes).all(|n| *n >= 0) {
        true => Ok(Header { length: compact.read, ..header }),
        false => Err(damaged()),
    }
}

fn damaged() -> io::Error {
    io::Error::other("the header of a page is damaged")
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;

struct Compact<R> {
    input: R,
    read: u64,
}

impl<R: Read> Compact<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.read += 1;
        if self.read > HEADER {
            return Err(damaged());
        }
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn number(&mut self) -> io::Result<i32> {
        let zigzag = self.varint()?;
        i32::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).map_err(|_| damaged())
    }

    /// Calls `f` with number and type of each field of a structure; `f` reads its value.
    fn fields(&mut self, mut f: impl FnMut(&mut Self, i16, u8) -> io::Result<()>) -> io::Result<()> {
        let mut field: i16 = 0;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            field = match byte >> 4 {
                0 => self.number()?.try_into().map_err(|_| damaged())?,
                step => field.checked_add(step.into()).ok_or_else(damaged)?,
            };
            f(self, field, byte & 15)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth > DEPTH {
            return Err(damaged());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            DOUBLE => self.bytes(8),
            BINARY => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let length = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                for _ in 0..length {
                    match byte & 15 {
                        TRUE | FALSE => self.bytes(1)?,
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
                Ok(())
            }
            STRUCT => self.fields(|compact, _, kind| compact.skip(kind, depth + 1)),
            _ => Err(damaged()),
        }
    }

    fn bytes(&mut self, length: u64) -> io::Result<()> {
        (0..length).try_for_each(|_| self.byte().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_others_skipped() {
        // 1: 0, 2: 20, 3: 10, 5: {1: 3, 2: 8, 3: 3, 4: 3, 5: {5: "max", 6: "min"}}
        let bytes = [
            0x15, 0, 0x15, 40, 0x15, 20, 0x2c, 0x15, 6, 0x15, 16, 0x15, 6, 0x15, 6, 0x1c, 0x58, 3, b'm', b'a', b'x',
            0x18, 3, b'm', b'i', b'n', 0, 0, 0, 99,
        ];
        let expected = Header {
            size: 20,
            stored: 10,
            values: 3,
            encoding: 8,
            levels: [3, 3],
            compressed: true,
            length: bytes.len() as u64 - 1,
            ..Header::default()
        };
        assert_eq!(read(&bytes[..]).unwrap(), expected);
        for length in 0..bytes.len() - 1 {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(read(&[0x15, 0, 0x15, 1, 0x15, 0, 0][..]).is_err(), "a negative size");
        assert!(read(io::repeat(0x1c)).is_err() && read(io::repeat(0x19)).is_err(), "no end");
    }
}
