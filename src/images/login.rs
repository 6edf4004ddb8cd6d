//! `login`: asks a registry whether it takes credentials. Nothing is kept.

use super::local::LocalImages;
use crate::error::{Error, ObjectKind, Result};
use crate::registry::Credentials;

impl LocalImages {
    pub(super) async fn login_to(&self, registry: &str, credentials: Credentials) -> Result<()> {
        if credentials.is_anonymous() {
            // The provider would look for better ones, and the answer would be about those.
            let error = Error::invalid("signing in needs a user name with a password, or an identity token");
            return Err(error.with_object(ObjectKind::Registry, registry));
        }
        let registry = self.parts.registries.open(registry, &credentials).await?;
        registry.check_login().await
    }
}
