//! The rules one by one.

use super::*;
use crate::build::{IgnoreFile, PlanOptions, StageState};

/// Rule and place of all warnings.
fn told(text: &str, options: &CheckOptions) -> Vec<String> {
    let report = Dockerfile::parse(text).unwrap().check(options).unwrap();
    let told = report
        .warnings
        .iter()
        .map(|warning| format!("{} {}", warning.span, warning.rule));
    told.collect()
}

fn messages(text: &str, options: &CheckOptions) -> Vec<String> {
    let report = Dockerfile::parse(text).unwrap().check(options).unwrap();
    report.warnings.into_iter().map(|warning| warning.message).collect()
}

fn bare() -> CheckOptions {
    let platform = || "linux/amd64".parse().unwrap();
    CheckOptions::new().plan(PlanOptions::new().platform(platform()).build_platform(platform()))
}

#[test]
fn f20_each_rule_finds_what_is_against_it_and_no_more() {
    for (text, expected) in [
        ("FROM a AS b\nENV x=1\nRUN [\"x\"]\nCMD [\"y\"]", ""),
        ("FROM a AS Bc", "1:1 StageNameCasing"),
        ("from a AS b", "1:1 FromAsCasing"),
        ("FROM a as b", "1:1 FromAsCasing"),
        ("from a as b", ""),
        ("FROM a\nRUN a \\\n\n b", "3:1 NoEmptyContinuation"),
        ("FROM a\nrun b\nRUN c", "2:1 ConsistentInstructionCasing"),
        ("from a\nrun b\nRUN c", "3:1 ConsistentInstructionCasing"),
        ("FROM a\nRun b", "2:1 ConsistentInstructionCasing"),
        (
            "FROM a AS b\nFROM a AS B",
            "2:1 DuplicateStageName, 2:1 StageNameCasing",
        ),
        ("FROM a AS scratch", "1:1 ReservedStageName"),
        ("FROM a\nCMD b", "2:1 JSONArgsRecommended"),
        ("FROM a\nENTRYPOINT b", "2:1 JSONArgsRecommended"),
        ("FROM a\nSHELL [\"b\"]\nCMD c", ""),
        ("FROM a\nMAINTAINER b", "2:1 MaintainerDeprecated"),
        ("FROM a$b", "1:1 UndefinedArgInFrom"),
        ("ARG b=1\nFROM a$b", ""),
        ("ARG b\nFROM a:$b", "2:1 InvalidDefaultArgInFrom"),
        ("FROM a\nWORKDIR b\nWORKDIR c", "2:1 WorkdirRelativePath"),
        ("FROM a\nWORKDIR /b\nWORKDIR c", ""),
        ("FROM a AS b\nWORKDIR /b\nFROM b\nWORKDIR c", ""),
        ("FROM scratch\nCOPY $b /", "2:1 UndefinedVar"),
        ("FROM scratch\nARG b\nCOPY $b$PATH$http_proxy /", ""),
        ("FROM a\nCOPY $b /", ""),
        (
            "FROM a\nCMD [\"b\"]\nCMD [\"c\"]\nCMD [\"d\"]",
            "2:1 MultipleInstructionsDisallowed, 3:1 MultipleInstructionsDisallowed",
        ),
        (
            "FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD b",
            "2:1 MultipleInstructionsDisallowed",
        ),
        ("FROM a\nENV b c", "2:1 LegacyKeyValueFormat"),
        ("FROM a\nLABEL b c", "2:1 LegacyKeyValueFormat"),
        ("FROM --platform=$TARGETPLATFORM a", "1:1 RedundantTargetPlatform"),
        ("FROM --platform=$BUILDPLATFORM a", ""),
        ("FROM --platform=linux/arm64 a", "1:1 FromPlatformFlagConstDisallowed"),
        ("FROM --platform=linux/arm64 a AS b-arm64", ""),
        ("FROM a\nARG DB_PASSWORD", "2:1 SecretsUsedInArgOrEnv"),
        ("FROM a\nENV token=x KEY_FILE=y", "2:1 SecretsUsedInArgOrEnv"),
        ("FROM a\nEXPOSE 80/TCP", "2:1 ExposeProtoCasing"),
        ("FROM a\nEXPOSE 1.2.3.4:80:80", "2:1 ExposeInvalidFormat"),
        ("FROM a\nRUN ['b']", "2:1 ExecFormNotJSON"),
        ("FROM a\n# other words\nARG b", ""),
        (
            "# check=experimental=all\nFROM a\n# other words\nARG b",
            "4:1 InvalidDefinitionDescription",
        ),
        (
            "# check=experimental=InvalidDefinitionDescription\n# b is it\nARG b\n# C is it\nFROM a as c\n# no\n#\nARG d",
            "5:1 FromAsCasing",
        ),
    ] {
        assert_eq!(told(text, &bare()).join(", "), expected, "{text}");
    }
}

#[test]
fn f20_messages_are_dockers() {
    assert_eq!(
        messages("FROM scratch\nENV abc=1\nCOPY $abd /", &bare()),
        ["Usage of undefined variable '$abd' (did you mean $abc?)"]
    );
    assert_eq!(
        messages("FROM a:$TARGETARHC", &bare())[1],
        "FROM argument 'TARGETARHC' is not declared (did you mean TARGETARCH?)"
    );
    assert_eq!(
        messages("FROM a\nENV PASSWORD=x", &bare()),
        ["Do not use ARG or ENV instructions for sensitive data (ENV \"PASSWORD\")"]
    );
}

#[test]
fn f20_ignored_files_are_told() {
    let with = |patterns: &str| bare().ignore(IgnoreFile::parse(patterns).unwrap());
    let text = "FROM a\nCOPY ./x/../b.log c $d *.log /\nADD b.log/ http://h/b.log /\nCOPY --from=0 b.log /\nCOPY . /";
    let found = messages(text, &with("*.log"));
    assert_eq!(
        found[0],
        "Attempting to Copy file \"b.log\" that is excluded by .dockerignore"
    );
    assert_eq!(
        found[1],
        "Attempting to Add file \"b.log\" that is excluded by .dockerignore"
    );
    assert_eq!(found.len(), 2);
    assert_eq!(told("FROM a\nCOPY . /", &with("**")), ["2:1 CopyIgnoredFile"]);
    assert!(
        told(text, &with("*.log\n!b.log")).is_empty(),
        "with exceptions it cannot be told"
    );
}

#[test]
fn f20_base_images_make_variables_known() {
    let options = |platform: &str| {
        bare().image(
            "base:1",
            StageState::image([("HOME", "/root")]),
            Some(platform.parse().unwrap()),
        )
    };
    let text = "ARG v=1\nFROM base:$v AS a\nCOPY $HOME $none /\nFROM a\nCOPY $HOME $HOM /";
    assert_eq!(
        messages(text, &options("linux/amd64")),
        [
            "Usage of undefined variable '$none'",
            "Usage of undefined variable '$HOM' (did you mean $HOME?)"
        ]
    );
    assert_eq!(told(text, &options("linux/arm64"))[0], "2:1 InvalidBaseImagePlatform");
}

#[test]
fn f20_rules_are_chosen() {
    assert!(told("# check=skip=all\nFROM a as b\nENV b c", &bare()).is_empty());
    assert_eq!(
        told(
            "#check=skip=FromAsCasing, JSONArgsRecommended\nFROM a as b\nCMD c",
            &bare()
        ),
        ["3:1 JSONArgsRecommended"],
        "a blank ends it"
    );
    assert_eq!(
        told("FROM a\n# check=skip=LegacyKeyValueFormat\nENV b c\nENV d e", &bare()),
        ["4:1 LegacyKeyValueFormat"]
    );
    assert_eq!(
        told("FROM a\n# check=nonsense\nENV b c", &bare()),
        ["3:1 LegacyKeyValueFormat"]
    );
    assert_eq!(told("# check=skip=Unknown\nFROM a as b", &bare()), ["2:1 FromAsCasing"]);
}

#[test]
fn f20_warnings_can_be_errors() {
    let file = Dockerfile::parse("# check=error=true\nFROM a as b\nENV c d").unwrap();
    let error = file.check(&bare()).unwrap().into_result("Dockerfile").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Dockerfile:2:1: against the rules FromAsCasing, LegacyKeyValueFormat"
    );
    let clean = Dockerfile::parse("# check=error=true\nFROM a").unwrap();
    assert!(
        clean
            .check(&bare())
            .unwrap()
            .into_result("Dockerfile")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn f20_wrong_options_are_refused() {
    for (option, message) in [
        ("skp=all", "\"skp=all\" is no option of check (did you mean skip?)"),
        ("error=maybe", "\"error=maybe\" is no option of check"),
        ("skip", "\"skip\" is no option of check"),
        ("skip=", "a choice of no rules"),
    ] {
        let file = Dockerfile::parse(format!("# check={option}\nFROM a")).unwrap();
        let error = file.check(&bare()).unwrap_err().to_string();
        assert_eq!(error, format!("Dockerfile:1:9: {message}"));
        assert!(file.warnings().is_empty());
    }
}

#[test]
fn f20_all_rules_have_their_names() {
    assert_eq!(Rule::ALL.len(), 23);
    assert_eq!(Rule::JSONArgsRecommended.to_string(), "JSONArgsRecommended");
    assert!(Rule::ALL.iter().all(|rule| !rule.description().is_empty()));
}

#[test]
fn f20_hostile_files_are_checked_in_time() {
    let many: String = (0..20_000).map(|n| format!("COPY $v{n} /\n")).collect();
    let found = told(&format!("FROM scratch\n{many}"), &bare());
    assert_eq!(found.len(), crate::build::limits::UNDEFINED);
    let one: String = (0..20_000).map(|n| format!(" $v{n}")).collect();
    assert!(!told(&format!("FROM scratch\nCOPY{} /", &one[..60_000]), &bare()).is_empty());
}
