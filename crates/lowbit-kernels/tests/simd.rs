//! Every vector operation gives the bits of the scalar one on every instruction set, special values included.

use lowbit_base::testing::{Need, skipped};
use lowbit_kernels::simd::LANES;
use lowbit_kernels::{Isa, Op, Simd};

/// One round of inputs: raw bits for integers and bytes, floats that include NaN, infinities and halfway cases.
struct Round {
    ints: [[i32; LANES]; 3],
    floats: [[f32; LANES]; 3],
}

const SPECIAL: [f32; 16] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    0.5,
    1.5,
    -2.5,
    1e-40,
    -1e-40,
    8388607.5,
    3e38,
    -3e38,
    1e-8,
    127.5,
    -127.5,
];

fn next(seed: &mut u64) -> u32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 32) as u32
}

impl Round {
    fn new(number: u64) -> Self {
        let mut seed = number * 77 + 5;
        let special = number % 2 == 1;
        let mut float = || match next(&mut seed) {
            bits if special && bits % 4 == 0 => SPECIAL[(bits >> 8) as usize % SPECIAL.len()],
            bits => (bits as i32 >> 6) as f32 * 0.015625 * if bits % 3 == 0 { 1e-4 } else { 1.0 },
        };
        let floats = std::array::from_fn(|_| std::array::from_fn(|_| float()));
        let extreme = [0, -1, i32::MIN, i32::MAX, 0x8080_8080_u32 as i32, 0x7f7f_7f7f, 0x0101_0101];
        let mut int = || match next(&mut seed) {
            bits if special && bits % 3 == 0 => extreme[(bits >> 8) as usize % extreme.len()],
            bits => bits as i32,
        };
        Round { ints: std::array::from_fn(|_| std::array::from_fn(|_| int())), floats }
    }
}

/// Name and lanes of a result.
type Lanes = (&'static str, [u32; LANES]);

impl Round {
    /// Results that are integers.
    #[inline(always)]
    fn integers<S: Simd>(&self, s: S, a: S::F, [i, j, k]: [S::I; 3]) -> Vec<Lanes> {
        let mut out = Vec::new();
        let mut ints = |name, v| {
            let mut lanes = [0u32; LANES];
            // SAFETY: 64 bytes.
            unsafe { s.store_i(lanes.as_mut_ptr().cast(), v) };
            out.push((name, lanes));
        };
        let mask = |m: u8| s.splat_i(i32::from_le_bytes([m; 4]));
        // Rounds lanes within i32 only.
        let small = s.mul(s.to_f(i), s.splat(0.5 / 65536.0));
        ints("round_i", s.round_i(small));
        ints("as_i", s.as_i(a));
        ints("add_i", s.add_i(i, j));
        ints("sub_i", s.sub_i(i, j));
        ints("and", s.and(i, j));
        ints("or", s.or(i, j));
        ints("xor", s.xor(i, j));
        ints("shr", s.shr::<5>(i));
        ints("sar", s.sar::<5>(i));
        ints("shl", s.shl::<5>(i));
        ints("add_b", s.add_b(i, j));
        ints("subs_b", s.subs_b(i, j));
        ints("avg_b", s.avg_b(i, j));
        ints("dot", s.dot(i, j, k));
        // u in 0..=128 (one byte of a lane reaches 128), s in -127..=127.
        let u = s.subs_b(mask(128), s.and(j, mask(127)));
        let signed = s.or(s.and(k, mask(254)), mask(1));
        ints("dot_small", s.dot_small(i, u, signed));
        ints("splat_i", s.splat_i(-3));
        let mut bytes = [0i8; LANES];
        // SAFETY: 16 bytes.
        unsafe { s.store_i8(bytes.as_mut_ptr(), s.sar::<24>(i)) };
        out.push(("store_i8", bytes.map(|v| v as u32)));
        out
    }

    /// Results that are floats.
    #[inline(always)]
    fn numbers<S: Simd>(&self, s: S, [a, b, c]: [S::F; 3], i: S::I) -> Vec<Lanes> {
        let mut out = Vec::new();
        // SAFETY: 16 half-precision floats.
        let halves = unsafe { s.load_f16(self.ints[1].as_ptr().cast()) };
        let mut floats = |name, v| {
            let mut lanes = [0.0f32; LANES];
            // SAFETY: 16 lanes.
            unsafe { s.store(lanes.as_mut_ptr(), v) };
            // Which NaN it is differs between architectures.
            out.push((name, lanes.map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() })));
        };
        floats("load_f16", halves);
        floats("splat", s.splat(0.1));
        floats("fma", s.fma(a, b, c));
        floats("add", s.add(a, b));
        floats("sub", s.sub(a, b));
        floats("mul", s.mul(a, b));
        floats("div", s.div(a, b));
        floats("max", s.max(a, b));
        floats("min", s.min(a, b));
        floats("abs", s.abs(a));
        floats("sqrt", s.sqrt(a));
        floats("to_f", s.to_f(i));
        floats("as_f", s.as_f(i));
        floats("lookup", s.lookup(a, i));
        floats("lookup_eight", s.lookup_eight(a, i));
        floats("load_part", s.load_part(&self.floats[0][..5], 2.0));
        out
    }
}

impl Op for &Round {
    type Out = Vec<Lanes>;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Self::Out {
        // SAFETY: arrays of 16 lanes, 64 bytes.
        let floats = self.floats.each_ref().map(|v| unsafe { s.load(v.as_ptr()) });
        // SAFETY: as above.
        let ints = self.ints.each_ref().map(|v| unsafe { s.load_i(v.as_ptr().cast()) });
        let mut out = self.integers(s, floats[0], ints);
        out.extend(self.numbers(s, floats, ints[0]));
        out
    }
}

#[test]
fn every_operation_gives_the_bits_of_the_scalar_one() {
    for number in 0..200 {
        let round = Round::new(number);
        let expected = Isa::Scalar.run(&round);
        for isa in Isa::available() {
            for (want, have) in expected.iter().zip(isa.run(&round)) {
                assert_eq!(*want, have, "{} on {}, round {number}", want.0, isa.name());
            }
        }
    }
    println!("instruction sets: {:?}", Isa::available());
}

/// Other tests of this crate go through the instruction sets that are there; this one tells which are not.
#[test]
fn instruction_sets_that_this_cpu_lacks_are_told() {
    for isa in Isa::ALL.iter().filter(|isa| isa.is_compiled() && !isa.is_available()) {
        skipped(Need::Isas, &format!("this CPU lacks `{}`", isa.name()));
    }
}
