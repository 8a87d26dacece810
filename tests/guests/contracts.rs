//! What the library promises about machines and commands.
