//! Instruction sets: one list yields the enum, run-time detection and the target features of every kernel.

use crate::Error;
use crate::simd::{self, Simd};
use std::sync::OnceLock;

/// A kernel: a struct of its arguments whose text is written once over [`Simd`].
///
/// Mark `eval` `#[inline(always)]`, so that it is compiled inside the wrapper that enables the target features.
pub trait Op {
    /// Result of the kernel.
    type Out;
    /// The products of narrow numbers it uses. Where it uses fewer than an instruction set is about, the kernel of a smaller
    /// set with the same instructions for the rest serves, and is compiled once for both.
    const PRODUCTS: Products = Products::Bf16;
    /// Runs the kernel on one instruction set.
    fn eval<S: Simd>(self, s: S) -> Self::Out;
}

/// Products of narrow numbers, [`Simd::dot`] and [`Simd::dot_bf16`]: what a kernel uses, and what an instruction set adds to
/// the set it extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Products {
    /// None.
    None,
    /// Products of bytes.
    Int8,
    /// Products of bytes and of bf16.
    Bf16,
}

macro_rules! isas {
    ($($(#[cfg($cfg:meta)])? $name:ident = $label:literal, $simd:path, [$($feature:tt),*]
        $(, $base:ident with $adds:ident)?;)*) => {
        /// An instruction set that kernels exist for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Isa {
            $(#[doc = concat!("`", $label, "`: target features ", $($feature, " ",)* "and the baseline.")] $name,)*
        }

        impl Isa {
            /// Every instruction set in the list, compiled for this architecture or not; the preferred ones last.
            pub const ALL: &[Isa] = &[$(Isa::$name),*];

            /// The name used by `--isa`, `LOWBIT_ISA` and records.
            pub fn name(self) -> &'static str {
                match self { $(Isa::$name => $label,)* }
            }

            /// The target features it needs beyond the architecture's baseline.
            pub fn features(self) -> &'static [&'static str] {
                match self { $(Isa::$name => &[$($feature),*],)* }
            }

            /// Whether it is compiled for this architecture.
            pub fn is_compiled(self) -> bool {
                match self {
                    $($(#[cfg($cfg)])? Isa::$name => true,)*
                    #[allow(unreachable_patterns)]
                    _ => false,
                }
            }

            fn detect(self) -> bool {
                match self {
                    $($(#[cfg($cfg)])? Isa::$name => true $(&& detected!($feature))*,)*
                    #[allow(unreachable_patterns)]
                    _ => false,
                }
            }

            /// Runs a kernel compiled for this instruction set.
            ///
            /// # Panics
            /// When the CPU lacks it; [`Isa::choose`] never yields such a value.
            #[inline]
            pub fn run<O: Op>(self, op: O) -> O::Out {
                match self {
                    $($(#[cfg($cfg)])? Isa::$name => {
                        $(if const { (O::PRODUCTS as u8) < Products::$adds as u8 } {
                            return Isa::$base.run(op);
                        })?
                        $(#[target_feature(enable = $feature)])*
                        fn wrapper<O: Op>(s: $simd, op: O) -> O::Out {
                            op.eval(s)
                        }
                        assert!(self.is_available(), "the CPU lacks {}", $label);
                        // SAFETY: the features were just detected on this CPU.
                        #[allow(unused_unsafe)]
                        unsafe { wrapper(<$simd>::new_unchecked(), op) }
                    })*
                    #[allow(unreachable_patterns)]
                    _ => unreachable!("{} is not compiled for this architecture", self.name()),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}

isas! {
    Scalar = "scalar", simd::Scalar, [];
    #[cfg(target_arch = "x86_64")] Avx2 = "avx2", simd::Avx2, ["avx2", "fma", "f16c"];
    #[cfg(target_arch = "x86_64")] AvxVnni = "avx-vnni", simd::AvxVnni, ["avx2", "fma", "f16c", "avxvnni"], Avx2 with Int8;
    #[cfg(target_arch = "x86_64")] Avx512Vnni = "avx512-vnni", simd::Avx512Vnni,
        ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"];
    #[cfg(target_arch = "x86_64")] Avx512Bf16 = "avx512-bf16", simd::Avx512Bf16,
        ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16"], Avx512Vnni with Bf16;
    #[cfg(target_arch = "aarch64")] Neon = "neon", simd::Neon, ["neon"];
    #[cfg(target_arch = "aarch64")] Dotprod = "neon-dotprod", simd::Dotprod, ["neon", "dotprod"], Neon with Int8;
}

impl Isa {
    /// Whether this CPU has it.
    #[inline]
    pub fn is_available(self) -> bool {
        static MASK: OnceLock<u32> = OnceLock::new();
        let detect = || Isa::ALL.iter().filter(|isa| isa.detect()).map(|&isa| 1 << isa as u32).sum();
        MASK.get_or_init(detect) >> self as u32 & 1 == 1
    }

    /// The instruction sets this CPU has, the preferred one last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_available()).collect()
    }

    /// The named instruction set, or the preferred one this CPU has.
    ///
    /// # Errors
    /// [`Error::Isa`] when the name is unknown or the CPU lacks it.
    pub fn choose(name: Option<&str>) -> Result<Isa, Error> {
        let available = Isa::available();
        let list = |isas: &[Isa]| isas.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
        let Some(name) = name else { return Ok(*available.last().expect("scalar is always available")) };
        match Isa::ALL.iter().find(|isa| isa.name() == name) {
            None => Err(Error::Isa(format!("unknown instruction set `{name}`; known: {}", list(Isa::ALL)))),
            Some(isa) if isa.is_available() => Ok(*isa),
            Some(isa) => Err(Error::Isa(format!(
                "this CPU lacks `{name}` (needs {}); available: {}",
                isa.features().join(", "),
                list(&available)
            ))),
        }
    }
}
