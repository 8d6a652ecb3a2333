//! The walk of a lookup: memory only, no disk, no bill; a lease where one is asked for.

use std::time::Duration;

use super::chain::Chain;
use super::error::Error;
use super::record::Recorder;
use super::{Cache, unexpected};
use crate::plan::{Answer, Event, Leased};
use crate::session::Session;
use crate::vocab::limits::KEYS_AT_ONCE;
use crate::vocab::{BlockKey, LeaseId, RequestId, TierCounts};

/// What a lookup asks besides the chain.
#[derive(Clone, Debug, Default)]
pub struct LookupOptions {
    /// Each block by itself instead of the unbroken run.
    pub membership: bool,
    /// Blocks from the chain's start that the engine has.
    pub already_computed: u32,
    /// Tokens of the whole prompt; `None`: whole blocks.
    pub prompt_tokens: Option<u64>,
}

/// A lease that a lookup asks for.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Whose.
    pub session: Session,
    /// For which request.
    pub request: RequestId,
    /// How long.
    pub ttl: Duration,
}

/// What a lookup found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Blocks by tier.
    pub counts: TierCounts,
    /// Tokens that can be skipped.
    pub hit_tokens: u64,
    /// Tokens that can't.
    pub miss_tokens: u64,
    /// Which blocks are readable, lowest bit first; empty unless asked.
    pub membership: Vec<u8>,
    /// The lease and its life.
    pub lease: Option<(Leased, Duration)>,
    /// Key of the last block named.
    pub last_key: Option<BlockKey>,
}

impl Found {
    /// Nothing but what the engine has.
    pub(super) fn nothing(chain: &Chain, options: &LookupOptions) -> Self {
        let engine = as_u32((options.already_computed as usize).min(chain.len()));
        let counts = TierCounts { engine, missed: as_u32(chain.len()) - engine, ..TierCounts::default() };
        let hit_tokens = chain.tokens_of(engine);
        Self { counts, hit_tokens, ..Self::default() }
    }

    /// So many blocks from the end of the run are none after all.
    fn lose(&mut self, blocks: u32) {
        let counts = &mut self.counts;
        let nvme = blocks.min(counts.nvme);
        let ram = (blocks - nvme).min(counts.ram);
        (counts.nvme, counts.ram, counts.missed) = (counts.nvme - nvme, counts.ram - ram, counts.missed + nvme + ram);
    }
}

impl Cache {
    /// Looks a chain up.
    ///
    /// # Errors
    /// Only where a lease is asked for: too many, or the daemon is stopping.
    pub async fn lookup(
        &self,
        chain: &Chain,
        options: &LookupOptions,
        lease: Option<LeaseRequest>,
    ) -> Result<Found, Error> {
        self.lookup_worth(chain, options, lease, |counts| counts.hit()).await
    }

    /// As [`lookup`](Self::lookup), but only so many blocks of the hit count as `worth` says.
    pub(super) async fn lookup_worth(
        &self,
        chain: &Chain,
        options: &LookupOptions,
        lease: Option<LeaseRequest>,
        worth: impl Fn(&TierCounts) -> u32,
    ) -> Result<Found, Error> {
        let asked = chain.len();
        let recorder = self.recorder.as_ref().filter(|_| !options.membership);
        let asker = recorder.and_then(|_| Recorder::asker(chain, lease.as_ref()));
        let engine = (options.already_computed as usize).min(asked);
        let mut found = if options.membership { self.members(chain).await } else { self.prefix(chain, engine) };
        let left_out = found.counts.hit() - worth(&found.counts).min(found.counts.hit());
        found.lose(left_out);
        if let Some(lease) = lease
            && found.counts.ram + found.counts.nvme > 0
        {
            self.take_lease(chain, lease, engine, &mut found).await?;
        }
        let prompt = options.prompt_tokens.or(chain.tokens).unwrap_or_else(|| chain.tokens_of(as_u32(asked)));
        found.hit_tokens = chain.tokens_of(found.counts.hit()).min(prompt);
        found.miss_tokens = prompt - found.hit_tokens;
        found.last_key = asked.checked_sub(1).map(|last| chain.key(last));
        self.meter.looked_up(&found);
        if let Some((recorder, asker)) = recorder.zip(asker) {
            recorder.looked_up(asker, self.clock.now(), chain, prompt, &found);
        }
        Ok(found)
    }

    /// The unbroken run; what the engine has itself is not asked for again.
    fn prefix(&self, chain: &Chain, engine: usize) -> Found {
        let mut counts = self.residency.prefix(chain.len(), |at| chain.key(at));
        let held = as_u32(engine);
        let ram = counts.ram.saturating_sub(held);
        let run = (counts.ram + counts.nvme).max(held);
        counts = TierCounts { engine: held, ram, nvme: run - held - ram, missed: as_u32(chain.len()) - run };
        Found { counts, ..Found::default() }
    }

    async fn members(&self, chain: &Chain) -> Found {
        let mut found = Found { membership: vec![0; chain.len().div_ceil(8)], ..Found::default() };
        for at in 0..chain.len() {
            if at % KEYS_AT_ONCE == KEYS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match self.residency.get(&chain.key(at)) {
                None => {
                    found.counts.missed += 1;
                    continue;
                }
                Some(residence) if residence.ram.is_some() => found.counts.ram += 1,
                Some(_) => found.counts.nvme += 1,
            }
            found.membership[at / 8] |= 1 << (at % 8);
        }
        found
    }

    /// The planner has the last word on what is readable: the hit is what it leases.
    async fn take_lease(
        &self,
        chain: &Chain,
        lease: LeaseRequest,
        engine: usize,
        found: &mut Found,
    ) -> Result<(), Error> {
        let run = found.counts.hit();
        let keys = chain.keys_in_turns(run as usize).await;
        let (instance, request, ttl) = (lease.session.number, lease.request.digest(), lease.ttl);
        let answer = self.driver.ask(Event::Lease { instance, request, keys, ttl }).await?;
        let Answer::Leased(leased) = answer else { return Err(unexpected(&answer)) };
        let leased = leased?;
        let blocks = leased.map_or(0, |leased| leased.blocks).max(as_u32(engine));
        found.lose(run - blocks.min(run));
        found.lease = leased.map(|leased| (leased, ttl));
        Ok(())
    }

    /// Ends a lease; whether it was there.
    ///
    /// # Errors
    /// For another instance's lease.
    pub async fn release(&self, session: &Session, lease: LeaseId) -> Result<bool, Error> {
        match self.driver.ask(Event::Release { instance: session.number, lease }).await? {
            Answer::Released(released) => Ok(released?),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Gives a lease more time.
    ///
    /// # Errors
    /// For one that has ended, or another instance's.
    pub async fn renew(&self, session: &Session, lease: LeaseId, ttl: Duration) -> Result<Leased, Error> {
        match self.driver.ask(Event::Renew { instance: session.number, lease, ttl }).await? {
            Answer::Renewed(renewed) => Ok(renewed?),
            answer => Err(unexpected(&answer)),
        }
    }
}

fn as_u32(blocks: usize) -> u32 {
    u32::try_from(blocks).unwrap_or(u32::MAX)
}
