//! From convert to plan everything is pure: no I/O, no runtime, no API client, no BPF.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 8] = ["parallel", "model", "convert", "index", "resolve", "table", "plan", "apply.rs"];
const IMPURE: [&str; 7] = ["kube::", "aya::", "tokio::", "std::fs", "std::net::Tcp", "std::process", "std::time::"];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.for_each(|entry| sources(&entry.expect("an entry").path(), found));
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn the_core_imports_neither_io_nor_runtime_nor_client() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for name in PURE {
        sources(&src.join(name), &mut found);
        sources(&src.join(format!("{name}.rs")), &mut found);
    }
    let found: Vec<_> =
        found.into_iter().filter(|path| path.is_file() && !path.to_string_lossy().contains("test")).collect();
    assert!(found.len() > 20, "the core was not found: {found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for impure in IMPURE {
                assert!(!line.contains(impure), "{}:{}: the core uses {impure}", path.display(), number + 1);
            }
        }
    }
}
