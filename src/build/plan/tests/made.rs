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
        .add(AddAction::new(["http://x/y"], "."))
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
    assert!(made.after.env().eq(after.env()));
    assert_eq!(
        format!("{:?}", made.after),
        format!("{after:?}"),
        "and what holds behind them"
    );
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
