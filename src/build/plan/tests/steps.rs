//! What instructions become once their variables are put in.

use super::*;
use crate::build::dockerfile::{CacheSharing, MountKind};

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
        [
            Action::Cmd(["/bin/sh", "-c", ""].map(str::to_owned).to_vec()),
            Action::Entrypoint(vec![])
        ]
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
        ["5/udp", "80/tcp", "80/tcp"]
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
