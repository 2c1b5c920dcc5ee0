//! Speed measured against the limits of the machine, of kernels and of language models, and of servers as clients see them.

pub mod doctor;
pub mod host;
pub mod kernels;
pub mod model;
pub mod serve;
pub mod shapes;
