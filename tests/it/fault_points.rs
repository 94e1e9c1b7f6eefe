//! Every place in the source where a fault can be injected has a test that injects one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::kit::files_under;
use crate::restore::steps::{BUILDING, EXCHANGING, FINISHING, GOING_BACK};
use crate::snapshot::save::STEPS;

fn text_below(dir: &str) -> String {
    let files = files_under(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir));
    let sources = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The first string literal after each occurrence of `call` whose content is a name.
fn names_after(text: &str, call: &str) -> BTreeSet<String> {
    let literal = |rest: &str| {
        let arguments = &rest[..rest.find(')')?];
        let name = arguments.split('"').nth(1)?;
        let is_name = name.chars().all(|char| char.is_ascii_lowercase() || "_-:".contains(char));
        is_name.then(|| name.to_owned())
    };
    text.split(call).skip(1).filter_map(literal).collect()
}

#[test]
fn each_is_covered_by_a_test() {
    let (source, tests) = (text_below("src"), text_below("tests/it"));
    let points = names_after(&source, "faults::point(");
    let steps = names_after(&source, " step(");
    assert!(points.len() >= 20 && steps.len() >= 18, "the names are found otherwise now: {points:?} {steps:?}");
    let swept: BTreeSet<&str> =
        [&BUILDING[..], &EXCHANGING, &GOING_BACK, &FINISHING, &STEPS].into_iter().flatten().copied().collect();
    // Named in full, as in `FAILPOINTS`; steps may be in a list that is swept.
    let is_named = |name: &str| tests.contains(&format!("{name}=")) || tests.contains(&format!("\"{name}\""));
    let without: Vec<_> = points.iter().filter(|name| !is_named(name)).collect();
    assert!(without.is_empty(), "no test injects a fault at {without:?}");
    let without: Vec<_> = steps.iter().filter(|name| !swept.contains(name.as_str())).collect();
    assert!(without.is_empty(), "not in a list that is swept: {without:?}");
    for name in swept {
        let is_there = steps.contains(name) || points.iter().any(|point| point.ends_with(&format!("::{name}")));
        assert!(is_there, "{name} is no step any more");
    }
}
