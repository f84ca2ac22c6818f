//! `cargo xtask fuzz`: the long runs of crates/controller/tests/packets/mutations.rs (tunnels) and nat_fuzz.rs (both hooks of a
//! node that translates), side by side.

use anyhow::Result;

use crate::{build, progress, setup};

/// Runs for so many seconds, on a seed of its own unless one is given.
pub(crate) fn run(seconds: u64, seed: Option<u64>) -> Result<()> {
    setup::root("fuzz")?;
    setup::building()?;
    progress::step(format_args!("mutated packets for {seconds} s"));
    let test = ["test", "--package", "guenon-controller", "--test", "packets", "--"];
    let runs = ["mutations::a_long_run", "nat_fuzz::a_long_run", "--nocapture"];
    let mut command = build::cargo(&[&test[..], &runs].concat()).env("GUENON_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command = command.env("GUENON_FUZZ_SEED", seed.to_string());
    }
    command.show()
}
