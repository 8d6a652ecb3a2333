//! What a class of blocks is told by. None of it is a label: it is what a put and a lookup show of themselves.

use super::super::{Facts, Visit};
use crate::vocab::{AccountId, Hints, NamespaceId, Owner};

/// Values of each feature.
const USES: u16 = 5;
const LAST: u16 = 2;
const FRESH: u16 = 6;
const OUTPUT: u16 = 7;
const WHO: u16 = 8;
const AGAIN: u16 = 3;

/// Classes that are told by what comes in a trace, too.
pub(super) const PLAIN_CLASSES: u16 = USES * LAST * FRESH * OUTPUT;
/// All classes.
#[cfg(test)]
const CLASSES: u16 = PLAIN_CLASSES * WHO * AGAIN;
/// Levels of what is known, from all blocks to those of one class.
pub(super) const LEVELS: usize = 6;
/// Tables of the levels above those of classes: of all, by uses, by place in the chain, by fresh blocks.
pub(super) const SHARED_TABLES: u16 = 1 + USES + USES * LAST + USES * LAST * FRESH;

/// What is known of a block and of the request that used it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Uses so far: 1, 2, 3, 4 to 6, more.
    uses: u16,
    /// The last of its request's chain: turns that follow go on from there.
    last: bool,
    /// Blocks of the request that nobody had heard of, by powers of 4: how long the new part was.
    fresh: u16,
    /// Tokens of its output, by powers of 4; 0 where it is not known.
    output: u16,
    /// Whose it is, and what for: tenant and namespace, of which several may share a number; 0 for the first.
    who: u16,
    /// What its writer expects: nothing said, a use, none.
    again: u16,
}

/// Half the bits that a number takes: 0, 1, 2 to 3, 4 to 15, …
fn bits(number: u32, most: u16) -> u16 {
    ((u32::BITS - number.leading_zeros()) as u16 / 2).min(most)
}

const fn by_uses(uses: u8) -> u16 {
    match uses {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4..=6 => 3,
        _ => 4,
    }
}

/// Tenants and namespaces by small numbers: the first is 0, of which nothing is told, so that a daemon with one of each learns
/// as a simulation does.
#[derive(Debug, Default)]
pub(super) struct Owners {
    known: Vec<(AccountId, NamespaceId)>,
}

impl Owners {
    pub(super) fn number(&mut self, owner: &Owner) -> u16 {
        let of = (owner.account, owner.namespace);
        let known = self.known.iter().position(|known| *known == of);
        let number = known.unwrap_or_else(|| {
            if self.known.len() < usize::from(WHO) {
                self.known.push(of);
                return self.known.len() - 1;
            }
            // One of the others, by the upper bits of a product.
            let hash = ((u32::from(of.0.0) << 16) | u32::from(of.1.0)).wrapping_mul(0x9e37_79b1) >> 16;
            1 + hash as usize % (usize::from(WHO) - 1)
        });
        number as u16
    }
}

impl Features {
    /// Of a block that a request has stored, or would have.
    pub(super) fn of_new(uses: u8, who: u16, facts: &Facts, visit: &Visit) -> Self {
        let Hints { output_tokens, again } = visit.hints;
        Self {
            uses: by_uses(uses),
            last: facts.depth == visit.deepest,
            fresh: bits(visit.fresh, FRESH - 1),
            output: output_tokens.map_or(0, |tokens| bits(tokens, OUTPUT - 1)),
            who,
            again: again.map_or(0, |again| if again { 1 } else { 2 }),
        }
    }

    /// The same block, read by a request of which nothing else is known yet.
    pub(super) const fn read_again(self, uses: u8) -> Self {
        Self { uses: by_uses(uses), last: false, fresh: 0, output: 0, who: self.who, again: 0 }
    }

    const fn beyond_a_trace(self) -> u16 {
        self.who * AGAIN + self.again
    }

    /// The class that they make.
    pub(super) const fn class(self) -> u16 {
        let plain = ((self.uses * LAST + self.last as u16) * FRESH + self.fresh) * OUTPUT + self.output;
        self.beyond_a_trace() * PLAIN_CLASSES + plain
    }

    /// The features that make a class.
    pub(super) const fn of_class(class: u16) -> Self {
        let (beyond, plain) = (class / PLAIN_CLASSES, class % PLAIN_CLASSES);
        Self {
            uses: plain / (LAST * FRESH * OUTPUT),
            last: plain / (FRESH * OUTPUT) % LAST == 1,
            fresh: plain / OUTPUT % FRESH,
            output: plain % OUTPUT,
            who: beyond / AGAIN,
            again: beyond % AGAIN,
        }
    }

    /// The tables that tell of it, from that of all blocks on, and how many there are: what is only known of daemons has one
    /// of its own where anything is known.
    pub(super) fn tables(self) -> ([u16; LEVELS], usize) {
        let by_last = self.uses * LAST + u16::from(self.last);
        let by_fresh = by_last * FRESH + self.fresh;
        let plain = self.class() % PLAIN_CLASSES;
        let above = [0, 1 + self.uses, 1 + USES + by_last, 1 + USES + USES * LAST + by_fresh];
        let [all, uses, last, fresh] = above;
        let tables = [all, uses, last, fresh, SHARED_TABLES + plain, SHARED_TABLES + self.class()];
        (tables, if self.beyond_a_trace() == 0 { LEVELS - 1 } else { LEVELS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_says_all_that_it_was_made_of() {
        for class in 0..CLASSES {
            assert_eq!(Features::of_class(class).class(), class);
        }
    }

    #[test]
    fn every_table_has_one_place() {
        let mut of_all = std::collections::BTreeSet::new();
        for class in 0..PLAIN_CLASSES {
            let (tables, levels) = Features::of_class(class).tables();
            assert_eq!(levels, LEVELS - 1, "a trace says nothing of tenants");
            assert!(tables[..levels].is_sorted() && of_all.insert(tables[levels - 1]));
            of_all.extend(&tables[..levels]);
        }
        assert_eq!(of_all.into_iter().collect::<Vec<_>>(), (0..SHARED_TABLES + PLAIN_CLASSES).collect::<Vec<_>>());
    }

    #[test]
    fn hints_and_owners_tell_classes_apart() {
        let mut owners = Owners::default();
        let mut who = |account| {
            owners.number(&Owner { account: AccountId(account), namespace: NamespaceId(3), ..Owner::default() })
        };
        assert_eq!([7, 9, 7].map(&mut who), [0, 1, 0]);
        assert!((100..200).map(&mut who).all(|who| (1..WHO).contains(&who)));
        let facts = Facts { key: 1, depth: 4, owner: Owner::default() };
        let visit = |again| Visit { deepest: 4, fresh: 5, hints: Hints { output_tokens: Some(300), again } };
        let of = |who, again| Features::of_new(1, who, &facts, &visit(again));
        assert_ne!(of(1, None).class(), of(2, None).class());
        assert_ne!(of(1, Some(true)).class(), of(1, Some(false)).class());
        assert_eq!((of(1, None).last, of(1, None).fresh, of(1, None).output), (true, 1, 4));
        assert_eq!(Features::of_new(1, 0, &Facts::default(), &Visit::default()).class(), 0);
    }
}
