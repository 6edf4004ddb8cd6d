//! What an image's config takes over from another one. Pure. Source: moby, `daemon/config`, `merge`.

use super::{RunConfig, changes};
use crate::error::Result;

/// Applies Dockerfile instructions. As in a Dockerfile, a new ENTRYPOINT takes a CMD away that was there before.
///
/// # Errors
/// `InvalidArgument` for one that is not understood.
pub(crate) fn with_changes(mut config: RunConfig, instructions: &[String]) -> Result<RunConfig> {
    let mut has_cmd = false;
    for instruction in instructions {
        changes::apply(&mut config, instruction)?;
        match first_word(instruction).as_str() {
            "CMD" => has_cmd = true,
            "ENTRYPOINT" if !has_cmd => config.cmd = None,
            _ => {}
        }
    }
    Ok(config)
}

fn first_word(instruction: &str) -> String {
    instruction
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase()
}

/// Fills in what `over` does not say.
pub(crate) fn merged(mut over: RunConfig, under: RunConfig) -> RunConfig {
    if over.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if over.cmd.as_ref().is_none_or(Vec::is_empty) {
            over.cmd = under.cmd;
        }
        over.entrypoint = over.entrypoint.or(under.entrypoint);
    }
    over.user = over.user.filter(|user| !user.is_empty()).or(under.user);
    over.working_dir = over.working_dir.filter(|dir| !dir.is_empty()).or(under.working_dir);
    over.stop_signal = over.stop_signal.or(under.stop_signal);
    over.healthcheck = over.healthcheck.or(under.healthcheck);
    over.exposed_ports = joined(over.exposed_ports, under.exposed_ports);
    over.volumes = joined(over.volumes, under.volumes);
    over.labels = match (over.labels, under.labels) {
        (Some(over), Some(mut under)) => {
            under.extend(over);
            Some(under)
        }
        (over, under) => over.or(under),
    };
    over.env = match (over.env, under.env) {
        (Some(mut over), Some(under)) => {
            let name = |pair: &String| pair.split('=').next().map(str::to_owned);
            let known: Vec<_> = over.iter().map(name).collect();
            over.extend(under.into_iter().filter(|pair| !known.contains(&name(pair))));
            Some(over)
        }
        (over, under) => over.or(under),
    };
    over
}

fn joined(over: Option<Vec<String>>, under: Option<Vec<String>>) -> Option<Vec<String>> {
    match (over, under) {
        (Some(mut over), Some(under)) => {
            let more: Vec<_> = under.into_iter().filter(|one| !over.contains(one)).collect();
            over.extend(more);
            Some(over)
        }
        (over, under) => over.or(under),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|&word| word.to_owned()).collect())
    }

    fn container() -> RunConfig {
        RunConfig {
            cmd: words(&["sh"]),
            entrypoint: words(&["/init"]),
            env: words(&["A=1", "B=2"]),
            user: Some("app".into()),
            exposed_ports: words(&["80/tcp"]),
            ..RunConfig::default()
        }
    }

    #[test]
    fn d4_what_is_not_said_is_the_containers() {
        let all = merged(RunConfig::default(), container());
        assert_eq!(all, container());
        let over = RunConfig {
            env: words(&["A=3"]),
            exposed_ports: words(&["53/udp"]),
            cmd: words(&["ls"]),
            ..RunConfig::default()
        };
        let all = merged(over, container());
        assert_eq!(all.env, words(&["A=3", "B=2"]));
        assert_eq!(all.exposed_ports, words(&["53/udp", "80/tcp"]));
        assert_eq!((all.cmd, all.entrypoint), (words(&["ls"]), words(&["/init"])));
    }

    #[test]
    fn d4_a_new_entrypoint_takes_the_old_command_away() {
        let change = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
            merged(with_changes(container(), &texts).unwrap(), container())
        };
        let changed = change(&[r#"ENTRYPOINT ["/run"]"#]);
        assert_eq!((changed.entrypoint, changed.cmd), (words(&["/run"]), None));
        let changed = change(&[r#"CMD ["x"]"#, r#"entrypoint ["/run"]"#]);
        assert_eq!((changed.entrypoint, changed.cmd), (words(&["/run"]), words(&["x"])));
        assert!(with_changes(container(), &["RUN make".to_owned()]).is_err());
    }
}
