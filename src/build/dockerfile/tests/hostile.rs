//! Files that nobody means well with.

use proptest::prelude::*;

use super::*;
use crate::build::limits;

fn error(text: impl AsRef<[u8]>) -> String {
    let error = Dockerfile::parse(text).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    let place = SyntaxError::of(&error).expect("a syntax error").clone();
    assert!(place.span.start.line > 0 && place.span.start.column > 0, "{place:?}");
    error.to_string()
}

#[test]
fn f7_what_is_too_much_is_refused_by_its_limit() {
    let after = |text: String| format!("FROM a\n{text}");
    for (text, what) in [
        ("\\\n".repeat(6 << 20), "too many bytes in a Dockerfile"),
        ("x".repeat(limits::FILE_BYTES + 1), "too many bytes in a Dockerfile"),
        (
            after(format!("RUN {}", "x\\\n".repeat(1_200_000))),
            "too many bytes in an instruction",
        ),
        (
            after(format!("RUN {}", "x".repeat(limits::LINE_BYTES))),
            "too many bytes in a line",
        ),
        ("FROM a\n".repeat(100_000), "too many stages"),
        (after("USER x\n".repeat(200_000)), "too many instructions"),
        (
            after(format!("RUN {}", "<<a ".repeat(2_000)) + &"\na".repeat(2_000)),
            "too many heredocs in an instruction",
        ),
        (
            after(format!("COPY {}a b", "--exclude=x ".repeat(2_000))),
            "too many flags of an instruction",
        ),
    ] {
        let told = error(text);
        assert!(told.contains(what), "{what}: {told}");
    }
}

#[test]
fn f7_deep_and_wide_files_take_no_time() {
    // Each of these would take minutes with anything quadratic in it.
    error(format!("FROM a\n{}", "ONBUILD ".repeat(8_000)));
    error(format!("FROM a\nRUN {}{}", "[".repeat(60_000), "\nX"));
    let words = "é ".repeat(20_000);
    let many = format!("FROM a\n{}", format!("EXPOSE {words}\n").repeat(60));
    assert_eq!(Dockerfile::parse(many).unwrap().stages()[0].instructions.len(), 60);
    let lines = format!("FROM a\nRUN {}\n", "é \\\n".repeat(200_000));
    assert!(Dockerfile::parse(lines).is_ok());
    let array = format!("FROM a\nVOLUME [{}\"é\"]", "\"é\",\\\n".repeat(100_000));
    assert!(Dockerfile::parse(array).is_ok());
    let comments = format!("{}FROM a", "# é\n".repeat(500_000));
    assert!(Dockerfile::parse(comments).is_ok());
    let body = format!("FROM a\nRUN <<E\n{}E", "é\n".repeat(1_000_000));
    assert!(Dockerfile::parse(body).is_ok());
    error(format!("FROM a\nRUN {}\n", "<<a ".repeat(900)));
}

#[test]
fn f7_bytes_that_are_no_text_are_refused_with_their_place() {
    assert_eq!(
        error(b"FROM a\nRUN echo \xC3\xA9\xFF"),
        "Dockerfile:2:11: this is not UTF-8"
    );
    assert_eq!(error(b"FROM a\nRUN <<E\n\xFF\nE"), "Dockerfile:3:1: this is not UTF-8");
    assert_eq!(error("FROM a\nRUN b\0"), "Dockerfile:2:6: a zero byte");
    assert_eq!(error(""), "Dockerfile:1:1: there is no stage");
    assert_eq!(error("# only this\n"), "Dockerfile:2:1: there is no stage");
    assert!(
        Dockerfile::parse(b"# \xFF\nFROM a\nRUN b \\\n# \xFE\n c").is_ok(),
        "comments may be anything"
    );
}

#[test]
fn errors_say_their_file() {
    let error = Dockerfile::parse_named("app/Dockerfile.dev", "FROM a\nCOPPY b c").unwrap_err();
    assert_eq!(
        error.to_string(),
        "app/Dockerfile.dev:2:1: unknown instruction COPPY (did you mean COPY?)"
    );
    assert!(error.report().ends_with("STOPSIGNAL, USER, VOLUME, WORKDIR"));
    let place = SyntaxError::of(&error).unwrap();
    assert_eq!(
        (place.suggestion.as_deref(), place.span.end.to_string()),
        (Some("COPY"), "2:6".into())
    );
}

/// A place is in the file, and what is found there is the word, unless quotes or continuations are in it.
fn check_places(text: &str, file: &Dockerfile) {
    let check = |span: Span| {
        assert!(
            span.start.offset <= span.end.offset && span.end.offset <= text.len(),
            "{span:?} {text:?}"
        );
        assert!(
            text.is_char_boundary(span.start.offset) && text.is_char_boundary(span.end.offset),
            "{span:?} {text:?}"
        );
    };
    for stage in file.stages() {
        for one in std::iter::once(&stage.opening).chain(&stage.instructions) {
            check(one.span);
            assert_eq!(
                &text[one.keyword.span.start.offset..one.keyword.span.end.offset],
                one.keyword.text,
                "{text:?}"
            );
            if let Command::Expose(words) = &one.command {
                for word in words {
                    check(word.span);
                    let found = &text[word.span.start.offset..word.span.end.offset];
                    assert!(found == word.text || found.contains('\n'), "{found:?} {word:?}");
                }
            }
        }
    }
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(FROM|from) [a$é]{1,3}( (AS|as) [a-zA-Z]{1,2})?",
        "(RUN|COPY|ADD|CMD|VOLUME|ENTRYPOINT|HEALTHCHECK CMD) [\\[\\]\",ab '<>$\\\\é-]{0,20}",
        "(ENV|LABEL|ARG) [ab='\"\\\\ $é]{0,12}",
        "EXPOSE [0-9é /\t]{0,12}",
        "(ONBUILD|USER|onbuild run) ?[a-zA-Z <]{0,8}",
        "(RUN|COPY) --[a-z]{0,6}=?[a-z,=]{0,8} [a-z <]{0,8}",
        "[a-z #\\\\]{0,6}",
        "RUN <<-?[ab]{1,2}",
        "[ab]{1,2}",
    ];
    let ending = prop_oneof![5 => Just("\n"), 1 => Just("\r\n"), 1 => Just(" \\\n"), 1 => Just("\n\n")];
    proptest::collection::vec((line, ending).prop_map(|(line, end)| line + end), 0..8)
        .prop_map(|lines| format!("FROM a\n{}", lines.concat()))
}

proptest! {
    #[test]
    fn f7_anything_parses_or_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Dockerfile::parse(bytes);
    }

    #[test]
    fn f7_what_parses_has_its_places(text in lines()) {
        match Dockerfile::parse(&text) {
            Ok(file) => {
                check_places(&text, &file);
                file.warnings();
            }
            Err(error) => {
                let fault = SyntaxError::of(&error).expect("a syntax error");
                prop_assert!(fault.span.end.offset <= text.len(), "{:?} {:?}", fault, text);
            }
        }
    }

    /// The same file with other line ends is the same, but for places.
    #[test]
    fn f7_line_ends_do_not_matter(text in lines()) {
        let unix = text.replace('\r', "");
        let texts = |text: &str| Dockerfile::parse(text).ok().map(|file| {
            let all = file.stages().iter().flat_map(|stage| stage.instructions.clone());
            all.map(|one| one.text).collect::<Vec<_>>()
        });
        prop_assert_eq!(texts(&unix), texts(&unix.replace('\n', "\r\n")));
    }
}
