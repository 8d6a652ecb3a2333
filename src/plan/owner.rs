//! Whose blocks are: many blocks have the same owner, so each owner is kept once and blocks name it by number.

use hashbrown::HashTable;

use crate::vocab::{AccountId, Owner};

/// The number of no owner: a block that was never offered.
pub(super) const NOBODY: u32 = u32::MAX;

/// What blocks of one owner have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub owner: Owner,
    /// The largest payload of its namespace: what its slots are cut for.
    pub payload_max: u32,
}

/// The owners of all blocks. A number is an owner's as long as somebody holds it.
#[derive(Debug, Default)]
pub(super) struct Owners {
    deeds: Vec<(Deed, u32)>,
    vacant: Vec<u32>,
    by_deed: HashTable<u32>,
}

impl Owners {
    /// The number of an owner, held once more.
    pub(super) fn hold(&mut self, deed: Deed) -> u32 {
        let hash = hash(&deed);
        if let Some(number) = self.by_deed.find(hash, |number| self.deeds[*number as usize].0 == deed).copied() {
            self.share(number);
            return number;
        }
        let number = match self.vacant.pop() {
            Some(number) => {
                self.deeds[number as usize] = (deed, 1);
                number
            }
            None => {
                self.deeds.push((deed, 1));
                u32::try_from(self.deeds.len() - 1).unwrap_or(NOBODY)
            }
        };
        let deeds = &self.deeds;
        self.by_deed.insert_unique(hash, number, |other| self::hash(&deeds[*other as usize].0));
        number
    }

    /// Holds a known owner once more.
    pub(super) fn share(&mut self, number: u32) {
        if number != NOBODY {
            self.deeds[number as usize].1 += 1;
        }
    }

    /// Lets an owner go once.
    pub(super) fn release(&mut self, number: u32) {
        if number == NOBODY {
            return;
        }
        let (deed, held) = &mut self.deeds[number as usize];
        *held -= 1;
        if *held == 0 {
            if let Ok(found) = self.by_deed.find_entry(hash(deed), |other| *other == number) {
                found.remove();
            }
            self.vacant.push(number);
        }
    }

    /// The owner of this number.
    pub(super) fn get(&self, number: u32) -> Deed {
        let nobody = Deed { owner: Owner::default(), payload_max: 0 };
        self.deeds.get(number as usize).map_or(nobody, |(deed, _)| *deed)
    }

    /// The account of the owner of this number.
    pub(super) fn account(&self, number: u32) -> AccountId {
        self.deeds.get(number as usize).map_or(AccountId::default(), |(deed, _)| deed.owner.account)
    }

    /// How often each owner is held, by number: for the invariants' check.
    pub(super) fn held(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..).zip(self.deeds.iter().map(|(_, held)| *held))
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let vacant = self.vacant.capacity() * size_of::<u32>();
        self.deeds.capacity() * size_of::<(Deed, u32)>() + vacant + self.by_deed.allocation_size()
    }
}

/// The same on every start: murmur3's finalizer over the fields.
fn hash(deed: &Deed) -> u64 {
    let Deed { owner, payload_max } = deed;
    let names = u64::from(owner.user) << 32 | u64::from(owner.writer);
    let numbers = u64::from(owner.namespace.0) << 48 | u64::from(owner.account.0) << 32 | u64::from(*payload_max);
    let rest = u64::from(owner.group.0) << 16 | u64::from(owner.scope) << 8 | u64::from(owner.ram_only);
    mix(mix(mix(names) ^ numbers) ^ rest)
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_kept_once_and_forgotten_with_its_last_block() {
        let deed = |user| Deed { owner: Owner { user, ..Owner::default() }, payload_max: 4_096 };
        let mut owners = Owners::default();
        let (one, other) = (owners.hold(deed(1)), owners.hold(deed(2)));
        assert_eq!(owners.hold(deed(1)), one);
        assert_eq!((owners.get(one), owners.get(other)), (deed(1), deed(2)));
        owners.release(one);
        owners.release(one);
        assert_eq!(owners.hold(deed(3)), one, "its number is free");
        assert_eq!(owners.hold(deed(1)), 2);
        assert_eq!(owners.held().collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1)]);
    }
}
