//! Ids of blocks as ids of whole prefixes, as the planner wants them.

/// Replaces each id by one that stands for it and all before it, and for `seed`: two lists have the same id at a place where they,
/// and their seeds, are the same up to it. 64 bits: a trace of a hundred million blocks has two that are alike once in thousands.
pub(super) fn chain(seed: u64, ids: &mut [u64]) {
    let mut prefix = seed;
    for id in ids {
        prefix = digest(prefix, *id);
        *id = prefix;
    }
}

/// A number that stands for a name.
pub(super) fn named(name: &str) -> u64 {
    first(&blake3::hash(name.as_bytes()))
}

fn digest(prefix: u64, id: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&prefix.to_le_bytes());
    bytes[8..].copy_from_slice(&id.to_le_bytes());
    first(&blake3::hash(&bytes))
}

fn first(hash: &blake3::Hash) -> u64 {
    hash.as_bytes()[..8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_for_all_before_it_and_for_its_seed() {
        let of = |seed, ids: &[u64]| {
            let mut ids = ids.to_vec();
            chain(seed, &mut ids);
            ids
        };
        let one = of(0, &[1, 2, 3]);
        assert_eq!(of(0, &[1, 2, 4])[..2], one[..2]);
        assert_ne!(of(0, &[1, 2, 4])[2], one[2]);
        assert!(of(0, &[9, 2, 3]).iter().zip(&one).all(|(other, id)| other != id));
        assert!(of(7, &[1, 2, 3]).iter().zip(&one).all(|(other, id)| other != id));
        assert_eq!(of(0, &[5, 5]).windows(2).filter(|pair| pair[0] == pair[1]).count(), 0);
    }
}
