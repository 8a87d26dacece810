//! Debian's programs in guests, compared with what they must print. The
//! `.out` files were written by the same programs on a real x86-64 CPU, or by
//! hand from what each line must be.

mod agent;
mod base;
mod boots;
mod clients;
mod contracts;
mod copies;
mod corpus;
mod edits;
mod elsewhere;
mod files;
mod gcc;
mod hanging;
mod held;
mod idle;
mod layers;
mod leaving;
mod limits;
mod mapped;
mod mounted;
mod namespaces;
mod nested;
mod network;
mod nodejs;
mod openssl;
mod perl;
mod ports;
mod python;
mod secret_copies;
mod secrets;
mod servers;
mod services;
mod trust;
