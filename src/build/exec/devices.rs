//! `RUN --device`: devices of the Container Device Interface, which whoever builds must allow.

use std::sync::Arc;

use super::Work;
use crate::build::plan::RunAction;
use crate::containers::cdi;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;

impl Work<'_> {
    /// The devices that a command gets. One that it can do without is left out where it is not allowed, or not there; a warning
    /// at the end says so.
    ///
    /// # Errors
    /// `Denied` for one that is not allowed, `NotFound` with what is there, `Conflict`; `InvalidArgument` for what is no name.
    pub(super) async fn devices_of(&self, run: &RunAction) -> Result<Vec<String>> {
        if run.devices.is_empty() {
            return Ok(Vec::new());
        }
        run.devices
            .iter()
            .try_for_each(|device| cdi::check_name(&device.name))?;
        let containers = Arc::clone(&self.shared.parts.containers.0);
        let registry = blocking(move || Ok(containers.cdi())).await?;
        let mut given: Vec<String> = Vec::new();
        for device in &run.devices {
            let allowed = self.is_allowed(&device.name);
            let can_be_had = allowed && registry.has(&device.name);
            if !(device.required || can_be_had) {
                let why = if allowed {
                    "it is not there"
                } else {
                    "it is not allowed"
                };
                self.note(format!("a command ran without the device {}: {why}", device.name));
                continue;
            }
            if !allowed {
                return Err(denied(&device.name));
            }
            if !given.contains(&device.name) {
                given.push(device.name.clone());
            }
        }
        registry.edits(&given)?;
        Ok(given)
    }

    /// By its own name, or its kind's.
    fn is_allowed(&self, name: &str) -> bool {
        let allowed = &self.spec.devices;
        let kind = name.split_once('=').map(|(kind, _)| kind);
        allowed.contains(name) || kind.is_some_and(|kind| allowed.contains(kind))
    }
}

fn denied(name: &str) -> Error {
    let message =
        format!("--device={name} is not allowed: whoever builds must allow it, with BuildSpec::allow_device({name:?})");
    Error::new(ErrorKind::Denied, message).with_object(ObjectKind::CdiDevice, name)
}
