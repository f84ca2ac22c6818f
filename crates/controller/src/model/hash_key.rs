use std::fmt;

use sha2::{Digest as _, Sha256};

/// The key of the flow hash, the same on every director. Shown as its fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u8; 16]);

impl HashKey {
    /// 16 bytes, or 32 hex digits and white space around them.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if let Ok(key) = <[u8; 16]>::try_from(bytes) {
            return Some(Self(key));
        }
        let text = std::str::from_utf8(bytes).ok()?.trim();
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }

    /// Tells keys apart and says nothing of them: the first 8 bytes of the key's SHA-256, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Sha256::digest(self.0).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_or_their_hex_digits() {
        let key = HashKey(*b"0123456789abcdef");
        assert_eq!(HashKey::parse(&key.0), Some(key));
        assert_eq!(HashKey::parse(b"30313233343536373839616263646566\n"), Some(key));
        for wrong in [&b""[..], b"short", b"3031323334353637383961626364656x", &[0; 17]] {
            assert_eq!(HashKey::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_start_of_the_keys_sha256() {
        // printf 0123456789abcdef | sha256sum
        assert_eq!(HashKey(*b"0123456789abcdef").fingerprint(), "9f9f5111f7b27a78");
    }
}
