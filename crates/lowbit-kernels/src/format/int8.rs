//! 8-bit integers, `w = (code - 128) * scale`, with a scale per matrix or per row.

use super::codec::Byte;
use super::integer::Integer;
use super::quantizer::ScaleRule;
use super::spec::{Scales, Spec};

/// A scale per matrix.
pub(super) static INT8: Integer<Byte, 1> =
    Integer { spec: Spec::integers("int8", 8.0, 256, Scales::Tensor), codec: Byte, rule: ScaleRule::Absmax };

/// A scale per row.
pub(super) static INT8_CHANNEL: Integer<Byte, 1> =
    Integer { spec: Spec::integers("int8_channel", 8.0, 256, Scales::Row), codec: Byte, rule: ScaleRule::Absmax };
