//! Who asks a registry.

use crate::secret::Secret;

/// The name that stands for "the secret is a token for tokens".
const TOKEN_USER: &str = "<token>";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A name with a password.
    Password {
        /// The name.
        user: String,
        /// The password, or a token that serves as one.
        password: Secret,
    },
    /// A token that others can be got with (`identitytoken`).
    IdentityToken(Secret),
}

impl Login {
    /// A name and a secret, as files and helpers have them.
    pub(crate) fn of(user: &str, secret: &str) -> Self {
        match user {
            TOKEN_USER => Login::IdentityToken(Secret::new(secret)),
            user => Login::Password {
                user: user.to_owned(),
                password: Secret::new(secret),
            },
        }
    }
}
