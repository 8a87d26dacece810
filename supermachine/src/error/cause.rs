//! Errors of the crates that this one is made of.

use super::Error;

/// What a part of this crate says is the matter, and what to do next. Its text and
/// its causes are for people; what it is made of is not part of the interface, so that the parts can
/// change: [`Error::kind`] and [`Error::code`] are what programs go by.
#[derive(Debug)]
pub struct Cause(Box<Part>);

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Part {
    #[error(transparent)]
    Bake(oci_bake::BakeError),
    #[error(transparent)]
    Reference(oci_bake::ImageError),
    #[cfg(feature = "pull")]
    #[error(transparent)]
    Registry(oci_pull::PullError),
    #[error(transparent)]
    Assets(kernel::KernelError),
    #[error(transparent)]
    Resources(crate::compat::ResourceError),
    #[error(transparent)]
    Snapshot(snapshot::SnapshotError),
    #[error(transparent)]
    Pool(pool::PoolError),
    #[error(transparent)]
    Network(net::policy::PolicyError),
    #[error(transparent)]
    Secret(broker::BrokerError),
    #[error(transparent)]
    Protocol(exec_proto::ProtoError),
}

macro_rules! parts {
    ($($part:ty => $variant:ident($name:ident);)*) => {
        $(
            // For `?` in this crate; not part of the interface.
            #[doc(hidden)]
            impl From<$part> for Error {
                fn from(error: $part) -> Self {
                    Self::$variant(Cause(Box::new(Part::$name(error))))
                }
            }
        )*
    };
}

parts! {
    oci_bake::BakeError => Image(Bake);
    oci_bake::ImageError => Reference(Reference);
    kernel::KernelError => Assets(Assets);
    crate::compat::ResourceError => Resources(Resources);
    snapshot::SnapshotError => Snapshot(Snapshot);
    pool::PoolError => Pool(Pool);
    net::policy::PolicyError => Network(Network);
    broker::BrokerError => Network(Secret);
    exec_proto::ProtoError => Protocol(Protocol);
}

#[cfg(feature = "pull")]
parts! {
    oci_pull::PullError => Registry(Registry);
}

impl Cause {
    pub(crate) fn part(&self) -> &Part {
        &self.0
    }

    pub(crate) fn of_snapshot(error: snapshot::SnapshotError) -> Self {
        Self(Box::new(Part::Snapshot(error)))
    }
}
