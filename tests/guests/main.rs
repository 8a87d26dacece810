//! Debian's programs in guests, compared with what they must print.

mod base;
mod perl;

