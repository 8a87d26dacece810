//! Which engine fills a table.

/// An engine that makes machines. A closed set: whoever treats engines
/// differently says for each of them how, and a new one does not compile until
/// everybody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineId {
    /// Apple's Hypervisor.framework.
    Framework,
    /// A processor in software: the same on every host.
    Software,
}
