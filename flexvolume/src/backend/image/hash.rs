//! What an image's bytes hash to.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use node::{Context, Error, Kind, Result};
use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use crate::options::Quantity;

/// So much is read at a time.
const PIECE: usize = 1 << 20;

/// The SHA-256 of the first `size` bytes in hex, small letters. [`Kind::TryAgain`] when `deadline` passes.
pub fn sha256(file: &File, size: u64, deadline: Instant) -> Result<String> {
    let _ = fadvise(file, 0, None, Advice::Sequential);
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        if Instant::now() >= deadline {
            let (at, size) = (Quantity::of(at), Quantity::of(size));
            return Err(Error::new(Kind::TryAgain, format!("hash more than {at} of {size} in time"))
                .hint("a next try finds what was read in memory; if it never ends, leave `sha256` out"));
        }
        let read = file.read_at(&mut piece, at).doing(Kind::Io, || "read the image".to_owned())?;
        if read == 0 {
            return Err(Error::new(Kind::TryAgain, "read the image, which became shorter"));
        }
        sum.update(piece.get(..read).unwrap_or_default());
        at += read as u64;
    }
    let mut text = String::with_capacity(64);
    for byte in sum.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_hash_is_what_sha256sum_prints() {
        let path = std::env::temp_dir().join(format!("nodeplug-hash-{}", std::process::id()));
        std::fs::write(&path, "abc").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let later = Instant::now() + Duration::from_mins(1);
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file, 3, later).unwrap(), expect);
        assert_eq!(sha256(&file, 4, later).unwrap_err().kind(), Kind::TryAgain);
        assert_eq!(sha256(&file, 3, Instant::now()).unwrap_err().kind(), Kind::TryAgain);
    }
}
