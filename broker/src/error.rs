//! What can be the matter with secrets before anything runs.

/// Why secrets are refused. None of it has a value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A name that no variable has.
    #[error("{0:?} is not the name of a variable: write up to 64 letters, digits and underscores")]
    Name(String),
    /// A host that is none.
    #[error(
        "{0:?} is no host for a secret: write a name like api.example.com, or one with a port like api.example.com:8443"
    )]
    Host(String),
    /// A secret that goes nowhere.
    #[error("the secret {0} is for no host: name those that may have it")]
    NoHost(String),
    /// A header that is none, or that says where a request ends or goes.
    #[error("{0:?} is no header for a secret: write one like authorization")]
    Header(String),
    /// A value that no header carries.
    #[error("the value of the secret {name} {reason}: give another")]
    Value {
        /// The secret's name.
        name: String,
        /// What is the matter with it.
        reason: &'static str,
    },
    /// Two secrets of one name.
    #[error("there are two secrets called {0}: give each a name of its own")]
    Twice(String),
    /// More than are looked for in each request.
    #[error("a machine has at most {most} secrets, this one has {count}: give it fewer")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A certificate that is none.
    #[error("the authority given for the secret {0} is no certificate: give one in PEM format")]
    Root(String),
    /// A processor without what TLS is made of here.
    #[error(
        "secrets need TLS, for which this processor lacks instructions (AES, AVX2, ADX, BMI2; or AES, SHA-2): run the machine on a newer one, or without secrets"
    )]
    Processor,
    /// The host gives no random numbers.
    #[error(
        "the system gives no random numbers, which secrets are made of: start the machine without secrets, or see to that"
    )]
    Random,
    /// A certificate could not be made.
    #[error("no certificate can be made for {0}: start the machine again")]
    Certificate(String),
}
