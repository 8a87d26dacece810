//! Random bytes of the host, and names made of them.

use crate::Error;

/// Bytes in hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name nobody else has, in hex digits.
pub fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Secret random bytes of the host.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::system("get random numbers")(error.into()))
}
