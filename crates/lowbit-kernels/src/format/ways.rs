//! Ways to compute products. Each family of formats has a table of them, by activations; a product takes the last way of its
//! table that the instruction set can and that pays, unless another was asked for.

use super::{FORMATS, Format};
use crate::simd::Simd;
use crate::{Cpu, Error, Isa, Op};

/// Capability of an instruction set that a way needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Nothing beyond the others.
    Any,
    /// Registers for decoded weights beside the sums of a tile.
    ManyRegisters,
    /// [`Capability::ManyRegisters`], and a dot product of four unsigned with four signed bytes as one instruction.
    DotAndRegisters,
    /// A product of pairs of bf16 as one instruction.
    Bf16Pairs,
}

impl Capability {
    /// Whether an instruction set has it.
    ///
    /// # Panics
    /// When the CPU lacks the instruction set.
    pub fn is_of(self, isa: Isa) -> bool {
        isa.run(Has(self))
    }
}

struct Has(Capability);

impl Op for Has {
    type Out = bool;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> bool {
        match self.0 {
            Capability::Any => true,
            Capability::ManyRegisters => S::MANY_REGISTERS,
            Capability::DotAndRegisters => S::MANY_REGISTERS && S::FAST_DOT,
            Capability::Bf16Pairs => S::FAST_BF16,
        }
    }
}

/// One way to compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The name in `LOWBIT_WAYS` and in records.
    pub name: &'static str,
    /// The activations it multiplies: `int8`, `int8_block` or `f32`.
    pub activations: &'static str,
    /// Fewest tokens.
    pub fewest: usize,
    /// Most tokens.
    pub most: usize,
    /// Capability that the instruction set needs.
    pub needs: Capability,
    /// Summary in a few words.
    pub summary: &'static str,
}

impl Way {
    /// Whether it can compute a product of so many tokens.
    pub fn can(&self, isa: Isa, tokens: usize) -> bool {
        (self.fewest..=self.most).contains(&tokens) && self.needs.is_of(isa)
    }

    /// A way for one token.
    pub(super) const fn one(name: &'static str, activations: &'static str, summary: &'static str) -> Self {
        Way { name, activations, fewest: 1, most: 1, needs: Capability::Any, summary }
    }

    /// A way for so many tokens and more.
    pub(super) const fn many(
        name: &'static str,
        activations: &'static str,
        fewest: usize,
        needs: Capability,
        summary: &'static str,
    ) -> Self {
        Way { name, activations, fewest, most: usize::MAX, needs, summary }
    }
}

/// Product whose fastest way is asked for: instruction set, tokens and size of the matrix.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub isa: Isa,
    /// At least one.
    pub tokens: usize,
    pub weights: usize,
    /// Whether groups have scales.
    pub grouped: bool,
}

/// A line of a table.
pub(super) struct Entry<R> {
    pub way: Way,
    /// Whether it is faster than those before it.
    pub pays: fn(Job) -> bool,
    pub run: R,
}

impl<R> Entry<R> {
    /// A way that is always faster than those before it.
    pub const fn new(way: Way, run: R) -> Self {
        Entry { way, pays: |_| true, run }
    }
}

/// The way that a product takes.
pub(super) fn choose<'t, R>(table: &'t [Entry<R>], cpu: &Cpu, job: Job) -> &'t Entry<R> {
    let able = || table.iter().filter(|entry| entry.way.can(job.isa, job.tokens));
    let asked = cpu.ways().preferred(job.tokens).find_map(|name| able().find(|entry| entry.way.name == name));
    asked.or_else(|| able().rfind(|entry| (entry.pays)(job))).expect("a way for every product")
}

/// Names that several tables, or the machine's own choice, refer to.
pub(super) const INT8_STRIPS: Way =
    Way::many("int8_strips", "int8", 2, Capability::Any, "codes decoded to memory, a strip of panels at a time");
pub(super) const BLOCK_STRIPS: Way =
    Way::many("block_strips", "int8_block", 2, Capability::Any, "blocks folded in register tiles");
pub(super) const BLOCK_GEMV: Way = Way::one("block_gemv", "int8_block", "one stream of codes, block by block");
pub(super) const F32_PANELS: Way =
    Way::many("f32_panels", "f32", 1, Capability::Any, "panels widened to f32 in memory");
pub(crate) const FLOAT_PANELS: &str = "float_panels";
pub(crate) const BF16_PAIRS: &str = "bf16_pairs";

/// The ways that products prefer where they can: those that were asked for, or measured to be faster on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Names and fewest tokens, the first choice first.
    preferred: Vec<(&'static str, usize)>,
    /// Where they come from, in words.
    why: String,
}

/// Name that stands for no preference.
const DEFAULT: &str = "default";

impl Ways {
    /// The ways of a list with commas; each is the name of one, or `NAME@N` for products of `N` tokens and more. `default`
    /// stands for none.
    ///
    /// # Errors
    /// [`Error::Ways`] when a name is unknown or a number is none.
    pub fn parse(names: &str, why: &str) -> Result<Self, Error> {
        let all = all();
        let known = |name: &str| all.iter().map(|(_, way)| way.name).find(|known| *known == name);
        let find = |text: &str| {
            let (name, fewest) = text.split_once('@').unwrap_or((text, "1"));
            known(name).zip(fewest.parse().ok().filter(|fewest| *fewest > 0)).ok_or_else(|| {
                let mut names: Vec<&str> = all.iter().map(|(_, way)| way.name).collect();
                names.sort_unstable();
                names.dedup();
                let names = names.join(", ");
                Error::Ways(format!("`{text}` is no way of a product; known, alone or as NAME@TOKENS: {names}"))
            })
        };
        let names = names.split(',').map(str::trim).filter(|name| !["", DEFAULT].contains(name));
        Ok(Ways { preferred: names.map(find).collect::<Result<_, _>>()?, why: why.into() })
    }

    /// One way for products of `fewest` tokens and more.
    pub(crate) fn of(way: &'static str, fewest: usize) -> Self {
        Ways { preferred: vec![(way, fewest)], why: String::new() }
    }

    /// The same from elsewhere.
    pub(crate) fn because(self, why: &str) -> Self {
        Ways { why: why.into(), ..self }
    }

    /// The names that hold for so many tokens, the first choice first.
    pub fn preferred(&self, tokens: usize) -> impl Iterator<Item = &'static str> + '_ {
        self.preferred.iter().filter(move |(_, fewest)| *fewest <= tokens).map(|(name, _)| *name)
    }

    /// Where they come from, in words.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl std::fmt::Display for Ways {
    /// As [`Ways::parse`] takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |(name, fewest): &(&str, usize)| match fewest {
            1 => name.to_string(),
            _ => format!("{name}@{fewest}"),
        };
        match &self.preferred[..] {
            [] => f.write_str(DEFAULT),
            all => f.write_str(&all.iter().map(one).collect::<Vec<_>>().join(",")),
        }
    }
}

/// All ways of all formats.
pub fn all() -> Vec<(&'static dyn Format, Way)> {
    FORMATS.iter().flat_map(|format| format.ways().into_iter().map(|way| (*format, way))).collect()
}
