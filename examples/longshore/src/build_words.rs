//! The words of `build` about places: outputs, caches, secrets. In buildx's manner: fields with commas between them.

use std::fs;
use std::path::PathBuf;

use longshore::build::{BuildOutput, CacheMode, CacheSource, CacheTarget, Secret};
use longshore::images::ArchiveFormat;
use longshore::types::Reference;

use crate::failure::Failure;

/// What `--output` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub kind: BuildOutput,
    /// Names that it gives the image.
    pub names: Vec<String>,
    /// Whether it is for stdout: `kind` has a name for a file then, which is to be replaced.
    pub stdout: bool,
}

/// As buildx has it: a path alone is a directory, and `-` is a tar on stdout.
pub fn output(text: &str) -> Result<Output, Failure> {
    let plain = |kind, stdout| Output {
        kind,
        names: Vec::new(),
        stdout,
    };
    if text == "-" {
        return Ok(plain(BuildOutput::Tar("-".into()), true));
    }
    if !text.contains('=') {
        return Ok(plain(BuildOutput::Directory(text.into()), false));
    }
    const USAGE: &str = "--output type=image|registry|docker|oci|local|tar[,dest=PATH][,name=NAME][,push=true]";
    let (mut kind, mut dest, mut names, mut push, mut tar) = (String::new(), String::new(), Vec::new(), false, true);
    for (key, value) in fields(text, USAGE)? {
        match key.as_str() {
            "type" => kind = value,
            "dest" => dest = value,
            "name" => names.extend(value.split(',').map(str::to_owned)),
            "push" => push = truth(&value, USAGE)?,
            "tar" => tar = truth(&value, USAGE)?,
            other => {
                return Err(Failure::ours(format!(
                    "--output: {other:?} is not one of type, dest, name, push and tar"
                )));
            }
        }
    }
    let stdout = dest == "-" || dest.is_empty();
    let path = || PathBuf::from(if stdout { "-" } else { dest.as_str() });
    let (kind, stdout) = match (kind.as_str(), dest.is_empty()) {
        ("registry", true) => (BuildOutput::Push, false),
        ("image", true) if push => (BuildOutput::Push, false),
        ("image" | "docker", true) => (BuildOutput::Image, false),
        ("docker", false) if tar => (BuildOutput::Archive(path(), ArchiveFormat::Docker), stdout),
        ("oci", _) if tar => (BuildOutput::Archive(path(), ArchiveFormat::Oci), stdout),
        ("oci" | "docker", false) if !stdout => (BuildOutput::Layout(path()), false),
        ("local", false) if !stdout => (BuildOutput::Directory(path()), false),
        ("tar", _) => (BuildOutput::Tar(path()), stdout),
        _ => return Err(Failure::ours(format!("--output {text}: {USAGE}"))),
    };
    Ok(Output { kind, names, stdout })
}

/// `type=local,src=DIR[,tag=TAG]`, `type=registry,ref=NAME`, or a name alone, which may be of an image that is here.
pub fn cache_source(text: &str) -> Result<CacheSource, Failure> {
    const USAGE: &str = "--cache-from type=local,src=DIR, type=registry,ref=NAME, or NAME";
    if !text.contains('=') {
        return Ok(CacheSource::Image(text.parse()?));
    }
    let mut cache = Cache::read(text, USAGE)?;
    match cache.kind.as_str() {
        "local" => Ok(CacheSource::Directory(
            cache.place("src", USAGE)?.into(),
            cache.tag.take(),
        )),
        "registry" => Ok(CacheSource::Registry(cache.name(USAGE)?)),
        _ => Err(Failure::ours(format!("--cache-from {text}: {USAGE}"))),
    }
}

/// `type=local,dest=DIR[,tag=TAG]`, `type=registry,ref=NAME`, `type=inline`, or a name alone; `mode=min` or `max`, the default.
pub fn cache_target(text: &str) -> Result<CacheTarget, Failure> {
    const USAGE: &str = "--cache-to type=local,dest=DIR, type=registry,ref=NAME, type=inline, or NAME; mode=min|max";
    if !text.contains('=') {
        return Ok(CacheTarget::Registry(text.parse()?, CacheMode::Max));
    }
    let mut cache = Cache::read(text, USAGE)?;
    let mode = cache.mode;
    match cache.kind.as_str() {
        "local" => {
            let dir = cache.place("dest", USAGE)?.into();
            Ok(CacheTarget::Directory(dir, cache.tag.take(), mode))
        }
        "registry" => Ok(CacheTarget::Registry(cache.name(USAGE)?, mode)),
        "inline" => Ok(CacheTarget::Inline),
        _ => Err(Failure::ours(format!("--cache-to {text}: {USAGE}"))),
    }
}

#[derive(Default)]
struct Cache {
    kind: String,
    places: Vec<(String, String)>,
    reference: Option<String>,
    tag: Option<String>,
    mode: CacheMode,
}

impl Cache {
    fn read(text: &str, usage: &str) -> Result<Self, Failure> {
        let mut cache = Self::default();
        for (key, value) in fields(text, usage)? {
            match (key.as_str(), value.as_str()) {
                ("type", _) => cache.kind = value,
                ("src" | "dest", _) => cache.places.push((key, value)),
                ("ref", _) => cache.reference = Some(value),
                ("tag", _) => cache.tag = Some(value),
                ("mode", "min") => cache.mode = CacheMode::Min,
                ("mode", "max") => cache.mode = CacheMode::Max,
                _ => return Err(Failure::ours(format!("{key}={value}: {usage}"))),
            }
        }
        Ok(cache)
    }

    fn place(&self, key: &str, usage: &str) -> Result<String, Failure> {
        let found = self.places.iter().find(|(name, _)| name == key);
        let found = found.filter(|(_, value)| !value.is_empty());
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| Failure::ours(format!("there is no {key}: {usage}")))
    }

    fn name(&self, usage: &str) -> Result<Reference, Failure> {
        let Some(name) = &self.reference else {
            return Err(Failure::ours(format!("there is no ref: {usage}")));
        };
        Ok(name.parse()?)
    }
}

/// As buildx has it: without a source it is the variable of that name, or else the file.
pub fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for (key, value) in fields(text, "--secret id=ID[,src=FILE|,env=NAME]")? {
        match (key.as_str(), value.as_str()) {
            ("id", _) => id = Some(value),
            ("src" | "source", _) => file = Some(value),
            ("env", _) => variable = Some(value),
            ("type", "file" | "env") => {}
            (other, _) => {
                return Err(Failure::ours(format!(
                    "--secret: {other:?} is not one of id, src, env and type"
                )));
            }
        }
    }
    let id = id.ok_or_else(|| Failure::ours("--secret: it has no id"))?;
    let of_environment = |name: &str| std::env::var(name).ok().map(String::into_bytes);
    let unset = |name: &str| Failure::ours(format!("--secret id={id}: the variable {name} is not set"));
    let bytes = match (file, variable) {
        (Some(file), _) => fs::read(&file).map_err(|error| Failure::ours(format!("--secret {file}: {error}")))?,
        (None, Some(name)) => of_environment(&name).ok_or_else(|| unset(&name))?,
        (None, None) => match of_environment(&id) {
            Some(bytes) => bytes,
            None => fs::read(&id).map_err(|error| Failure::ours(format!("--secret {id}: {error}")))?,
        },
    };
    Ok((id, Secret::new(bytes)))
}

/// `KEY=VALUE` fields with commas between them; one in double quotes may have commas in it.
fn fields(text: &str, usage: &str) -> Result<Vec<(String, String)>, Failure> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(Failure::ours(format!("{text}: a quote does not end: {usage}")));
    }
    all.push(field);
    all.iter()
        .map(|field| halves(field, usage).map(|(key, value)| (key.trim().to_lowercase(), value.to_owned())))
        .collect()
}

/// What is before and behind `=`.
pub fn halves<'a>(text: &'a str, usage: &str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .ok_or_else(|| Failure::ours(format!("{text:?}: {usage}")))
}

fn truth(text: &str, usage: &str) -> Result<bool, Failure> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Failure::ours(format!("{text:?} is not true or false: {usage}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_in_buildx_s_words() {
        let kind = |text: &str| {
            let Output { kind, names, stdout } = output(text).unwrap();
            (kind, names.join(" "), stdout)
        };
        let plain = |kind| (kind, String::new(), false);
        assert_eq!(kind("out"), plain(BuildOutput::Directory("out".into())));
        assert_eq!(kind("-"), (BuildOutput::Tar("-".into()), String::new(), true));
        assert_eq!(kind("type=local,dest=a"), plain(BuildOutput::Directory("a".into())));
        assert_eq!(kind("type=tar,dest=a"), plain(BuildOutput::Tar("a".into())));
        assert_eq!(kind("type=tar"), (BuildOutput::Tar("-".into()), String::new(), true));
        assert_eq!(kind("type=docker"), plain(BuildOutput::Image));
        let archive = |format| BuildOutput::Archive("a".into(), format);
        assert_eq!(kind("type=docker,dest=a"), plain(archive(ArchiveFormat::Docker)));
        assert_eq!(kind("type=oci,dest=a"), plain(archive(ArchiveFormat::Oci)));
        assert!(kind("type=oci,dest=-").2);
        assert_eq!(
            kind("type=oci,dest=a,tar=false"),
            plain(BuildOutput::Layout("a".into()))
        );
        assert_eq!(kind("type=registry"), plain(BuildOutput::Push));
        let named = kind("type=image,\"name=a:1,b\",push=true");
        assert_eq!(named, (BuildOutput::Push, "a:1 b".into(), false));
        assert_eq!(kind("type=image,name=x"), (BuildOutput::Image, "x".into(), false));
        for wrong in [
            "type=",
            "type=local",
            "type=local,dest=-",
            "type=image,dest=a",
            "type=oci,tar=false",
            "type=none,dest=a",
            "dest=a",
            "type=oci,dest=a,size=1",
            "type=image,push=maybe",
            "type=image,\"name=a",
        ] {
            assert!(output(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn caches_in_buildx_s_words() {
        let dir = |tag: Option<&str>| CacheSource::Directory("d".into(), tag.map(str::to_owned));
        let name: Reference = "example.com/a:1".parse().unwrap();
        assert_eq!(cache_source("type=local,src=d"), Ok(dir(None)));
        assert_eq!(cache_source("type=local,src=d,tag=x"), Ok(dir(Some("x"))));
        assert_eq!(
            cache_source("type=registry,ref=example.com/a:1"),
            Ok(CacheSource::Registry(name.clone()))
        );
        assert_eq!(cache_source("example.com/a:1"), Ok(CacheSource::Image(name.clone())));
        assert_eq!(cache_target("type=inline"), Ok(CacheTarget::Inline));
        assert_eq!(
            cache_target("type=local,dest=d,mode=min"),
            Ok(CacheTarget::Directory("d".into(), None, CacheMode::Min))
        );
        assert_eq!(
            cache_target("type=registry,ref=example.com/a:1"),
            Ok(CacheTarget::Registry(name, CacheMode::Max))
        );
        for wrong in [
            "type=gha",
            "type=local",
            "type=local,dest=d",
            "type=registry",
            "type=local,src=d,mode=most",
            "type=registry,ref=A B",
            "x=y",
        ] {
            assert!(cache_source(wrong).is_err(), "{wrong}");
        }
        assert!(cache_target("type=local,src=d").is_err());
    }
}
