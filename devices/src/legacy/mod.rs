//! The few devices from before virtio that an arm64 Linux guest wants.

#[cfg(feature = "pl011")]
pub mod pl011;
#[cfg(feature = "pl031")]
pub mod pl031;

/// A register value from a guest write of up to 4 bytes.
#[cfg(any(feature = "pl011", feature = "pl031"))]
fn register_value(data: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    let len = data.len().min(4);
    bytes[..len].copy_from_slice(&data[..len]);
    u32::from_le_bytes(bytes)
}

/// Answers a guest read of any width with a register's low bytes.
#[cfg(any(feature = "pl011", feature = "pl031"))]
fn answer(data: &mut [u8], value: u32) {
    let bytes = value.to_le_bytes();
    let len = data.len().min(4);
    data.fill(0);
    data[..len].copy_from_slice(&bytes[..len]);
}
