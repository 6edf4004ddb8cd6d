//! Who starts a container: the engine's usual runtime, or one that the container names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::local::Shared;
use super::spec::ContainerSpec;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::Runtime;
use crate::runtime::native::NativeRuntime;
use crate::runtime::oci::{KNOWN, OciRuntime};

/// The runtimes of an engine.
#[derive(Debug)]
pub(crate) struct Runtimes {
    pub(crate) native: Arc<NativeRuntime>,
    /// Of builds and of looking at files, and of containers that name none where `chosen` names none either.
    pub(crate) usual: Arc<dyn Runtime>,
    /// What containers have that name none.
    pub(crate) chosen: Option<String>,
    /// External ones that the embedder made known, by name.
    pub(crate) programs: Arc<BTreeMap<String, PathBuf>>,
}

impl Runtimes {
    /// The name of the one that containers have which name none.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn default_name(&self) -> &str {
        self.chosen.as_deref().unwrap_or(self.usual.name())
    }

    /// The runtime of a name, or without one the usual.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that nobody made known, `Unsupported` for one that the host does not have.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Arc<dyn Runtime>> {
        let name = name.unwrap_or_else(|| self.default_name());
        if name == self.usual.name() {
            return Ok(Arc::clone(&self.usual));
        }
        let native = || Arc::clone(&self.native);
        if name == self.native.name() {
            return Ok(native());
        }
        if let Some(program) = self.programs.get(name) {
            return Ok(Arc::new(OciRuntime::new(native(), name, program)));
        }
        if KNOWN.contains(&name) {
            return Ok(Arc::new(OciRuntime::installed(native(), name)?));
        }
        let others = self.programs.keys().map(String::as_str);
        let known: Vec<&str> = [self.native.name()].into_iter().chain(KNOWN).chain(others).collect();
        let message = format!(
            "unknown or invalid runtime name: {name}; known are {}",
            known.join(", ")
        );
        Err(Error::invalid(message).with_object(ObjectKind::Option, "runtime"))
    }
}

impl Shared {
    /// Who starts the containers of a spec.
    pub(super) fn runtime_of(&self, spec: &ContainerSpec) -> Result<Arc<dyn Runtime>> {
        self.parts.runtimes.named(spec.runtime.as_deref())
    }

    /// Notes down who starts a new container: it stays so, whatever the next engine on the root usually has.
    pub(super) fn name_runtime(&self, spec: &mut ContainerSpec) -> Result<Arc<dyn Runtime>> {
        let runtime = self.runtime_of(spec)?;
        let usual = runtime.name() == self.parts.runtimes.usual.name();
        spec.runtime = (!usual).then(|| runtime.name().to_owned());
        Ok(runtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::runtime::native::NativeOptions;

    fn runtimes(chosen: Option<&str>) -> Runtimes {
        let native = Arc::new(NativeRuntime::new(NativeOptions::default()));
        Runtimes {
            usual: Arc::clone(&native) as Arc<dyn Runtime>,
            native,
            chosen: chosen.map(str::to_owned),
            programs: Arc::new([("own".to_owned(), PathBuf::from("/opt/own"))].into()),
        }
    }

    #[test]
    fn h21_runtimes_are_known_by_name() {
        let usual = runtimes(None);
        assert_eq!(usual.named(None).unwrap().name(), "native");
        assert_eq!(usual.named(Some("native")).unwrap().name(), "native");
        assert_eq!(usual.named(Some("own")).unwrap().name(), "own");
        let unknown = usual.named(Some("kata")).unwrap_err();
        assert_eq!(unknown.kind(), &ErrorKind::InvalidArgument);
        assert!(unknown.report().contains("own"), "{}", unknown.report());
        let chosen = runtimes(Some("own"));
        assert_eq!(chosen.named(None).unwrap().name(), "own");
        assert_eq!(chosen.default_name(), "own");
        assert!(runtimes(Some("nobody")).named(None).is_err());
    }
}
