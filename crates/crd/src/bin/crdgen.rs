//! Writes the CustomResourceDefinitions as YAML: `crdgen DIRECTORY`. `cargo xtask crdgen` calls it.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use guenon_crd::definitions;

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("name the directory to write to: `crdgen deploy/crds`")?;
    std::fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    for (name, definition) in definitions() {
        let file = directory.join(format!("{name}.yaml"));
        // A date that is not in quotes is no string to every reader of YAML.
        let text = serde_yaml_ng::to_string(&definition)?.replace(EPOCH, &format!("\"{EPOCH}\""));
        std::fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}
