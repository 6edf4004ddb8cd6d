//! Expansion, by tables.

use proptest::prelude::*;

use super::*;
use crate::build::limits;

fn env() -> Env {
    let pairs = [
        ("x", "value"),
        ("empty", ""),
        ("path", "/usr/local/lib/a.tar.gz"),
        ("words", "a  b"),
        ("lines", "a\nb"),
        ("PWD", "/home"),
        ("1", "one"),
    ];
    pairs.into_iter().collect()
}

fn of(text: &str) -> String {
    match expand(text, Style::words('\\'), &env()) {
        Ok(expanded) => expanded.text,
        Err(failure) => format!("error: {failure}"),
    }
}

#[test]
fn f5_the_expansion_table() {
    for (word, expanded) in [
        ("plain", "plain"),
        ("$x", "value"),
        ("${x}y", "valuey"),
        ("$xy", ""),
        ("$x$x-$x.", "valuevalue-value."),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$(x)", "$(x)"),
        ("$1x", "onex"),
        ("$12", ""),
        ("$$x", "x"),
        (r"\$x", "$x"),
        (r"\\$x", r"\value"),
        (r"a\ b\", "a b"),
        ("'$x'", "$x"),
        (r"'a\'", r"a\"),
        ("\"$x's\"", "value's"),
        (r#""\$x \" \\ \a""#, r#"$x " \ \a"#),
        ("\"a\"'b'c", "abc"),
        // Forms for what is unset or empty.
        ("${x:-d}", "value"),
        ("${none:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${none-d}", "d"),
        ("${x:+d}", "d"),
        ("${empty:+d}", ""),
        ("${empty+d}", "d"),
        ("${none+d}", ""),
        ("${x:?bad}", "value"),
        ("${x?}", "value"),
        ("${empty?}", ""),
        ("${none:-${empty:-${x}}}", "value"),
        ("${none:-\"a b\"}", "a b"),
        ("${none:-a\\}b}", "a}b"),
        // Patterns.
        ("${path#*/}", "usr/local/lib/a.tar.gz"),
        ("${path##*/}", "a.tar.gz"),
        ("${path%.*}", "/usr/local/lib/a.tar"),
        ("${path%%.*}", "/usr/local/lib/a"),
        ("${path%/*}", "/usr/local/lib"),
        ("${path#/usr}", "/local/lib/a.tar.gz"),
        ("${path#usr}", "/usr/local/lib/a.tar.gz"),
        ("${path%?z}", "/usr/local/lib/a.tar."),
        ("${path##*.tar}", ".gz"),
        ("${none#a}", ""),
        ("${x#$none}", "value"),
        ("${x#${none:-v}}", "alue"),
        ("${path%$none.gz}", "/usr/local/lib/a.tar"),
        ("${lines#*}", "a\nb"),
        ("${lines##*}", "\nb"),
        ("${x/a/o}", "volue"),
        ("${path/\\//-}", "-usr/local/lib/a.tar.gz"),
        ("${path//\\//-}", "-usr-local-lib-a.tar.gz"),
        ("${path//[a-z]/-}", "/usr/local/lib/a.tar.gz"),
        ("${x/l*/}", "va"),
        ("${x//?/ab}", "ababababab"),
        ("${x//*/q}", "q"),
        ("${x/none/q}", "value"),
        ("${x/a/$PWD}", "v/homelue"),
        // The first slash ends the pattern: an empty one matches everywhere.
        ("${x//a//}", "v/lue"),
    ] {
        assert_eq!(of(word), expanded, "{word}");
    }
}

#[test]
fn f5_what_cannot_be_expanded_is_told() {
    for (word, problem) in [
        ("${", "a substitution does not end"),
        ("${x", "a substitution does not end"),
        ("${x:-a", "a substitution does not end"),
        ("${}", "a substitution without a name"),
        ("${{x}", "a substitution without a name"),
        ("${:-x}", "a substitution without a name"),
        ("${x^^}", "\"^\" is not for a substitution"),
        ("${x:1}", "\":1\" is not for a substitution"),
        ("${x:#a}", "\":#\" is not for a substitution"),
        ("${x/a}", "a replacement without its second '/'"),
        ("${x#\\a}", "the escape \\a in a pattern"),
        ("${none?}", "none must not be unset"),
        ("${empty:?}", "empty must not be empty"),
        ("${none:?say which}", "none: say which"),
        ("'a", "a single quote does not end"),
        ("\"a", "a double quote does not end"),
        ("\"a\\", "a double quote does not end"),
    ] {
        assert_eq!(of(word), format!("error: {problem}"), "{word}");
    }
}

#[test]
fn f5_words_are_split_where_nothing_guards_the_blanks() {
    let words = |text: &str| expand_words(text, Style::words('\\'), &env()).unwrap().words;
    assert_eq!(words("$words \"$words\" c\\ d ''"), ["a", "b", "a  b", "c d"]);
    assert!(words(" ").is_empty());
}

#[test]
fn f7_heredocs_know_no_quotes() {
    let body = |text: &str| expand(text, Style::heredoc(), &env()).unwrap().text;
    assert_eq!(
        body("it's \"$x\" \\$x\n\\\\ ${none:-'d'}\n"),
        "it's \"value\" $x\n\\ 'd'\n"
    );
}

#[test]
fn f5_the_backtick_can_be_the_escape() {
    let word = |text: &str| expand(text, Style::words('`'), &env()).unwrap().text;
    assert_eq!(word(r"c:\$x `$x `` "), r"c:\value $x ` ");
}

#[test]
fn names_are_told() {
    let told = expand("$x ${none:-$PWD} '$quoted'", Style::words('\\'), &env()).unwrap();
    assert_eq!(told.matched.iter().collect::<Vec<_>>(), ["PWD", "x"]);
    assert_eq!(told.unmatched.iter().collect::<Vec<_>>(), ["none"]);
}

#[test]
fn f5_hostile_words_meet_limits() {
    let deep = "${a:-".repeat(limits::NESTING + 1);
    assert!(of(&deep).contains("substitutions within each other"), "{}", of(&deep));
    let fine = format!("{}x{}", "${a:-".repeat(limits::NESTING), "}".repeat(limits::NESTING));
    assert_eq!(of(&fine), "x");

    let env: Env = [("big", "x".repeat(1 << 20))].into_iter().collect();
    let said = |text: &str| expand(text, Style::words('\\'), &env).unwrap_err().problem;
    assert!(said("$big$big$big$big$big").contains("bytes once its variables are put in"));
    assert!(said("${big//x/yyyyyyyyy}").contains("a replacement makes more than"));
    assert!(
        said("${big//*y/}").contains("steps"),
        "each place would be searched to the end"
    );
}

proptest! {
    #[test]
    fn anything_expands_or_is_refused(text in "[$x{}:/#%*?'\"\\\\a \\-+é]{0,40}") {
        for style in [Style::words('\\'), Style::words('`'), Style::heredoc()] {
            let _ = expand(&text, style, &env());
        }
    }

    #[test]
    fn quoted_text_stays(text in "[^'\0]{0,40}") {
        prop_assert_eq!(of(&format!("'{text}'")), text);
    }

    #[test]
    fn escaped_text_stays(text in "\\PC{0,20}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(of(&escaped), text);
    }

    /// The shortest and the longest beginning that match, found by trying all.
    #[test]
    fn patterns_match_as_by_trying(pattern in "[ab*?]{0,6}", value in "[ab]{0,8}") {
        let parsed = pattern::Pattern::parse(&pattern).unwrap();
        let ends: Vec<usize> = (0..=value.len()).filter(|end| matches(&pattern, &value[..*end])).collect();
        let mut steps = usize::MAX;
        let short = parsed.without_prefix(&value, false, &mut steps).unwrap();
        let long = parsed.without_prefix(&value, true, &mut steps).unwrap();
        prop_assert_eq!(short, &value[ends.first().copied().unwrap_or(0)..]);
        prop_assert_eq!(long, &value[ends.last().copied().unwrap_or(0)..]);
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => matches(&pattern[1..], text) || !text.is_empty() && matches(pattern, &text[1..]),
        (Some('?'), Some(_)) => matches(&pattern[1..], &text[1..]),
        (Some(wanted), Some(c)) => wanted == c && matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}
