//! Guest PID 1 and exec agent, as a library so that its parts can be tested
//! and embedded. The binary of the same package is what boots in a guest.
//!
//! `unsafe` lives in `sys` alone. Linux only; on other systems the library is
//! empty.
#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod agent;
#[cfg(target_os = "linux")]
pub mod boot;
#[cfg(target_os = "linux")]
pub mod selftest;
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the one place for system calls")]
pub mod sys;
#[cfg(target_os = "linux")]
pub mod tool;
