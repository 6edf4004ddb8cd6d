//! Instructions one by one.

use super::secrets::is_secret;
use super::{CheckOptions, Linter, Rule};
use crate::build::IgnoreFile;
use crate::build::dockerfile::{
    Command, CommandLine, Dockerfile, FileSource, Form, Healthcheck, Instruction, Pair, Stage,
};
use crate::build::plan::exposed;

pub(super) fn check(file: &Dockerfile, options: &CheckOptions, linter: &mut Linter) {
    for stage in file.stages() {
        let mut shell = false;
        for instruction in &stage.instructions {
            one(instruction, shell, options, linter);
            shell |= matches!(instruction.command, Command::Shell(_));
        }
        repeated(stage, linter);
    }
}

fn one(at: &Instruction, shell: bool, options: &CheckOptions, linter: &mut Linter) {
    match &at.command {
        Command::Arg(arguments) => secrets(at, arguments.iter().map(|argument| argument.name.text.as_str()), linter),
        Command::Cmd(line) | Command::Entrypoint(line) => {
            if line.form == Form::Shell && !line.args.is_empty() && !shell {
                let keyword = &at.keyword.text;
                let message = format!(
                    "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                );
                linter.warn_at(at, Rule::JSONArgsRecommended, message);
            }
            nearly(at, line, linter);
        }
        Command::Env(pairs) => {
            legacy(at, pairs, linter);
            secrets(at, pairs.iter().map(|pair| pair.name.text.as_str()), linter);
        }
        Command::Label(pairs) => legacy(at, pairs, linter),
        Command::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            linter.warn_at(at, Rule::MaintainerDeprecated, message);
        }
        Command::Run(run) => nearly(at, &run.command, linter),
        Command::Healthcheck(Healthcheck::Command(probe)) => nearly(at, &probe.command, linter),
        Command::Expose(words) => words.iter().for_each(|word| port(at, &word.text, linter)),
        Command::Copy(copy) if copy.from.is_none() => ignored(at, "Copy", &copy.sources, options, linter),
        Command::Add(add) => ignored(at, "Add", &add.sources, options, linter),
        _ => {}
    }
}

fn secrets<'a>(at: &Instruction, names: impl Iterator<Item = &'a str>, linter: &mut Linter) {
    let keyword = at.command.keyword();
    for name in names.filter(|name| is_secret(name)) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        linter.warn_at(at, Rule::SecretsUsedInArgOrEnv, message);
    }
}

fn legacy(at: &Instruction, pairs: &[Pair], linter: &mut Linter) {
    let keyword = &at.keyword.text;
    if pairs.iter().any(|pair| pair.legacy) {
        let message =
            format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
        linter.warn_at(at, Rule::LegacyKeyValueFormat, message);
    }
}

fn nearly(at: &Instruction, line: &CommandLine, linter: &mut Linter) {
    if line.nearly_exec {
        let keyword = &at.keyword.text;
        let message = format!("{keyword} is not JSON, which has double quotes and commas: a shell gets its brackets");
        linter.warn_at(at, Rule::ExecFormNotJSON, message);
    }
}

/// What variables stand for is not known here.
fn port(at: &Instruction, text: &str, linter: &mut Linter) {
    let Ok(found) = exposed(text) else {
        return;
    };
    if found.shouting {
        let message = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        linter.warn_at(at, Rule::ExposeProtoCasing, message);
    }
    if found.published {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
        linter.warn_at(at, Rule::ExposeInvalidFormat, message);
    }
}

/// Files that the ignore file keeps from the build. With exceptions in it, that cannot be told without the files.
fn ignored(at: &Instruction, verb: &str, sources: &[FileSource], options: &CheckOptions, linter: &mut Linter) {
    let Some(file) = options.ignore.as_ref().filter(|file| !file.has_exceptions()) else {
        return;
    };
    for source in sources {
        let FileSource::Path(word) = source else { continue };
        let path = relative(&word.text);
        if !word.text.contains(['$', '*', '?', '[']) && !word.text.contains("://") && is_ignored(file, &path) {
            let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            linter.warn_at(at, Rule::CopyIgnoredFile, message);
        }
    }
}

fn is_ignored(file: &IgnoreFile, path: &str) -> bool {
    match path {
        "." => file.ignores_the_root(),
        path => file.is_ignored(path),
    }
}

/// A source as a path from the context's root.
fn relative(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

/// Of these, the last one of a stage alone is in force; those before it are told of.
fn repeated(stage: &Stage, linter: &mut Linter) {
    for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let named = stage.instructions.iter().filter(|one| one.command.keyword() == keyword);
        let all: Vec<&Instruction> = named.collect();
        for pair in all.windows(2) {
            let [earlier, later] = pair else { continue };
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                later.keyword.text
            );
            linter.warn_at(earlier, Rule::MultipleInstructionsDisallowed, message);
        }
    }
}
