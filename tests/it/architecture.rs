//! The house rules, kept by reading the sources.
//!
//! Each layer has an allow-list of this crate's modules and of other crates; a new one is argued for in the diff of
//! this file. Every source file opens with `//!`, and files and functions keep to their size but for the listed ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its unit tests, and of a function.
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, and why. This list may only shrink.
const LONG_FUNCTIONS: [(&str, &str); 2] = [
    ("src/domain/sql/types.rs: names", "a table of names"),
    ("src/adapters/formats/write/cells.rs: new", "a table of types"),
];

struct Layer {
    /// Files of the layer begin like this.
    root: &'static str,
    /// Modules of this crate that it may use.
    inside: &'static [&'static str],
    /// Other crates that it may use.
    outside: &'static [&'static str],
}

const PORTS: &[&str] = &["arrow", "async_trait", "bytes", "futures", "thiserror"];

/// The first layer whose root a file begins with is its own.
const LAYERS: &[Layer] = &[
    Layer { root: "src/ports/", inside: &["ports"], outside: PORTS },
    // The rooms of the domain use only those before them: storage, catalog, sql, executor, engine.
    Layer {
        root: "src/domain/storage/",
        inside: &["ports", "domain::storage"],
        outside: &["arrow", "bytes", "futures", "tokio", "tracing"],
    },
    Layer {
        root: "src/domain/catalog",
        inside: &["ports", "domain::storage", "domain::catalog"],
        outside: &["arrow", "arc_swap", "strsim", "tokio", "tracing"],
    },
    Layer {
        root: "src/domain/sql/",
        inside: &["ports", "domain::storage", "domain::catalog", "domain::sql"],
        outside: &["arrow", "sqlparser", "strsim"],
    },
    Layer {
        root: "src/domain/executor/",
        inside: &["ports", "domain::storage", "domain::catalog", "domain::sql", "domain::executor"],
        outside: &["arrow", "async_trait", "bytes", "datafusion", "futures", "sqlparser", "tokio", "tracing"],
    },
    Layer {
        root: "src/domain/engine/",
        inside: &["ports", "domain"],
        outside: &["arrow", "async_trait", "bytes", "futures", "thiserror", "tokio", "tracing"],
    },
    Layer {
        root: "src/domain/decorators/",
        inside: &["ports", "domain::decorators"],
        outside: &["arrow", "async_trait", "futures", "tokio"],
    },
    Layer { root: "src/domain/mod.rs", inside: &[], outside: &[] },
    Layer {
        root: "src/adapters/ipc/",
        inside: &["ports", "adapters::ipc"],
        outside: &["arrow", "async_trait", "bytes", "futures"],
    },
    Layer {
        root: "src/adapters/serving/",
        inside: &["ports", "adapters::ipc", "adapters::serving"],
        outside: &["arrow", "bytes", "futures", "tokio", "tokio_util", "tracing", "uuid", "async_trait", "serde_json"],
    },
    Layer { root: "src/adapters/clock.rs", inside: &["ports"], outside: &[] },
    Layer { root: "src/adapters/memory.rs", inside: &["ports"], outside: &[] },
    Layer {
        root: "src/adapters/disk/",
        inside: &["ports", "adapters::ipc", "adapters::disk"],
        outside: &["arrow", "bytes", "flatbuffers", "rustix", "serde", "serde_json", "tracing", "twox_hash", "uuid"],
    },
    Layer {
        root: "src/adapters/stub.rs",
        inside: &["ports", "adapters::serving", "adapters::stub"],
        outside: &["arrow", "async_trait", "tokio"],
    },
    Layer {
        root: "src/adapters/formats/",
        inside: &["ports", "adapters::ipc", "adapters::formats"],
        outside: &[
            "arrow",
            "async_trait",
            "bytes",
            "csv",
            "futures",
            "parquet",
            "rmp_serde",
            "serde",
            "serde_json",
            "tokio",
        ],
    },
    Layer {
        root: "src/adapters/flight/",
        inside: &["ports", "adapters::ipc", "adapters::serving", "adapters::flight"],
        outside: &[
            "arrow",
            "async_trait",
            "bytes",
            "futures",
            "tokio",
            "tracing",
            "uuid",
            "arrow_flight",
            "base64",
            "prost",
            "prost_types",
            "sync_wrapper",
            "tonic",
            "tonic_health",
            "tokio_util",
            "tower",
            "http",
            "http_body",
            "serde_json",
            "tempfile",
        ],
    },
    Layer {
        root: "src/adapters/http/",
        inside: &["ports", "adapters::ipc", "adapters::formats", "adapters::serving", "adapters::http"],
        outside: &[
            "arrow",
            "async_trait",
            "bytes",
            "futures",
            "tokio",
            "tracing",
            "warp",
            "hyper",
            "hyper_util",
            "tower",
            "tower_http",
            "http",
            "http_body_util",
            "reqwest",
            "serde_json",
            "base64",
            "percent_encoding",
            "sync_wrapper",
            "form_urlencoded",
            "url",
        ],
    },
    Layer { root: "src/adapters/mod.rs", inside: &["adapters"], outside: &[] },
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file below `folder`: its path from the root of the repository, and its text.
fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&root().join(folder), &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Lines of code with their numbers: no comments, no tests.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines
        .map(|(at, line)| {
            // A `//` inside of a string is an address.
            let comment = line.find("//").filter(|at| line[..*at].matches('"').count() % 2 == 0);
            (at + 1, line[..comment.unwrap_or(line.len())].to_owned())
        })
        .collect()
}

/// Names that stand before `::` and begin a path.
fn path_roots(line: &str) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    for (at, _) in line.match_indices("::") {
        let before = &line[..at];
        let start = before.rfind(|sign: char| !(sign.is_alphanumeric() || sign == '_')).map_or(0, |at| at + 1);
        let first = !before[..start].ends_with("::") && before[start..].starts_with(|sign: char| sign.is_lowercase());
        if first {
            roots.insert(before[start..].to_owned());
        }
    }
    roots
}

fn crates() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table: toml::Table = manifest.parse().unwrap();
    let names = table["dependencies"].as_table().unwrap().keys();
    names.map(|name| name.replace('-', "_")).collect()
}

/// What a line names that its layer may not.
fn layer_breaches(layer: &Layer, crates: &BTreeSet<String>, file: &str, number: usize, line: &str) -> Vec<String> {
    let foreign = |name: &String| crates.contains(name) && !layer.outside.contains(&name.as_str());
    let named = path_roots(line).into_iter().filter(foreign);
    let mut breaches: Vec<_> =
        named.map(|name| format!("{file}:{number}: {} may not use the crate {name}", layer.root)).collect();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + 7..];
        let fits =
            |module: &&&str| rest.starts_with(**module) && !rest[module.len()..].starts_with(char::is_alphanumeric);
        if !layer.inside.iter().any(|module| fits(&module)) {
            let module: String =
                rest.chars().take_while(|sign| sign.is_alphanumeric() || ":_".contains(*sign)).collect();
            breaches.push(format!("{file}:{number}: {} may not use crate::{module}", layer.root));
        }
    }
    breaches
}

#[test]
fn layers_use_only_what_they_may() {
    let crates = crates();
    let mut breaches = Vec::new();
    for (file, text) in files("src") {
        let layer = LAYERS.iter().find(|layer| file.starts_with(layer.root));
        for (line_number, line) in code(&text) {
            breaches
                .extend(layer.into_iter().flat_map(|layer| layer_breaches(layer, &crates, &file, line_number, &line)));
            if line.contains("super::") || line.contains("crate::{") {
                breaches.push(format!("{file}:{line_number}: paths begin with crate:: and name one layer each"));
            }
            let sockets_or_files =
                ["tokio::net", "tokio::fs", "std::fs", "std::net"].iter().any(|path| line.contains(path));
            if sockets_or_files && (file.starts_with("src/domain") || file.starts_with("src/ports")) {
                breaches.push(format!("{file}:{line_number}: the domain opens no file and no socket"));
            }
            let names_engine = ["zepto_flight::domain", "zepto_flight::app"].iter().any(|path| line.contains(path));
            if file.starts_with("src/bin/") && names_engine {
                breaches.push(format!("{file}:{line_number}: the command-line client has no engine in it"));
            }
            if line.contains("datafusion::") && !file.starts_with("src/domain/executor/") {
                breaches.push(format!("{file}:{line_number}: DataFusion is named in domain::executor alone"));
            }
            let guarded = line.contains("cfg(feature") || line.contains("cfg(not(feature");
            if guarded && file != "src/adapters/mod.rs" {
                breaches.push(format!("{file}:{line_number}: features are looked at in src/adapters/mod.rs alone"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn files_open_with_what_they_are_and_keep_their_size() {
    let mut breaches = Vec::new();
    let all: Vec<_> = ["src", "tests", "benches", "examples"].iter().flat_map(|folder| files(folder)).collect();
    for (file, text) in &all {
        if !text.starts_with("//! ") {
            breaches.push(format!("{file}: does not open with //!"));
        }
        let lines = code(text).len();
        if file.starts_with("src") && lines > FILE_LINES_MAX {
            breaches.push(format!("{file}: {lines} lines of code, more than {FILE_LINES_MAX}"));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn functions_fit_a_screen() {
    let mut breaches = Vec::new();
    for (file, text) in files("src") {
        let lines = code(&text);
        for (at, (number, line)) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_function =
                ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn ", "pub(super) async fn "]
                    .iter()
                    .any(|start| head.starts_with(start));
            let end = |line: &str| line == format!("{}}}", " ".repeat(indent));
            if !is_function {
                continue;
            }
            let length = lines[at..].iter().position(|(_, line)| end(line)).unwrap_or(0) + 1;
            let name = head.split("fn ").nth(1).unwrap().split(['(', '<']).next().unwrap();
            let key = format!("{file}: {name}");
            if length > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|(known, _)| *known == key) {
                breaches.push(format!("{file}:{number}: {name} has {length} lines, more than {FUNCTION_LINES_MAX}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_limit_is_documented_for_operators() {
    let limits = format!("{:?}", zepto_flight::ports::Limits::DEFAULT);
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let names = limits.trim_start_matches("Limits {").split([',', '{', '}']).filter_map(|part| part.split(':').next());
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        let flag = format!("`--{}`", name.replace('_', "-"));
        assert!(page.contains(&flag), "docs/configuration.md says nothing of {flag}");
    }
}

#[test]
fn every_protocol_folder_has_its_three_parts() {
    for protocol in ["flight", "http"] {
        for part in ["server.rs", "client.rs", "wire.rs"] {
            let path = root().join("src/adapters").join(protocol).join(part);
            assert!(path.exists(), "{} is missing", path.display());
        }
    }
}

/// Returns the path of a file's module, with the folder of its crate before it.
fn module_of(file: &str) -> Vec<String> {
    let root = if file.starts_with("src/bin/zepto/") { "src/bin/zepto" } else { "src" };
    let path = file[root.len() + 1..].trim_end_matches(".rs").split('/').filter(|part| !["mod", "lib"].contains(part));
    let path = path.filter(|part| !(*part == "main" && root == "src/bin/zepto"));
    std::iter::once(root).chain(path).map(str::to_owned).collect()
}

/// Adds every path that the text after `crate::` names, groups in braces included, and returns the rest of the text.
fn named_paths<'a>(mut text: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    loop {
        text = text.trim_start();
        if let Some(mut group) = text.strip_prefix('{') {
            loop {
                group = group.trim_start_matches([',', ' ', '\n']);
                match group.strip_prefix('}') {
                    Some(rest) => return rest,
                    None if group.is_empty() => return group,
                    None => group = named_paths(group, path.clone(), found),
                }
            }
        }
        let end = text.find(|sign: char| !(sign.is_alphanumeric() || sign == '_')).unwrap_or(text.len());
        path.push(text[..end].to_owned());
        match text[end..].strip_prefix("::") {
            Some(rest) if end > 0 => text = rest,
            _ => {
                found.push(path);
                // What follows a name up to a comma is its other name; whatever cannot be read is skipped.
                let rest = &text[end..];
                let stop = rest.find([',', '}']).unwrap_or(rest.len());
                return &rest[stop..];
            }
        }
    }
}

/// Returns for each file the files that its paths lead to, other than its own ancestors and descendants: a `mod.rs` is
/// the root of its children, and each may use the other.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files("src");
    let modules: BTreeMap<_, _> = files.iter().map(|(file, _)| (module_of(file), file.clone())).collect();
    let mut imports = BTreeMap::new();
    for (file, text) in &files {
        let own = module_of(file);
        let text: String = code(text).into_iter().map(|(_, line)| line + "\n").collect();
        let mut paths = Vec::new();
        for (at, _) in text.match_indices("crate::") {
            named_paths(&text[at + 7..], vec![own[0].clone()], &mut paths);
        }
        let longest_module =
            |path: &Vec<String>| (1..=path.len()).rev().find(|end| modules.contains_key(&path[..*end])).unwrap_or(1);
        let used = paths.iter().map(|path| &path[..longest_module(path)]);
        let foreign = used.filter(|module| !module.starts_with(&own) && !own.starts_with(module));
        imports.insert(file.clone(), foreign.filter_map(|module| modules.get(module).cloned()).collect());
    }
    imports
}

/// Returns everything that can be reached from `file`.
fn reached<'a>(file: &str, imports: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = imports[file].iter().map(String::as_str).collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports[next].iter().map(String::as_str));
        }
    }
    reached
}

#[test]
fn modules_import_in_no_circle() {
    let imports = imports();
    let reached: BTreeMap<_, _> = imports.keys().map(|file| (file.as_str(), reached(file, &imports))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reached {
        let circle: Vec<_> = others.iter().copied().filter(|other| reached[other].contains(file)).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    let circles: Vec<_> = circles.iter().map(|circle| circle.join(", ")).collect();
    assert!(circles.is_empty(), "these files import each other in a circle:\n{}", circles.join("\n"));
}

#[test]
fn paths_are_read_with_their_groups() {
    let mut found = Vec::new();
    named_paths("a::{b::{C, d}, e as f,\n g::h(1)}; crate::x", Vec::new(), &mut found);
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::b::C", "a::b::d", "a::e", "a::g::h"]);
}
