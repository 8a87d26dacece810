//! The core without a guest or a socket: frames by hand, a host that does as told.
//!
//! The tests of `rules` are those of what broke others' networks of this kind; each
//! fails if its rule is left out.

mod datagrams;
mod hostile;
mod ipv6;
mod model;
mod names;
mod over_snapshots;
mod pieces;
mod rates;
mod reached;
mod records;
mod rules;
mod shown;
mod support;
