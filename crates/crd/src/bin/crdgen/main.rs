//! Writes the CustomResourceDefinitions as YAML, `crdgen DIRECTORY`, or a page on each for people,
//! `crdgen --docs DIRECTORY`. `cargo xtask crdgen` calls it.
#![forbid(unsafe_code)]

mod reference;

use std::path::PathBuf;

use guenon_crd::definitions;
use serde_json::Value;

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
    let mut arguments = std::env::args_os().skip(1).peekable();
    let docs = arguments.next_if(|argument| argument == "--docs").is_some();
    let directory = arguments.next().map(PathBuf::from);
    let directory = directory.ok_or("name the directory to write to: `crdgen [--docs] DIRECTORY`")?;
    std::fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    for (name, definition) in definitions() {
        let (name, text) = if docs { page(&definition) } else { (format!("{name}.yaml"), yaml(&definition)?) };
        let file = directory.join(name);
        std::fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

fn yaml(definition: &Value) -> Result<String, serde_yaml_ng::Error> {
    // A date that is not in quotes is no string to every reader of YAML.
    Ok(serde_yaml_ng::to_string(definition)?.replace(EPOCH, &format!("\"{EPOCH}\"")))
}

/// `virtual-service.md` for a VirtualService.
fn page(definition: &Value) -> (String, String) {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default();
    let mut name = String::new();
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    (name + ".md", reference::page(definition))
}
