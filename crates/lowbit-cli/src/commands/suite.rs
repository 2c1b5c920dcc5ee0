//! The suite a command works on.

use super::Machine;
use crate::failure::Failure;
use lowbit::suite::{self, Suite};
use lowbit_eval::task::{Splits, Task};
use lowbit_model::Column;
use std::path::Path;

/// As [`suite::find`]; says what was chosen by default.
///
/// # Errors
/// As [`suite::find`].
pub fn find(machine: &Machine, name_or_path: &str, data: Option<&Path>) -> Result<Suite, Failure> {
    let suite = suite::find(name_or_path, data)?;
    machine.terminal.notes(&suite.notice);
    Ok(suite)
}

/// The suite for rows of the user's own where no model is named; says what was chosen.
///
/// # Errors
/// As [`suite::of_rows`].
pub fn of_rows(machine: &Machine, data: &Path) -> Result<Suite, Failure> {
    let suite = suite::of_rows(None, data, &[], None)?;
    machine.terminal.notes(&suite.notice);
    Ok(suite)
}

/// A column by position from 0, or by name.
pub fn column(text: &str) -> Column {
    text.parse().map_or_else(|_| Column::Name(text.into()), Column::Index)
}

/// As [`suite::load`]; says what was dropped.
///
/// # Errors
/// As [`suite::load`].
pub fn load(machine: &Machine, suite: &Suite, data: Option<&Path>) -> Result<(Task, Splits), Failure> {
    let (task, splits) = suite::load(suite, data)?;
    machine.terminal.notes(&splits.notes);
    Ok((task, splits))
}
