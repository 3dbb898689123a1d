//! Digests: of everything that the outside saw of one seed, and of blocks of seeds.
//!
//! A seed's record is folded into 128 bits as it comes, and a block's digest is SHA-256 over the
//! folds of its seeds in their order. Neither depends on the machine or on the compiler.

use sha2::{Digest as _, Sha256};

/// What is folded so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fold {
    left: u64,
    right: u64,
}

impl Fold {
    pub(crate) fn new(seed: u64) -> Self {
        Fold { left: seed ^ 0x6a09_e667_f3bc_c908, right: 0xbb67_ae85_84ca_a73b }
    }

    /// Takes in a number; the order counts.
    pub(crate) fn add(&mut self, word: u64) {
        // Multiplication by odd constants, and a rotation, so that every bit reaches every other.
        self.left = (self.left ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.right = (self.right.rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.right ^= self.left >> 31;
    }

    pub(crate) fn add_text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        self.add(text.len() as u64);
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.left.to_le_bytes());
        bytes[8..].copy_from_slice(&self.right.to_le_bytes());
        bytes
    }
}

/// The digest of a block, in hexadecimal, from the folds of its seeds.
pub(crate) fn of_block(folds: impl Iterator<Item = [u8; 16]>) -> String {
    let mut hasher = Sha256::new();
    folds.for_each(|fold| hasher.update(fold));
    hexadecimal(hasher)
}

/// The digest of lines of text, in hexadecimal.
pub(crate) fn of_lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    lines.for_each(|line| {
        hasher.update(line);
        hasher.update("\n");
    });
    hexadecimal(hasher)
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(words: &[u64]) -> [u8; 16] {
        let mut fold = Fold::new(1);
        words.iter().for_each(|word| fold.add(*word));
        fold.bytes()
    }

    #[test]
    fn order_and_content_change_a_digest() {
        assert_eq!(fold(&[1, 2]), fold(&[1, 2]));
        assert_ne!(fold(&[1, 2]), fold(&[2, 1]));
        assert_ne!(fold(&[1, 2]), fold(&[1, 3]));
        let blocks = [[fold(&[1]), fold(&[2])], [fold(&[2]), fold(&[1])]];
        let [first, second] = blocks.map(|folds| of_block(folds.into_iter()));
        assert_eq!(first.len(), 64);
        assert_ne!(first, second);
    }
}
