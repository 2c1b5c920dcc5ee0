//! Asks a model and prints the answer as it comes; without arguments, the model that the crate brings along continues a film
//! review.
//!
//! `cargo run --release -p lowbit --example chat -- SmolLM2-135M.gguf "Why is the sky blue?"`

use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or(lowbit::SHIPPED.into());
    let text = arguments.next().unwrap_or("This film is".into());
    let model = lowbit::Model::open(path)?;
    for piece in model.chat(text).max_tokens(64).stream()? {
        print!("{}", piece?);
        stdout().flush()?;
    }
    println!();
    Ok(())
}
