//! Not a test but a measurement: `cargo test --release -- --ignored --nocapture cold_parse`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::time::Instant;

use super::super::directory::Directory;
use super::super::yaml;

fn manifest(i: usize) -> String {
    let mut text = format!(
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata:\n  namespace: shop\n  name: web-{i}\nspec:\n  \
         addresses:\n  - 198.18.{}.{}\n  ports:\n  - name: http\n    protocol: TCP\n    port: 80\n  endpoints:\n",
        i / 250,
        i % 250 + 1
    );
    for endpoint in 0..10 {
        let _ = writeln!(text, "  - address: 10.{}.{}.{endpoint}\n    weight: 1", i / 250, i % 250 + 1);
    }
    text
}

#[test]
#[ignore = "a measurement"]
fn cold_parse_of_10_000_services() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let manifests: Vec<_> = (0..10_000).map(manifest).collect();
    let whole = manifests.join("---\n");
    let begun = Instant::now();
    manifests.iter().for_each(|text| drop(yaml::parse(text).expect("YAML")));
    println!("YAML alone, one thread: {:?} for {} bytes", begun.elapsed(), whole.len());

    fs::write(dir.path().join("all.yaml"), &whole).expect("write");
    let mut directory = Directory::new(dir.path());
    let begun = Instant::now();
    assert_eq!(directory.scan(&BTreeSet::new()).expect("scan").len(), 10_000);
    println!("one file, cold: {:?}", begun.elapsed());
    fs::write(dir.path().join("all.yaml"), whole.replacen("10.0.1.3", "10.0.1.33", 1)).expect("write");
    let begun = Instant::now();
    assert_eq!(directory.scan(&BTreeSet::new()).expect("scan").len(), 1);
    println!("one document of it changed: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(directory.objects().len(), 10_000);
    println!("cloning all objects: {:?}", begun.elapsed());

    fs::remove_file(dir.path().join("all.yaml")).expect("remove");
    for (i, text) in manifests.iter().enumerate() {
        fs::write(dir.path().join(format!("{i}.yaml")), text).expect("write");
    }
    let mut directory = Directory::new(dir.path());
    let begun = Instant::now();
    assert_eq!(directory.scan(&BTreeSet::new()).expect("scan").len(), 10_000);
    println!("10,000 files, cold: {:?}", begun.elapsed());
    fs::write(dir.path().join("7.yaml"), manifests[7].replacen("10.0.8.3", "10.0.8.33", 1)).expect("write");
    let begun = Instant::now();
    assert_eq!(directory.read(["7.yaml".to_owned()]).len(), 1);
    println!("one of them changed: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(directory.scan(&BTreeSet::new()).expect("scan").len(), 0);
    println!("looking at all of them: {:?}", begun.elapsed());

    let mut index = crate::index::Index::new();
    let begun = Instant::now();
    index.reset(directory.objects());
    println!("index: {:?}", begun.elapsed());
    let options = crate::resolve::ResolveOptions {
        schedule: guenon_ebpf::hash::Schedule::new(guenon_ebpf::hash::DEFAULT_KEY),
        directors: BTreeSet::new(),
        policy: crate::model::Policy::default(),
    };
    let mut resolver = crate::resolve::Resolver::new(options);
    let view = crate::fixtures::view("t22", &["172.17.2.2/24"])
        .on_link("172.17.2.0/24", "eth0")
        .route("10.0.0.0/8", "172.17.2.1", "eth0", 1500)
        .build();
    let begun = Instant::now();
    resolver.resolve(&mut index, &view, &std::collections::BTreeMap::new());
    println!("resolve, tables included: {:?}", begun.elapsed());
    let observed = crate::model::State::default();
    let begun = Instant::now();
    assert!(crate::plan::plan(resolver.state(), &observed, None).len() > 10_000);
    println!("plan: {:?}", begun.elapsed());
    index.apply(crate::fixtures::virtual_service("shop/web-7").vip("198.18.0.8").tcp(80).endpoint("10.0.8.1").into());
    let begun = Instant::now();
    let changed = resolver.resolve(&mut index, &view, &std::collections::BTreeMap::new());
    let resolved = begun.elapsed();
    assert!(crate::plan::plan(resolver.state(), &observed, Some(&changed)).len() < 5);
    let needs = (resolver.needs().neighbours.len(), resolver.problems(&index).len());
    println!("one change: resolve {resolved:?}, with plan, needs and problems {:?} {needs:?}", begun.elapsed());
}
