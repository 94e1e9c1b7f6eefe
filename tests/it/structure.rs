//! The structure of `src`: no circle between files, and imports that only point down one list of layers.
//!
//! Read from the source text: `use` lines and paths that begin with `crate`, `super` or `self`, without comments and unit tests. A file
//! may name its own children; a `mod.rs` that only passes names of a child on (`pub use`) does not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the top down: a module may import what is below it, and what is in its own entry. The longest prefix counts.
const LAYERS: &[&str] = &[
    "cli",
    "launcher",
    "control",
    "server",
    "control::api",
    "recovery",
    "cluster",
    "snapshot",
    "datastore",
    "logging",
    "etcd",
    "config",
    "pki",
    "boltdb",
    "plan",
    "cluster::record",
    "datadir",
    "durable",
    "compression",
    "host",
    "job",
    "shell",
    "terminal",
    "version",
    "random",
    "error",
    "environment",
    "secret",
    "checksum",
    "clock",
    "faults",
    "text",
];

type Edges = BTreeMap<String, BTreeSet<String>>;

#[test]
fn imports_point_down_and_never_round() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let edges: Edges = sources.iter().map(|(module, text)| (module.clone(), imports(module, text, &sources))).collect();
    let mut found = BTreeSet::new();
    for (from, to) in edges.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        match (layer(from), layer(to)) {
            (Some(above), Some(below)) if above <= below => {}
            (Some(_), Some(_)) => drop(found.insert(format!("{from} -> {to}"))),
            _ => panic!("{from} or {to} is in none of the layers of this test"),
        }
        if reaches(&edges, to, from) {
            let (first, second) = if from < to { (from, to) } else { (to, from) };
            found.insert(format!("{first} <-> {second}"));
        }
    }
    assert!(
        found.is_empty(),
        "imports that point up (->) or lead round (<->):
{found:#?}"
    );
}

/// Each module by its path, with its source without comments and unit tests.
fn sources(root: &Path) -> BTreeMap<String, String> {
    fn visit(dir: &Path, root: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, root, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().with_extension("");
                let mut parts: Vec<&str> = name.iter().map(|part| part.to_str().unwrap()).collect();
                parts.pop_if(|last| *last == "mod");
                let module = parts.join("::");
                if !["lib", "main"].contains(&module.as_str()) && parts.last() != Some(&"tests") {
                    all.insert(module, code(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    visit(root, root, &mut all);
    assert!(all.len() > 100, "the source is not at {}", root.display());
    all
}

fn code(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap();
    // Without where something is visible: that is no import.
    let line = |line: &str| {
        let line = line.split("//").next().unwrap();
        match line.split_once("pub(in ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
            Some((before, after)) => format!("{before}pub{after}"),
            None => line.to_owned(),
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The modules that a module imports.
fn imports(module: &str, text: &str, sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    let (statements, rest) = statements(text);
    let mut all = BTreeSet::new();
    for (is_public, path) in &statements {
        let Some(target) = resolve(module, path, sources) else { continue };
        let name = path.rsplit("::").next().unwrap_or_default();
        let is_child = target.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"));
        if is_public & is_child && !words(&rest).any(|word| word == name) {
            continue;
        }
        all.insert(target);
    }
    for path in words(&rest).filter(|word| word.contains("::")) {
        let first = path.split("::").next().unwrap_or_default();
        if ["crate", "super", "self"].contains(&first) || sources.contains_key(&format!("{module}::{first}")) {
            all.extend(resolve(module, path, sources));
        }
    }
    all.remove(module);
    all
}

/// Words of the source, paths as one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').filter(|word| !word.is_empty())
}

/// The paths of all `use` statements, with whether they are public, and the source without them.
fn statements(text: &str) -> (Vec<(bool, String)>, String) {
    let (mut paths, mut rest) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let is_public = trimmed.starts_with("pub");
        let statement = match trimmed.find("use ") {
            Some(0) => &trimmed[4..],
            Some(at) if is_public && trimmed[..at].split(' ').count() == 2 => &trimmed[at + 4..],
            _ => {
                rest.push_str(line);
                rest.push('\n');
                continue;
            }
        };
        let mut statement = statement.to_owned();
        while !statement.contains(';') {
            statement.push_str(lines.next().expect("a statement ends"));
        }
        expand("", statement.split(';').next().unwrap_or_default(), &mut |path| paths.push((is_public, path)));
    }
    (paths, rest)
}

/// Each path of `a::{b, c::{d, e}}`.
fn expand(prefix: &str, tree: &str, each: &mut impl FnMut(String)) {
    let mut depth = 0;
    let is_separator = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    for part in tree.split(is_separator).map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((before, inner)) => {
                expand(&format!("{prefix}{}", before.trim()), inner.trim_end().trim_end_matches('}'), each);
            }
            None => each(format!("{prefix}{}", part.split(" as ").next().unwrap_or_default().trim())),
        }
    }
}

/// The module that holds what `path` names when it stands in `module`; nothing for another crate's.
fn resolve(module: &str, path: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    let mut base: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    let mut at = 0;
    match parts[0] {
        "crate" => {
            base.clear();
            at = 1;
        }
        "super" | "self" => {
            while parts.get(at).is_some_and(|part| *part == "super") {
                base.pop();
                at += 1;
            }
            at += usize::from(parts.get(at).is_some_and(|part| *part == "self"));
        }
        first if sources.contains_key(&format!("{module}::{first}")) => {}
        _ => return None,
    }
    base.extend(&parts[at..]);
    (1..=base.len()).rev().map(|length| base[..length].join("::")).find(|name| sources.contains_key(name))
}

fn layer(module: &str) -> Option<usize> {
    let is_in = |entry: &str| module == entry || module.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"));
    let best = LAYERS.iter().enumerate().filter(|(_, entry)| is_in(entry)).max_by_key(|(_, entry)| entry.len());
    best.map(|(index, _)| index)
}

/// Whether imports lead from one module to another.
fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let (mut seen, mut pending) = (BTreeSet::new(), vec![from]);
    while let Some(module) = pending.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            pending.extend(edges.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

#[test]
fn trees_of_imports_are_read() {
    let text =
        "use a::{b, c::{self, d as e}};\npub use child::Name;\npub(super) fn f(user: X) { super::y::Z::new() }\n";
    let (paths, rest) = statements(text);
    let all: Vec<&str> = paths.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(all, ["a::b", "a::c::self", "a::c::d", "child::Name"]);
    assert!(paths[3].0 && !rest.contains("use "), "{rest}");
    let sources = ["m", "m::child", "y"].map(|name| (name.to_owned(), String::new())).into();
    assert_eq!(imports("m", text, &sources), ["y".to_owned()].into());
    let used = format!("{text}fn g(_: Name) {{}}\n");
    assert_eq!(imports("m", &used, &sources), ["m::child".to_owned(), "y".to_owned()].into());
}
