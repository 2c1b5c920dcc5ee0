//! The report as its users see it: files written, read again, verified, and edits found out.

use lowbit_eval::{faithfulness, metrics, record, stats};

mod files;
mod fixture;
mod forged;
mod misleading;
mod mutated;
mod shapes;
