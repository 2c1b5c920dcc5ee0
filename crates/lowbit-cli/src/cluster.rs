//! The processes that train together: those that a launcher of MPI began, or this one alone.

use crate::commands::Machine;
use crate::failure::{Code, Failure};
use lowbit::train::{Alone, Ranks};

/// Variables by which launchers of MPI number the processes they begin, and count them.
const LAUNCHERS: &[(&str, &str)] = &[
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
];

/// The processes a launcher began, this one among them; none where there is no launcher.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let (_, count) = LAUNCHERS.iter().find(|(rank, _)| variable(rank).is_some())?;
    variable(count)?.parse().ok()
}

/// Trains on all processes that were begun for it: the first one speaks, and the others only of what went wrong.
///
/// # Errors
/// Of the work; of another process than the first, with its rank.
pub fn together(
    machine: &Machine,
    patience: u64,
    work: impl FnOnce(&Machine, &dyn Ranks) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let count = launched(|name| std::env::var(name).ok()).unwrap_or(1);
    let ranks: Box<dyn Ranks> = if count > 1 { join(machine, count, patience)? } else { Box::new(Alone) };
    if ranks.rank() == 0 {
        return work(machine, &*ranks);
    }
    match work(&machine.silent(), &*ranks) {
        // The code of the job is that of the first process, which says how to go on.
        Err(failure) if failure.code == Code::Interrupted => Ok(()),
        Err(failure) => Err(Failure { message: format!("rank {}: {}", ranks.rank(), failure.message), ..failure }),
        Ok(()) => Ok(()),
    }
}

#[cfg(feature = "mpi")]
fn join(machine: &Machine, _count: usize, patience: u64) -> Result<Box<dyn Ranks>, Failure> {
    let (terminal, signals) = (machine.terminal.clone(), machine.signals.clone());
    let lost = move |error| {
        terminal.note(format!("error: {}", Failure::from(error)));
        signals.end(Code::Internal);
    };
    let ranks = lowbit::train::Mpi::open(std::time::Duration::from_secs(patience), lost)?;
    if ranks.rank() == 0 {
        machine.terminal.note(format!("{} processes train together", ranks.size()));
    }
    Ok(Box::new(ranks))
}

#[cfg(not(feature = "mpi"))]
fn join(machine: &Machine, count: usize, _patience: u64) -> Result<Box<dyn Ranks>, Failure> {
    machine.terminal.note(format!(
        "a launcher of MPI began {count} processes, and this program was built without it: each trains by itself; \
         `cargo build --release -p lowbit-cli --features mpi` makes one whose processes train together"
    ));
    Ok(Box::new(Alone))
}

#[cfg(test)]
mod tests {
    use super::launched;

    #[test]
    fn launchers_are_known_by_their_variables() {
        let among = |variables: &[(&str, &str)]| {
            let known =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
            launched(known)
        };
        assert_eq!(among(&[]), None);
        assert_eq!(among(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")]), Some(4));
        assert_eq!(among(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Some(2));
        assert_eq!(among(&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "8")]), Some(8));
        // A job without a step of several tasks.
        assert_eq!(among(&[("SLURM_STEP_NUM_TASKS", "8")]), None);
        assert_eq!(among(&[("PMI_RANK", "0"), ("PMI_SIZE", "many")]), None);
    }
}
