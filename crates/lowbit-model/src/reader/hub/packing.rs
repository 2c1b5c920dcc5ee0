//! Small unsigned integers in 32-bit words: a matrix of codes packed along one of its dimensions, as a stream of bits from the
//! lowest up, or in the order of AWQ.

use std::ops::Deref;

/// How a matrix `[m, n]` of codes lies in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// A stream per column.
    Down,
    /// A stream per row.
    Across,
    /// Eight neighbours of a row per word, in the order of [`AWQ`].
    Awq,
}

/// The nibble of a word that holds each of eight neighbours; `AWQ_REVERSE_ORDER` of autoawq.
const AWQ: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A packed matrix `[m, n]` of codes of so many bits.
pub(super) struct Words<B> {
    /// Little-endian words.
    pub bytes: B,
    pub packing: Packing,
    /// 2, 3, 4 or 8.
    pub bits: usize,
    pub shape: [usize; 2],
}

/// The shape of the words of a matrix `[m, n]`.
pub(super) fn stored_shape(packing: Packing, bits: usize, [m, n]: [usize; 2]) -> [usize; 2] {
    let words = |codes: usize| (codes * bits).div_ceil(32);
    match packing {
        Packing::Down => [words(m), n],
        Packing::Across | Packing::Awq => [m, words(n)],
    }
}

impl<B: Deref<Target = [u8]>> Words<B> {
    fn word(&self, at: usize) -> u32 {
        let bytes = &self.bytes[4 * at..][..4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    /// The code of row `i` and column `j`.
    pub fn get(&self, i: usize, j: usize) -> u8 {
        let [_, width] = stored_shape(self.packing, self.bits, self.shape);
        let (at, shift, step) = match self.packing {
            Packing::Down => (i * self.bits / 32 * width + j, i * self.bits % 32, width),
            Packing::Across => (i * width + j * self.bits / 32, j * self.bits % 32, 1),
            Packing::Awq => (i * width + j / 8, 4 * AWQ[j % 8] as usize, 0),
        };
        let mut code = self.word(at) >> shift;
        if shift + self.bits > 32 {
            code |= self.word(at + step) << (32 - shift);
        }
        (code & ((1 << self.bits) - 1)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes put bit by bit into a stream per row.
    fn stream(codes: &[u8], rows: usize, bits: usize) -> Vec<Vec<u32>> {
        let row = |codes: &[u8]| {
            let mut words = vec![0u32; (codes.len() * bits).div_ceil(32)];
            for (at, code) in codes.iter().enumerate() {
                for bit in 0..bits {
                    let place = at * bits + bit;
                    words[place / 32] |= u32::from(code >> bit & 1) << (place % 32);
                }
            }
            words
        };
        codes.chunks_exact(codes.len() / rows).map(row).collect()
    }

    #[test]
    fn streams_are_read_along_both_dimensions() {
        for bits in [2, 3, 4, 8] {
            let (rows, cols) = (5, 64);
            let codes: Vec<u8> = (0..rows * cols).map(|i| ((i * i + i / 7) % (1 << bits)) as u8).collect();
            let words = stream(&codes, rows, bits);
            let across = Words {
                bytes: words.iter().flatten().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>(),
                packing: Packing::Across,
                bits,
                shape: [rows, cols],
            };
            let turned = (0..words[0].len()).flat_map(|at| words.iter().map(move |row| row[at]));
            let down = Words {
                bytes: turned.flat_map(u32::to_le_bytes).collect::<Vec<u8>>(),
                packing: Packing::Down,
                bits,
                shape: [cols, rows],
            };
            for (at, code) in codes.iter().enumerate() {
                assert_eq!(across.get(at / cols, at % cols), *code, "{bits} bits, {at}");
                assert_eq!(down.get(at % cols, at / cols), *code, "{bits} bits, {at}");
            }
            assert_eq!(stored_shape(Packing::Down, bits, [cols, rows]), [cols * bits / 32, rows]);
        }
        let awq = Words { bytes: 0x7531_6420u32.to_le_bytes().to_vec(), packing: Packing::Awq, bits: 4, shape: [1, 8] };
        assert_eq!((0..8).map(|j| awq.get(0, j)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
