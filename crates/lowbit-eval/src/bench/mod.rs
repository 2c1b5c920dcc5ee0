//! Speed measured against the limits of the machine: of kernels, and of language models.

pub mod doctor;
pub mod host;
pub mod kernels;
pub mod model;
pub mod shapes;
