//! Randomness from the kernel.

/// Random bytes from the kernel. The generator of the TLS library takes 50 ms to initialize (measured), too long for
/// the restart of a member that the quorum needs.
pub fn random<const LENGTH: usize>() -> std::io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // Up to 256 bytes are returned completely (getrandom(2)).
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if count == LENGTH { Ok(bytes) } else { Err(std::io::Error::other("too few random bytes")) }
}

pub fn random_digits() -> std::io::Result<String> {
    random::<4>().map(|bytes| format!("{:08x}", u32::from_be_bytes(bytes)))
}

/// A random number from 0 to 1, to spread events that would coincide. Without randomness they are spread less, which is
/// not an error.
#[must_use]
pub fn jitter() -> f64 {
    let bytes = random::<4>().unwrap_or_default();
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
