//! Integer Advanced SIMD, lane by lane: none of it yet.

use super::{Oracle, Step, UNDEFINED};

pub fn covers(_word: u32) -> bool {
    false
}

impl Oracle<'_> {
    pub fn vector_data(&mut self, _word: u32) -> Step {
        UNDEFINED
    }
}
