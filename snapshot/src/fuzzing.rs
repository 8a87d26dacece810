//! Fuzz logic as plain functions over bytes. They panic when an invariant
//! breaks.
