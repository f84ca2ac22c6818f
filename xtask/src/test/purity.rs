//! Whether the pure core stays pure: from convert to plan nothing imports `kube`, `aya` or `tokio`, so that it runs
//! the same in a test, in the simulator and in the agent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Modules of crates/controller/src, each a file or a directory.
const PURE: [&str; 6] = ["model", "convert", "index", "resolve", "table", "plan"];
const FORBIDDEN: [&str; 3] = ["kube", "aya", "tokio"];

/// How many files were found pure.
pub(super) fn check() -> Result<usize> {
    let src = paths::root().join("crates/controller/src");
    let mut files = Vec::new();
    for module in PURE {
        let before = files.len();
        collect(&src.join(module), &mut files)?;
        let file = src.join(format!("{module}.rs"));
        if file.is_file() {
            files.push(file);
        }
        if files.len() == before {
            bail!("there is no module {module} in {}: has it moved? xtask/src/test/purity.rs names it", src.display());
        }
    }
    let mut faults = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = imported(line) {
                faults.push(format!("{}:{}: {name}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    if !faults.is_empty() {
        bail!("the pure core must do without {}:\n{}", FORBIDDEN.join(", "), faults.join("\n"));
    }
    Ok(files.len())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The forbidden crate, or our own module that stands for it, that a line of code names.
fn imported(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    FORBIDDEN.into_iter().find(|name| {
        code.match_indices(name).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = &code[at + name.len()..];
            let begins = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '"' || c == '.');
            let used = after.starts_with("::") || (after.starts_with(';') && code.trim_start().starts_with("use"));
            begins && used
        })
    })
}

#[cfg(test)]
mod tests {
    use super::imported;

    #[test]
    fn imports_are_seen_and_words_are_not() {
        assert_eq!(imported("use kube::Api;"), Some("kube"));
        assert_eq!(imported("    let x = tokio::spawn(y);"), Some("tokio"));
        assert_eq!(imported("use aya;"), Some("aya"));
        assert_eq!(imported("use crate::kube::watch;"), Some("kube"));
        assert_eq!(imported("// unlike kube::Api"), None);
        assert_eq!(imported("use himalaya::peak;"), None);
        assert_eq!(imported("use my_tokio::x;"), None);
    }
}
