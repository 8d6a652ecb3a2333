//! What is too long for one event goes on in steps: no event does more than so much, whatever hangs on a block; in between the
//! planner's invariants hold, and nobody is promised what is going.

use std::sync::Arc;
use std::time::Duration;

use kvtier::plan::{Answer, Command, Event, Filter, InstanceNo, Offer, Options, PutId, Removed, Wanted};
use kvtier::vocab::limits::STEPS_AT_ONCE;
use kvtier::vocab::{
    AccountId, BlockKey, Hints, Lifetime, NamespaceId, Owner, OwnerPath, Quota, Retention, TierQuota, TierShape,
};

use super::cache::{Cache, SLOT, all_is_done, chain, key, writes_wait};

/// A tree of more blocks than one event may go through, by any way.
const BRANCHES: u64 = 40;
const LENGTH: u64 = 60;
const BLOCKS: u64 = 1 + BRANCHES * LENGTH;
/// What one event may do: blocks that go, each with a few commands, and blocks that can't be reached any more.
const COMMANDS_MAX: usize = STEPS_AT_ONCE / 8 + 40;

/// A cache that counts.
struct Tree {
    cache: Cache,
    /// The most commands that one event has led to, and events since.
    most: usize,
    events: usize,
}

fn block(branch: u64, at: u64) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&[branch.to_le_bytes(), at.to_le_bytes()].concat()).as_bytes())
}

/// The root, which all branches share, and a branch.
fn branch(branch: u64) -> Arc<[BlockKey]> {
    std::iter::once(block(u64::MAX, 0)).chain((0..LENGTH).map(|at| block(branch, at))).collect()
}

impl Tree {
    fn empty() -> Self {
        let tier = |slots: u64| TierShape::with_extent(slots * u64::from(SLOT), 256 * u64::from(SLOT));
        Self { cache: Cache::of(Options::new(tier(4_096), tier(4_096))), most: 0, events: 0 }
    }

    fn grown() -> Self {
        let mut tree = Self::empty();
        for at in 0..BRANCHES {
            let (put, _) = tree.offer(branch(at));
            tree.cache.tell(Event::PutEnded { put });
        }
        assert_eq!(tree.cache.planner.holdings().nvme_blocks, BLOCKS);
        (tree.most, tree.events) = (0, 0);
        tree
    }

    /// Offers a chain and brings what is wanted of it, `Need` by `Need`.
    fn offer(&mut self, keys: Arc<[BlockKey]>) -> (PutId, usize) {
        let (put, wanted) = self.only_offer(keys);
        for block in &wanted {
            self.tell(Event::Need { block: *block });
        }
        (put, wanted.len())
    }

    fn only_offer(&mut self, keys: Arc<[BlockKey]>) -> (PutId, Vec<kvtier::plan::BlockRef>) {
        self.cache.puts += 1;
        let (put, owners, retention) = (PutId(self.cache.puts), self.cache.owners.clone(), self.cache.retention);
        let hints = Hints::default();
        let offer = Offer { put, parent: None, depth: 0, keys, payload_max: SLOT, owners, retention, hints };
        let (mut wanted, mut answer) = (Vec::new(), self.tell(Event::Offer(offer)));
        while let Answer::Offered { wanted: some, more, .. } = answer {
            wanted.extend(some.into_iter().flatten());
            if !more {
                break;
            }
            answer = self.tell(Event::OfferMore { put });
        }
        (put, wanted)
    }

    /// One event, whose ends come with it, as seldom checked as speed asks.
    fn tell(&mut self, event: Event) -> Answer {
        let mut commands = Vec::new();
        let answer = self.cache.planner.on(self.cache.now, event, &mut commands);
        self.most = self.most.max(commands.len());
        self.events += 1;
        if self.events.is_multiple_of(16) {
            self.cache.planner.check().unwrap();
        }
        for command in commands {
            match (self.cache.end)(&command) {
                Some(end) => drop(self.tell(end)),
                None => self.cache.open.push(command),
            }
        }
        answer
    }

    /// One event and all that goes on after it. In how many steps; what a job has removed.
    fn settle(&mut self, event: Event) -> (usize, Option<Removed>) {
        let (mut answer, mut steps) = (self.tell(event), 0);
        while self.cache.planner.is_working() {
            steps += 1;
            if let Answer::Proceeded(Some((job, removed))) = self.tell(Event::Proceed)
                && answer == Answer::Removing(job)
            {
                answer = Answer::Removed(removed);
            }
        }
        self.cache.planner.check().unwrap();
        (steps, if let Answer::Removed(removed) = answer { Some(removed) } else { None })
    }

    /// All of it took steps, none of which did too much, and nothing is left of it.
    fn is_gone_in(&self, steps: usize) {
        assert!(steps >= BLOCKS as usize / COMMANDS_MAX, "{steps} steps");
        assert!(self.most <= COMMANDS_MAX, "{} commands of one event", self.most);
        let held = self.cache.planner.holdings();
        assert_eq!((held.ram_blocks, held.nvme_blocks, held.orphans, held.background), (0, 0, 0, 0));
        assert!(self.cache.planner.namespaces().is_empty());
    }

    fn hit(&self, at: u64) -> u32 {
        self.cache.planner.prefix(&branch(at)).hit()
    }
}

#[test]
fn a_purge_an_eviction_by_hand_and_the_end_of_an_instance_go_on_in_steps() {
    let mut tree = Tree::grown();
    let (steps, removed) = tree.settle(Event::Purge(Filter::default()));
    let all = Removed { blocks: BLOCKS, bytes: BLOCKS * u64::from(SLOT), kept: 0 };
    assert_eq!(removed, Some(all));
    tree.is_gone_in(steps);

    let mut tree = Tree::grown();
    let (steps, removed) = tree.settle(Event::Evict { key: block(u64::MAX, 0) });
    assert_eq!(removed, Some(all));
    tree.is_gone_in(steps);

    let mut tree = Tree::grown();
    let instance = InstanceNo(1);
    for request in 0..1_000 {
        let (keys, ttl) = (branch(request % BRANCHES), Duration::from_secs(60));
        tree.tell(Event::Lease { instance, request: request.into(), keys, ttl });
    }
    tree.most = 0;
    let (steps, _) = tree.settle(Event::InstanceGone { instance, namespaces: vec![NamespaceId(0)] });
    tree.is_gone_in(steps);
    assert_eq!(tree.cache.planner.holdings().leases, 0);
}

#[test]
fn a_subtree_whose_time_to_live_is_over_goes_in_steps_and_what_is_leased_meanwhile_stays() {
    let lifetime = Lifetime { seconds: 60, refreshed: false };
    let grown = || {
        let mut tree = Tree::empty();
        tree.cache.retention = Retention::Ttl(lifetime);
        for at in 0..BRANCHES {
            let (put, _) = tree.offer(branch(at));
            tree.cache.tell(Event::PutEnded { put });
        }
        tree.cache.now = tree.cache.now + Duration::from_secs(61);
        tree.most = 0;
        tree
    };
    let mut tree = grown();
    let (steps, _) = tree.settle(Event::Tick);
    tree.is_gone_in(steps);
    assert_eq!(tree.cache.planner.counters().expired, BLOCKS);

    let mut tree = grown();
    tree.tell(Event::Tick);
    let leased = (0..BRANCHES).rev().find(|at| tree.hit(*at) > LENGTH as u32).unwrap();
    let (keys, ttl) = (branch(leased), Duration::from_secs(60));
    let Answer::Leased(Ok(Some(lease))) = tree.tell(Event::Lease { instance: InstanceNo(1), request: 1, keys, ttl })
    else {
        panic!()
    };
    tree.settle(Event::Tick);
    assert_eq!((tree.hit(leased), tree.cache.planner.holdings().nvme_blocks), (LENGTH as u32 + 1, LENGTH + 1));
    tree.tell(Event::Release { instance: InstanceNo(1), lease: lease.lease });
    tree.cache.now = tree.cache.now + Duration::from_secs(2);
    tree.settle(Event::Tick);
    assert_eq!(tree.cache.planner.holdings().nvme_blocks, 0);
}

#[test]
fn a_put_that_dies_with_a_long_prompt_gives_it_up_in_steps() {
    let mut tree = Tree::empty();
    let keys: Arc<[BlockKey]> = (0..BLOCKS).map(|at| block(0, at)).collect();
    tree.cache.end = |_| None;
    let (put, wanted) = tree.only_offer(keys);
    for block in &wanted[..16] {
        tree.tell(Event::Need { block: *block });
    }
    tree.cache.open.clear();
    tree.cache.end = all_is_done;
    tree.most = 0;
    assert_eq!(tree.tell(Event::PutEnded { put }), Answer::Stored { through: 0 });
    assert!(tree.cache.planner.is_working());
    // What comes for it now comes too late.
    assert!(wanted.iter().all(|block| !tree.cache.planner.awaits(*block)));
    assert_eq!(tree.tell(Event::Need { block: wanted[20] }), Answer::NoRoom);
    let (steps, _) = tree.settle(Event::Tick);
    tree.is_gone_in(steps);
    assert_eq!(tree.cache.planner.holdings().reservations, 0);
}

#[test]
fn the_leases_of_many_end_in_steps_and_so_goes_what_is_above_a_lowered_limit() {
    let mut tree = Tree::grown();
    let ttl = Duration::from_secs(5);
    for request in 0..1_000 {
        let (keys, instance) = (branch(request % BRANCHES), InstanceNo(request as u32));
        tree.tell(Event::Lease { instance, request: request.into(), keys, ttl });
    }
    tree.cache.now = tree.cache.now + Duration::from_secs(6);
    tree.tell(Event::Tick);
    let left = tree.cache.planner.holdings().leases;
    assert!(left > 0 && left < 1_000, "{left} leases after one event");
    tree.settle(Event::Tick);
    assert_eq!(tree.cache.planner.holdings().leases, 0);
    tree.most = 0;
    let limit = TierQuota { limit: Some(kvtier::vocab::ByteCount(u64::from(SLOT))), ..TierQuota::default() };
    let quota = Quota { ram: TierQuota::default(), nvme: limit };
    for _ in 0..4 {
        tree.settle(Event::SetQuota { account: AccountId(0), quota });
        tree.settle(Event::Tick);
    }
    assert_eq!(tree.cache.planner.holdings().nvme_blocks, 1);
    assert!(tree.most <= COMMANDS_MAX, "{} commands of one event", tree.most);
}

#[test]
fn nobody_is_promised_what_a_purge_is_still_to_come_to() {
    let mut tree = Tree::grown();
    let last = branch(BRANCHES - 1);
    let Answer::Removing(job) = tree.tell(Event::Purge(Filter::default())) else {
        panic!("it takes more than an event")
    };
    assert_eq!(tree.cache.planner.inspect(&last[LENGTH as usize]).map(|known| known.readable), Some(true));
    let (keys, ttl) = (Arc::clone(&last), Duration::from_secs(60));
    let lease = tree.tell(Event::Lease { instance: InstanceNo(1), request: 1, keys, ttl });
    assert_eq!(lease, Answer::Leased(Ok(None)));
    assert_eq!(tree.tell(Event::Want { key: last[9] }), Answer::Wanted(Wanted::Gone));
    assert_eq!(tree.tell(Event::Peek { key: last[9] }), Answer::Peek(None));
    assert!(matches!(tree.tell(Event::Keep { deepest: last[9], lifetime: None }), Answer::Kept(Err(_))));
    // What others hold is theirs.
    tree.cache.be(3);
    let (put, wanted) = tree.offer(chain(200..202));
    assert_eq!((wanted, tree.tell(Event::PutEnded { put })), (2, Answer::Stored { through: 2 }));
    let mut ended = None;
    while tree.cache.planner.is_working() {
        let Answer::Proceeded(of) = tree.tell(Event::Proceed) else { panic!() };
        ended = ended.or(of);
    }
    let (of, removed) = ended.unwrap();
    assert_eq!(of, job);
    assert!((BLOCKS..=BLOCKS + 2).contains(&removed.blocks), "all that matched, and what came meanwhile or not");
}

#[test]
fn a_lease_is_granted_over_no_hole_while_it_is_worked_out_what_hangs_on_it() {
    let mut tree = Tree::empty();
    let tier = |slots: u64| TierShape::with_extent(slots * u64::from(SLOT), 256 * u64::from(SLOT));
    tree.cache = Cache::of(Options { steps_at_once: 64, ..Options::new(tier(256), tier(4_096)) });
    tree.cache.owners = OwnerPath::all(Owner { user: 7, ..Owner::default() }).then(1, Owner::default());
    for at in 0..BRANCHES {
        let (put, _) = tree.offer(branch(at));
        tree.cache.tell(Event::PutEnded { put });
    }
    (tree.most, tree.events) = (0, 0);
    // The root of all goes, and nothing else.
    let root = block(u64::MAX, 0);
    tree.tell(Event::Purge(Filter { user: Some(7), ..Filter::default() }));
    tree.cache.planner.check().unwrap();
    let open: Vec<u64> = (0..BRANCHES).filter(|at| tree.hit(*at) > 0).collect();
    assert!(!open.is_empty(), "not all of it is worked out in one event");
    for at in open {
        let (keys, ttl) = (branch(at), Duration::from_secs(60));
        let lease = tree.tell(Event::Lease { instance: InstanceNo(1), request: at.into(), keys, ttl });
        assert_eq!(lease, Answer::Leased(Ok(None)), "its first block is gone");
    }
    let (steps, _) = tree.settle(Event::Tick);
    assert!(steps > 10 && tree.most <= 40, "{steps} steps, {} commands", tree.most);
    assert_eq!(tree.cache.planner.holdings().orphans, BRANCHES * LENGTH);
    // Put again, it heals them all, in as many steps.
    tree.most = 0;
    let (put, wanted) = tree.offer(Arc::from([root]));
    assert_eq!(wanted, 1);
    let (steps, _) = tree.settle(Event::PutEnded { put });
    assert!(steps > 10 && tree.most <= 40, "{steps} steps, {} commands", tree.most);
    assert_eq!(tree.cache.planner.holdings().orphans, 0);
    assert!((0..BRANCHES).all(|at| tree.hit(at) == LENGTH as u32 + 1));
}

#[test]
fn a_purge_is_over_once_no_row_of_it_can_come_any_more() {
    let mut cache = Cache::new(4, 4);
    cache.end = writes_wait;
    cache.put(0..2);
    let Answer::Removing(job) = cache.tell(Event::Purge(Filter::default())) else {
        panic!("two rows are still to come")
    };
    assert_eq!((cache.hit(0..2), cache.planner.is_working()), (0, false), "unreadable, and nothing to do but to wait");
    let is_write = |command: &Command| matches!(command, Command::Write(_));
    let writes: Vec<Command> = cache.open.drain(..).filter(is_write).collect();
    assert_eq!(writes.len(), 2);
    cache.end = all_is_done;
    for (left, write) in writes.iter().enumerate().rev() {
        cache.tell_once(all_is_done(write).unwrap());
        assert!(cache.planner.is_working());
        let ended = cache.tell_once(Event::Proceed);
        let all = Removed { blocks: 2, bytes: 2 * u64::from(SLOT), kept: 0 };
        assert_eq!(ended, Answer::Proceeded((left == 0).then_some((job, all))));
    }
    assert!(cache.planner.inspect(&key(0)).is_none() && cache.planner.is_quiet());
}

#[test]
fn the_index_hears_of_a_promise_that_a_use_has_moved() {
    let mut cache = Cache::new(4, 8);
    cache.be(1);
    let share = TierQuota { share: kvtier::vocab::ByteCount(4 * u64::from(SLOT)), limit: None };
    let quota = Quota { ram: TierQuota::default(), nvme: share };
    cache.tell(Event::SetQuota { account: AccountId(1), quota });
    cache.owners = OwnerPath::all(Owner { account: AccountId(1), ..Owner::default() });
    cache.put(0..2);
    let lifetime = Some(Lifetime { seconds: 80, refreshed: true });
    assert!(matches!(cache.tell(Event::Keep { deepest: key(1), lifetime }), Answer::Kept(Ok(_))));
    for between_events in [false, true] {
        cache.now = cache.now + Duration::from_secs(40);
        cache.tell(Event::Used { deepest: key(1), leased: false });
        if between_events {
            assert!(!cache.planner.catch_up(usize::MAX));
        }
        let mut commands = Vec::new();
        cache.planner.on(cache.now, Event::Tick, &mut commands);
        let until_s = cache.now.seconds() + 80;
        let told =
            |command: &Command| matches!(command, Command::Promise { promise, .. } if promise.until_s == until_s);
        assert!(commands.iter().any(told), "{commands:?}");
    }
}
