//! What a registry is told about who asks.

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;

/// How to sign in to a registry. Printed without its secrets.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// Not at all. Token services are still asked, for an anonymous token.
    #[default]
    Anonymous,
    /// A user name with a password or an access token in its place.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token, which Docker calls an identity token.
    IdentityToken(String),
}

impl Credentials {
    /// A user name and a password.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password {
            user: user.into(),
            password: password.into(),
        }
    }

    /// Whether there is nothing to show.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// Knows who signs in where. Asked when a registry is opened for a request that brings no credentials of its own.
#[async_trait]
pub trait CredentialsSource: fmt::Debug + Send + Sync + 'static {
    /// What to show a host; anonymous where nothing is known.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known. The request then fails, rather than going on without.
    async fn credentials(&self, host: &str) -> Result<Credentials>;
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => {
                write!(f, "Password {{ user: {user:?}, password: <hidden> }}")
            }
            Self::IdentityToken(_) => f.write_str("IdentityToken(<hidden>)"),
        }
    }
}
