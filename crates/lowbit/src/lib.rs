//! lowbit.
#![forbid(unsafe_code)]
