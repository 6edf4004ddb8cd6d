//! The shape of the source tree: imports between top-level modules point down, there is no cycle, and `unsafe` stays in its
//! two homes. Told from the text, comments, strings and `#[cfg(test)]` modules left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::frame::{Check, skip};
use crate::support::scratch;
use crate::tests;

tests! { "layout":
    pure [
        imports_point_down,
        unsafe_stays_at_home,
        an_upward_import_is_found,
        a_cycle_is_found,
        a_module_without_a_level_is_found,
        siblings_of_the_manager_level_are_found,
        re_exports_count_as_their_module,
        supers_are_followed,
        comments_strings_and_tests_do_not_count,
        a_stray_unsafe_is_found,
    ]
}

/// Top-level modules and their levels; DESIGN and CONTRIBUTING explain them.
const LEVELS: &[(&str, u8)] = &[
    ("error", 0),
    ("types", 0),
    ("sys", 0),
    ("events", 1),
    ("progress", 1),
    ("logs", 1),
    ("store", 1),
    ("driver", 1),
    ("registry", 2),
    ("storage", 2),
    ("runtime", 2),
    ("images", 3),
    ("networks", 3),
    ("volumes", 3),
    ("containers", 4),
    ("blocking", 0),
    ("probe", 5),
    ("system", 5),
    ("build", 5),
    ("engine", 6),
    ("conformance", 7),
    ("harness", 7),
    ("remote", 7),
    ("api", 7),
    ("lib", 7),
];

/// The level whose modules may not import each other.
const MANAGERS: u8 = 3;

const UNSAFE_HOMES: [&str; 2] = ["sys", "runtime/native/helper"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn imports_point_down() -> Check {
    if fs::read_dir(sources()).is_err() {
        return skip("the source tree cannot be read by this user");
    }
    let complaints = check_imports(&Tree::read(&sources())?);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    Ok(())
}

fn unsafe_stays_at_home() -> Check {
    if fs::read_dir(sources()).is_err() {
        return skip("the source tree cannot be read by this user");
    }
    let strays = check_unsafe(&Tree::read(&sources())?);
    assert!(strays.is_empty(), "\n{}", strays.join("\n"));
    Ok(())
}

/// Source files by path below `src`, stripped to what counts.
struct Tree(BTreeMap<String, String>);

impl Tree {
    fn read(src: &Path) -> std::io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![src.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path
                        .strip_prefix(src)
                        .expect("below src")
                        .to_string_lossy()
                        .into_owned();
                    files.insert(name, strip(&fs::read_to_string(&path)?));
                }
            }
        }
        files.retain(|name, _| !is_test_file(name));
        Ok(Self(files))
    }
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// The top-level module of a file.
fn top(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// How many modules deep a file is: `a.rs` and `a/mod.rs` are 1, `a/b.rs` is 2.
fn depth(file: &str) -> usize {
    let parts = file.trim_end_matches(".rs").split('/').count();
    if file == "lib.rs" {
        return 0;
    }
    parts - usize::from(file.ends_with("/mod.rs"))
}

fn check_imports(tree: &Tree) -> Vec<String> {
    let names: BTreeSet<&str> = tree
        .0
        .keys()
        .map(|file| top(file))
        .filter(|name| *name != "lib")
        .collect();
    let re_exports = tree.0.get("lib.rs").map(|text| re_exports(text)).unwrap_or_default();
    let mut edges: BTreeMap<(String, String), String> = BTreeMap::new();
    for (file, text) in tree.0.iter().filter(|(file, _)| *file != "lib.rs") {
        for name in roots_named(text, depth(file)) {
            let to = if names.contains(name.as_str()) {
                Some(&name)
            } else {
                re_exports.get(&name)
            };
            if let Some(to) = to.filter(|to| *to != top(file)) {
                edges
                    .entry((top(file).to_owned(), to.clone()))
                    .or_insert_with(|| file.clone());
            }
        }
    }
    let mut complaints: Vec<String> = names
        .iter()
        .filter(|name| level(name).is_none())
        .map(|name| format!("module {name} has no level: give it one in tests/it/layout.rs"))
        .collect();
    complaints.extend(
        edges
            .iter()
            .filter_map(|((from, to), file)| complain_of_edge(from, to, file)),
    );
    complaints.extend(cycle(&edges).map(|path| format!("a cycle of imports: {}", path.join(" -> "))));
    complaints
}

fn level(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn complain_of_edge(from: &str, to: &str, file: &str) -> Option<String> {
    let (low, high) = (level(from)?, level(to)?);
    if high > low {
        return Some(format!(
            "{file}: {from} [{low}] imports {to} [{high}], which is above it"
        ));
    }
    (from == "error" || low == high && low == MANAGERS)
        .then(|| format!("{file}: {from} [{low}] may not import its sibling {to}"))
}

/// A cycle, if there is one.
fn cycle(edges: &BTreeMap<(String, String), String>) -> Option<Vec<String>> {
    let starts: BTreeSet<&String> = edges.keys().map(|(from, _)| from).collect();
    starts
        .into_iter()
        .find_map(|start| walk(edges, &mut vec![start.clone()]))
}

fn walk(edges: &BTreeMap<(String, String), String>, path: &mut Vec<String>) -> Option<Vec<String>> {
    let here = path.last()?.clone();
    for (_, to) in edges.keys().filter(|(from, _)| *from == here) {
        if *to == path[0] {
            path.push(to.clone());
            return Some(path.clone());
        }
        if !path.contains(to) {
            path.push(to.clone());
            if let Some(found) = walk(edges, path) {
                return Some(found);
            }
            path.pop();
        }
    }
    None
}

/// The first names after `crate::`, or after enough `super::` to be there, groups in braces included.
fn roots_named(text: &str, depth: usize) -> BTreeSet<String> {
    let mut prefixes = vec!["crate::".to_owned()];
    prefixes.push("super::".repeat(depth));
    let mut names = BTreeSet::new();
    for prefix in prefixes.iter().filter(|prefix| !prefix.is_empty()) {
        for (at, _) in text.match_indices(prefix.as_str()) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            names.extend(first_names(&text[at + prefix.len()..]));
        }
    }
    names
}

/// `a::b` gives `a`; `{a::b, c::{d, e}}` gives `a` and `c`.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut names = Vec::new();
    let mut nesting = 0;
    let mut expecting = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => nesting += 1,
            '}' if nesting == 0 => break,
            '}' => nesting -= 1,
            ',' if nesting == 0 => expecting = true,
            c if expecting && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Names that `lib.rs` re-exports, with the module they come from.
fn re_exports(lib: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in lib.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let path = path.trim().trim_start_matches("self::").trim_start_matches("crate::");
        let module = word(path);
        let leaves = path.rsplit("::").next().unwrap_or_default();
        let leaves = path.split_once('{').map_or(leaves, |(_, group)| group);
        for leaf in leaves
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|leaf| !leaf.is_empty())
        {
            found.insert(leaf.to_owned(), module.clone());
        }
    }
    found
}

fn check_unsafe(tree: &Tree) -> Vec<String> {
    let mut strays = Vec::new();
    for (file, text) in &tree.0 {
        let home = UNSAFE_HOMES
            .iter()
            .any(|home| file.starts_with(&format!("{home}/")) || *file == format!("{home}.rs"));
        let uses = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == "unsafe");
        if uses && !home {
            strays.push(format!("{file}: unsafe outside src/{}", UNSAFE_HOMES.join(" and src/")));
        }
    }
    strays
}

/// Blanks comments, string and character literals, then cuts out `#[cfg(test)] mod … { … }`.
fn strip(source: &str) -> String {
    cut_test_modules(&blank_literals(source))
}

fn blank_literals(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut kept = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(&text, at);
        if end == at {
            kept.push(text[at]);
            at += 1;
        } else {
            kept.push(' ');
            at = end;
        }
    }
    kept
}

/// Where the comment or literal that begins here ends; `at` itself if none does.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match (text[at], next) {
        ('/', Some('/')) => find(text, at, "\n"),
        ('/', Some('*')) => find(text, at + 2, "*/"),
        ('"', _) => quoted_end(text, at + 1, '"'),
        ('r', Some('"' | '#')) if at == 0 || !(text[at - 1].is_alphanumeric() || text[at - 1] == '_') => {
            raw_end(text, at)
        }
        ('\'', Some('\\')) => quoted_end(text, at + 1, '\''),
        ('\'', Some(_)) if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn quoted_end(text: &[char], mut at: usize, quote: char) -> usize {
    while at < text.len() && text[at] != quote {
        at += 1 + usize::from(text[at] == '\\');
    }
    (at + 1).min(text.len())
}

fn raw_end(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
    if text.get(at + 1 + hashes) != Some(&'"') {
        return at; // A raw identifier.
    }
    find(text, at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
}

fn find(text: &[char], from: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    let found = (from..text.len()).find(|at| text[*at..].starts_with(&what));
    found.map_or(text.len(), |at| at + what.len())
}

fn cut_test_modules(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        let stop = rest.find(['{', ';']).unwrap_or(rest.len());
        rest = if rest[stop..].starts_with('{') {
            &rest[stop + block_length(&rest[stop..])..]
        } else {
            &rest[stop..]
        };
    }
    kept + rest
}

fn block_length(text: &str) -> usize {
    let mut nesting = 0;
    for (at, c) in text.char_indices() {
        nesting += i32::from(c == '{') - i32::from(c == '}');
        if nesting == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// A tree of files in a temporary directory, planted with `files`.
fn planted(files: &[(&str, &str)]) -> Tree {
    let dir = scratch::fresh("tree");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    Tree::read(dir.path()).expect("a tree")
}

fn complaints(files: &[(&str, &str)]) -> String {
    check_imports(&planted(files)).join("\n")
}

fn an_upward_import_is_found() -> Check {
    let found = complaints(&[
        ("store/mod.rs", "use crate::{error::Error, engine::Engine};"),
        ("engine.rs", ""),
        ("error.rs", ""),
    ]);
    assert_eq!(found, "store/mod.rs: store [1] imports engine [6], which is above it");
    let inline = complaints(&[("store/mod.rs", "fn f() { crate::engine::open() }"), ("engine.rs", "")]);
    assert!(inline.contains("imports engine"), "{inline}");
    Ok(())
}

fn a_cycle_is_found() -> Check {
    let found = complaints(&[
        ("storage/a.rs", "use crate::runtime::X;"),
        ("runtime/b.rs", "use crate::storage::Y;"),
    ]);
    assert!(
        found.contains("a cycle of imports: runtime -> storage -> runtime"),
        "{found}"
    );
    Ok(())
}

fn a_module_without_a_level_is_found() -> Check {
    let found = complaints(&[("utils.rs", "")]);
    assert!(found.contains("module utils has no level"), "{found}");
    Ok(())
}

fn siblings_of_the_manager_level_are_found() -> Check {
    let found = complaints(&[("images/mod.rs", "use crate::volumes::V;"), ("volumes/mod.rs", "")]);
    assert!(
        found.contains("images [3] may not import its sibling volumes"),
        "{found}"
    );
    Ok(())
}

fn re_exports_count_as_their_module() -> Check {
    let lib = (
        "lib.rs",
        "pub mod engine; pub use self::engine::{Engine, EngineBuilder};",
    );
    let found = complaints(&[lib, ("store/mod.rs", "use crate::Engine;"), ("engine.rs", "")]);
    assert!(found.contains("store [1] imports engine [6]"), "{found}");
    Ok(())
}

fn supers_are_followed() -> Check {
    let found = complaints(&[
        ("store/db.rs", "use super::super::engine::E; use super::engine::F;"),
        ("engine.rs", ""),
    ]);
    assert!(found.contains("store/db.rs"), "{found}");
    let own = complaints(&[("store/db.rs", "use super::engine::F;"), ("engine.rs", "")]);
    assert_eq!(own, "");
    Ok(())
}

fn comments_strings_and_tests_do_not_count() -> Check {
    let text = r##"
        // use crate::engine::A;
        /* crate::engine::B */
        const S: &str = "crate::engine::C \" crate::engine::C";
        const R: &str = r#"crate::engine::D " "#;
        const Q: char = '"';
        fn of<'a>(x: &'a str) -> char { '{' }
        #[cfg(test)]
        mod tests { use crate::engine::E; fn f() { if true {} } }
        #[cfg(test)]
        mod more;
        use crate::error::F;
    "##;
    let files = [
        ("store/mod.rs", text),
        ("store/tests.rs", "use crate::engine::T;"),
        ("engine.rs", ""),
        ("error.rs", ""),
    ];
    assert_eq!(complaints(&files), "");
    assert!(strip(text).contains("crate::error::F"));
    Ok(())
}

fn a_stray_unsafe_is_found() -> Check {
    let tree = planted(&[
        ("sys/mod.rs", "unsafe fn f() {}"),
        ("runtime/native/helper/main.rs", "unsafe fn f() {}"),
        ("lib.rs", "#![deny(unsafe_code)] // unsafe"),
        ("store/mod.rs", "fn f() { unsafe { g() } }"),
    ]);
    assert_eq!(check_unsafe(&tree).len(), 1);
    assert!(check_unsafe(&tree)[0].starts_with("store/mod.rs"));
    Ok(())
}
