//! Guest kernel configuration, build recipe and asset lookup.
