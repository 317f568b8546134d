//! Data that names itself: every block says which it is and in which round it was written, so that a wrong byte tells where it
//! came from.

use rand::{Rng, SeedableRng};

/// `len` bytes that no other `(seed, index)` gives.
#[must_use]
pub fn bytes(seed: u64, index: u64, len: usize) -> Vec<u8> {
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index);
    let mut data = vec![0; len];
    random.fill_bytes(&mut data);
    for (place, byte) in data.iter_mut().zip(index.to_be_bytes()) {
        *place = byte;
    }
    data
}

/// A disk image of so many MiB with the pattern of `seed` in all of it, MiB by MiB.
///
/// # Errors
/// Those of the file.
pub fn image(path: &std::path::Path, seed: u64, mib: u64) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for index in 0..mib {
        std::io::Write::write_all(&mut file, &bytes(seed, index, 1 << 20))?;
    }
    std::io::Write::flush(&mut file)
}
