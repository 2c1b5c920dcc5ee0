//! lowbit-train.
#![forbid(unsafe_code)]
