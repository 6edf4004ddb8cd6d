//! What a Dockerfile was parsed to, in a line an instruction.

use super::*;

pub(super) fn file(file: &Dockerfile) -> String {
    let stages = file.stages().iter();
    let within = stages.flat_map(|stage| std::iter::once(&stage.opening).chain(&stage.instructions));
    let all = file.arguments().iter().chain(within);
    all.map(|one| format!("{}-{} {}\n", one.span.start, one.span.end, instruction(one)))
        .collect()
}

fn instruction(one: &Instruction) -> String {
    let said = match &one.command {
        Command::From(from) => {
            let platform = from.platform.as_ref().map(|word| format!("platform={} ", text(word)));
            let name = from.name.as_ref().map(|name| format!(" as {}", text(name)));
            format!(
                "{}{}{}",
                platform.unwrap_or_default(),
                text(&from.image),
                name.unwrap_or_default()
            )
        }
        Command::Run(run) => self::run(run),
        Command::Cmd(line) | Command::Entrypoint(line) => self::line(line),
        Command::Copy(copy) => {
            let flags = [("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod)];
            let switches = [("link", Some(copy.link)), ("parents", Some(copy.parents))];
            format!(
                "{}{}",
                self::flags(&flags, &switches, &copy.excludes),
                files(&copy.sources, &copy.destination)
            )
        }
        Command::Add(add) => {
            let flags = [
                ("chown", &add.chown),
                ("chmod", &add.chmod),
                ("checksum", &add.checksum),
            ];
            let switches = [
                ("link", Some(add.link)),
                ("keep-git-dir", add.keep_git_dir),
                ("unpack", add.unpack),
            ];
            format!(
                "{}{}",
                self::flags(&flags, &switches, &add.excludes),
                files(&add.sources, &add.destination)
            )
        }
        Command::Env(pairs) | Command::Label(pairs) => {
            let pairs = pairs.iter().map(|pair| {
                let between = if pair.legacy { " LEGACY " } else { " = " };
                format!("{}{between}{}", text(&pair.name), text(&pair.value))
            });
            pairs.collect::<Vec<_>>().join(", ")
        }
        Command::Arg(arguments) => {
            let shown = arguments.iter().map(|argument| {
                let default = argument.default.as_ref().map(|default| format!(" = {}", text(default)));
                format!("{}{}", text(&argument.name), default.unwrap_or_default())
            });
            shown.collect::<Vec<_>>().join(", ")
        }
        Command::Expose(list) | Command::Volume(list) | Command::Shell(list) => words(list),
        Command::Healthcheck(Healthcheck::None) => "none".to_owned(),
        Command::Healthcheck(Healthcheck::Command(probe)) => format!(
            "{:?}/{:?}/{:?}/{:?}/{} {}",
            probe.interval,
            probe.timeout,
            probe.start_period,
            probe.start_interval,
            probe.retries,
            self::line(&probe.command)
        ),
        Command::Onbuild(onbuild) => format!("{:?} {}", onbuild.trigger, instruction(&onbuild.instruction)),
        Command::Maintainer(word) | Command::StopSignal(word) | Command::User(word) | Command::Workdir(word) => {
            text(word)
        }
    };
    format!("{} {said}", one.command.keyword()).trim_end().to_owned()
}

fn text(word: &Word) -> String {
    format!("{:?}@{}", word.text, word.span)
}

fn words(list: &[Word]) -> String {
    list.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn line(line: &CommandLine) -> String {
    let form = match (line.form, line.nearly_exec) {
        (Form::Exec, _) => "exec ",
        (Form::Shell, true) => "nearly ",
        (Form::Shell, false) => "shell ",
    };
    format!("{form}{}{}", words(&line.args), heredocs(&line.heredocs))
}

fn heredocs(list: &[Heredoc]) -> String {
    list.iter().map(heredoc).collect()
}

fn heredoc(heredoc: &Heredoc) -> String {
    let plain = if heredoc.expand { "" } else { " quoted" };
    let chomp = if heredoc.chomp { " chomped" } else { "" };
    format!(
        " <{} {}{plain}{chomp} {:?}@{}>",
        heredoc.descriptor,
        heredoc.name,
        heredoc.content(),
        heredoc.span
    )
}

fn flags(flags: &[(&str, &Option<Word>)], switches: &[(&str, Option<bool>)], excludes: &[Word]) -> String {
    let given = flags
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={:?} ", value.as_ref()?.text)));
    let on = switches.iter().filter_map(|(name, value)| match value {
        Some(false) if matches!(*name, "link" | "parents") => None,
        Some(value) => Some(format!("{name}={value} ")),
        None => None,
    });
    let excluded = excludes.iter().map(|word| format!("exclude={:?} ", word.text));
    given.chain(on).chain(excluded).collect()
}

fn files(sources: &[FileSource], destination: &Word) -> String {
    let sources: String = sources
        .iter()
        .map(|source| match source {
            FileSource::Path(word) => format!("{} ", text(word)),
            FileSource::Inline(inline) => format!("{} ", heredoc(inline).trim_start()),
        })
        .collect();
    format!("{sources}-> {}", text(destination))
}

fn run(run: &Run) -> String {
    let mounts: String = run
        .mounts
        .iter()
        .map(|mount| format!("mount@{}{:?} ", mount.span, mount.fields))
        .collect();
    let devices = run
        .devices
        .iter()
        .map(|device| format!("device={}/{} ", device.name, device.required));
    let network = match run.network {
        NetworkFlag::Default => String::new(),
        other => format!("network={other:?} "),
    };
    let security = match run.security {
        SecurityFlag::Sandbox => String::new(),
        other => format!("security={other:?} "),
    };
    format!(
        "{mounts}{}{network}{security}{}",
        devices.collect::<String>(),
        line(&run.command)
    )
}
