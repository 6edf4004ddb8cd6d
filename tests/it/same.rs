//! What an engine in this process says, and what the daemon says of the same root.

use std::collections::BTreeSet;

use longshore::images::RemoveImageOptions;
use longshore::types::Filter;
use longshore::{ContainerSpec, Engine, Error, ListOptions};
use serde_json::{Value, json};

use crate::frame::{Check, Stop, block_on, fail};
use crate::longshored::Daemon;
use crate::support::registry::{LOGIN, Options, Registry, free_port};
use crate::tests;

tests! { "same":
    kernel [
        a7_the_same_kind_in_process_and_over_rest,
        a12_filters_match_the_same_in_process_and_over_rest,
        c2_a_login_is_asked_of_the_registry,
    ]
}

/// What a call in this process failed with.
async fn failure<T>(call: impl Future<Output = longshore::Result<T>>) -> Result<Error, Stop> {
    match call.await {
        Err(error) => Ok(error),
        Ok(_) => fail("it did not fail"),
    }
}

fn a7_the_same_kind_in_process_and_over_rest() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let here: Vec<Error> = block_on(async {
        let engine = Engine::open(daemon.root.path()).await?;
        let force = RemoveImageOptions::default();
        Ok::<_, Stop>(vec![
            failure(engine.containers().start("nobody")).await?,
            failure(engine.containers().inspect("nobody")).await?,
            failure(engine.images().inspect("no-such-image")).await?,
            failure(engine.images().remove("no-such-image", force)).await?,
            failure(engine.containers().create(ContainerSpec::image("no-such-image"))).await?,
            failure(engine.containers().list(ListOptions {
                filter: Filter::new().with("colour", "red"),
                ..ListOptions::default()
            }))
            .await?,
        ])
    })?;
    let there = [
        ("POST", "/containers/nobody/start".to_owned(), ""),
        ("GET", "/containers/nobody/json".to_owned(), ""),
        ("GET", "/images/no-such-image/json".to_owned(), ""),
        ("DELETE", "/images/no-such-image".to_owned(), ""),
        ("POST", "/containers/create".to_owned(), r#"{"Image": "no-such-image"}"#),
        (
            "GET",
            r#"/containers/json?filters={%22colour%22:[%22red%22]}"#.to_owned(),
            "",
        ),
    ];
    for (error, (method, target, body)) in here.iter().zip(there) {
        let answer = daemon.ask(method, &target, body)?;
        answer.message()?;
        let detail = &answer.json()?["longshore"];
        assert_eq!(detail["kind"], error.kind().as_str(), "{method} {target}: {answer:?}");
        let object = error
            .object()
            .map(|(kind, name)| json!({"kind": kind.as_str(), "name": name}));
        assert_eq!(
            detail["object"],
            object.unwrap_or(Value::Null),
            "{method} {target}: {answer:?}"
        );
    }
    daemon.stop()
}

/// Keys and values of a filter.
type Terms<'a> = &'a [(&'a str, &'a str)];

/// The ids of a list.
fn ids(list: &Value) -> BTreeSet<String> {
    let lines = list.as_array().into_iter().flatten();
    lines
        .filter_map(|line| line["Id"].as_str())
        .map(str::to_owned)
        .collect()
}

/// Text as part of a query.
fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn a12_filters_match_the_same_in_process_and_over_rest() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let keep = |name: &str, more: &str| -> Result<String, Stop> {
        let body = format!(r#"{{"Image": "busybox", "HostConfig": {{"NetworkMode": "none"}}, {more}}}"#);
        let created = daemon
            .ask("POST", &format!("/containers/create?name={name}"), &body)?
            .expect(201)?;
        Ok(created.json()?["Id"].as_str().unwrap_or_default().to_owned())
    };
    let ended = keep("ended", r#""Cmd": ["sh", "-c", "exit 3"], "Labels": {"a": "b"}"#)?;
    let running = keep("running", r#""Cmd": ["sleep", "600"], "Labels": {"a": "c", "x": ""}"#)?;
    let created = keep("created", r#""Labels": {"a": "b", "y=z": "1"}"#)?;
    for id in [&ended, &running] {
        daemon
            .ask("POST", &format!("/containers/{id}/start"), "")?
            .expect(204)?;
    }
    daemon
        .ask("POST", &format!("/containers/{ended}/wait"), "")?
        .expect(200)?;
    let filters: &[(Terms<'_>, &[&str])] = &[
        (&[], &[&ended, &running, &created]),
        (&[("label", "a=b")], &[&ended, &created]),
        (&[("label", "a")], &[&ended, &running, &created]),
        (&[("label", "a=b"), ("status", "exited")], &[&ended]),
        (&[("status", "running"), ("status", "created")], &[&running, &created]),
        (&[("name", "^/?run")], &[&running]),
        (&[("id", &created[..12])], &[&created]),
        (&[("exited", "3")], &[&ended]),
        (&[("ancestor", "busybox")], &[&ended, &running, &created]),
        (&[("label", "nothing")], &[]),
    ];
    for (terms, expected) in filters {
        let filter = terms
            .iter()
            .fold(Filter::new(), |filter, (key, value)| filter.with(*key, *value));
        let here = block_on(async {
            let engine = Engine::open(daemon.root.path()).await?;
            let found = engine
                .list(ListOptions {
                    all: true,
                    filter: filter.clone(),
                })
                .await?;
            Ok::<_, Stop>(
                found
                    .iter()
                    .map(|line| line.id.as_str().to_owned())
                    .collect::<BTreeSet<_>>(),
            )
        })?;
        let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(here, expected, "{terms:?}");
        let (mut lists, mut maps) = (json!({}), json!({}));
        for (key, value) in *terms {
            match lists[key].as_array_mut() {
                Some(values) => values.push(json!(value)),
                None => lists[key] = json!([value]),
            }
            maps[key][value] = json!(true);
        }
        for shape in [lists, maps] {
            let target = format!("/v1.44/containers/json?all=1&filters={}", quoted(&shape.to_string()));
            let there = daemon.ask("GET", &target, "")?.expect(200)?.json()?;
            assert_eq!(ids(&there), expected, "{shape}");
        }
    }
    for id in [&ended, &running, &created] {
        daemon
            .ask("DELETE", &format!("/containers/{id}?force=1"), "")?
            .expect(204)?;
    }
    daemon.stop()
}

fn c2_a_login_is_asked_of_the_registry() -> Check {
    let options = Options {
        basic_auth: true,
        ..Options::default()
    };
    let registry = Registry::with(options, &[])?;
    let mut daemon = Daemon::start(&[])?;
    let login = |server: &str, user: &str, password: &str| {
        let body = json!({"username": user, "password": password, "serveraddress": server});
        daemon.ask("POST", "/v1.44/auth", &body.to_string())
    };
    let server = registry.addr.to_string();
    for address in [server.clone(), format!("http://{server}/v1/")] {
        let good = login(&address, LOGIN.0, LOGIN.1)?.expect(200)?;
        assert_eq!(good.json()?, json!({"Status": "Login Succeeded", "IdentityToken": ""}));
    }
    let bad = login(&server, LOGIN.0, "wrong")?.expect(401)?;
    let words = bad.message()?;
    assert!(
        words.starts_with("Get \"https://") && words.contains("/v2/\": unauthorized: "),
        "{words}"
    );
    assert!(
        !bad.body.contains("wrong"),
        "the password is in the answer: {}",
        bad.body
    );
    assert_eq!(bad.json()?["longshore"]["kind"], "denied");
    login(&server, "", "")?.expect(400)?.message()?;
    login("not a host", "a", "b")?.expect(400)?.message()?;
    login(&free_port()?.to_string(), "a", "b")?.expect(500)?.message()?;
    daemon.stop()
}
