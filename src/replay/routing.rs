//! Which of several hosts a request goes to, and what a router remembers for it.
//!
//! The cache-aware rule is Mooncake's (arXiv 2407.00079, algorithm 1: the instance with the least time to first token, from its queue, its
//! longest prefix and what is left to compute) with two terms more, see [`cost`]. Dynamo's KV router (docs/router/kv_cache_routing.md) and
//! llm-d's scorers weigh overlap against load with factors that are set by hand; times need none. SGLang's router, which
//! knows only what it has sent where, is `cache-approximate`.

use hashbrown::HashMap;

/// Hosts of a simulation: what a router's memory of a block has bits for.
pub const HOSTS_MAX: usize = 64;
/// How much of the seconds that a host was given more than another counts against it.
const AHEAD: f64 = 0.1;
/// A block that so many different blocks have followed ends a prompt that many share, and no conversation: a turn leaves two behind it
/// (its partial last block, and that block once it was full), an answer that was asked for again one more.
const FOLLOWERS_SHARED: u8 = 4;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// In turn.
    RoundRobin,
    /// To the host whose queue is the shortest in seconds.
    LeastLoaded,
    /// To where the conversation's turn before went; new ones to the least loaded.
    SessionSticky,
    /// To where it costs the least time, its own and that of those after it, knowing what each host has.
    CacheAware,
    /// The same, knowing only what was sent where.
    CacheApproximate,
}

impl Routing {
    /// All, in the order of a comparison.
    pub const ALL: [Self; 5] =
        [Self::RoundRobin, Self::LeastLoaded, Self::SessionSticky, Self::CacheAware, Self::CacheApproximate];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::SessionSticky => "session-sticky",
            Self::CacheAware => "cache-aware",
            Self::CacheApproximate => "cache-approximate",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|routing| routing.name() == name)
    }
}

/// The host with the least of something, and of equals the one that was given the least work.
pub(super) fn least(values: impl IntoIterator<Item = f64>, given_s: &[f64]) -> usize {
    let by = |(_, one): &(usize, (f64, &f64)), (_, other): &(usize, (f64, &f64))| {
        one.0.total_cmp(&other.0).then(one.1.total_cmp(other.1))
    };
    values.into_iter().zip(given_s).enumerate().min_by(by).map_or(0, |(host, _)| host)
}

/// What it costs to send a request to a host, in seconds: until its first token comes; once more what is computed, since those after it
/// wait for that, too; and a part of the work by which the host is ahead of the one that was given the least.
///
/// With the first alone, a conversation moves away, and is computed again, whenever a queue elsewhere is a little shorter: fewer hits make
/// all queues longer. Without the last, the host that is the first to have a long system prompt gets every new conversation for as long as
/// it is idle, and the others' tiers stay empty.
pub(super) fn cost(first_token_s: f64, computing_s: f64, ahead_s: f64) -> f64 {
    first_token_s + computing_s + AHEAD * ahead_s
}

/// Where the turns of conversations went. A trace names no sessions: its conversation is known by the deepest block that came before.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<u64, Turn>);

#[derive(Debug)]
struct Turn {
    host: usize,
    /// Different blocks that came after it.
    followers: u8,
}

impl Sessions {
    /// Where the request's turn before went; none for one that begins a conversation.
    pub(super) fn host_of(&self, ids: &[u64]) -> Option<usize> {
        let deepest = ids.iter().map_while(|id| self.0.get(id)).last()?;
        (deepest.followers < FOLLOWERS_SHARED).then_some(deepest.host)
    }

    /// A request was sent to a host.
    pub(super) fn sent(&mut self, ids: &[u64], host: usize) {
        for (at, id) in ids.iter().enumerate() {
            let is_new = !self.0.contains_key(id);
            self.0.entry(*id).or_insert(Turn { host, followers: 0 }).host = host;
            if is_new && let Some(before) = at.checked_sub(1).and_then(|before| self.0.get_mut(&ids[before])) {
                before.followers = before.followers.saturating_add(1);
            }
        }
    }
}

/// Which blocks were sent to which hosts, ever. Nothing is forgotten: what a host has evicted still counts as there.
#[derive(Debug, Default)]
pub(super) struct Sent(HashMap<u64, u64>);

impl Sent {
    /// Blocks from the first that were all sent to this host.
    pub(super) fn run(&self, ids: &[u64], host: usize) -> usize {
        ids.iter().take_while(|id| self.0.get(*id).is_some_and(|hosts| hosts & (1 << host) != 0)).count()
    }

    /// A request was sent to a host.
    pub(super) fn sent(&mut self, ids: &[u64], host: usize) {
        for id in ids {
            *self.0.entry(*id).or_default() |= 1 << host;
        }
    }

    /// Each block with the hosts that it was sent to.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = usize>)> {
        self.0.iter().map(|(id, hosts)| (*id, (0..HOSTS_MAX).filter(move |host| hosts & (1 << host) != 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_go_to_the_host_with_the_least_work_so_far() {
        assert_eq!(least([2.0, 1.0, 1.0], &[0.0, 9.0, 8.0]), 2);
        assert_eq!(least([1.0, 1.0], &[5.0, 5.0]), 0);
    }

    #[test]
    fn a_turn_follows_the_turn_before_and_a_new_conversation_follows_nobody() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.host_of(&[0, 10, 11]), None);
        // A system prompt of one block, and four conversations on it.
        for (host, first) in [(0, 10), (1, 20), (2, 30), (3, 40)] {
            sessions.sent(&[0, first, first + 1], host);
        }
        assert_eq!(sessions.host_of(&[0, 50]), None, "only the system prompt is known");
        // The partial last block of the turn before is another one by now.
        assert_eq!(sessions.host_of(&[0, 20, 22, 23]), Some(1));
        sessions.sent(&[0, 20, 22, 23], 1);
        assert_eq!(sessions.host_of(&[0, 20, 29]), Some(1), "asked for again");
        sessions.sent(&[0, 20, 22, 24], 3);
        assert_eq!(sessions.host_of(&[0, 20, 22, 24, 25]), Some(3), "it has moved");
    }

    #[test]
    fn what_was_sent_is_remembered_by_host() {
        let mut sent = Sent::default();
        sent.sent(&[1, 2, 3], 0);
        sent.sent(&[1, 4], 63);
        assert_eq!(
            [(0, 3), (63, 1), (5, 0)].map(|(host, run)| (sent.run(&[1, 2, 3, 9], host), run)),
            [(3, 3), (1, 1), (0, 0)]
        );
        let mut held: Vec<(u64, usize)> = sent.blocks().map(|(id, hosts)| (id, hosts.count())).collect();
        held.sort_unstable();
        assert_eq!(held, [(1, 2), (2, 1), (3, 1), (4, 1)]);
    }

    #[test]
    fn every_rule_has_a_name() {
        assert!(Routing::ALL.iter().all(|routing| Routing::from_name(routing.name()) == Some(*routing)));
        assert_eq!(Routing::from_name("magic"), None);
    }
}
