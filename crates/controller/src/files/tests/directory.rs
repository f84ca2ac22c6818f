use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;

use super::super::directory::Directory;
use super::web;
use crate::source::SourceEvent;

/// A directory of manifests and what was read of it.
struct Kept {
    dir: TempDir,
    directory: Directory,
}

fn kept() -> Kept {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let directory = Directory::new(dir.path());
    Kept { dir, directory }
}

impl Kept {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("write");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).expect("remove");
    }

    /// What has happened since the last look, a line each.
    fn told(&mut self) -> String {
        let root = format!("{}/", self.dir.path().display());
        let events = self.directory.scan(&BTreeSet::new()).expect("scan");
        events.iter().map(|event| format!("{}\n", shown(event)).replace(&root, "")).collect()
    }

    /// The objects in force.
    fn objects(&self) -> Vec<String> {
        self.directory.objects().iter().map(|object| object.key().to_string()).collect()
    }
}

fn shown(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Apply(object) => format!("apply {}", object.key()),
        SourceEvent::Delete(key) => format!("delete {key}"),
        SourceEvent::Reset(objects) => format!("reset to {}", objects.len()),
        SourceEvent::Reached(version) => format!("reached {version}"),
        SourceEvent::Problems { place, problems } if problems.is_empty() => format!("{place} is mended"),
        SourceEvent::Problems { problems, .. } => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            problems.join("\n")
        }
    }
}

#[test]
fn only_what_changes_is_told() {
    let mut kept = kept();
    kept.write("a.yaml", &format!("{}---\n{}", web("one", "203.0.113.1"), web("two", "203.0.113.2")));
    kept.write("ignored.txt", "no manifest");
    kept.write(".hidden.yaml", "no: manifest");
    assert_eq!(kept.told(), "apply VirtualService shop/one\napply VirtualService shop/two\n");
    assert_eq!(kept.told(), "");
    kept.write("a.yaml", &format!("{}---\n{}", web("one", "203.0.113.1"), web("two", "203.0.113.22")));
    assert_eq!(kept.told(), "apply VirtualService shop/two\n");
    kept.write("a.yaml", &web("two", "203.0.113.22"));
    assert_eq!(
        kept.told(),
        "delete VirtualService shop/one\napply VirtualService shop/two\n",
        "what moved in its file is told again, with its new line"
    );
    kept.remove("a.yaml");
    assert_eq!(kept.told(), "delete VirtualService shop/two\n");
}

#[test]
fn a_bad_document_never_stops_the_others_and_leaves_its_last_good_version_in_force() {
    let mut kept = kept();
    let good = [web("one", "203.0.113.1"), web("two", "203.0.113.2"), web("three", "203.0.113.3")];
    kept.write("a.yaml", &good.join("---\n"));
    kept.told();
    let bad = [web("one", "203.0.113.11"), web("two", "203.0.113.300"), web("three", "203.0.113.33")];
    kept.write("a.yaml", &bad.join("---\n"));
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/one
    apply VirtualService shop/three
    a.yaml:13 (document 2), VirtualService shop/two, spec.addresses[0]: Invalid value: "203.0.113.300": must be an IPv4 or IPv6 address; write one such as 203.0.113.10 or 2001:db8::10 (until then its last good version stays in force) (Invalid)
    "#);
    assert_eq!(kept.objects().len(), 3);
    kept.write("a.yaml", &good.join("---\n"));
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/one
    apply VirtualService shop/three
    apply VirtualService shop/two
    a.yaml is mended
    "#);
}

#[test]
fn a_half_written_file_withdraws_nothing() {
    let mut kept = kept();
    let two = format!("{}---\n{}", web("one", "203.0.113.1"), web("two", "203.0.113.2"));
    kept.write("a.yaml", &two);
    kept.told();
    kept.write("a.yaml", &format!("{}---\napiVersion: \"guenon.d", web("one", "203.0.113.11")));
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/one
    a.yaml:9 (document 2): this is no YAML: while scanning a quoted scalar, found unexpected end of stream; mind indentation, quotes and tabs; 1 object that the file held before stays in force (Unreadable)
    "#);
    kept.write("a.yaml", "");
    insta::assert_snapshot!(kept.told(), @r#"
    a.yaml: the file is empty; 2 objects that the file held before stay in force; remove the file to withdraw them (Unreadable)
    "#);
    assert_eq!(kept.objects().len(), 2);
    kept.write("a.yaml", &two);
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/one
    apply VirtualService shop/two
    a.yaml is mended
    "#);
}

#[test]
fn of_an_object_in_two_files_the_first_by_name_counts_and_both_are_named() {
    let mut kept = kept();
    kept.write("b.yaml", &web("web", "203.0.113.2"));
    kept.told();
    kept.write("a.yaml", &format!("# first\n{}", web("web", "203.0.113.1")));
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/web
    b.yaml:1 (document 1), VirtualService shop/web: this object is in a.yaml:2 too, which counts as its name comes first; remove one of the two (Invalid)
    "#);
    kept.write("b.yaml", &web("web", "203.0.113.22"));
    insta::assert_snapshot!(kept.told(), @"");
    kept.remove("a.yaml");
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/web
    b.yaml is mended
    "#);
}

#[test]
fn of_an_object_twice_in_a_file_the_first_counts() {
    let mut kept = kept();
    kept.write("a.yaml", &format!("{}---\n{}", web("web", "203.0.113.1"), web("web", "203.0.113.2")));
    insta::assert_snapshot!(kept.told(), @r#"
    apply VirtualService shop/web
    a.yaml:9 (document 2), VirtualService shop/web: this object is in line 1 already, which counts; remove one of the two (Invalid)
    "#);
}

#[test]
fn a_file_that_is_no_text_or_a_dangling_link_is_told() {
    let mut kept = kept();
    fs::write(kept.dir.path().join("a.yaml"), [0xff, 0xfe, 0x00]).expect("write");
    std::os::unix::fs::symlink("nowhere", kept.dir.path().join("b.yaml")).expect("link");
    insta::assert_snapshot!(kept.told(), @r#"
    a.yaml: cannot read the file: it is not UTF-8 text; save it as UTF-8 (Unreadable)
    b.yaml: cannot read the file: No such file or directory (os error 2) (Unreadable)
    "#);
    assert_eq!(kept.told(), "", "said once");
}
