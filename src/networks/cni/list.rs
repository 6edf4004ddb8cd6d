//! Lists of network configurations, and what a plugin is told of them. Pure. Source: the CNI specification 1.0.0, sections 1 and 3.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Versions of the specification whose results are understood.
const VERSIONS: [&str; 2] = ["0.4.0", "1.0.0"];
/// More plugins than any list has.
const MOST: usize = 64;
/// The longest name of a plugin or a list.
const LONGEST: usize = 128;

/// A list of plugins, which together make a network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) disable_check: bool,
    pub(super) plugins: Vec<Plugin>,
}

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plugin {
    /// The name of its program.
    pub(super) kind: String,
    /// The program that its addresses are from, if it delegates that.
    pub(super) ipam: Option<String>,
    capabilities: BTreeSet<String>,
    config: Map<String, Value>,
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("a CNI network configuration list: {what}")).with_object(ObjectKind::Option, "conflist")
}

impl List {
    /// Reads a file.
    ///
    /// # Errors
    /// `InvalidArgument` for what the specification does not allow; `Unsupported` for another version of it.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let read: Value = serde_json::from_slice(text).map_err(|error| bad("it is no JSON").with_source(error))?;
        let name = read["name"].as_str().unwrap_or_default();
        if !is_name(name) {
            return Err(bad(format!(
                "its name {name:?} is none: letters, digits and _.- are allowed"
            )));
        }
        let version = read["cniVersion"].as_str().unwrap_or_default();
        if !VERSIONS.contains(&version) {
            let what = format!("version {version:?} of CNI (the list {name})");
            let needs = format!("a list of one of the versions {}", VERSIONS.join(", "));
            return Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, "conflist"));
        }
        let disable_check = match &read["disableCheck"] {
            Value::Null => false,
            Value::Bool(off) => *off,
            // As libcni has it.
            Value::String(text) if text == "true" => true,
            Value::String(text) if text == "false" => false,
            _ => return Err(bad(format!("disableCheck of {name} is neither true nor false"))),
        };
        let plugins = read["plugins"].as_array().filter(|all| !all.is_empty());
        let plugins = plugins.ok_or_else(|| bad(format!("{name} has no plugins")))?;
        if plugins.len() > MOST {
            return Err(bad(format!("{name} has more than {MOST} plugins")));
        }
        let plugins = plugins.iter().map(|one| Plugin::of(name, one));
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            disable_check,
            plugins: plugins.collect::<Result<_>>()?,
        })
    }

    /// Whether a plugin says that it can do something.
    pub(super) fn can(&self, capability: &str) -> bool {
        let mut plugins = self.plugins.iter();
        plugins.any(|plugin| plugin.capabilities.contains(capability))
    }

    /// The programs that it needs.
    pub(super) fn programs(&self) -> BTreeSet<&str> {
        let plugins = self.plugins.iter();
        plugins
            .flat_map(|plugin| [Some(plugin.kind.as_str()), plugin.ipam.as_deref()])
            .flatten()
            .collect()
    }
}

impl Plugin {
    fn of(list: &str, read: &Value) -> Result<Self> {
        let config = read
            .as_object()
            .ok_or_else(|| bad(format!("a plugin of {list} is no object")))?;
        let program = |value: &Value| match value.as_str() {
            Some(kind) if is_program(kind) => Ok(kind.to_owned()),
            _ => Err(bad(format!("{value} is no name of a plugin's program ({list})"))),
        };
        let ipam = match &read["ipam"]["type"] {
            Value::Null => None,
            kind => Some(program(kind)?),
        };
        let capabilities = read["capabilities"].as_object().into_iter().flatten();
        Ok(Self {
            kind: program(&read["type"])?,
            ipam,
            capabilities: capabilities
                .filter(|(_, on)| **on == Value::Bool(true))
                .map(|(name, _)| name.clone())
                .collect(),
            config: config.clone(),
        })
    }

    /// What the plugin reads: its own configuration, the list's name and version, of what is known at run time what it can do
    /// something with, and the result of those before it.
    pub(super) fn request(&self, list: &List, runtime: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut request = self.config.clone();
        // These are the runtime's: nothing that the file says of them reaches the plugin.
        for key in ["capabilities", "runtimeConfig", "prevResult"] {
            request.remove(key);
        }
        request.insert("name".into(), json!(list.name));
        request.insert("cniVersion".into(), json!(list.version));
        let known = runtime.iter().filter(|(name, _)| self.capabilities.contains(*name));
        let known: Map<String, Value> = known.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !known.is_empty() {
            request.insert("runtimeConfig".into(), known.into());
        }
        if let Some(previous) = previous {
            request.insert("prevResult".into(), previous.clone());
        }
        request.into()
    }
}

/// Source: section 1 of the specification.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= LONGEST && name.starts_with(|one: char| one.is_ascii_alphanumeric()) && name.bytes().all(fits)
}

/// The name of a file, and of nothing elsewhere.
fn is_program(kind: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    !kind.is_empty() && kind.len() <= LONGEST && kind.bytes().all(fits) && !kind.starts_with('.')
}

/// The list of that name, of those that files of a directory hold: names of the others are in the error.
///
/// # Errors
/// `NotFound`; what is wrong with the one that is meant.
pub(super) fn choose<'a>(files: impl Iterator<Item = (String, &'a [u8])>, name: &str) -> Result<(&'a [u8], List)> {
    let mut others = Vec::new();
    for (file, text) in files {
        let own: Value = serde_json::from_slice(text).unwrap_or_default();
        match own["name"].as_str() {
            Some(own) if own == name => {
                let list = List::parse(text).map_err(|error| error.context(format!("read {file}")))?;
                return Ok((text, list));
            }
            Some(own) => others.push(own.to_owned()),
            // A file that is none of ours.
            None => {}
        }
    }
    let message = match others.is_empty() {
        true => format!("no CNI network configuration list is called {name:?}, and there is no other"),
        false => format!(
            "no CNI network configuration list is called {name:?} (there are {}); name one with the option conflist",
            others.join(", ")
        ),
    };
    Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, "conflist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "b0", "args": {"labels": {"a": "b"}}, "ipam": {"type": "host-local"},
         "capabilities": {"ips": true, "mac": false}, "prevResult": {"forged": 1}, "runtimeConfig": {"forged": 1}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

    #[test]
    fn k8_what_a_plugin_is_told() {
        let list = List::parse(BRIDGE.as_bytes()).unwrap();
        assert!(list.can("ips") && list.can("portMappings") && !list.can("mac"));
        let programs: Vec<&str> = list.programs().into_iter().collect();
        assert_eq!(programs, ["bridge", "host-local", "portmap"]);
        let runtime = json!({"ips": ["10.0.0.2"], "portMappings": [], "mac": "x"});
        let runtime = runtime.as_object().unwrap();
        let told = list.plugins[0].request(&list, runtime, None);
        assert_eq!(
            told,
            json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "b0",
                "args": {"labels": {"a": "b"}}, "ipam": {"type": "host-local"}, "runtimeConfig": {"ips": ["10.0.0.2"]}})
        );
        let previous = json!({"cniVersion": "1.0.0"});
        let told = list.plugins[1].request(&list, runtime, Some(&previous));
        assert_eq!(
            told,
            json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap",
                "runtimeConfig": {"portMappings": []}, "prevResult": {"cniVersion": "1.0.0"}})
        );
    }

    #[test]
    fn k8_lists_that_cannot_be() {
        let with = |from: &str, to: &str| List::parse(BRIDGE.replace(from, to).as_bytes());
        assert!(with("1.0.0", "0.2.0").unwrap_err().is_unsupported());
        for (from, to) in [
            ("\"net\"", "\"-net\""),
            ("\"net\"", "\"a/b\""),
            ("\"net\"", "7"),
            ("\"portmap\"", "\"../sh\""),
            ("\"portmap\"", "\"\""),
            ("\"portmap\"", "7"),
            ("\"host-local\"", "\"a/b\""),
            ("\"plugins\"", "\"plugin\""),
        ] {
            let error = with(from, to).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{to}: {error}");
        }
        assert!(List::parse(b"{").is_err());
        let off = |word: &str| with("\"name\"", &format!("\"disableCheck\": {word}, \"name\""));
        assert!(off("true").unwrap().disable_check && off("\"true\"").unwrap().disable_check);
        assert!(off("7").is_err());
    }

    #[test]
    fn k8_a_list_is_found_by_its_name() {
        let other = BRIDGE.replace("\"net\"", "\"other\"");
        let broken = BRIDGE.replace("\"net\"", "\"broken\"").replace("1.0.0", "9");
        let files = || {
            let all = [
                ("1", "no list"),
                ("2", other.as_str()),
                ("3", broken.as_str()),
                ("4", BRIDGE),
            ];
            all.into_iter().map(|(file, text)| (file.to_owned(), text.as_bytes()))
        };
        assert_eq!(choose(files(), "net").unwrap().1.name, "net");
        assert!(choose(files(), "broken").unwrap_err().is_unsupported());
        let missing = choose(files(), "none").unwrap_err();
        assert!(
            missing.is_not_found() && missing.to_string().contains("other, broken, net"),
            "{missing}"
        );
    }
}
