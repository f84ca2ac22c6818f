//! The source as a whole, on a real directory with a real watch.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, channel};

use super::super::Manifests;
use super::web;
use crate::source::{Source, SourceEvent};

fn run(path: &Path) -> Receiver<Vec<SourceEvent>> {
    let (sender, receiver) = channel(16);
    tokio::spawn(Manifests::new(path).run(sender));
    receiver
}

/// The next batch, as one line.
async fn next(batches: &mut Receiver<Vec<SourceEvent>>) -> String {
    let batch = tokio::time::timeout(Duration::from_secs(20), batches.recv()).await;
    let batch = batch.expect("a batch within 20 s").expect("the source goes on");
    let shown = batch.iter().map(|event| match event {
        SourceEvent::Apply(object) => format!("apply {}", object.key()),
        SourceEvent::Delete(key) => format!("delete {key}"),
        SourceEvent::Reset(objects) => format!("reset to {}", objects.len()),
        SourceEvent::Reached(version) => format!("reached {version}"),
        SourceEvent::Problems { problems, .. } => format!("{} problems", problems.len()),
    });
    shown.collect::<Vec<_>>().join(", ")
}

async fn quiet(batches: &mut Receiver<Vec<SourceEvent>>) {
    let batch = tokio::time::timeout(Duration::from_millis(300), batches.recv()).await;
    assert!(batch.is_err(), "nothing should be told, but: {batch:?}");
}

#[tokio::test]
async fn files_that_appear_change_and_go_are_picked_up() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("a.yaml"), web("a", "203.0.113.1")).expect("write");
    let mut batches = run(dir.path());
    assert_eq!(next(&mut batches).await, "reset to 1");
    fs::write(dir.path().join("b.yaml"), web("b", "203.0.113.2")).expect("write");
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/b");
    fs::remove_file(dir.path().join("a.yaml")).expect("remove");
    assert_eq!(next(&mut batches).await, "delete VirtualService shop/a");
    fs::write(dir.path().join(".tmp"), web("b", "203.0.113.22")).expect("write");
    fs::rename(dir.path().join(".tmp"), dir.path().join("b.yaml")).expect("rename");
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/b");
}

#[tokio::test]
async fn a_file_is_read_when_its_writer_closes_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("a.yaml"), web("a", "203.0.113.1")).expect("write");
    let mut batches = run(dir.path());
    assert_eq!(next(&mut batches).await, "reset to 1");
    let text = format!("{}---\n{}", web("a", "203.0.113.11"), web("b", "203.0.113.2"));
    let mut file = fs::File::create(dir.path().join("a.yaml")).expect("truncate");
    file.write_all(&text.as_bytes()[..50]).expect("write");
    tokio::time::sleep(Duration::from_millis(100)).await;
    file.write_all(&text.as_bytes()[50..]).expect("write");
    drop(file);
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/a, apply VirtualService shop/b");
    quiet(&mut batches).await;
}

#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_one_change() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path();
    let publish = |version: &str, address: &str| {
        fs::create_dir(path.join(version)).expect("create");
        fs::write(path.join(version).join("a.yaml"), web("a", address)).expect("write");
        fs::write(path.join(version).join("b.yaml"), web("b", &format!("{address}0"))).expect("write");
        symlink(version, path.join("..data_tmp")).expect("link");
        fs::rename(path.join("..data_tmp"), path.join("..data")).expect("rename");
    };
    publish("..v1", "203.0.113.1");
    symlink("..data/a.yaml", path.join("a.yaml")).expect("link");
    symlink("..data/b.yaml", path.join("b.yaml")).expect("link");
    let mut batches = run(path);
    assert_eq!(next(&mut batches).await, "reset to 2");
    publish("..v2", "203.0.113.2");
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/a, apply VirtualService shop/b");
}

#[tokio::test]
async fn a_directory_that_vanishes_is_told_and_what_was_there_stays() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("manifests");
    let mut batches = run(&path);
    assert_eq!(next(&mut batches).await, "1 problems", "it is not there yet: nothing is reset");
    fs::create_dir(&path).expect("create");
    fs::write(path.join("a.yaml"), web("a", "203.0.113.1")).expect("write");
    let first = next(&mut batches).await;
    assert!(first.starts_with("reset to "), "{first}");
    if first.starts_with("reset to 0") {
        assert_eq!(next(&mut batches).await, "apply VirtualService shop/a");
    }
    fs::rename(&path, parent.path().join("away")).expect("rename");
    assert_eq!(next(&mut batches).await, "1 problems");
    quiet(&mut batches).await;
    fs::create_dir(parent.path().join("new")).expect("create");
    fs::write(parent.path().join("new/a.yaml"), web("a", "203.0.113.11")).expect("write");
    fs::rename(parent.path().join("new"), &path).expect("rename");
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/a, 0 problems");
    fs::write(path.join("b.yaml"), web("b", "203.0.113.2")).expect("write");
    assert_eq!(next(&mut batches).await, "apply VirtualService shop/b", "the new directory is watched");
}

#[tokio::test]
async fn the_source_ends_when_nobody_listens() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (sender, receiver) = channel(16);
    let source = tokio::spawn(Manifests::new(dir.path()).run(sender));
    drop(receiver);
    let begun = Instant::now();
    source.await.expect("no panic").expect("no error");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
