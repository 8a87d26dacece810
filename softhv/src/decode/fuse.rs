//! Finds neighbours that one handler serves better.

use super::branch::kind_of;
use super::{Context, bit, bits};
use crate::exec::fused::{self, Test};
use crate::op::Handler;

/// The handler that serves `word` at `context` together with `next` behind it.
pub fn pair(word: u32, next: u32, context: Context) -> Option<Handler> {
    if let Some(test) = test(word) {
        // B.cond: 0101_0100 imm19 0 cond.
        if next & 0xff00_0010 != 0x5400_0000 {
            return None;
        }
        let behind = Context {
            offset: context.offset + 4,
            ..context
        };
        return fused::test_branch(test, bits(next, 0, 4) as u16, kind_of(next, behind));
    }
    // ADRP Xd; ADD Xd, Xd, #imm12 (unshifted), Xd not being SP.
    let rd = bits(word, 0, 5);
    let adrp = word & 0x9f00_0000 == 0x9000_0000;
    let add = next & 0xffc0_0000 == 0x9100_0000;
    if adrp && add && rd != 31 && bits(next, 0, 5) == rd && bits(next, 5, 5) == rd {
        return Some(fused::adrp_add);
    }
    None
}

/// Whether `word` is a flag setter that fuses.
fn test(word: u32) -> Option<Test> {
    let wide = bit(word, 31);
    match word & 0x7f80_0000 {
        0x7100_0000 => return Some(Test::SubsImm { wide }),
        0x3100_0000 => return Some(Test::AddsImm { wide }),
        // N must be 0 for 32 bits; other bad masks do not decode at all.
        0x7200_0000 if wide || !bit(word, 22) => return Some(Test::AndsImm { wide }),
        _ => (),
    }
    match word & 0x7fe0_fc00 {
        0x6b00_0000 => Some(Test::Subs { wide }),
        0x6a00_0000 => Some(Test::Ands { wide }),
        _ => None,
    }
}
