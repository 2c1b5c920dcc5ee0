//! Types of tensors: how many elements share a block, and what a block means. [`TYPES`] is the list.

use super::blocks::{self, Codes, Layout, Scales};
use lowbit_kernels::format::{Grouped, SpanScales};

/// A type of tensors.
pub struct Type {
    /// Its name in llama.cpp.
    pub name: &'static str,
    /// Its number in files.
    pub number: u32,
    /// Elements of a block.
    pub block: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Bytes after the blocks of a tensor.
    pub tail: usize,
    meaning: Meaning,
    encode: Option<Encode>,
}

/// Appends the bytes of a tensor's values.
type Encode = fn(&[f32], &mut Vec<u8>) -> Result<(), String>;

enum Meaning {
    /// Blocks of numbers, one at a time; all at once where a block is one number.
    Numbers(fn(&[u8], &mut [f32])),
    /// Blocks of integers with scales.
    Integers(&'static Layout),
    /// Blocks of codes -1, 0, 1, each block with its scale.
    Ternary(fn(&[u8], &mut [i8]) -> Codes),
    /// Blocks of codes -1, 0, 1; the scale of all is an f32 that begins the tail.
    OneScale(fn(&[u8], &mut [i8]) -> Codes),
}

/// A matrix of `scale * sign`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ternary {
    /// -1, 0 or 1.
    pub signs: Vec<i8>,
    /// What all of them are multiplied with.
    pub scale: f32,
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

use Meaning::{Integers, Numbers, OneScale, Ternary as Blocks};

macro_rules! types {
    ($($name:ident = $number:literal, $block:literal in $bytes:literal + $tail:literal, $meaning:expr, $encode:expr;)*) => {
        /// Every type that is read.
        pub static TYPES: &[Type] = &[$(Type {
            name: stringify!($name), number: $number, block: $block, block_bytes: $bytes, tail: $tail, meaning: $meaning,
            encode: $encode,
        }),*];
    };
}

types! {
    F32 = 0, 1 in 4 + 0, Numbers(blocks::f32), Some(blocks::put_f32);
    F16 = 1, 1 in 2 + 0, Numbers(blocks::f16), Some(blocks::put_f16);
    Q4_0 = 2, 32 in 18 + 0, Integers(&blocks::Q4_0), None;
    Q4_1 = 3, 32 in 20 + 0, Integers(&blocks::Q4_1), None;
    Q5_0 = 6, 32 in 22 + 0, Integers(&blocks::Q5_0), None;
    Q5_1 = 7, 32 in 24 + 0, Integers(&blocks::Q5_1), None;
    Q8_0 = 8, 32 in 34 + 0, Integers(&blocks::Q8_0), Some(blocks::put_q8_0);
    Q2_K = 10, 256 in 84 + 0, Integers(&blocks::Q2_K), None;
    Q3_K = 11, 256 in 110 + 0, Integers(&blocks::Q3_K), None;
    Q4_K = 12, 256 in 144 + 0, Integers(&blocks::Q4_K), None;
    Q5_K = 13, 256 in 176 + 0, Integers(&blocks::Q5_K), None;
    Q6_K = 14, 256 in 210 + 0, Integers(&blocks::Q6_K), None;
    IQ4_NL = 20, 32 in 18 + 0, Numbers(blocks::iq4_nl), None;
    IQ4_XS = 23, 256 in 136 + 0, Numbers(blocks::iq4_xs), None;
    F64 = 28, 1 in 8 + 0, Numbers(blocks::f64), None;
    BF16 = 30, 1 in 2 + 0, Numbers(blocks::bf16), Some(blocks::put_bf16);
    TQ1_0 = 34, 256 in 54 + 0, Blocks(blocks::tq1_0), Some(blocks::put_tq1_0);
    TQ2_0 = 35, 256 in 66 + 0, Blocks(blocks::tq2_0), Some(blocks::put_tq2_0);
    I2_S = 36, 128 in 32 + 32, OneScale(blocks::i2_s), Some(blocks::put_i2_s);
    MXFP4 = 39, 32 in 17 + 0, Numbers(blocks::mxfp4), None;
    NVFP4 = 40, 64 in 36 + 0, Numbers(blocks::nvfp4), None;
    Q1_0 = 41, 128 in 18 + 0, Numbers(blocks::q1_0), None;
    Q2_0 = 42, 64 in 18 + 0, Numbers(blocks::q2_0), None;
    Q2_0_G128 = 42, 128 in 34 + 0, Numbers(blocks::q2_0), None;
    PQ2_0 = 142, 128 in 34 + 0, Numbers(blocks::q2_0), None;
}

/// Types of super-blocks, and those of small blocks that llama.cpp takes for rows that do not fill them.
const NARROW: &[(&str, &str)] =
    &[("Q2_K", "Q4_0"), ("Q3_K", "Q4_0"), ("Q4_K", "Q5_0"), ("Q5_K", "Q5_1"), ("Q6_K", "Q8_0")];

/// Names of numbers that are not read.
const OTHERS: &[(u32, &str)] = &[
    (4, "Q4_2, removed from GGUF"),
    (5, "Q4_3, removed from GGUF"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4, removed from GGUF"),
    (32, "Q4_0_4_8, removed from GGUF"),
    (33, "Q4_0_8_8, removed from GGUF"),
    (143, "PTQ1_0"),
];

/// The type of a number; where a number has had several meanings, the first that `fills` the place of the tensor.
///
/// # Errors
/// A sentence parameters the types that are read.
pub(super) fn of(number: u32, fills: impl Fn(&Type) -> bool) -> Result<&'static Type, String> {
    let meanings = || TYPES.iter().filter(|t| t.number == number);
    meanings().find(|t| fills(t)).or_else(|| meanings().next()).ok_or_else(|| {
        let name = OTHERS.iter().find(|(n, _)| *n == number).map_or("unknown", |(_, name)| name);
        let known: Vec<_> = TYPES.iter().map(|t| t.name).collect();
        format!("type {number} ({name}) is not supported; supported: {}", known.join(", "))
    })
}

/// The type of a name, in small or capital letters.
pub fn find(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|t| t.name.eq_ignore_ascii_case(name))
}

impl Type {
    /// Whether its elements are one of three values.
    pub fn is_ternary(&self) -> bool {
        matches!(self.meaning, Blocks(_) | OneScale(_))
    }

    /// Whether this program writes it.
    pub fn is_written(&self) -> bool {
        self.encode.is_some() || self.format().is_some()
    }

    /// Whether scales and codes are searched for when it is written.
    pub fn is_searched(&self) -> bool {
        self.encode.is_none() && self.format().is_some()
    }

    /// The type for rows of `cols` elements: where they are no whole number of super-blocks, what llama.cpp takes in its place.
    pub fn for_rows(&'static self, cols: usize) -> &'static Type {
        let narrow = NARROW.iter().find(|(wide, _)| *wide == self.name && !cols.is_multiple_of(self.block));
        let narrow = narrow.and_then(|(_, narrow)| find(narrow));
        match narrow {
            Some(narrow) if cols.is_multiple_of(narrow.block) => narrow,
            Some(_) => find("f16").expect("a type"),
            None => self,
        }
    }

    /// The format that holds its blocks without rounding, where they are integers with scales.
    pub fn format(&self) -> Option<&'static dyn Grouped> {
        match self.meaning {
            Integers(_) => lowbit_kernels::format::find(&self.name.to_lowercase()).ok()?.grouped(),
            _ => None,
        }
    }

    /// The codes and scales of blocks of integers from block `first` on, as many as `codes` takes.
    ///
    /// # Panics
    /// When the type has no [`Type::format`].
    pub(super) fn integers_from(&self, data: &[u8], first: usize, codes: &mut [u8]) -> Vec<SpanScales> {
        let (Integers(layout), Some(format)) = (&self.meaning, self.format()) else {
            unreachable!("blocks of integers")
        };
        let blocks = data[first * self.block_bytes..].chunks_exact(self.block_bytes);
        let read = |(block, codes): (&[u8], &mut [u8])| {
            let Scales { scale, offset, small } = layout.read(block, codes);
            format.scales(scale, offset, &small)
        };
        blocks.zip(codes.chunks_exact_mut(self.block)).map(read).collect()
    }

    /// Bytes of a tensor of `count` elements in rows of `cols`.
    ///
    /// # Errors
    /// A sentence when rows are no whole number of blocks.
    pub fn size(&self, cols: u64, count: u64) -> Result<u64, String> {
        // Where all blocks have one scale they may run across rows.
        let (what, length) = if self.tail == 0 { ("rows of", cols) } else { ("a tensor of", count) };
        if !length.is_multiple_of(self.block as u64) {
            let text = format!("{what} {length} elements do not fill blocks of {}", self.block);
            return Err(format!("{text}, which type {} needs", self.name));
        }
        Ok(count / self.block as u64 * self.block_bytes as u64 + self.tail as u64)
    }

    /// Writes the elements of a tensor to `out`; `data` has the [`size`](Type::size) of so many elements.
    ///
    /// # Errors
    /// A sentence naming block and fault when a code is none of the type.
    pub(super) fn decode(&self, data: &[u8], out: &mut [f32]) -> Result<(), String> {
        self.decode_from(data, 0, out)
    }

    /// [`Type::decode`] of the elements from block `first` on, as many as `out` takes.
    ///
    /// # Errors
    /// As [`Type::decode`].
    pub(super) fn decode_from(&self, data: &[u8], first: usize, out: &mut [f32]) -> Result<(), String> {
        let start = &data[first * self.block_bytes..];
        let blocks = start.chunks_exact(self.block_bytes).zip(out.chunks_exact_mut(self.block));
        match self.meaning {
            Numbers(read) if self.block == 1 => read(start, out),
            Numbers(read) => blocks.for_each(|(block, out)| read(block, out)),
            Integers(layout) => blocks.for_each(|(block, out)| layout.decode(block, out)),
            Blocks(_) | OneScale(_) => {
                let mut signs = vec![0; self.block];
                for (i, (block, out)) in (first..).zip(blocks) {
                    let scale = self.block_codes(data, i, block, &mut signs)?;
                    out.iter_mut().zip(&signs).for_each(|(out, sign)| *out = scale * f32::from(*sign));
                }
            }
        }
        Ok(())
    }

    /// The signs of block `i` and their scale.
    fn block_codes(&self, data: &[u8], i: usize, block: &[u8], signs: &mut [i8]) -> Result<f32, String> {
        let (read, of_tensor) = match self.meaning {
            Numbers(_) | Integers(_) => unreachable!("only ternary types have codes"),
            Blocks(read) => (read, None),
            OneScale(read) => {
                let at = data.len() - self.tail;
                (read, Some(f32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"))))
            }
        };
        let codes = read(block, signs);
        if let Some(element) = codes.invalid {
            return Err(format!(
                "holds no code of the type at index {}; the file is damaged",
                i * self.block + element
            ));
        }
        let scale = of_tensor.unwrap_or(codes.scale);
        match scale.is_finite() {
            true => Ok(scale),
            false => Err(format!("the scale at index {} is {scale}; the file is damaged", i * self.block)),
        }
    }

    /// The only scale of a ternary tensor, if it has only one; blocks of zeros may have a scale of 0.
    pub(super) fn one_scale(&self, data: &[u8]) -> Option<f32> {
        match self.meaning {
            Numbers(_) | Integers(_) => None,
            OneScale(_) => {
                let at = data.len() - self.tail;
                Some(f32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes")))
            }
            Blocks(_) => {
                let scales = data
                    .chunks_exact(self.block_bytes)
                    .map(|block| [block[self.block_bytes - 2], block[self.block_bytes - 1]]);
                let mut scales = scales.filter(|scale| *scale != [0; 2]);
                let first = scales.next().unwrap_or_default();
                scales.all(|scale| scale == first).then(|| half::f16::from_le_bytes(first).to_f32())
            }
        }
    }

    /// The codes 0, 1, 2 of -1, 0, 1 of the elements from block `first` on, as many as `out` takes; 1 in blocks whose
    /// scale is 0.
    ///
    /// # Errors
    /// As [`Type::decode`].
    pub(super) fn codes_from(&self, data: &[u8], first: usize, out: &mut [u8]) -> Result<(), String> {
        let blocks = data[first * self.block_bytes..].chunks_exact(self.block_bytes);
        let mut signs = vec![0; self.block];
        for ((i, block), out) in (first..).zip(blocks).zip(out.chunks_exact_mut(self.block)) {
            match self.block_codes(data, i, block, &mut signs)? {
                0.0 => out.fill(1),
                _ => out.iter_mut().zip(&signs).for_each(|(out, sign)| *out = (sign + 1) as u8),
            }
        }
        Ok(())
    }

    /// The signs of a tensor and the scale of all of them, if it is ternary and has only one.
    ///
    /// # Errors
    /// As [`Type::decode`]; also when the one scale of a tensor is 0 but its codes are not.
    pub(super) fn ternary(&self, data: &[u8], count: usize) -> Result<Option<Ternary>, String> {
        if !self.is_ternary() {
            return Ok(None);
        }
        let mut signs = vec![0; count];
        let mut shared: Option<f32> = None;
        for (i, (block, signs)) in
            data.chunks_exact(self.block_bytes).zip(signs.chunks_exact_mut(self.block)).enumerate()
        {
            let scale = self.block_codes(data, i, block, signs)?;
            if signs.iter().all(|sign| *sign == 0) {
                continue;
            }
            if scale == 0.0 {
                signs.fill(0);
            } else if shared.is_some_and(|shared| shared != scale) {
                return Ok(None);
            } else {
                shared = Some(scale);
            }
        }
        self.check_scale(data)?;
        Ok(Some(Ternary { signs, scale: shared.unwrap_or(0.0) }))
    }

    /// Sees that the one scale of a tensor is not 0 where some code is not.
    ///
    /// # Errors
    /// A sentence when it is.
    pub(super) fn check_scale(&self, data: &[u8]) -> Result<(), String> {
        let (codes, tail) = data.split_at(data.len() - self.tail);
        match matches!(self.meaning, OneScale(_)) && tail[..4] == [0; 4] && codes.iter().any(|byte| *byte != 0b01010101)
        {
            true => Err("the scale is 0; the file is damaged".into()),
            false => Ok(()),
        }
    }

    /// Appends the bytes of a tensor. Ternary types take only values that are all -s, 0 or s, and keep them exactly.
    ///
    /// # Errors
    /// A sentence when the type is not written, or cannot hold a value.
    ///
    /// # Panics
    /// When the values do not fill blocks.
    pub fn encode(&self, values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
        if !self.is_written() {
            return Err(format!("type {} is read, but not written", self.name));
        }
        assert!(values.len().is_multiple_of(self.block), "values fill blocks");
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(format!("holds {} at index {i}", values[i]));
        }
        match self.encode {
            Some(encode) => encode(values, out),
            None => self.search(values, out),
        }
    }

    /// Appends blocks of integers whose scales have the least squared error.
    fn search(&self, values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
        let format = self.format().expect("a type that is written");
        let (mut codes, largest) = (vec![0; self.block], magnitude(values));
        for (i, block) in values.chunks_exact(self.block).enumerate() {
            let scales = format.choose(block, None);
            let groups = block.chunks(format.columns()).zip(codes.chunks_mut(format.columns())).enumerate();
            for (group, (values, codes)) in groups {
                let code = |value: &f32| scales.nearest(group, *value, format.most());
                codes.iter_mut().zip(values).for_each(|(place, value)| *place = code(value));
            }
            let ends =
                scales.groups.iter().flat_map(|(scale, offset)| [*offset, offset + scale * f32::from(format.most())]);
            // Blocks that are small beside others may vanish.
            let small = magnitude(block) < largest / 4096.0;
            let reach = ends.fold(0f32, |reach, end| if end.is_finite() { reach.max(end.abs()) } else { f32::NAN });
            if !(reach >= magnitude(block) / 2.0 || small) {
                let at = i * self.block;
                return Err(format!(
                    "holds values around index {at} of at most {}, whose scales do not fit F16",
                    magnitude(block)
                ));
            }
            self.put_integers(&codes, &[scales], out);
        }
        Ok(())
    }

    /// Appends blocks of integers with such scales.
    ///
    /// # Panics
    /// When the type has no [`Type::format`], or there are not as many blocks of codes as scales.
    pub fn put_integers(&self, codes: &[u8], scales: &[SpanScales], out: &mut Vec<u8>) {
        let Integers(layout) = &self.meaning else { unreachable!("blocks of integers") };
        assert_eq!(codes.len(), scales.len() * self.block, "scales of every block");
        for (codes, SpanScales { scale, offset, stored, .. }) in codes.chunks_exact(self.block).zip(scales) {
            layout.write(codes, &Scales { scale: *scale, offset: *offset, small: stored.clone() }, out);
        }
    }

    /// Whether the bytes of a tensor mean exactly these values.
    pub(crate) fn means(&self, bytes: &[u8], values: &[f32]) -> bool {
        let mut read = vec![0.0; values.len()];
        self.decode(bytes, &mut read).is_ok() && read == values
    }

    /// Whether the type can hold values without rounding.
    pub fn holds(&self, values: &[f32]) -> bool {
        let mut bytes = Vec::new();
        self.encode(values, &mut bytes).is_ok() && self.means(&bytes, values)
    }
}

/// The largest magnitude.
fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |largest, value| largest.max(value.abs()))
}
