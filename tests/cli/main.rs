//! The `supermachine` executable with images as their makers may leave them, and
//! with commands that ask for much. Its options, signals and terminal are
//! tested beside it.

mod bad_images;
mod hostile;
mod layout;
mod logging;
mod manual;
mod sandbox;
mod settings;
mod streams;
mod surroundings;
