//! The report as its users see it: files written, read again, verified, and edits found out.

use lowbit_eval::{metrics, record, stats};

mod files;
mod fixture;
mod forged;
mod misleading;
mod shapes;
