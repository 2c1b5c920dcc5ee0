//! Blocks of integers with scales: where each code, scale and offset lies. `w = (code - zero) * scale`, or `code * scale + offset`.

use half::f16;

/// Elements of a block at most.
const WIDEST: usize = 256;

/// Where the integers of a block lie.
pub struct Layout {
    block: usize,
    bytes: usize,
    scale: usize,
    offset: Option<usize>,
    /// The code that means 0, where there is no offset.
    zero: u8,
    small: Small,
    /// What is flipped in a stored code.
    flip: u8,
    /// Where the bits of each code lie, lowest first.
    places: [[Place; 2]; WIDEST],
}

/// Bits of a code: the byte that has them, how far they are shifted there, and their number.
#[derive(Clone, Copy, Debug)]
struct Place(u8, u8, u8);

impl Place {
    const fn new(byte: usize, shift: usize, bits: u8) -> Self {
        Place(byte as u8, shift as u8, bits)
    }
}

/// Small integers that scales, and offsets, of the parts of a block are multiples of.
#[derive(Clone, Copy, Debug)]
enum Small {
    /// The block is one part.
    None,
    /// Sixteen nibbles of scales, the low ones, and of offsets.
    Nibbles(usize),
    /// Sixteen 6-bit scales plus 32 in 12 bytes.
    Sixths(usize),
    /// Eight 6-bit pairs of scale and offset in 12 bytes.
    Pairs(usize),
    /// Sixteen signed bytes of scales.
    Signed(usize),
}

/// The scales of a block as they are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scales {
    /// Scale of the block.
    pub scale: f16,
    /// What is added, or, of a block in parts, the scale of what is subtracted; 0 where nothing is.
    pub offset: f16,
    /// Of each part, the integers that both are multiplied by; none where the block is one part.
    pub small: Vec<[u8; 2]>,
}

/// No bits.
const NOWHERE: Place = Place(0, 0, 0);

/// Where the codes of a block lie, by the bytes at which their parts begin.
#[derive(Clone, Copy)]
enum Codes {
    /// A byte each.
    Bytes(usize),
    /// Nibbles of 32 elements: the low ones of 16 bytes, then the high ones.
    Nibbles(usize),
    /// The same, and a fifth bit of each element in 4 bytes.
    Fifths(usize, usize),
    /// Nibbles of 256 elements: 32 low ones, 32 high ones, four times.
    NibblesOfK(usize),
    /// The same, and a fifth bit of each element, those of 32 neighbours in as many bytes.
    FifthsOfK(usize, usize),
    /// 2-bit codes of 256 elements: the lowest of 32 bytes, then the next, and the same of 32 more.
    Crumbs(usize),
    /// The same, and a third bit of each element, those of 32 neighbours in as many bytes.
    Thirds(usize, usize),
    /// 128 bytes of nibbles, 64 of upper bit pairs.
    Sixths,
}

impl Codes {
    const fn places(self, i: usize) -> [Place; 2] {
        match self {
            Codes::Bytes(at) => [Place::new(at + i, 0, 8), NOWHERE],
            Codes::Nibbles(at) => [Place::new(at + i % 16, i / 16 * 4, 4), NOWHERE],
            Codes::Fifths(high, at) => [Place::new(at + i % 16, i / 16 * 4, 4), Place::new(high + i / 8, i % 8, 1)],
            Codes::NibblesOfK(at) => [Place::new(at + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4), NOWHERE],
            Codes::FifthsOfK(high, at) => {
                [Place::new(at + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4), Place::new(high + i % 32, i / 32, 1)]
            }
            Codes::Crumbs(at) => [Place::new(at + i / 128 * 32 + i % 32, i % 128 / 32 * 2, 2), NOWHERE],
            Codes::Thirds(high, at) => {
                [Place::new(at + i / 128 * 32 + i % 32, i % 128 / 32 * 2, 2), Place::new(high + i % 32, i / 32, 1)]
            }
            Codes::Sixths => {
                let (half, quarter, k) = (i / 128, i % 128 / 32, i % 32);
                let low = Place::new(half * 64 + quarter % 2 * 32 + k, quarter / 2 * 4, 4);
                [low, Place::new(128 + half * 32 + k, 2 * quarter, 2)]
            }
        }
    }
}

const fn layout([block, bytes]: [usize; 2], scale: usize, zero: u8, codes: Codes) -> Layout {
    let mut places = [[NOWHERE; 2]; WIDEST];
    let mut i = 0;
    while i < block {
        places[i] = codes.places(i);
        i += 1;
    }
    Layout { block, bytes, scale, offset: None, zero, small: Small::None, flip: 0, places }
}

/// Scale, 16 bytes of nibbles; elements plus 8.
pub static Q4_0: Layout = layout([32, 18], 0, 8, Codes::Nibbles(2));
/// Scale and offset, nibbles.
pub static Q4_1: Layout = Layout { offset: Some(2), ..layout([32, 20], 0, 0, Codes::Nibbles(4)) };
/// Scale, a fifth bit of each element in 4 bytes, nibbles; elements plus 16.
pub static Q5_0: Layout = layout([32, 22], 0, 16, Codes::Fifths(2, 6));
/// Scale and offset, then as Q5_0.
pub static Q5_1: Layout = Layout { offset: Some(2), ..layout([32, 24], 0, 0, Codes::Fifths(4, 8)) };
/// Scale, 32 signed bytes.
pub static Q8_0: Layout = Layout { flip: 0x80, ..layout([32, 34], 0, 128, Codes::Bytes(2)) };
/// 16 bytes of 4-bit pairs of scale and offset, 64 of 2-bit elements, scales of both.
pub static Q2_K: Layout =
    Layout { offset: Some(82), small: Small::Nibbles(0), ..layout([256, 84], 80, 0, Codes::Crumbs(16)) };
/// 32 bytes of third bits, 64 of 2-bit elements, 12 of 6-bit scales plus 32, their scale; elements plus 4.
pub static Q3_K: Layout = Layout { small: Small::Sixths(96), ..layout([256, 110], 108, 4, Codes::Thirds(0, 32)) };
/// Scales of scales and of offsets, eight pairs of them, nibbles.
pub static Q4_K: Layout =
    Layout { offset: Some(2), small: Small::Pairs(4), ..layout([256, 144], 0, 0, Codes::NibblesOfK(16)) };
/// As Q4_K, with 32 bytes of fifth bits before the nibbles.
pub static Q5_K: Layout =
    Layout { offset: Some(2), small: Small::Pairs(4), ..layout([256, 176], 0, 0, Codes::FifthsOfK(16, 48)) };
/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, their scale; elements plus 32.
pub static Q6_K: Layout = Layout { small: Small::Signed(192), ..layout([256, 210], 208, 32, Codes::Sixths) };

/// Where the 6-bit pair of part `j` lies in its 12 bytes: the low bits of scale and offset, then the upper ones.
fn pair_places(at: usize, j: usize) -> [[Place; 2]; 2] {
    let place = Place::new;
    match j {
        0..4 => [[place(at + j, 0, 6), NOWHERE], [place(at + j + 4, 0, 6), NOWHERE]],
        _ => [[place(at + j + 4, 0, 4), place(at + j - 4, 6, 2)], [place(at + j + 4, 4, 4), place(at + j, 6, 2)]],
    }
}

/// Where the 6-bit scale of part `j` of sixteen lies in its 12 bytes.
fn sixth_places(at: usize, j: usize) -> [Place; 2] {
    [Place::new(at + j % 8, j / 8 * 4, 4), Place::new(at + 8 + j % 4, j / 4 * 2, 2)]
}

/// A number from the bits in some places, lowest first.
fn get(block: &[u8], places: [Place; 2]) -> u8 {
    let [low, high] = places.map(|Place(byte, shift, bits)| block[usize::from(byte)] >> shift & mask(bits));
    low | high << (places[0].2 & 7)
}

/// Puts a number into bits that are 0.
fn put(block: &mut [u8], places: [Place; 2], value: u8) {
    let mut rest = u16::from(value);
    for Place(byte, shift, bits) in places {
        block[usize::from(byte)] |= (rest as u8 & mask(bits)) << shift;
        rest >>= bits;
    }
}

fn mask(bits: u8) -> u8 {
    ((1u16 << bits) - 1) as u8
}

fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

impl Layout {
    /// Reads the codes of a block, and its scales.
    pub fn read(&self, block: &[u8], codes: &mut [u8]) -> Scales {
        for (code, places) in codes.iter_mut().zip(&self.places) {
            *code = get(block, *places) ^ self.flip;
        }
        let small = match self.small {
            Small::None => Vec::new(),
            Small::Pairs(at) => (0..8).map(|j| pair_places(at, j).map(|places| get(block, places))).collect(),
            Small::Nibbles(at) => block[at..at + 16].iter().map(|pair| [pair & 15, pair >> 4]).collect(),
            Small::Sixths(at) => (0..16).map(|j| [get(block, sixth_places(at, j)).wrapping_sub(32), 0]).collect(),
            Small::Signed(at) => block[at..at + 16].iter().map(|scale| [*scale, 0]).collect(),
        };
        Scales {
            scale: half_at(block, self.scale),
            offset: self.offset.map_or(f16::ZERO, |at| half_at(block, at)),
            small,
        }
    }

    /// Appends a block.
    pub fn write(&self, codes: &[u8], scales: &Scales, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.bytes, 0);
        let block = &mut out[start..];
        for (code, places) in codes.iter().zip(&self.places) {
            put(block, *places, code ^ self.flip);
        }
        block[self.scale..self.scale + 2].copy_from_slice(&scales.scale.to_le_bytes());
        if let Some(at) = self.offset {
            block[at..at + 2].copy_from_slice(&scales.offset.to_le_bytes());
        }
        for (j, small) in scales.small.iter().enumerate() {
            match self.small {
                Small::None => {}
                Small::Pairs(at) => pair_places(at, j).into_iter().zip(small).for_each(|(p, v)| put(block, p, *v)),
                Small::Nibbles(at) => block[at + j] = small[0] & 15 | small[1] << 4,
                Small::Sixths(at) => put(block, sixth_places(at, j), small[0].wrapping_add(32)),
                Small::Signed(at) => block[at + j] = small[0],
            }
        }
    }

    /// The values of a block.
    pub fn decode(&self, block: &[u8], out: &mut [f32]) {
        let mut codes = [0; WIDEST];
        let codes = &mut codes[..self.block];
        let scales = self.read(block, codes);
        let (scale, offset) = (scales.scale.to_f32(), scales.offset.to_f32());
        let parts = scales.small.len().max(1);
        for (j, (out, codes)) in
            out.chunks_exact_mut(self.block / parts).zip(codes.chunks_exact(self.block / parts)).enumerate()
        {
            let (scale, offset) = match (self.small, scales.small.get(j)) {
                (Small::Signed(_) | Small::Sixths(_), Some([s, _])) => (scale * f32::from(*s as i8), 0.0),
                (_, Some([s, m])) => (scale * f32::from(*s), -(offset * f32::from(*m))),
                (_, None) => (scale, offset),
            };
            for (out, code) in out.iter_mut().zip(codes) {
                *out = f32::from(i16::from(*code) - i16::from(self.zero)) * scale + offset;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_as_they_are_read() {
        for layout in [&Q4_0, &Q4_1, &Q5_0, &Q5_1, &Q8_0, &Q2_K, &Q3_K, &Q4_K, &Q5_K, &Q6_K] {
            let mut state = 1u64;
            for _ in 0..50 {
                let mut byte = || {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (state >> 56) as u8
                };
                let block: Vec<u8> = (0..layout.bytes).map(|_| byte()).collect();
                let (mut codes, mut again) = (vec![0; layout.block], Vec::new());
                let scales = layout.read(&block, &mut codes);
                layout.write(&codes, &scales, &mut again);
                assert_eq!(block, again, "every bit of {} bytes has its place", layout.bytes);
            }
        }
    }
}
