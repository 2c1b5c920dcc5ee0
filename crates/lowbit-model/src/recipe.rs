//! Recipes: which format each role of a model gets, and how activations are treated.

use crate::Error;
pub use crate::rotation::Rotation;
use crate::source::{ParamSpec, Role};
use lowbit_kernels::{Format, format};

mod layers;
mod product;
mod spelling;
mod stored;

pub use layers::LayerFormat;
pub use product::ProductFormat;
pub use stored::STORED;
pub(crate) use stored::{of_formats, resolve};

/// Rows and columns of a matrix of whole blocks and groups of every format.
const SIDE: usize = 3840;

/// How the inputs of a matrix product are given to its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationPrecision {
    /// As they are.
    F32,
    /// Quantized to 8 bits per token by absmax (arXiv 2402.17764).
    Int8,
    /// Quantized to 8 bits by absmax, per 32 inputs of a token.
    Int8Block,
    /// The same per 64 inputs.
    Int8Block64,
    /// The same per 128 inputs.
    Int8Block128,
}

impl ActivationPrecision {
    /// Every one.
    pub const ALL: [ActivationPrecision; 5] = [
        ActivationPrecision::F32,
        ActivationPrecision::Int8,
        ActivationPrecision::Int8Block,
        ActivationPrecision::Int8Block64,
        ActivationPrecision::Int8Block128,
    ];

    /// The name in spellings of recipes.
    pub fn name(self) -> &'static str {
        match self {
            ActivationPrecision::F32 => "f32",
            ActivationPrecision::Int8 => "int8",
            ActivationPrecision::Int8Block => "int8_block",
            ActivationPrecision::Int8Block64 => "int8_block64",
            ActivationPrecision::Int8Block128 => "int8_block128",
        }
    }

    /// Inputs of a token that share a scale, one of [`BLOCK_SIZES`](lowbit_kernels::BLOCK_SIZES); `None` where all or none do.
    pub fn block(self) -> Option<usize> {
        match self {
            ActivationPrecision::F32 | ActivationPrecision::Int8 => None,
            ActivationPrecision::Int8Block => Some(32),
            ActivationPrecision::Int8Block64 => Some(64),
            ActivationPrecision::Int8Block128 => Some(128),
        }
    }

    /// How the products of a body in a format get their inputs.
    pub fn of(format: &dyn Format) -> Self {
        match format.spec().activations {
            format::ActivationType::Int8 if format.spec().in_blocks => ActivationPrecision::Int8Block,
            format::ActivationType::Int8 => ActivationPrecision::Int8,
            format::ActivationType::Float | format::ActivationType::Mixed => ActivationPrecision::F32,
        }
    }

    /// The same of a layer beside a body whose products get theirs so: 8 bits are in the blocks of the body, where it has blocks.
    pub(crate) fn beside(format: &dyn Format, body: ActivationPrecision) -> Self {
        match Self::of(format) {
            ActivationPrecision::F32 => ActivationPrecision::F32,
            own if body.block().is_none() => own,
            _ => body,
        }
    }
}

/// A format for each role of a model. Vectors (norms, biases) stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The name on the command line, in records and on disk.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Format of the body's weight matrices.
    pub body: &'static str,
    /// Format of token and n-gram tables, also where one serves as head.
    pub embedding: &'static str,
    /// Format of the matrix that yields the logits.
    pub head: &'static str,
    /// Inputs of the body's products.
    pub activations: ActivationPrecision,
    /// Inputs of the head's product.
    pub head_activations: ActivationPrecision,
    /// Rotation of the inputs of the body's products.
    pub rotation: Rotation,
    /// Layers of the body in other formats: no two entries speak of the same matrix.
    pub layers: &'static [LayerFormat],
}

impl Recipe {
    /// The format name of a role; `None` for vectors, which stay f32.
    pub fn format_name(&self, role: Role) -> Option<&'static str> {
        match role {
            Role::Body => Some(self.body),
            Role::Embedding => Some(self.embedding),
            Role::Head => Some(self.head),
            Role::Norm | Role::Bias | Role::Statistics => None,
        }
    }

    /// The format of a role outside of [`Recipe::layers`]; `None` for vectors, which stay f32.
    ///
    /// # Errors
    /// When the kernels lack the format.
    pub fn format(&self, role: Role) -> Result<Option<&'static dyn Format>, Error> {
        self.format_name(role).map(known).transpose()
    }

    /// The format of a parameter; `None` for vectors, which stay f32.
    ///
    /// # Errors
    /// When the kernels lack the format.
    pub fn format_of(&self, spec: &ParamSpec) -> Result<Option<&'static dyn Format>, Error> {
        match self.layer(spec) {
            Some(layer) => known(layer.format).map(Some),
            None => self.format(spec.role),
        }
    }

    /// Every format of the body.
    fn body_formats(&self) -> impl Iterator<Item = Result<&'static dyn Format, Error>> {
        std::iter::once(self.body).chain(self.layers.iter().map(|layer| layer.format)).map(known)
    }

    /// Bits that a weight of the body outside of [`Recipe::layers`] takes, scales included, to two decimals.
    ///
    /// # Errors
    /// When the format is unknown.
    pub fn bits_per_weight(&self) -> Result<f64, Error> {
        let Some(format) = self.format(Role::Body)? else { return Ok(32.0) };
        let bytes: usize = format.parts(SIDE, SIDE, &[]).iter().map(|part| part.bytes).sum();
        Ok((bytes as f64 * 8.0 / (SIDE * SIDE) as f64 * 100.0).round() / 100.0)
    }

    /// Whether the body is ternary.
    pub fn is_ternary(&self) -> bool {
        self.body_formats().all(|format| format.is_ok_and(|format| format.spec().is_ternary()))
    }

    /// Whether the body keeps every weight as it is.
    pub fn is_lossless(&self) -> bool {
        self.body_formats().all(|format| format.is_ok_and(|format| format.spec().lossless))
    }

    /// Whether a format keeps outlier features in more bits, so that activations must be seen before quantizing.
    ///
    /// # Errors
    /// When the kernels lack a format.
    pub fn keeps_outliers(&self) -> Result<bool, Error> {
        let mut formats = self.body_formats().chain([known(self.embedding), known(self.head)]);
        formats.try_fold(false, |any, format| Ok(any | format?.spec().outliers))
    }

    /// Whether the columns of a matrix, and the inputs of its products, are rotated.
    pub fn rotates(&self, spec: &ParamSpec) -> bool {
        spec.role == Role::Body && self.rotation == Rotation::Hadamard
    }

    /// How the inputs of a product with a parameter are given; a table in a product is a tied head.
    pub fn activations_of(&self, spec: &ParamSpec) -> ActivationPrecision {
        match (self.layer(spec), spec.role) {
            (Some(layer), _) => layer.activations,
            (None, Role::Body) => self.activations,
            (None, _) => self.head_activations,
        }
    }
}

/// The format of a name.
fn known(name: &str) -> Result<&'static dyn Format, Error> {
    format::find(name).map_err(|e| Error::usage(e.to_string()))
}

use ActivationPrecision::{F32, Int8, Int8Block};

/// The body in `body`, table and head in `wide`.
const fn recipe(
    name: &'static str,
    body: &'static str,
    wide: [&'static str; 2],
    activations: [ActivationPrecision; 2],
    summary: &'static str,
) -> Recipe {
    let [embedding, head] = wide;
    let [activations, head_activations] = activations;
    Recipe {
        name,
        summary,
        body,
        embedding,
        head,
        activations,
        head_activations,
        rotation: Rotation::None,
        layers: &[],
    }
}

/// Table and head of the recipes below 8 bits: 8 bits with a scale per row lose next to nothing there.
const WIDE: [&str; 2] = ["int8_channel", "int8_channel"];

/// The recipe of networks trained in full precision where none is named: the smallest loss that 8 bits have, and at one token as fast as
/// memory gives the weights.
pub const DEFAULT: &str = "int8_weight_only";

/// Every recipe with a name.
pub static RECIPES: &[Recipe] = &[
    recipe("f32", "f32", ["f32", "f32"], [F32, F32], "32-bit floats"),
    recipe("bf16", "bf16", ["bf16", "bf16"], [F32, F32], "bfloat16 weights"),
    recipe(
        "int8",
        "int8",
        ["int8_channel", "int8"],
        [Int8, Int8],
        "8-bit weights, a scale per tensor; 8-bit activations",
    ),
    recipe("int8_channel", "int8_channel", WIDE, [Int8, Int8], "8-bit weights, a scale per row; 8-bit activations"),
    recipe(
        "int8_block",
        "int8_channel",
        WIDE,
        [Int8Block, Int8Block],
        "int8_channel with a scale per 32 activations: nearer to full precision",
    ),
    recipe(
        "int8_weight_only",
        "q8_0",
        ["q8_0", "q8_0"],
        [F32, F32],
        "8-bit weights, a scale per 32 inputs; activations as they are: what loses least, the default of full precision",
    ),
    recipe(
        "int8_2of4",
        "int8_2of4",
        WIDE,
        [Int8Block, Int8Block],
        "int8_block with two of every four weights of the body pruned (2:4), for models trained or tuned to it",
    ),
    recipe("llm_int8", "llm_int8", WIDE, [F32, F32], "LLM.int8(): 8 bits, outlier features in 16 (arXiv 2208.07339)"),
    recipe("nf4", "nf4", WIDE, [F32, F32], "4-bit NormalFloat weights (arXiv 2305.14314)"),
    recipe("nf4_dq", "nf4_dq", WIDE, [F32, F32], "NF4 with doubly quantized scales (arXiv 2305.14314)"),
    recipe("int4", "int4", WIDE, [Int8, F32], "4-bit weights in groups of 64; 8-bit activations"),
    recipe("int4_head4", "int4", ["int4", "int4"], [Int8, Int8], "int4 with table and head in 4 bits too"),
    recipe(
        "int4_block",
        "int4",
        WIDE,
        [Int8Block, Int8Block],
        "int4 with a scale per 32 activations, also in the head",
    ),
    recipe("int2", "int2", WIDE, [Int8, F32], "2-bit weights in groups of 64; 8-bit activations"),
    recipe("ternary", "ternary", WIDE, [Int8, F32], "ternary weights, rounded after training; 8-bit activations"),
    recipe(
        "bitnet",
        "ternary",
        WIDE,
        [Int8, F32],
        "BitNet b1.58, trained ternary; 8-bit activations (arXiv 2402.17764)",
    ),
    recipe("bitnet_head4", "ternary", ["int4", "int4"], [Int8, Int8], "BitNet b1.58 with table and head in 4 bits"),
    recipe("bitnet_bf16", "ternary", ["bf16", "bf16"], [Int8, F32], "BitNet b1.58 with table and head in bfloat16"),
    recipe(
        "bitnet_scan",
        "ternary",
        ["bf16_scan", "bf16_scan"],
        [Int8, F32],
        "bitnet_bf16 with copies by which greedy and top-k answers read a part of the head, with the same result",
    ),
    recipe("bitnet_b3", "ternary_b3", WIDE, [Int8, F32], "BitNet b1.58 stored at five weights per byte"),
    recipe(
        "bitnet_b3_head4",
        "ternary_b3",
        ["int4", "int4"],
        [Int8, Int8],
        "BitNet b1.58 at five weights per byte, table and head in 4 bits: the fewest bytes",
    ),
    recipe("bitnet_channel", "ternary_channel", WIDE, [Int8, F32], "BitNet b1.58 with a scale per row"),
    recipe(
        "ternary_g128",
        "ternary_g128",
        WIDE,
        [Int8, F32],
        "ternary weights, a scale per 128 inputs; 8-bit activations",
    ),
];

/// The recipe of a name, of a format, of [`STORED`], or of a spelling such as `ternary+embed=int8+head=int4`: a name or a format, then parts
/// `embed`, `head` (formats), `act` and `head_act` (`f32`, `int8`, `int8_block`, `int8_block64`, `int8_block128`), `rotate` (`none`, `hadamard`), and layers of the body with a format of their own,
/// `layers.0-3=int8_channel` or one kind of matrix in them, `layers.0-3.down_proj=int8_channel`.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind) naming what is wrong, with the nearest.
pub fn find(name: &str) -> Result<&'static Recipe, Error> {
    spelling::parse(name)
}
