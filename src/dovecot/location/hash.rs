//! The digests that Dovecot's `%{algorithm;options:variable}` knows.
//!
//! Their names and their options are in Dovecot's `hash-method.c` and
//! `var-expand.c`.

use sha2::Digest;

/// One digest algorithm.
pub(super) struct Method {
    /// The name, in the only case that Dovecot's second look-up accepts
    pub(super) name: &'static str,
    /// The length of the result in bytes
    pub(super) size: usize,
    digest: fn(&[&[u8]]) -> Vec<u8>,
}

const METHODS: [Method; 9] = [
    Method {
        name: "md4",
        size: 16,
        digest: digest::<md4::Md4>,
    },
    Method {
        name: "md5",
        size: 16,
        digest: digest::<md5::Md5>,
    },
    Method {
        name: "sha1",
        size: 20,
        digest: digest::<sha1::Sha1>,
    },
    Method {
        name: "sha256",
        size: 32,
        digest: digest::<sha2::Sha256>,
    },
    Method {
        name: "sha384",
        size: 48,
        digest: digest::<sha2::Sha384>,
    },
    Method {
        name: "sha512",
        size: 64,
        digest: digest::<sha2::Sha512>,
    },
    Method {
        name: "sha3-256",
        size: 32,
        digest: digest::<sha3::Sha3_256>,
    },
    Method {
        name: "sha3-512",
        size: 64,
        digest: digest::<sha3::Sha3_512>,
    },
    Method {
        name: "size",
        size: 8,
        digest: total_length,
    },
];

fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().to_vec()
}

/// `size` is no digest: the length of the input, as a big-endian number.
fn total_length(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    (length as u64).to_be_bytes().to_vec()
}

impl Method {
    /// Finds the algorithm called `name`.
    pub(super) fn find(name: &[u8]) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name.as_bytes() == name)
    }

    /// Tells whether an algorithm has this name in any case. Dovecot looks for
    /// the function like this first, and for the algorithm exactly afterwards.
    pub(super) fn is_name(name: &[u8]) -> bool {
        METHODS
            .iter()
            .any(|method| method.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Hashes `value` behind `salt`, and the result behind `salt` again, `rounds` times.
    pub(super) fn rounds(&self, value: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        let mut result = value.to_vec();
        for _ in 0..rounds {
            result = (self.digest)(&[salt, &result]);
        }
        result
    }
}

/// The length of PBKDF2's result in Dovecot, which asks for the size of its
/// largest hash context (`struct sha512_ctx`) instead of a digest's.
const DERIVED_LENGTH: usize = 336;

const SHA256_SIZE: usize = 32;
const SHA256_BLOCK: usize = 64;

/// How many bytes [`pbkdf2`] hashes in one round.
pub(super) const PBKDF2_COST: u64 =
    (DERIVED_LENGTH.div_ceil(SHA256_SIZE) * 2 * (SHA256_BLOCK + SHA256_BLOCK)) as u64;

/// PBKDF2 (RFC 8018) with HMAC-SHA256, as `%{pkcs5:...}` uses it.
pub(super) fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut key = [0; SHA256_BLOCK];
    if password.len() > SHA256_BLOCK {
        key[..SHA256_SIZE].copy_from_slice(&sha2::Sha256::digest(password));
    } else {
        key[..password.len()].copy_from_slice(password);
    }
    // The two states behind the padded key are the same in every round.
    let inner = sha2::Sha256::new_with_prefix(key.map(|byte| byte ^ 0x36));
    let outer = sha2::Sha256::new_with_prefix(key.map(|byte| byte ^ 0x5c));
    let hmac = |parts: &[&[u8]]| {
        let mut inner = inner.clone();
        for part in parts {
            inner.update(part);
        }
        outer.clone().chain_update(inner.finalize()).finalize()
    };

    let mut derived = Vec::with_capacity(DERIVED_LENGTH + SHA256_SIZE);
    for block_number in 1_u32.. {
        if derived.len() >= DERIVED_LENGTH {
            break;
        }
        let mut last = hmac(&[salt, &block_number.to_be_bytes()]);
        let mut block = last;
        for _ in 1..rounds {
            last = hmac(&[&last]);
            for (byte, other) in block.iter_mut().zip(last) {
                *byte ^= other;
            }
        }
        derived.extend_from_slice(&block);
    }
    derived.truncate(DERIVED_LENGTH);
    derived
}

/// Keeps the first `bits` bits, moved to the right end of whole bytes.
pub(super) fn truncate(digest: &mut Vec<u8>, bits: usize) {
    digest.truncate(bits.div_ceil(8));
    let spare = digest.len() * 8 - bits;
    if spare == 0 {
        return;
    }
    let mut carried = 0;
    for byte in digest {
        let whole = *byte;
        *byte = (whole >> spare) | carried;
        carried = whole << (8 - spare);
    }
}

/// PJW's hash of object files' symbol names, on bytes: the `H` modifier.
pub(super) fn pjw(value: &[u8]) -> u32 {
    value.iter().fold(0_u32, |hash, &byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        hash ^ (high >> 24) ^ high
    })
}

/// The first eight bytes of the MD5 as a number: the `N` modifier.
pub(super) fn md5_number(value: &[u8]) -> u64 {
    let digest = md5::Md5::digest(value);
    digest[..8]
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The whole MD5 in hexadecimal digits: the `M` modifier.
pub(super) fn md5_hex(value: &[u8]) -> Vec<u8> {
    hex(&md5::Md5::digest(value))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| DIGITS[usize::from(nibble)])
        .collect()
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, position| {
            number << 8 | group.get(position).map_or(0, |&byte| usize::from(byte))
        });
        let digits = [18, 12, 6, 0].map(|shift| DIGITS[number >> shift & 63]);
        text.extend_from_slice(&digits[..=group.len()]);
        text.resize(text.len() + 3 - group.len(), b'=');
    }
    text
}
