//! Matching, by tables; most rows are what Docker documents or what its matcher's own tests promise.

use proptest::prelude::*;

use super::*;

fn ignored(patterns: &str, path: &str) -> bool {
    IgnoreFile::parse(patterns).unwrap().is_ignored(path)
}

#[test]
fn f9_the_pattern_table() {
    for (pattern, yes, no) in [
        ("a", "a a/b a/b/c", "b ab b/a"),
        ("/a/b/", "a/b a/b/c", "a ab/b x/a/b"),
        ("./a/../b/.", "b b/c", "a a/b"),
        ("*", "a .a a/b", ""),
        ("*.go", "a.go .go", "a.goo x/a.go"),
        ("a?c", "abc aéc", "ac a/c abbc"),
        ("*/*.md", "x/a.md x/a.md/y", "a.md x/y/a.md"),
        ("**", "a a/b", ""),
        ("**/", "a a/b", ""),
        ("**/a", "a x/a x/y/a x/a/z", "ba x/ba"),
        ("**/*.go", "a.go x/y/a.go", "a.gox"),
        ("**a", "a ba x/a x/ba", "ab"),
        ("a/**", "a/b a/b/c", "a b"),
        ("a**", "a ab a/b ab/c", "ba"),
        ("a/**/b", "a/b a/x/b a/x/y/b", "a b ab a/xb"),
        ("a**b", "ab a/b axx/b", "axb"),
        ("a**/*b", "ab axb a/xb ax/yb", "x/ab a"),
        ("**/a/**", "a/b x/a/b x/a/b/c", "a x/a ab/b"),
        ("**/foo/bar", "foo/bar x/foo/bar", "foo xfoo/bar"),
        ("abc.def", "abc.def", "abcxdef abc"),
        ("a(b)$+{c}|d", "a(b)$+{c}|d", "ab"),
        ("[a-c]x", "ax bx", "dx x"),
        ("[^a-c]x", "dx éx", "ax"),
        (r"[\]a]x", "]x ax", "bx"),
        (r"a\*b", "a*b", "axb ab"),
        (r"a\b", "ab", r"a\b"),
        ("x]", "x]", "x"),
        ("../a", "", "a ../b"),
        ("/", "", "a"),
        ("é*", "é/b éa", "e"),
    ] {
        for path in yes.split_whitespace() {
            assert!(ignored(pattern, path), "{pattern} should match {path}");
        }
        for path in no.split_whitespace() {
            assert!(!ignored(pattern, path), "{pattern} should not match {path}");
        }
    }
    assert!(ignored(" a b\t", "a b"));
    assert!(!ignored(" a b\t", "a"));
}

#[test]
fn f9_exceptions_and_order() {
    for (patterns, path, expected) in [
        ("*\n!a", "a", false),
        ("*\n!a", "b", true),
        ("*\n!a", "a/b", false),
        ("!a\n*", "a", true),
        ("a\n!a/b", "a/b", false),
        ("a\n!a/b", "a/c", true),
        ("a\n!a/b\na/b/c", "a/b/c", true),
        ("a\n!a/b\na/b/c", "a/b/d", false),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("**\n!**/*.rs", "src/x/a.rs", false),
        ("**\n!**/*.rs", "src/x/a.txt", true),
        ("a\n! /a/b/", "a/b", false),
        ("# a\n#b\n\n\r\n c \r\n", "c", true),
        (" # a", "# a", true),
        ("*\n/!a", "a", false),
        ("./ b", "b", true),
        ("\u{FEFF}a", "a", true),
    ] {
        assert_eq!(ignored(patterns, path), expected, "{patterns:?} on {path}");
    }
}

#[test]
fn f9_files_that_are_not_utf_8_match_too() {
    let file = IgnoreFile::parse("?.o\nx*").unwrap();
    assert!(file.is_ignored(b"\xFF.o"));
    assert!(file.is_ignored(b"x\xFE\xFF"));
    assert!(!file.is_ignored(b"\xFF\xFF.o"));
}

#[test]
fn f9_directories_are_left_out_as_a_whole_where_nothing_below_is_kept() {
    let skips = |patterns: &str, path: &str| {
        let file = IgnoreFile::parse(patterns).unwrap();
        let mut below = Below::default();
        for (at, _) in path.match_indices('/') {
            below = file.enter(&below, &path[..at]);
        }
        let below = file.enter(&below, path);
        file.skips(&below, path)
    };
    assert!(skips("node_modules", "node_modules"));
    assert!(skips("*\n!src", "target"));
    assert!(!skips("*\n!src", "src"), "it is not ignored");
    assert!(skips("*\n!src/a.rs", "target"));
    assert!(!skips("*\n!src/a.rs", "src"));
    assert!(!skips("*\n!src/x/a.rs", "src/x"));
    assert!(skips("*\n!src/x/a.rs", "src/y"));
    assert!(skips("!src/a.rs\n*", "src"), "an exception before does not count");
    assert!(!skips("*\n!**/a.rs", "src"), "it can be anywhere");
    assert!(!skips("*\n!s*/a.rs", "src"));
    assert!(skips("*\n!s*/a.rs", "target"));
    assert!(skips("*\n!s*/a.rs", "src/deep"), "a star does not go so deep");
    assert!(!skips("*\n!src/**", "src/deep"));
    assert!(!skips("*\n!a/[bc]/d", "a/b"));
    assert!(skips("*\n!a/[bc]/d", "a/d"));
}

#[test]
fn f9_patterns_that_are_none_are_refused() {
    for (text, message) in [
        ("!/", ".dockerignore:1: \"!\" alone is no exception"),
        ("a\n!\n", ".dockerignore:2: \"!\" alone is no exception"),
        (
            "a[",
            ".dockerignore:1: the pattern \"a[\" has a class [...] that is not closed or has no characters",
        ),
        (
            "a\n\n[]",
            ".dockerignore:3: the pattern \"[]\" has a class [...] that is not closed or has no characters",
        ),
        (
            "[z-a]",
            ".dockerignore:1: the pattern \"[z-a]\" has a class [...] that is not closed or has no characters",
        ),
        (
            "a\\",
            ".dockerignore:1: the pattern \"a\\\\\" has a backslash with nothing to escape",
        ),
    ] {
        let error = IgnoreFile::parse(text).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidArgument);
    }
    assert!(
        IgnoreFile::parse(b"a\n\xFF")
            .unwrap_err()
            .to_string()
            .contains(":2: this is not UTF-8")
    );
    let many = "a\n".repeat(limits::IGNORE_PATTERNS + 1);
    assert!(
        IgnoreFile::parse(many)
            .unwrap_err()
            .to_string()
            .contains("at most 10000")
    );
    let long = "a".repeat(limits::IGNORE_BYTES + 1);
    assert!(
        IgnoreFile::parse(long)
            .unwrap_err()
            .to_string()
            .contains("too many bytes")
    );
}

#[test]
fn f9_a_dockerfile_has_an_ignore_file_of_its_own() {
    assert_eq!(
        IgnoreFile::names("docker/app.Dockerfile")[0],
        "docker/app.Dockerfile.dockerignore"
    );
    assert_eq!(IgnoreFile::names("Dockerfile")[1], ".dockerignore");
}

#[test]
fn hostile_patterns_take_no_time() {
    let file = IgnoreFile::parse(format!("{}b", "*a**/".repeat(50))).unwrap();
    assert!(!file.is_ignored("a/".repeat(100)));
}

fn paths() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]{1,2}", 1..4).prop_map(|parts| parts.join("/"))
}

fn some_patterns() -> impl Strategy<Value = String> {
    proptest::collection::vec("!?(\\*\\*/)?[ab*?]{1,2}(/[ab*?]{1,2}){0,2}(/\\*\\*)?", 1..5)
        .prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn anything_parses_or_is_refused(text in "[ab*?!#/.\\\\\\[\\]^ \n-]{0,30}", path in "[ab/]{0,10}") {
        if let Ok(file) = IgnoreFile::parse(text) {
            file.is_ignored(path);
        }
    }

    /// What is left out as a whole has nothing below it that is kept.
    #[test]
    fn nothing_is_lost_below_a_skipped_directory(patterns in some_patterns(), dir in paths(), rest in paths()) {
        let file = IgnoreFile::parse(&patterns).unwrap();
        let mut below = Below::default();
        for (at, _) in dir.match_indices('/') {
            below = file.enter(&below, &dir[..at]);
        }
        let below = file.enter(&below, &dir);
        if file.skips(&below, &dir) {
            let path = format!("{dir}/{rest}");
            prop_assert!(file.is_ignored(&path), "{:?} keeps {}", patterns, path);
        }
    }

    /// The quick ways and the search agree.
    #[test]
    fn quick_ways_agree_with_the_search(pattern in "(\\*\\*/)?[ab]{1,2}(/[ab]{1,2})?(/\\*\\*)?", path in paths()) {
        let quick = pattern::Pattern::parse(&pattern).unwrap().unwrap();
        let slow = glob::Glob::parse(&pattern).unwrap();
        prop_assert_eq!(quick.matches(path.as_bytes()), slow.matches(path.as_bytes()), "{} on {}", pattern, path);
    }
}
