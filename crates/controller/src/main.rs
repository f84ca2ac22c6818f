//! `guenon`: see [`guenon_controller::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    guenon_controller::cli::main()
}
