//! Plans of small Dockerfiles.

use super::*;
use crate::build::dockerfile::{CacheSharing, MountKind, SyntaxError};
use crate::build::limits;

fn plan_with(text: &str, options: &PlanOptions, look: impl FnOnce(Plan<'_>)) {
    let file = Dockerfile::parse(text).unwrap();
    look(Plan::new(&file, options).unwrap());
}

fn order(text: &str, options: &PlanOptions) -> Vec<usize> {
    let mut found = Vec::new();
    plan_with(text, options, |plan| found = plan.order().to_vec());
    found
}

fn error(text: &str, options: &PlanOptions) -> String {
    let file = Dockerfile::parse(text).unwrap();
    let error = match Plan::new(&file, options) {
        Err(error) => error,
        Ok(plan) => steps_of(&plan).unwrap_err(),
    };
    assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidArgument);
    assert!(SyntaxError::of(&error).is_some(), "{error}");
    error.to_string()
}

/// The steps of the target, those of the stages below it left out.
fn steps_of(plan: &Plan<'_>) -> Result<Vec<Step>> {
    let mut after = std::collections::BTreeMap::new();
    let mut last = Vec::new();
    for number in plan.order() {
        let before = match plan.stages()[*number].base {
            Base::Stage(below) => StageState::clone(&after[&below]),
            Base::Scratch => StageState::scratch(),
            _ => StageState::image([("PATH", "/bin")]),
        };
        let steps = plan.steps(*number, before)?;
        after.insert(*number, steps.after);
        last = steps.steps;
    }
    Ok(last)
}

fn actions(text: &str, options: &PlanOptions) -> Vec<Action> {
    let file = Dockerfile::parse(text).unwrap();
    let plan = Plan::new(&file, options).unwrap();
    steps_of(&plan).unwrap().into_iter().map(|step| step.action).collect()
}

fn bare() -> PlanOptions {
    let platform = || "linux/amd64".parse().unwrap();
    PlanOptions::new().platform(platform()).build_platform(platform())
}

const FOUR: &str = "FROM scratch AS a\nFROM scratch AS B\nCOPY --from=A x /x\nFROM scratch AS c\nRUN true\n\
                    FROM b\nRUN --mount=from=a,target=/a true";

#[test]
fn f8_the_target_has_what_it_needs_and_no_more() {
    assert_eq!(order(FOUR, &bare()), [0, 1, 3]);
    assert_eq!(order(FOUR, &bare().target("c")), [2]);
    assert_eq!(order(FOUR, &bare().target("1")), [0, 1]);
    assert_eq!(order(FOUR, &bare().target("b")), [0, 1]);
    assert_eq!(
        order("FROM scratch\nCOPY --from=1 x /\nFROM scratch", &bare().target("0")),
        [1, 0],
        "a later stage"
    );
}

#[test]
fn f8_an_empty_build_of_many_stages_is_quick() {
    let text: String = (0..limits::STAGES - 1)
        .map(|n| format!("FROM s{n} AS s{}\n", n + 1))
        .collect();
    let text = format!("FROM scratch AS s0\n{text}");
    assert_eq!(order(&text, &bare()).len(), limits::STAGES);
}

#[test]
fn f8_circles_and_missing_stages_are_told() {
    for (text, message) in [
        (
            "FROM scratch AS a\nCOPY --from=a x /",
            "2:6: stages need each other: a -> a",
        ),
        (
            "FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nRUN --mount=from=a,target=/x true",
            "2:6: stages need each other: b -> a -> b",
        ),
        ("FROM scratch\nCOPY --from=2 x /", "2:6: there is no stage 2"),
        (
            "FROM scratch AS base\nFROM scratch\nCOPY --from=Basee/ x /",
            "3:6: there is no stage \"Basee/\" (did you mean base?)",
        ),
        ("ARG x\nFROM $x", "2:6: $x stands for nothing"),
        (
            "FROM a:b:c",
            "1:6: invalid reference \"a:b:c\": invalid reference format",
        ),
        (
            "FROM --platform=$TARGETPLATFROM a",
            "1:6: invalid platform: \"\" (os/architecture[/variant], say linux/amd64) (did you mean $TARGETPLATFORM?)",
        ),
        ("ARG x=${y:?which}\nFROM $x", "1:7: y: which"),
    ] {
        assert_eq!(error(text, &bare()), format!("Dockerfile:{message}"), "{text}");
    }
    assert_eq!(
        error(FOUR, &bare().target("aa")),
        "Dockerfile:1:1: there is no stage \"aa\" to build (did you mean a?)"
    );
}

#[test]
fn f5_arguments_have_their_scopes() {
    let text = "ARG tag=1 other\nARG name=image:$tag\nFROM $name AS a\nARG tag\nARG own=${tag}2 late=$own\nENV got=$tag-$own-$late-$name\n\
                FROM a\nENV more=$own\nARG other\nRUN true";
    let got = |options: &PlanOptions| {
        let mut env = String::new();
        plan_with(text, options, |plan| {
            let Base::Image(image) = &plan.stages()[0].base else {
                panic!()
            };
            let first = plan.steps(0, StageState::image([("x", "y")])).unwrap();
            let last = plan.steps(1, first.after).unwrap();
            let all: Vec<String> = last
                .after
                .env()
                .skip(2)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            env = format!("{} {}", image.familiar(), all.join(" "));
        });
        env
    };
    assert_eq!(got(&bare()), "image:1 tag=1 own=12 late=12 got=1-12-12- more=12");
    assert_eq!(
        got(&bare().argument("tag", "9").argument("other", "o").argument("late", "l")),
        "image:9 tag=9 own=92 late=l got=9-92-l- more=92 other=o"
    );
    assert_eq!(
        got(&bare().argument("own", "mine")),
        "image:1 tag=1 own=mine late=mine got=1-mine-mine- more=mine"
    );
}

#[test]
fn f5_the_last_of_env_and_arg_is_in_force() {
    let text = "FROM scratch\nARG a=1\nENV a=2\nENV b=$a c=$b\nARG a=3\nENV d=$a";
    let Action::Env(pairs) = &actions(text, &bare())[4 - 2] else {
        panic!()
    };
    assert_eq!(
        pairs,
        &[("b".into(), "2".into()), ("c".into(), String::new())],
        "b is not yet there for c"
    );
    assert_eq!(actions(text, &bare())[4], Action::Env(vec![("d".into(), "3".into())]));
}

#[test]
fn f5_platforms_are_variables() {
    let text = "FROM --platform=$BUILDPLATFORM scratch AS x\nARG TARGETARCH TARGETVARIANT TARGETSTAGE\n\
                ENV v=$TARGETARCH/$TARGETVARIANT/$TARGETSTAGE/$BUILDARCH";
    let options = bare().platform("linux/arm64/v8".parse().unwrap());
    plan_with(text, &options, |plan| {
        assert_eq!(plan.stages()[0].platform.as_ref().unwrap().to_string(), "linux/amd64");
    });
    assert_eq!(
        actions(text, &options)[3],
        Action::Env(vec![("v".into(), "arm64/v8/x/".into())])
    );
    let given = options.argument("TARGETARCH", "z80");
    assert_eq!(
        actions(text, &given)[3],
        Action::Env(vec![("v".into(), "z80/v8/x/".into())])
    );
}

#[test]
fn f18_named_contexts_stand_in() {
    let text = "FROM busybox AS a\nRUN true\nFROM a AS b\nCOPY --from=files x /\nCOPY --from=alpine y /";
    let options = bare().context("a").context("files");
    plan_with(text, &options, |plan| {
        let name = "a".to_owned();
        assert_eq!(plan.stages()[0].base, Base::Context { name, replaces: true });
        assert!(
            plan.steps(0, StageState::scratch()).unwrap().steps.is_empty(),
            "the context replaces the stage"
        );
        let steps = plan.steps(1, StageState::scratch()).unwrap().steps;
        let origin = |at: usize| match &steps[at].action {
            Action::Copy(copy) => copy.from.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(origin(0), Some(Origin::Context("files".into())));
        assert_eq!(origin(1), Some(Origin::Image("alpine".parse().unwrap())));
    });
    plan_with("FROM busybox", &bare().context("busybox"), |plan| {
        let name = "busybox".to_owned();
        assert_eq!(plan.stages()[0].base, Base::Context { name, replaces: false });
    });
}

#[test]
fn f6_triggers_run_in_the_child_once() {
    let text = "FROM scratch AS tools\nFROM scratch AS a\nONBUILD COPY --from=tools x /\nONBUILD ENV v=$w\nENV w=1\n\
                FROM a AS b\nENV last=$v\nFROM b";
    assert_eq!(order(text, &bare().target("a")), [1]);
    assert_eq!(order(text, &bare().target("b")), [0, 1, 2].map(|n| [1, 0, 2][n]));
    plan_with(text, &bare(), |plan| {
        let a = plan.steps(1, StageState::scratch()).unwrap();
        assert!(matches!(&a.steps[0].action, Action::Onbuild(text) if text == "COPY --from=tools x /"));
        let b = plan.steps(2, a.after).unwrap();
        assert!(matches!(b.steps[0].action, Action::Copy(_)) && b.steps[0].triggered);
        assert_eq!(b.steps[1].action, Action::Env(vec![("v".into(), "1".into())]));
        assert_eq!(b.steps[2].action, Action::Env(vec![("last".into(), "1".into())]));
        assert!(
            plan.steps(3, b.after).unwrap().steps.is_empty(),
            "a grandchild has them no more"
        );
    });
}

#[test]
fn f6_triggers_of_images_are_parsed() {
    let file = Dockerfile::parse("FROM busybox\nUSER a").unwrap();
    let plan = Plan::new(&file, &bare()).unwrap();
    let with = |trigger: &str| plan.steps(0, StageState::scratch().triggers([trigger]));
    let found = with("RUN <<EOF\necho a\nEOF").unwrap();
    assert_eq!(found.steps.len(), 2);
    assert_eq!(found.steps[0].span.to_string(), "1:1");
    for bad in ["NONE", "FROM x", "ONBUILD RUN a", "RUN a\nRUN b", ""] {
        let error = with(bad).unwrap_err().to_string();
        assert!(
            error.starts_with("Dockerfile:1:1: the base image has a bad trigger: ONBUILD:1:1: "),
            "{error}"
        );
    }
}

fn run_of(text: &str) -> RunAction {
    let last = actions(text, &bare()).pop();
    match last {
        Some(Action::Run(run)) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn f2_commands_run_in_the_shell_in_force() {
    assert_eq!(run_of("FROM scratch\nRUN echo $X").args, ["/bin/sh", "-c", "echo $X"]);
    assert_eq!(
        run_of("FROM scratch\nRUN [\"/bin/echo\", \"$X\"]").args,
        ["/bin/echo", "$X"]
    );
    assert_eq!(
        run_of("FROM scratch\nSHELL [\"bash\", \"-ec\"]\nRUN a").args,
        ["bash", "-ec", "a"]
    );
    assert_eq!(
        run_of("FROM scratch AS a\nSHELL [\"zsh\"]\nFROM a\nRUN b").args,
        ["zsh", "b"]
    );
    assert_eq!(
        actions("FROM scratch\nCMD a b", &bare()),
        [Action::Cmd(vec!["/bin/sh".into(), "-c".into(), "a b".into()])]
    );
    assert_eq!(
        actions("FROM scratch\nCMD\nENTRYPOINT []", &bare()),
        [Action::Cmd(vec![]), Action::Entrypoint(vec![])]
    );
}

#[test]
fn f7_heredocs_of_run() {
    let run = run_of("FROM scratch\nRUN <<-EOF\n\techo $a\n\techo b\n\tEOF\n");
    assert_eq!(run.args[2], "echo $a\necho b\n");
    assert_eq!(run.script, None);
    let run = run_of("FROM scratch\nRUN <<'EOF'\n#!/usr/bin/env python3\nprint(1)\nEOF\n");
    assert_eq!(run.args, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    assert_eq!(run.script.unwrap().content, "#!/usr/bin/env python3\nprint(1)\n");
    let run = run_of("FROM scratch\nRUN cat <<A - 3<<-'B'\na\nA\n\tb\n\tB");
    assert_eq!(run.args[2], "cat <<A - 3<<-'B'\na\nA\n\tb\nB");
}

#[test]
fn f7_heredocs_of_copy() {
    let text = "FROM scratch\nENV x=1\nCOPY <<a <<'b' <<-c /d/\n$x \"$x\" \\$x\na\n$x\nb\n\t$x\r\nc\n";
    let Some(Action::Copy(copy)) = actions(text, &bare()).pop() else {
        panic!()
    };
    let inline = |name: &str, content: &str| FileContent::Inline {
        name: name.into(),
        content: content.into(),
    };
    assert_eq!(
        copy.sources,
        [inline("a", "1 \"1\" $x\n"), inline("b", "$x\n"), inline("c", "1\r\n")]
    );
}

#[test]
fn f11_mounts_have_their_variables() {
    let text = "FROM scratch AS tools\nFROM scratch\nARG id=go\nRUN --mount=type=cache,id=$id,target=/c,sharing=locked,mode=0700,uid=5 \
                --mount=type=bind,from=tools,source=/x,target=/y,rw --mount=type=tmpfs,target=/t,size=1m \
                --mount=type=secret,id=s,env=S,required --network=none true";
    let run = run_of(text);
    let mounts: Vec<_> = run.mounts.iter().map(|mount| &mount.mount).collect();
    assert_eq!(mounts[0].id.as_deref(), Some("go"));
    assert_eq!(
        (mounts[0].sharing, mounts[0].mode, mounts[0].uid),
        (Some(CacheSharing::Locked), Some(0o700), Some(5))
    );
    assert!(!mounts[0].read_only && !mounts[1].read_only && mounts[3].read_only);
    assert_eq!(run.mounts[1].from, Some(Origin::Stage(0)));
    assert_eq!(mounts[2].size_bytes, Some(1 << 20));
    assert_eq!(
        (mounts[3].kind, mounts[3].required, mounts[3].env.as_deref()),
        (MountKind::Secret, true, Some("S"))
    );
    for wrong in [
        "--mount=type=cache,target=$none",
        "--mount=type=tmpfs",
        "--mount=target=/a/..",
    ] {
        let message = error(&format!("FROM scratch\nRUN {wrong} true"), &bare());
        assert_eq!(message, "Dockerfile:2:5: a mount upon the root");
    }
    let placed = run_of("FROM scratch\nWORKDIR /w\nRUN --mount=target=a --mount=type=secret,id=s true");
    let targets: Vec<_> = placed
        .mounts
        .iter()
        .map(|mount| mount.mount.target.as_deref())
        .collect();
    assert_eq!(targets, [Some("/w/a"), None]);
    let wrong = "FROM scratch\nARG kind=bing\nRUN --mount=type=$kind,target=/c true";
    assert_eq!(
        error(wrong, &bare()),
        "Dockerfile:3:5: type cannot be \"bing\" (did you mean bind?)"
    );
}

#[test]
fn f6_config_is_resolved() {
    let text = "FROM scratch\nENV d=/srv n=5\nWORKDIR $d\nWORKDIR sub/../app\nCOPY a ./\nADD --chown=$n:$n b* .\nEXPOSE 80 $n/udp 80/tcp\n\
                VOLUME $d /data\nUSER $n\nSTOPSIGNAL SIGTERM\nLABEL k=\"v $n\" l='$n'\nHEALTHCHECK --interval=1m CMD x\nMAINTAINER m $n";
    let found = actions(text, &bare());
    let text = |action: &Action| format!("{action:?}");
    assert_eq!(found[1], Action::Workdir("/srv".into()));
    assert_eq!(found[2], Action::Workdir("/srv/app".into()));
    assert!(text(&found[3]).contains("destination: \"/srv/app/\""));
    assert!(text(&found[4]).contains("owner: Some(\"5:5\")"));
    let Action::Expose(ports) = &found[5] else { panic!() };
    assert_eq!(
        ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["5/udp", "80/tcp"]
    );
    assert_eq!(found[6], Action::Volume(vec!["/srv".into(), "/data".into()]));
    assert_eq!(found[7], Action::User("5".into()));
    assert_eq!(
        found[9],
        Action::Label(vec![("k".into(), "v 5".into()), ("l".into(), "$n".into())])
    );
    assert!(text(&found[10]).contains("[\"CMD-SHELL\", \"x\"], interval: 60s"));
    assert_eq!(found[11], Action::Author("m $n".into()));
}

/// What has no value is nothing, as in Docker, where that can mean something.
#[test]
fn f6_nothing_is_a_value_too() {
    let found = actions(
        "FROM scratch\nWORKDIR /w\nWORKDIR $none\nUSER $none\nCOPY a $none",
        &bare(),
    );
    assert_eq!(found[1..3], [Action::Workdir("/w".into()), Action::User(String::new())]);
    assert!(matches!(&found[3], Action::Copy(copy) if copy.destination == "/w/"));
}

#[test]
fn f6_wrong_values_have_their_place() {
    for (line, message) in [
        (
            "EXPOSE 80 x",
            "2:11: \"x\" is no port: a number from 0 to 65535, or two of them, 8000-8010",
        ),
        ("ENV $none=1", "2:5: $none stands for nothing"),
        ("COPY a ${b", "2:8: a substitution does not end"),
        ("VOLUME /a $none", "2:11: $none stands for nothing"),
        ("COPY <<a /\n${x:-\na", "2:6: a substitution does not end"),
    ] {
        assert_eq!(
            error(&format!("FROM scratch\n{line}"), &bare()),
            format!("Dockerfile:{message}"),
            "{line}"
        );
    }
    assert!(error("FROM scratch\nSTOPSIGNAL SIGNONE", &bare()).starts_with("Dockerfile:2:12: "));
}

#[test]
fn f5_variables_cannot_fill_the_memory() {
    let doubling: String = (0..40).map(|_| "ENV a=$a$a\n").collect();
    let message = error(&format!("FROM scratch\nENV a=0123456789\n{doubling}"), &bare());
    assert!(
        message.contains("bytes in all variables") || message.contains("bytes once"),
        "{message}"
    );
    let args: String = (0..40).map(|_| "ARG a=$a$a\n").collect();
    let message = error(&format!("ARG a=0123456789\n{args}FROM scratch"), &bare());
    assert!(message.contains("bytes"), "{message}");
    let big = "x".repeat(60_000);
    let labels: String = (0..2_000).map(|n| format!("LABEL l{n}=$a\n")).collect();
    let message = error(&format!("FROM scratch\nENV a={big}\n{labels}"), &bare());
    assert!(message.contains("bytes in a stage"), "{message}");
    let triggers = "ONBUILD RUN a\n".repeat(20_000);
    let message = error(
        &format!("FROM scratch AS a\n{triggers}{}", "FROM a\n".repeat(6)),
        &bare(),
    );
    assert!(message.contains("too many triggers"), "{message}");
}

/// One Dockerfile, the same steps, whatever is written around them.
#[test]
fn p16_the_same_steps_whatever_the_layout() {
    let plain = actions("FROM scratch\nENV a=1 b=2\nRUN x y", &bare());
    let odd = actions(
        "\u{FEFF}# syntax=x\r\n  from scratch\r\n\r\nEnv a=1 \\\r\n# c\r\n b=2\r\nrun x \\\r\ny\r\n",
        &bare(),
    );
    assert_eq!(plain, odd);
}
