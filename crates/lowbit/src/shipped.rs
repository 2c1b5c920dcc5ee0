//! The model that the crate brings along: it continues articles and film reviews. It runs from memory: nothing is unpacked.

use lowbit_model::{Checkpoint, Error};

/// Its path for [`Model::open`](crate::Model::open).
pub const SHIPPED: &str = "lowbit:shipped";
/// Its name in messages and records.
pub const NAME: &str = "lowbit";
/// Name and content of each file of the model.
const FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../models/default/config.json")),
    ("model.safetensors", include_bytes!("../models/default/model.safetensors")),
    ("tokenizer.json", include_bytes!("../models/default/tokenizer.json")),
];

/// Opens the model.
///
/// # Errors
/// When the program's own files are damaged.
pub fn open() -> Result<Checkpoint, Error> {
    Checkpoint::embedded("the model inside this program", FILES)
}

#[cfg(test)]
mod tests {
    use lowbit_kernels::Cpu;

    #[test]
    fn the_model_inside_the_program_is_whole() {
        let checkpoint = super::open().expect("valid").on(&Cpu::new(None, Some(1)).expect("a CPU"));
        assert!(checkpoint.verify().expect("undamaged"), "it holds checksums");
        checkpoint.tokenizer().expect("there");
        checkpoint.model().expect("built");
    }
}
