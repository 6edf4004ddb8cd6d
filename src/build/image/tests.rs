//! Configs and histories as BuildKit makes them of the same Dockerfiles; what is expected was written down from it.

use super::*;
use crate::build::plan::Base;
use crate::build::{Dockerfile, Plan, PlanOptions, StageState};

/// The image of the last stage; its base images have a home, a shell they were given and a command.
fn image(text: &str) -> Assembly {
    let file = Dockerfile::parse(text).unwrap();
    let plan = Plan::new(&file, &PlanOptions::new()).unwrap();
    let mut done = std::collections::BTreeMap::<usize, (Assembly, StageState)>::new();
    for number in plan.order() {
        let (mut image, before) = match plan.stages()[*number].base {
            Base::Stage(below) => (done[&below].0.next_stage(), done[&below].1.clone()),
            Base::Scratch => (Assembly::scratch(), StageState::scratch()),
            _ => (based(), StageState::image([("PATH", "/bin"), ("HOME", "/root")])),
        };
        let steps = plan.steps(*number, before).unwrap();
        steps.steps.iter().for_each(|step| image.apply(step));
        done.insert(*number, (image, steps.after));
    }
    let target = plan.order().last().unwrap();
    done.remove(target).unwrap().0
}

fn based() -> Assembly {
    let config = RunConfig {
        env: Some(vec!["PATH=/bin".into(), "HOME=/root".into()]),
        cmd: Some(vec!["base".into()]),
        on_build: Some(vec!["RUN x".into()]),
        ..RunConfig::default()
    };
    Assembly::on(Some("them".into()), config, Vec::new())
}

fn history(text: &str) -> Vec<String> {
    let told = |entry: HistoryEntry| {
        assert_eq!(entry.comment.as_deref(), Some("buildkit.dockerfile.v0"));
        let layer = if entry.empty_layer { "" } else { "layer: " };
        format!("{layer}{}", entry.created_by.unwrap())
    };
    image(text).history.into_iter().map(told).collect()
}

#[test]
fn f6_each_instruction_has_its_entry() {
    let text = "FROM scratch\nARG a=1 x\nENV b=2 c=\"x y\"\nWORKDIR /w\nCOPY --chown=u --parents a b* ./\n\
                ADD --chmod=755 http://x/y <<in /z\nin\nRUN echo $a\nRUN [\"a\",\"b\"]\nLABEL k=v l=\"m n\"\nEXPOSE 80 53/udp 1-3\n\
                VOLUME /v /w\nUSER u\nSTOPSIGNAL SIGINT\nSHELL [\"sh\",\"-x\"]\nHEALTHCHECK --interval=90s --retries=2 CMD h\n\
                CMD c \"d\"\nENTRYPOINT [\"e\\n\"]\nMAINTAINER m\nONBUILD RUN x\nENV a=7\nRUN <<E\nhi\nE\nWORKDIR /\n";
    assert_eq!(
        history(text),
        [
            "ARG a=1 x",
            "ENV b=2 c=x y",
            "layer: WORKDIR /w",
            "layer: COPY --parents --chown=u a b* ./ # buildkit",
            "layer: ADD --chmod=755 http://x/y <<in /z # buildkit",
            "layer: RUN |2 a=1 x= /bin/sh -c echo $a # buildkit",
            "layer: RUN |2 a=1 x= a b # buildkit",
            "LABEL k=v l=m n",
            "EXPOSE [1/tcp 2/tcp 3/tcp 53/udp 80/tcp]",
            "VOLUME [/v /w]",
            "USER u",
            "STOPSIGNAL SIGINT",
            "SHELL [sh -x]",
            "HEALTHCHECK {Test:[CMD-SHELL h] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
            "CMD [\"sh\" \"-x\" \"c \\\"d\\\"\"]",
            "ENTRYPOINT [\"e\\n\"]",
            "MAINTAINER m",
            "ENV a=7",
            "layer: RUN |2 a=7 x= sh -x hi\n # buildkit",
            "WORKDIR /",
        ]
    );
}

#[test]
fn f6_each_instruction_changes_its_field_and_no_other() {
    let plain = image("FROM scratch").config;
    for (line, field, value) in [
        ("USER u:g", "User", "\"u:g\""),
        (
            "EXPOSE 80 53/udp 80/tcp",
            "ExposedPorts",
            "{\"53/udp\":{},\"80/tcp\":{}}",
        ),
        ("ENV a=b PATH=/x a=c", "Env", "[\"PATH=/x\",\"a=c\"]"),
        ("CMD [\"x\"]", "Cmd", "[\"x\"]"),
        ("CMD x", "Cmd", "[\"/bin/sh\",\"-c\",\"x\"]"),
        ("ENTRYPOINT [\"x\"]", "Entrypoint", "[\"x\"]"),
        ("VOLUME [\"/b\", \"/a\"]", "Volumes", "{\"/a\":{},\"/b\":{}}"),
        ("WORKDIR a/../b", "WorkingDir", "\"/b\""),
        ("LABEL b=1 a=2", "Labels", "{\"a\":\"2\",\"b\":\"1\"}"),
        ("STOPSIGNAL 9", "StopSignal", "\"9\""),
        ("ONBUILD RUN x", "OnBuild", "[\"RUN x\"]"),
        ("SHELL [\"x\"]", "Shell", "[\"x\"]"),
    ] {
        let changed = serde_json::to_value(image(&format!("FROM scratch\n{line}")).config).unwrap();
        let mut expected = serde_json::to_value(&plain).unwrap();
        expected[field] = serde_json::from_str(value).unwrap();
        assert_eq!(changed, expected, "{line}");
    }
    assert_eq!(
        image("FROM scratch\nMAINTAINER me\nARG x=1\nCOPY a b\nRUN c").config,
        plain
    );
    assert_eq!(image("FROM scratch\nMAINTAINER me").author.as_deref(), Some("me"));
}

#[test]
fn f6_an_entrypoint_resets_the_command_of_the_base() {
    let cmd = |text: &str| image(text).config.cmd;
    let one = |text: &str| Some(vec![text.to_owned()]);
    assert_eq!(cmd("FROM base"), one("base"));
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]"), None);
    assert_eq!(cmd("FROM base\nCMD [\"own\"]\nENTRYPOINT [\"e\"]"), one("own"));
    assert_eq!(cmd("FROM base AS a\nCMD [\"own\"]\nFROM a\nENTRYPOINT [\"e\"]"), None);
    assert_eq!(image("FROM base\nENTRYPOINT []").config.entrypoint, None);
}

#[test]
fn f1_a_base_image_hands_its_config_on() {
    let base = image("FROM base");
    assert_eq!(base.author.as_deref(), Some("them"));
    assert_eq!(
        base.config.env.as_deref(),
        Some(&["PATH=/bin".to_owned(), "HOME=/root".to_owned()][..])
    );
    assert_eq!(base.config.on_build, None, "triggers are for the first build upon it");
}

#[test]
fn f5_histories_show_the_arguments_of_a_stage_and_those_below() {
    let text = "ARG g=0\nFROM scratch AS a\nARG one=1 g\nFROM a\nARG two=2\nRUN x\nARG one=5\nENV two=9\nRUN y";
    assert_eq!(
        history(text)
            .into_iter()
            .filter(|entry| entry.contains("RUN"))
            .collect::<Vec<_>>(),
        [
            "layer: RUN |3 one=1 g=0 two=2 /bin/sh -c x # buildkit",
            "layer: RUN |3 one=5 g=0 two=9 /bin/sh -c y # buildkit"
        ]
    );
}
