//! lowbit-serve.
#![forbid(unsafe_code)]
