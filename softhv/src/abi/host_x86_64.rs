//! What this engine needs of an x86-64 processor.

/// Whether the processor can run guests: 16-byte compare and exchange, for
/// CASP and exclusive pairs. Every x86-64 processor since 2006 has it.
pub(super) fn can_run() -> bool {
    is_x86_feature_detected!("cmpxchg16b")
}
