//! Every VirtualService that the documentation and the examples show is accepted as it stands.

use std::path::{Path, PathBuf};

use guenon_controller::files::Manifests;
use guenon_controller::model::Object;
use guenon_controller::source::SourceEvent;

/// What the text of a Markdown file shows as YAML.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut directories = vec![root.join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found
}

/// How many VirtualServices a text holds; every one of them must be accepted.
#[track_caller]
fn accepted(shown: &str, text: &str) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("shown.yaml"), text).expect("write");
    let mut count = 0;
    for event in Manifests::read(directory.path()).expect("the directory") {
        let SourceEvent::Reset(objects) = event else { panic!("{shown}: {event:#?}\n{text}") };
        count += objects.iter().filter(|object| matches!(object, Object::VirtualService(_))).count();
    }
    count
}

#[test]
fn what_the_documentation_shows_is_accepted() {
    let mut pages = files("docs", "md");
    pages.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"));
    let mut count = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page");
        for block in blocks(&text).into_iter().filter(|block| block.contains("kind: VirtualService")) {
            let here = accepted(&page.display().to_string(), block);
            assert!(here > 0, "{}: no VirtualService was found in\n{block}", page.display());
            count += here;
        }
    }
    assert!(count >= 4, "{count} VirtualServices in README.md and docs");
}

#[test]
fn what_the_examples_hold_is_accepted() {
    let count: usize = files("examples", "yaml")
        .iter()
        .map(|file| accepted(&file.display().to_string(), &std::fs::read_to_string(file).expect("a file")))
        .sum();
    assert!(count >= 3, "{count} VirtualServices in examples");
}
