//! Dockerfile instructions that change an image's config, as `import` and `commit` take them. Pure.
//!
//! Source: the Dockerfile reference; `docker import --help` lists the instructions.

use std::collections::BTreeMap;

use super::{HealthConfig, RunConfig};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// The longest instruction that is read, in bytes.
const MAX_CHANGE: usize = 64 << 10;
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies one instruction to a config.
///
/// # Errors
/// `InvalidArgument` for one that is not understood, or may not be given here.
pub(crate) fn apply(config: &mut RunConfig, change: &str) -> Result<()> {
    let change = change.trim();
    if change.len() > MAX_CHANGE || change.contains('\0') {
        return Err(bad("it is too long, or has a NUL in it", change));
    }
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(bad("it needs an argument", change));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(config, rest, change)?),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest, change)?),
        "ENV" => set_env(config, pairs(rest, change)?),
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest, change)?),
        "EXPOSE" => expose(config, rest, change)?,
        "VOLUME" => add(&mut config.volumes, list(rest, change)?),
        "USER" => config.user = Some(one_word(rest, change)?),
        "WORKDIR" => config.working_dir = Some(directory(config.working_dir.as_deref(), rest)),
        "STOPSIGNAL" => config.stop_signal = Some(one_word(rest, change)?),
        "HEALTHCHECK" => config.healthcheck = Some(health(config, rest, change)?),
        "ONBUILD" => config.on_build.get_or_insert_default().push(trigger(rest, change)?),
        _ => return Err(bad("no such instruction, or none that changes a config", change)),
    }
    Ok(())
}

/// A JSON list, or text for the shell.
fn command(config: &RunConfig, text: &str, change: &str) -> Result<Vec<String>> {
    if text.starts_with('[')
        && let Ok(words) = serde_json::from_slice::<Vec<String>>(text.as_bytes())
    {
        return if words.iter().any(|word| word.contains('\0')) {
            Err(bad("a NUL in it", change))
        } else {
            Ok(words)
        };
    }
    let shell = config.shell.clone();
    let mut words = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
    words.push(text.to_owned());
    Ok(words)
}

/// A JSON list, or words.
fn list(text: &str, change: &str) -> Result<Vec<String>> {
    let words = match text.starts_with('[') {
        true => serde_json::from_slice(text.as_bytes())
            .map_err(|error| bad("its list is no JSON", change).with_source(error))?,
        false => words(text, change)?,
    };
    if words.iter().any(String::is_empty) {
        return Err(bad("an empty word in it", change));
    }
    Ok(words)
}

fn one_word(text: &str, change: &str) -> Result<String> {
    match <[String; 1]>::try_from(words(text, change)?) {
        Ok([word]) if !word.is_empty() => Ok(word),
        _ => Err(bad("it takes one argument", change)),
    }
}

/// `name=value …`, or Docker's old `name value` of a single one.
fn pairs(text: &str, change: &str) -> Result<BTreeMap<String, String>> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| bad("it needs a name and a value", change))?;
        return Ok(BTreeMap::from([(unquoted(name, change)?, value.trim().to_owned())]));
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(bad("it needs name=value", change)),
    };
    words(text, change)?.into_iter().map(pair).collect()
}

fn unquoted(text: &str, change: &str) -> Result<String> {
    Ok(words(text, change)?.concat())
}

/// Words as in a Dockerfile: quotes keep spaces, a backslash keeps the next character.
fn words(text: &str, change: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or_else(|| bad("it ends with a backslash", change))?;
                word.get_or_insert_default().push(next);
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(bad("a quote in it is not closed", change));
    }
    out.extend(word);
    Ok(out)
}

/// A name that is there already gets the new value in its place.
fn set_env(config: &mut RunConfig, pairs: BTreeMap<String, String>) {
    let env = config.env.get_or_insert_default();
    for (name, value) in pairs {
        let text = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split('=').next() == Some(name.as_str())) {
            Some(old) => *old = text,
            None => env.push(text),
        }
    }
}

fn expose(config: &mut RunConfig, text: &str, change: &str) -> Result<()> {
    let mut ports = Vec::new();
    for word in words(text, change)? {
        let (range, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        if !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(bad("a port is N/tcp, N/udp or N/sctp", change));
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(bad("a port is a number from 1 to 65535", change));
        };
        if first > last {
            return Err(bad("a range of ports goes up", change));
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    add(&mut config.exposed_ports, ports);
    Ok(())
}

fn add(to: &mut Option<Vec<String>>, more: Vec<String>) {
    let all = to.get_or_insert_default();
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// A relative one is below the one before.
fn directory(before: Option<&str>, text: &str) -> String {
    if text.starts_with('/') {
        return text.to_owned();
    }
    let before = before.unwrap_or("/").trim_end_matches('/');
    format!("{before}/{text}")
}

fn health(config: &RunConfig, text: &str, change: &str) -> Result<HealthConfig> {
    let mut out = HealthConfig::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag
            .split_once('=')
            .ok_or_else(|| bad("its options are --name=value", change))?;
        let duration = || {
            let nanoseconds = super::when::duration(value).map(|duration| i64::try_from(duration.as_nanos()));
            nanoseconds
                .and_then(Result::ok)
                .ok_or_else(|| bad("a duration is like 30s or 1m30s", change))
        };
        match name {
            "interval" => out.interval_ns = duration()?,
            "timeout" => out.timeout_ns = duration()?,
            "start-period" => out.start_period_ns = duration()?,
            "start-interval" => out.start_interval_ns = duration()?,
            "retries" => {
                out.retries = value
                    .parse::<u32>()
                    .map_err(|_| bad("retries is a number", change))?
                    .into()
            }
            _ => return Err(bad("it has an unknown option", change)),
        }
        rest = after.trim_start();
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    out.test = match (word.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", text) if text.starts_with('[') => {
            let mut test = vec!["CMD".to_owned()];
            test.extend(command(config, text, change)?);
            test
        }
        ("CMD", text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text.to_owned()],
        _ => return Err(bad("it is NONE, or CMD and a command", change)),
    };
    Ok(out)
}

fn trigger(text: &str, change: &str) -> Result<String> {
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if matches!(word.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(bad("this instruction is not allowed in ONBUILD", change));
    }
    Ok(text.to_owned())
}

fn bad(why: &str, change: &str) -> Error {
    let shown: String = change.chars().filter(|c| !c.is_control()).take(80).collect();
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the change {shown:?} is not understood: {why}"),
    )
    .with_object(ObjectKind::Option, "changes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(changes: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for change in changes {
            apply(&mut config, change).unwrap();
        }
        config
    }

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn each_instruction_changes_what_it_says() {
        let config = all(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint run $X now",
            r#"ENV A=1 B="two words" C=a\ b"#,
            "ENV A changed and more",
            r#"LABEL x.y="z" q='1 2'"#,
            "EXPOSE 80 53/udp 9000-9002/tcp 80/tcp",
            r#"VOLUME ["/data", "/more"]"#,
            "VOLUME /data /third",
            "USER app:app",
            "WORKDIR /w",
            "WORKDIR below",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost",
            "ONBUILD RUN make",
        ]);
        assert_eq!(config.cmd, list(&["a", "b c"]));
        assert_eq!(config.entrypoint, list(&["/bin/sh", "-c", "run $X now"]));
        assert_eq!(config.env, list(&["A=changed and more", "B=two words", "C=a b"]));
        assert_eq!(
            config.labels.unwrap(),
            BTreeMap::from([("x.y".into(), "z".into()), ("q".into(), "1 2".into())])
        );
        assert_eq!(
            config.exposed_ports,
            list(&["80/tcp", "53/udp", "9000/tcp", "9001/tcp", "9002/tcp"])
        );
        assert_eq!(config.volumes, list(&["/data", "/more", "/third"]));
        assert_eq!(
            (config.user.as_deref(), config.working_dir.as_deref()),
            (Some("app:app"), Some("/w/below"))
        );
        assert_eq!(
            (config.stop_signal.as_deref(), config.on_build),
            (Some("SIGINT"), list(&["RUN make"]))
        );
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval_ns, health.retries), (90_000_000_000, 3));
        assert_eq!(health.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!(all(&["HEALTHCHECK NONE"]).healthcheck.unwrap().test, ["NONE"]);
        assert_eq!(
            all(&[r#"HEALTHCHECK CMD ["a","b"]"#]).healthcheck.unwrap().test,
            ["CMD", "a", "b"]
        );
        // No list of texts: a command for the shell, as in Docker.
        assert_eq!(all(&["CMD [ -e /x ]"]).cmd, list(&["/bin/sh", "-c", "[ -e /x ]"]));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for change in [
            "",
            "CMD",
            "RUN make",
            "FROM x",
            "COPY a b",
            "ENV",
            "ENV A",
            "ENV =1",
            "ENV A=1 B",
            "LABEL \"a=b",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "EXPOSE 80/icmp",
            "VOLUME [1]",
            "VOLUME [\"\"]",
            "USER a b",
            "ONBUILD FROM x",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK --what=1 CMD a",
            "ENV A=\\",
            "CMD a\0b",
            "CMD [\"a\\u0000\"]",
        ] {
            let error = apply(&mut RunConfig::default(), change).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{change:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "(ENV|CMD|LABEL|EXPOSE|HEALTHCHECK|VOLUME) \\PC{0,60}") {
            let _ = apply(&mut RunConfig::default(), &text);
        }
    }
}
