//! What the chart renders to with some sets of values, committed, so that a change of the chart shows what it does.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::helm::Helm;
use crate::shell::cmd;
use crate::{build, paths, progress};

/// One directory a set: values.yaml and rendered.yaml.
const SETS: &str = "deploy/helm/snapshots";
/// Templates that only wrap a generated file: `wrapped` sees to them.
const LEFT_OUT: [&str; 2] = ["crds.yaml", "dashboards.yaml"];

/// Compares, or writes them anew.
pub(super) fn run(helm: &Helm, accept: bool) -> Result<()> {
    let sets = paths::root().join(SETS);
    let entries = std::fs::read_dir(&sets).with_context(|| format!("cannot read {}", sets.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<String>>>()
        .with_context(|| format!("cannot read {}", sets.display()))?;
    names.sort();
    ensure!(!names.is_empty(), "no set of values in {SETS}");
    let mut differences = Vec::new();
    for name in &names {
        let set = sets.join(name);
        let rendered = helm.template(&["--values", &set.join("values.yaml").to_string_lossy()]).read()?;
        let rendered = filtered(&rendered);
        let committed = set.join("rendered.yaml");
        if accept {
            std::fs::write(&committed, rendered).with_context(|| format!("cannot write {}", committed.display()))?;
            progress::note(format_args!("{SETS}/{name}/rendered.yaml"));
        } else if let Some(difference) = difference(&committed, &rendered, name)? {
            differences.push(difference);
        }
    }
    if !differences.is_empty() {
        bail!(
            "the chart renders to something else than {SETS} says; if that is meant: `cargo xtask chart --accept`\n{}",
            differences.join("\n")
        );
    }
    Ok(())
}

/// Without the documents of `LEFT_OUT`.
fn filtered(rendered: &str) -> String {
    let documents = rendered.split_inclusive("\n---\n").filter(|document| {
        let source = document.lines().find_map(|line| line.strip_prefix("# Source: "));
        !source.is_some_and(|source| LEFT_OUT.iter().any(|name| source.ends_with(name)))
    });
    documents.collect()
}

/// What `diff` says.
fn difference(committed: &Path, rendered: &str, name: &str) -> Result<Option<String>> {
    let made = build::target().join(format!("chart-{name}.yaml"));
    std::fs::write(&made, rendered).with_context(|| format!("cannot write {}", made.display()))?;
    let said = cmd("diff").args(["-u", "--new-file"]).arg(committed).arg(&made).try_read()?;
    Ok((!said.status.success()).then(|| said.stdout + &said.stderr))
}

#[cfg(test)]
mod tests {
    use super::filtered;

    #[test]
    fn generated_documents_are_left_out() {
        let text = "---\n# Source: guenon/templates/crds.yaml\na: 1\n---\n# Source: guenon/templates/rbac.yaml\nb: 2\n";
        assert_eq!(filtered(text), "---\n# Source: guenon/templates/rbac.yaml\nb: 2\n".trim_start_matches("---\n"));
    }
}
