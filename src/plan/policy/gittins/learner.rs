//! How likely a use is at which age, by class, and what that makes a block worth.
//!
//! Ages are counted in requests, in bins of powers of two. Blocks of one class that one request used together make a group, so
//! that a block's own part is a number, and ageing costs a step for a group and bin. A group that enters a bin reports how
//! many of its blocks have come that far unused; a use reports its bin.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::features::{Features, LEVELS, PLAIN_CLASSES, SHARED_TABLES};

/// Bins of ages: from one request to four million, which is the last one's begin.
const BINS: usize = 23;
/// The hazard where nothing is known: one use in fifty requests, in any bin.
const UNKNOWN: f32 = 0.02;
/// How many blocks a table's parent counts as; the first has none.
const WEIGHT_OF_PARENT: f32 = 20.0;
/// An index is worked out anew after so many requests.
const STALE_AFTER: u32 = 16;
/// All that was learnt is halved when it has become so much: about twenty thousand requests.
const FORGETS_AT: f32 = 80_000.0;
/// Uses are counted up to this: more make no class of their own.
const USES_COUNTED: u8 = 7;
/// What must have been seen before anything is made of it: some 100 requests.
const SEASONED: f32 = 400.0;
/// And of these uses: of a daemon into which blocks are only put, nothing is known.
const SEASONED_USES: f32 = 40.0;
/// Not yet in the first bin: the request goes on, or the next has not begun.
const FILLING: u8 = u8::MAX;

/// Blocks of one class that were used at one time, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(pub u32);

#[derive(Clone, Copy, Debug)]
struct Members {
    /// The request by which they were used.
    at: u32,
    class: u16,
    uses: u8,
    bin: u8,
    /// Blocks not used since.
    alive: u32,
    /// What each counts: the more there are, the less each says that another does not.
    weight: f32,
}

/// What was seen of a table's blocks in each bin: the weight of those that came to it unused, and of those used in it.
#[derive(Clone, Copy, Debug)]
struct Table {
    reach: [f32; BINS],
    uses: [f32; BINS],
}

const BLANK: Table = Table { reach: [0.0; BINS], uses: [0.0; BINS] };

/// The index of a class at the begin of each bin, and when it was worked out.
#[derive(Clone, Copy, Debug)]
struct Indices {
    of: [f32; BINS],
    at: Option<u32>,
}

const UNREAD: Indices = Indices { of: [0.0; BINS], at: None };

/// See above.
#[derive(Debug)]
pub(super) struct Learner {
    /// Requests so far.
    clock: u32,
    seasoned: bool,
    groups: Vec<Members>,
    vacant: Vec<u32>,
    /// Groups that will enter each bin, by when they will.
    ageing: [VecDeque<u32>; BINS],
    /// Groups of the request that is going on.
    open: Vec<Group>,
    /// The tables of all classes without what only daemons know; those beyond come as they are needed.
    tables: Vec<Table>,
    beyond: HashMap<u16, u32>,
    indices: Vec<Indices>,
    indices_beyond: HashMap<u16, Indices>,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            clock: 0,
            seasoned: false,
            groups: Vec::new(),
            vacant: Vec::new(),
            ageing: Default::default(),
            open: Vec::new(),
            tables: vec![BLANK; usize::from(SHARED_TABLES + PLAIN_CLASSES)],
            beyond: HashMap::new(),
            indices: vec![UNREAD; usize::from(PLAIN_CLASSES)],
            indices_beyond: HashMap::new(),
        }
    }
}

const fn begin(bin: usize) -> u32 {
    1 << bin
}

impl Learner {
    /// A request begins: all grow older by one.
    pub(super) fn tick(&mut self) {
        self.clock = self.clock.wrapping_add(1);
        self.open.clear();
        let uses = || self.tables[0].uses.iter().sum::<f32>();
        self.seasoned |= self.tables[0].reach[0] > SEASONED && uses() > SEASONED_USES;
        if self.tables[0].reach[0] > FORGETS_AT {
            for table in &mut self.tables {
                table.reach.iter_mut().chain(&mut table.uses).for_each(|seen| *seen /= 2.0);
            }
        }
        for bin in 0..BINS {
            while let Some(number) = self.ageing[bin].front().copied() {
                let Members { at, alive, class, weight, .. } = self.groups[number as usize];
                if self.clock.wrapping_sub(at) < begin(bin) {
                    break;
                }
                self.ageing[bin].pop_front();
                if alive == 0 {
                    self.vacant.push(number);
                    continue;
                }
                let weight = if bin == 0 { 1.0 / (alive as f32).sqrt() } else { weight };
                self.report(class, |table| table.reach[bin] += weight * alive as f32);
                let members = &mut self.groups[number as usize];
                (members.weight, members.bin) = (weight, bin as u8);
                if let Some(next) = self.ageing.get_mut(bin + 1) {
                    next.push_back(number);
                }
            }
        }
    }

    /// Changes the tables that tell of a class.
    fn report(&mut self, class: u16, change: impl Fn(&mut Table)) {
        let (tables, levels) = Features::of_class(class).tables();
        for table in &tables[..levels] {
            let place = self.place(*table);
            change(&mut self.tables[place]);
        }
    }

    /// Where a table is.
    fn place(&mut self, table: u16) -> usize {
        let known = usize::from(SHARED_TABLES + PLAIN_CLASSES);
        if usize::from(table) < known {
            return table.into();
        }
        let next = self.tables.len() as u32;
        let place = *self.beyond.entry(table).or_insert(next);
        if place == next {
            self.tables.push(BLANK);
        }
        place as usize
    }

    /// Whether enough was seen to go by it: ages that nobody has reached yet would look better than those that were.
    pub(super) fn is_seasoned(&self) -> bool {
        self.seasoned
    }

    /// What is known of a group's blocks.
    pub(super) fn features(&self, group: Group) -> Features {
        Features::of_class(self.groups[group.0 as usize].class)
    }

    /// Whether a group's blocks were used by the request that is going on.
    pub(super) fn is_of_now(&self, group: Group) -> bool {
        self.groups[group.0 as usize].at == self.clock
    }

    /// How often each of a group's blocks was used.
    pub(super) fn uses(&self, group: Group) -> u8 {
        self.groups[group.0 as usize].uses
    }

    /// Requests so far.
    pub(super) fn clock(&self) -> u32 {
        self.clock
    }

    /// A block is used now: the group that it is in.
    pub(super) fn enter(&mut self, features: Features, uses: u8) -> Group {
        let class = features.class();
        let open = self.open.iter().copied().find(|group| {
            let members = &self.groups[group.0 as usize];
            members.class == class && members.uses == uses
        });
        if let Some(group) = open {
            self.groups[group.0 as usize].alive += 1;
            return group;
        }
        let members = Members { at: self.clock, class, uses, bin: FILLING, alive: 1, weight: 0.0 };
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.groups.push(members);
            self.groups.len() as u32 - 1
        });
        self.groups[number as usize] = members;
        self.ageing[0].push_back(number);
        self.open.push(Group(number));
        Group(number)
    }

    /// A block is in its group no more.
    pub(super) fn leave(&mut self, group: Group) {
        let members = &mut self.groups[group.0 as usize];
        members.alive -= 1;
        if members.alive == 0 && usize::from(members.bin) == BINS - 1 {
            // Nothing else will find it: others are found when they would enter the next bin.
            self.vacant.push(group.0);
        }
    }

    /// A block of the group is used, and so leaves it: how often it was used with this time.
    pub(super) fn used(&mut self, group: Group) -> u8 {
        let Members { class, uses, bin, weight, .. } = self.groups[group.0 as usize];
        if bin != FILLING {
            self.report(class, |table| table.uses[usize::from(bin)] += weight);
        }
        self.leave(group);
        uses.saturating_add(1).min(USES_COUNTED)
    }

    /// More is known of a block than when it entered its group: the group that it is in now.
    pub(super) fn reclass(&mut self, group: Group, features: Features) -> Group {
        let Members { class, uses, .. } = self.groups[group.0 as usize];
        if class == features.class() {
            return group;
        }
        self.leave(group);
        self.enter(features, uses)
    }

    /// What a group's blocks are worth now.
    pub(super) fn index(&mut self, group: Group) -> f32 {
        let Members { at, class, .. } = self.groups[group.0 as usize];
        self.index_at(class, at)
    }

    /// What a block that is just used is worth.
    pub(super) fn index_of_new(&mut self, features: Features) -> f32 {
        self.index_at(features.class(), self.clock)
    }

    /// What a block is worth that was used last by request `at`: chance of a use by expected requests kept, interpolated
    /// between the begins of two bins. An eviction asks for more than a hundred of these.
    #[inline]
    pub(super) fn index_at(&mut self, class: u16, at: u32) -> f32 {
        let clock = self.clock;
        let known = self.indices.get(usize::from(class));
        let of = match known.filter(|known| known.at.is_some_and(|at| clock.wrapping_sub(at) < STALE_AFTER)) {
            Some(known) => &known.of,
            None => self.read(class),
        };
        let age = clock.wrapping_sub(at).max(1);
        let bin = age.ilog2() as usize;
        let Some(next) = of.get(bin + 1) else { return of[BINS - 1] };
        // A division by a power of two, as a multiplication.
        let into = age as f32 * f32::from_bits((127 - bin as u32) << 23) - 1.0;
        of[bin] + (next - of[bin]) * into
    }

    /// The indices of a class, worked out anew where they are stale, or where it is one that few daemons have.
    #[cold]
    fn read(&mut self, class: u16) -> &[f32; BINS] {
        let is_plain = usize::from(class) < self.indices.len();
        let known = if is_plain { self.indices[usize::from(class)].at } else { self.beyond_indices(class).at };
        if known.is_none_or(|known| self.clock.wrapping_sub(known) >= STALE_AFTER) {
            let new = Indices { of: self.work_out(class), at: Some(self.clock) };
            *(if is_plain { &mut self.indices[usize::from(class)] } else { self.beyond_indices(class) }) = new;
        }
        if is_plain { &self.indices[usize::from(class)].of } else { &self.beyond_indices(class).of }
    }

    fn beyond_indices(&mut self, class: u16) -> &mut Indices {
        self.indices_beyond.entry(class).or_insert(UNREAD)
    }

    fn work_out(&mut self, class: u16) -> [f32; BINS] {
        let (tables, levels) = Features::of_class(class).tables();
        let mut hazard = [UNKNOWN; BINS];
        for (level, table) in tables[..levels].iter().enumerate() {
            let place = self.place(*table);
            let weight = if level == 0 { 1.0 } else { WEIGHT_OF_PARENT };
            let Table { reach, uses } = &self.tables[place];
            for bin in 0..BINS {
                if level == 0 && bin > 0 {
                    // An age that few have reached is no better than the one before it, as far as anybody knows.
                    hazard[bin] = hazard[bin].min(hazard[bin - 1]);
                }
                hazard[bin] = (uses[bin] + weight * hazard[bin]) / (reach[bin].max(uses[bin]) + weight);
            }
        }
        std::array::from_fn(|bin| best_ratio(&hazard, bin))
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let ageing: usize = self.ageing.iter().map(VecDeque::capacity).sum();
        self.groups.capacity() * size_of::<Members>()
            + (self.vacant.capacity() + ageing) * size_of::<u32>()
            + self.tables.capacity() * size_of::<Table>()
            + self.indices.capacity() * size_of::<Indices>()
            + self.beyond.allocation_size()
            + self.indices_beyond.allocation_size()
    }
}

const _: () = assert!(LEVELS > 1, "a table has a parent");

/// The best ratio of the chance of a use to the expected time until then or until one gives up, over all bins in which one
/// might give up, at the begin of a bin.
fn best_ratio(hazard: &[f32; BINS], from: usize) -> f32 {
    let (mut unused, mut chance, mut time, mut best) = (1.0, 0.0, 0.0, 0.0_f32);
    for (bin, hazard) in hazard.iter().enumerate().skip(from) {
        chance += unused * hazard;
        // A use comes in the middle of a bin, on average.
        time += unused * begin(bin) as f32 * (1.0 - hazard / 2.0);
        unused *= 1.0 - hazard;
        best = best.max(chance / time);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::super::{Facts, Visit};
    use super::*;

    #[test]
    fn the_best_ratio_waits_for_what_is_worth_it() {
        let mut hazard = [0.0; BINS];
        // Half are used in the bin of ages 4 to 8, none else.
        hazard[2] = 0.5;
        let ratio = |from| best_ratio(&hazard, from);
        // From age 1: through bins of 1, 2 and 4 requests, the last of which ends half of the time after 2.
        assert!((ratio(0) - 0.5 / (1.0 + 2.0 + 4.0 * 0.75)).abs() < 1e-6, "{}", ratio(0));
        assert!((ratio(2) - 0.5 / 3.0).abs() < 1e-6 && ratio(1) < ratio(2) && ratio(3) == 0.0);
    }

    #[test]
    fn ages_of_use_are_learnt_and_blocks_past_them_are_worth_less() {
        let (mut learner, facts) = (Learner::default(), Facts::default());
        let features = Features::of_new(1, 0, &facts, &Visit::default());
        let mut waiting = VecDeque::new();
        for _ in 0..400 {
            learner.tick();
            waiting.push_back(learner.enter(features, 1));
            if waiting.len() > 20 {
                let group = waiting.pop_front().unwrap();
                assert_eq!(learner.used(group), 2);
            }
        }
        let index = |learner: &mut Learner, age| {
            let at = learner.clock() - age;
            learner.index_at(features.class(), at)
        };
        let [young, due, past] = [1, 16, 40].map(|age| index(&mut learner, age));
        assert!(young < due && past < due / 4.0, "{young} {due} {past}");
        waiting.into_iter().for_each(|group| learner.leave(group));
        (0..100).for_each(|_| learner.tick());
        assert_eq!(learner.vacant.len(), learner.groups.len(), "groups without blocks are used again");
    }

    #[test]
    fn what_was_learnt_is_forgotten_by_halves() {
        let (mut learner, features) =
            (Learner::default(), Features::of_new(1, 0, &Facts::default(), &Visit::default()));
        for _ in 0..200_000 {
            learner.tick();
            let group = learner.enter(features, 1);
            learner.leave(group);
            learner.enter(features, 1);
        }
        assert!(learner.tables[0].reach[0] <= FORGETS_AT * 1.01, "{}", learner.tables[0].reach[0]);
        assert!(learner.tables[0].reach[0] > FORGETS_AT / 4.0);
    }
}
