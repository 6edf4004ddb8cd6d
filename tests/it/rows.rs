//! The promises of `docs/rows.md`: each has a test, and each test that carries a promise's id has its row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::frame::{Check, Stop, fail, skip};
use crate::tests;

tests! { "rows":
    pure [
        every_row_names_tests_that_exist,
        every_row_has_a_test_with_its_id,
        every_id_has_its_row,
        every_row_stands_once,
        every_attack_is_tried,
        a_wrong_name_is_found,
        ids_are_read_from_names_and_prose,
    ]
}

/// The package, where the sources are at hand: a copy of the binary elsewhere has none.
fn package() -> Result<PathBuf, Stop> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    match dir.join("docs/rows.md").exists() {
        true => Ok(dir),
        false => skip("the sources are not here"),
    }
}

/// The rows of a page: an id, and what is named in backticks in the column of tests.
fn rows(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<&str> = line.split(" | ").collect();
        let id = columns[0].trim_start_matches("| ").trim();
        if let (true, Some(shown)) = (is_id(id), columns.get(2)) {
            let names = shown.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            rows.insert(id.to_owned(), names);
        }
    }
    rows
}

/// Rows that stand more than once.
fn twice(page: &str) -> Vec<String> {
    let ids = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut seen = BTreeSet::new();
    ids.filter(|id| is_id(id) && !seen.insert(*id))
        .map(str::to_owned)
        .collect()
}

fn every_row_stands_once() -> Check {
    let page = fs::read_to_string(package()?.join("docs/rows.md"))?;
    assert_eq!(twice(&page), [] as [String; 0]);
    assert_eq!(twice("| A1 | x |\n| B2 | y |\n| A1 | z |"), ["A1"]);
    Ok(())
}

/// A capital letter and a number: `A1`, `P48`.
fn is_id(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|first| ('A'..='P').contains(&first))
        && (1..=2).contains(&letters.as_str().len())
        && letters.all(|letter| letter.is_ascii_digit())
}

/// The ids that a test's name begins with: `h15_h16_limits` has two.
fn ids_of(name: &str) -> Vec<String> {
    let last = name.rsplit("::").next().unwrap_or(name);
    let words = last.split('_').map(str::to_uppercase);
    words.take_while(|word| is_id(word)).collect()
}

/// The names of this binary's own tests.
fn own() -> BTreeSet<String> {
    let groups = crate::GROUPS.iter();
    groups
        .flat_map(|(group, tests)| tests.iter().map(move |test| format!("{group}::{}", test.name)))
        .collect()
}

/// Why what a row names is not there, if it is not.
fn missing(name: &str, own: &BTreeSet<String>, package: &Path) -> Option<String> {
    if let Some((file, step)) = name.split_once('#') {
        let text = fs::read_to_string(package.join(file)).unwrap_or_default();
        let ways = [format!("\"{step}\""), format!("step {step} "), format!("==== {step}\n")];
        let named = ways.iter().any(|way| text.contains(way));
        return (!named).then(|| format!("{file} has no step {step:?}"));
    }
    if own.contains(name) || is_unit_test(name, &package.join("src")) {
        return None;
    }
    Some(format!("there is no test {name}"))
}

/// Whether a path of modules leads to a function of that name: in a file of the whole path, or in a module within one.
fn is_unit_test(name: &str, src: &Path) -> bool {
    let mut parts: Vec<&str> = name.split("::").collect();
    let Some(function) = parts.pop() else { return false };
    let begins = format!("fn {function}(");
    (1..=parts.len()).any(|depth| {
        let stem = src.join(parts[..depth].join("/"));
        let files = [stem.with_extension("rs"), stem.join("mod.rs")];
        files
            .iter()
            .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&begins)))
    })
}

fn page(package: &Path) -> Result<BTreeMap<String, Vec<String>>, Stop> {
    let rows = rows(&fs::read_to_string(package.join("docs/rows.md"))?);
    match rows.len() {
        0..40 => fail(format!("only {} rows were read", rows.len())),
        _ => Ok(rows),
    }
}

fn every_row_names_tests_that_exist() -> Check {
    let (package, own) = (package()?, own());
    let mut complaints = Vec::new();
    for (row, names) in page(&package)? {
        if names.is_empty() {
            complaints.push(format!("{row} names no test"));
        }
        let wrong = names.iter().filter_map(|name| missing(name, &own, &package));
        complaints.extend(wrong.map(|why| format!("{row}: {why}")));
    }
    match complaints.is_empty() {
        true => Ok(()),
        false => fail(complaints.join("\n")),
    }
}

/// The attacks of `docs/security.md`, each with tests that exist.
fn every_attack_is_tried() -> Check {
    let (package, own) = (package()?, own());
    let page = fs::read_to_string(package.join("docs/security.md"))?;
    let attacks = page
        .lines()
        .scan(false, |within, line| {
            *within = line.starts_with('|') && (*within || line.starts_with("| attack"));
            Some((*within, line))
        })
        .filter(|(within, line)| *within && line.starts_with("| ") && !line.starts_with("| attack"))
        .map(|(_, line)| line);
    let mut complaints = Vec::new();
    let mut count = 0;
    for attack in attacks {
        let tried = attack.rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = tried.split('`').skip(1).step_by(2).collect();
        count += 1;
        if names.is_empty() {
            complaints.push(format!("nobody tries this: {attack}"));
        }
        complaints.extend(names.iter().filter_map(|name| missing(name, &own, &package)));
    }
    assert!(count >= 15, "only {count} attacks were read");
    match complaints.is_empty() {
        true => Ok(()),
        false => fail(complaints.join("\n")),
    }
}

/// Steps of real clients have no ids.
fn every_row_has_a_test_with_its_id() -> Check {
    let mut without = Vec::new();
    for (row, names) in page(&package()?)? {
        let carried = names
            .iter()
            .any(|name| name.contains('#') || ids_of(name).contains(&row));
        if !carried {
            without.push(row);
        }
    }
    match without.is_empty() {
        true => Ok(()),
        false => fail(format!("no test carries the id of {}", without.join(", "))),
    }
}

/// The ids that a text has as words of their own.
fn ids_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| is_id(word)).map(str::to_owned).collect()
}

/// The names of functions in a text that are tests, by the attribute above them.
fn tests_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            continue;
        }
        let after = line.split_once("fn ").map(|(_, after)| after);
        if let (true, Some(after)) = (marked, after) {
            names.extend(after.split('(').next().map(str::to_owned));
        }
        marked = false;
    }
    names
}

/// All Rust sources below a directory.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn every_id_has_its_row() -> Check {
    let package = package()?;
    let rows = page(&package)?;
    let mut claims: BTreeMap<String, String> = BTreeMap::new();
    for name in own() {
        claims.extend(ids_of(&name).into_iter().map(|id| (id, name.clone())));
    }
    let mut files = Vec::new();
    sources(&package.join("src"), &mut files)?;
    for file in files {
        for name in tests_in(&fs::read_to_string(&file)?) {
            let place = format!("{name} in {}", file.display());
            claims.extend(ids_of(&name).into_iter().map(|id| (id, place.clone())));
        }
    }
    let mut pages = vec![package.join("README.md"), package.join("CHANGELOG.md")];
    for entry in fs::read_dir(package.join("docs"))? {
        pages.push(entry?.path());
    }
    for page in pages {
        let ids = ids_in(&fs::read_to_string(&page)?);
        claims.extend(ids.into_iter().map(|id| (id, page.display().to_string())));
    }
    let lost: Vec<String> = claims
        .into_iter()
        .filter(|(id, _)| !rows.contains_key(id))
        .map(|(id, claimed)| format!("{id} has no row in docs/rows.md, and is claimed by {claimed}"))
        .collect();
    match lost.is_empty() {
        true => Ok(()),
        false => fail(lost.join("\n")),
    }
}

fn a_wrong_name_is_found() -> Check {
    let (package, own) = (package()?, own());
    let line = "| A1 | A promise. | `rows::a_wrong_name_is_found`, `no::such_test`, `tests/clients/cli.sh#nothing` |";
    let rows = rows(&format!("| row | promise | shown by |\n|---|---|---|\n{line}\n"));
    let names = &rows["A1"];
    let wrong: Vec<_> = names.iter().filter_map(|name| missing(name, &own, &package)).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(
        wrong,
        [
            "there is no test no::such_test",
            "tests/clients/cli.sh has no step \"nothing\""
        ]
    );
    assert!(!is_unit_test(
        "types::reference::tests::no_such_test",
        &package.join("src")
    ));
    assert!(missing("error::tests", &own, &package).is_some());
    Ok(())
}

fn ids_are_read_from_names_and_prose() -> Check {
    assert_eq!(ids_of("life::h15_h16_limits"), ["H15", "H16"]);
    assert_eq!(ids_of("fixtures::a_left_file_is_found"), [""; 0]);
    assert_eq!(
        ids_in("see A7, (P48) and x86, R2, AB1"),
        ["A7", "P48"].map(str::to_owned).into()
    );
    let text = "#[test]\nfn k5_one() {}\n#[tokio::test]\nasync fn k6_two() {}\nfn k7_helper() {}\n";
    assert_eq!(tests_in(text), ["k5_one", "k6_two"]);
    Ok(())
}
