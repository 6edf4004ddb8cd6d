//! Steps that are made in Rust.

use super::*;

fn read(text: &str) -> (Vec<Action>, StageState) {
    let file = Dockerfile::parse(text).unwrap();
    let plan = Plan::new(&file, &bare()).unwrap();
    let steps = plan.steps(0, StageState::scratch()).unwrap();
    (steps.steps.into_iter().map(|step| step.action).collect(), steps.after)
}

#[test]
fn f23_made_steps_are_those_of_a_dockerfile() {
    let text = "FROM scratch\nENV a=1\nARG b=2 \nLABEL c=3\nWORKDIR w\nWORKDIR ../x/\nUSER u\nRUN [\"r\", \"s\"]\nRUN t u\n\
                SHELL [\"sh\", \"-ec\"]\nRUN v\nCOPY d e ./\nADD http://x/y .\nCMD [\"f\"]\nENTRYPOINT [\"g\"]\nVOLUME /h\n\
                STOPSIGNAL SIGINT\nEXPOSE 80 90-92/udp\nONBUILD RUN i\nHEALTHCHECK NONE";
    let (expected, after) = read(text);
    let port = |text: &str| exposed(text).unwrap().range;
    let health = expected.last().cloned().unwrap();
    let made = StageBuilder::new(StageState::scratch())
        .env("a", "1")
        .arg("b", "2")
        .label("c", "3")
        .workdir("w")
        .workdir("../x/")
        .user("u")
        .run(["r", "s"])
        .run_shell("t u")
        .shell(["sh", "-ec"])
        .run_shell("v")
        .copy(CopyAction::new(["d", "e"], "./"))
        .add_files(AddAction::new(["http://x/y"], "."))
        .cmd(["f"])
        .entrypoint(["g"])
        .volume("/h")
        .stop_signal("SIGINT")
        .expose([port("80"), port("90-92/udp")])
        .onbuild("RUN i")
        .action(health)
        .finish()
        .unwrap();
    let actions: Vec<Action> = made.steps.into_iter().map(|step| step.action).collect();
    assert_eq!(actions, expected);
    assert_eq!(made.after, after, "and what holds behind them");
}

#[test]
fn f23_what_can_never_work_is_refused() {
    let begun = || StageBuilder::new(StageState::scratch()).env("a", "1");
    for (made, message) in [
        (
            begun().env("", "x"),
            "step 2 cannot be: \"\" cannot be a variable with that value",
        ),
        (
            begun().env("a=b", "x"),
            "step 2 cannot be: \"a=b\" cannot be a variable with that value",
        ),
        (
            begun().arg("a", "x\0"),
            "step 2 cannot be: \"a\" cannot be a variable with that value",
        ),
        (
            begun().run(Vec::<String>::new()),
            "step 2 cannot be: a command without a program",
        ),
        (
            begun().shell(Vec::<String>::new()),
            "step 2 cannot be: a shell without a program",
        ),
        (
            begun().copy(CopyAction::new(Vec::<String>::new(), "/")),
            "step 2 cannot be: files to copy, but no source",
        ),
        (begun().volume(" "), "step 2 cannot be: a volume without a path"),
        (
            begun().label("", "x").user("u"),
            "step 2 cannot be: a label without a name",
        ),
    ] {
        assert_eq!(made.finish().unwrap_err().to_string(), message);
    }
    let trigger = begun().onbuild("NONE").finish().unwrap_err().to_string();
    assert!(trigger.contains("unknown instruction NONE"), "{trigger}");
    assert!(begun().stop_signal("SIGNONE").finish().is_err());
    let big = begun()
        .env("b", "x".repeat(limits::ENVIRONMENT_BYTES))
        .finish()
        .unwrap_err();
    assert!(big.to_string().contains("bytes in all variables"), "{big}");
}

/// The actions of the stages that a target needs, each behind those that it needs itself.
fn all(plan: &Plan) -> Vec<(usize, Vec<Action>)> {
    let mut after = std::collections::BTreeMap::new();
    let mut found = Vec::new();
    for number in plan.order() {
        let before = match plan.stages()[*number].base {
            Base::Stage(below) => StageState::clone(&after[&below]),
            Base::Scratch => StageState::scratch(),
            _ => StageState::image([("PATH", "/bin")])
                .working_dir("/home")
                .triggers(["RUN trigger"]),
        };
        let steps = plan.steps(*number, before).unwrap();
        after.insert(*number, steps.after);
        found.push((*number, steps.steps.into_iter().map(|step| step.action).collect()));
    }
    found
}

fn three() -> [MadeStage; 4] {
    let base = MadeStage::new("busybox", |stage| {
        stage.onbuild("COPY --from=tools /t /t").env("a", "1").run_shell("one")
    });
    let tools = MadeStage::new("scratch", |stage| stage.copy(CopyAction::new(["x"], "/t")));
    let build = MadeStage::new("base", |stage| {
        stage
            .workdir("src")
            .copy(
                CopyAction::new(["/y"], "./")
                    .from("alpine:3")
                    .owner("1:2")
                    .link(true)
                    .exclude("*.o"),
            )
            .copy(CopyAction::new(["."], "/z").from("files"))
            .run_shell_with("make", |run| {
                run.mount(MountAction::bind("t").from("TOOLS").source("/t"))
                    .mount(MountAction::cache("/cache").id("c"))
                    .mount(MountAction::tmpfs("/memory"))
                    .mount(MountAction::secret("s").required(true))
                    .mount(MountAction::ssh())
                    .mount(MountAction::bind("/more").from("busybox").read_only(false))
            })
    });
    let last = MadeStage::new("scratch", |stage| {
        stage.copy(CopyAction::new(["/src/y"], "/").from("2")).cmd(["/y"])
    });
    [base.named("base"), tools.named("Tools"), build.named("build"), last]
}

const THREE: &str = "FROM busybox AS base\nONBUILD COPY --from=tools /t /t\nENV a=1\nRUN one\n\
                     FROM scratch AS Tools\nCOPY x /t\n\
                     FROM base AS build\nWORKDIR src\nCOPY --from=alpine:3 --chown=1:2 --link --exclude=*.o /y ./\n\
                     COPY --from=files . /z\n\
                     RUN --mount=type=bind,from=TOOLS,source=/t,target=t --mount=type=cache,target=/cache,id=c \
                     --mount=type=tmpfs,target=/memory --mount=type=secret,id=s,required --mount=type=ssh \
                     --mount=from=busybox,target=/more,rw make\n\
                     FROM scratch\nCOPY --from=2 /src/y /\nCMD [\"/y\"]";

#[test]
fn f23_several_stages_are_those_of_a_dockerfile() {
    let file = Dockerfile::parse(THREE).unwrap();
    for target in ["", "build", "BASE", "1", "tools"] {
        let options = bare().context("files").target(target);
        let made = Plan::made(three(), &options).unwrap();
        let read = Plan::new(&file, &options).unwrap();
        assert_eq!(made.order(), read.order(), "{target}");
        assert_eq!(all(&made), all(&read), "{target}");
        for (one, other) in made.stages().iter().zip(read.stages()) {
            assert_eq!(
                (&one.name, &one.base, &one.platform),
                (&other.name, &other.base, &other.platform)
            );
        }
    }
    assert_eq!(
        Plan::made(three(), &bare().context("files")).unwrap().order(),
        [0, 1, 2, 3]
    );
    // A named context replaces a stage, its steps and what they need.
    let options = bare().context("files").context("build");
    let replaced = Plan::made(three(), &options).unwrap();
    assert_eq!(replaced.order(), Plan::new(&file, &options).unwrap().order());
    assert_eq!(replaced.order(), [2, 3]);
    assert!(all(&replaced)[0].1.is_empty());
    // The platform of a base.
    let foreign = MadeStage::new("scratch", |stage| stage).platform("linux/arm64".parse().unwrap());
    let foreign = Plan::made([foreign], &bare()).unwrap();
    assert_eq!(foreign.stages()[0].platform, Some("linux/arm64".parse().unwrap()));
}

#[test]
fn f23_stages_that_can_never_work_are_refused() {
    let refused = |stages: Vec<MadeStage>| {
        let error = Plan::made(stages, &bare()).unwrap_err();
        assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidArgument);
        error.to_string()
    };
    let empty = |base: &str| MadeStage::new(base, |stage| stage);
    let copying = |from: &'static str| {
        MadeStage::new("scratch", move |stage| {
            stage.copy(CopyAction::new(["x"], "/").from(from))
        })
    };
    assert_eq!(refused(vec![]), "there is no stage to build");
    for bad in ["", "a b", "a\nRUN x", "$x", "--platform=x", "a\\"] {
        let expected = format!("{bad:?} is no name of a stage, a context or an image");
        assert_eq!(refused(vec![empty(bad)]), expected);
        assert_eq!(refused(vec![empty("scratch").named(bad)]), expected);
    }
    assert!(refused(vec![empty("scratch").named("9")]).starts_with("stages:1:"));
    let circle = refused(vec![copying("b").named("a"), copying("a").named("b")]);
    assert!(circle.contains("stages need each other: a -> b -> a"), "{circle}");
    let itself = refused(vec![copying("a").named("a")]);
    assert!(itself.contains("stages need each other: a -> a"), "{itself}");
    let missing = refused(vec![empty("scratch"), copying("7")]);
    assert!(missing.contains("there is no stage 7"), "{missing}");
    let broken = || MadeStage::new("scratch", |stage| stage.env("", "x"));
    assert!(refused(vec![broken().named("a")]).starts_with("in stage \"a\", step 1 cannot be: "));
    assert!(refused(vec![empty("scratch"), broken()]).starts_with("in stage 1, step 1 cannot be: "));
    let target = Plan::made([empty("scratch").named("tools")], &bare().target("tool")).unwrap_err();
    assert!(target.to_string().contains("did you mean tools?"), "{target}");
    for (mount, message) in [
        (MountAction::bind("/"), "step 1 cannot be: a mount upon the root"),
        (
            MountAction::secret(""),
            "step 1 cannot be: a secret without a name: id=NAME or target=PATH",
        ),
        (
            MountAction::bind("/x").sharing(crate::build::dockerfile::CacheSharing::Locked),
            "step 1 cannot be: sharing is not for mounts of type bind: sharing for mounts of type cache",
        ),
    ] {
        let stage = MadeStage::new("scratch", move |stage| {
            stage.run_shell_with("x", |run| run.mount(mount.clone()))
        });
        assert_eq!(refused(vec![stage]), message);
    }
}

#[test]
fn f23_steps_that_change_their_mind_are_refused() {
    let told = std::sync::atomic::AtomicBool::new(false);
    let other = MadeStage::new("scratch", |stage| stage).named("other");
    let fickle = MadeStage::new("scratch", move |stage| {
        match told.swap(true, std::sync::atomic::Ordering::Relaxed) {
            false => stage,
            true => stage.copy(CopyAction::new(["x"], "/").from("other")),
        }
    });
    let plan = Plan::made([other, fickle], &bare()).unwrap();
    assert_eq!(plan.order(), [1]);
    let error = plan.steps(1, StageState::scratch()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a step needs stage 0, which it did not when the build was planned"
    );
}
