//! What a host takes to bring a prompt's hit to its engine and to compute the rest: times from sizes and speeds.
//!
//! In it: a drive that serves reads one after another, a copy to the engine that overlaps with them, a fixed latency a load, and prefill
//! at one speed. Not in it: that a token deep in a prompt takes longer to compute than one at its head, batches, decoding, loads that
//! share the way to the engine, writes that slow reads (the daemon's writes give way), and the step that makes the first token.

use super::report::TierTokens;

/// A host's sizes and speeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes of a token's KV cache.
    pub bytes_per_token: f64,
    /// Tokens a second that it computes; absent where no times are asked for, and everything that is hit is loaded.
    pub prefill_rate: Option<f64>,
    /// Bytes a second from RAM to the engine.
    pub ram: f64,
    /// Bytes a second that its drives read.
    pub nvme_read: f64,
    /// Bytes a second that they write, where known.
    pub nvme_write: Option<f64>,
    /// Bytes a second of the network between the cache and the engine, where they are on different hosts.
    pub network: Option<f64>,
    /// Seconds that a load takes beside its bytes.
    pub load_latency_s: f64,
}

/// Until when what a host has works on earlier requests, in seconds of the simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Busy {
    /// Its drives read.
    pub drive_s: f64,
    /// Its engine computes.
    pub engine_s: f64,
}

/// How a request is served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// What of the hit is loaded: a hit that is slower than computing it is none.
    pub loaded: TierTokens,
    /// When the first token can be made: the prompt is loaded and computed.
    pub first_token_s: f64,
    /// Seconds of computing.
    pub computing_s: f64,
    /// Until when it keeps the host's parts busy.
    pub busy: Busy,
}

impl Machine {
    /// Seconds to compute so many tokens.
    #[must_use]
    pub fn computing_s(&self, tokens: u64) -> f64 {
        self.prefill_rate.map_or(0.0, |rate| tokens as f64 / rate)
    }

    /// Bytes of so many tokens.
    #[must_use]
    pub fn bytes(&self, tokens: u64) -> f64 {
        tokens as f64 * self.bytes_per_token
    }

    /// Serves a prompt that arrives at `at_s`: loads all of the hit, what of it is in RAM, or nothing, whatever makes its first token
    /// possible soonest. The load begins when the request comes, also where the engine is busy: that is what `Prefetch` is for.
    #[must_use]
    pub fn serve(&self, at_s: f64, prompt_tokens: u64, hit: TierTokens, busy: Busy) -> Served {
        let all = self.load(at_s, prompt_tokens, hit, busy);
        if self.prefill_rate.is_none() {
            return all;
        }
        let in_ram = TierTokens { nvme: 0, ..hit };
        let others = [in_ram, TierTokens::default()].map(|part| self.load(at_s, prompt_tokens, part, busy));
        // Of two that are equally soon, the one that computes less.
        others.into_iter().fold(all, |best, other| if other.first_token_s < best.first_token_s { other } else { best })
    }

    fn load(&self, at_s: f64, prompt_tokens: u64, part: TierTokens, busy: Busy) -> Served {
        let drive_s =
            if part.nvme == 0 { busy.drive_s } else { busy.drive_s.max(at_s) + self.bytes(part.nvme) / self.nvme_read };
        let loaded_s = if part.all() == 0 {
            at_s
        } else {
            let way = self.network.map_or(self.ram, |network| network.min(self.ram));
            let copied_s = at_s + self.bytes(part.all()) / way;
            let read_s = if part.nvme == 0 { at_s } else { drive_s };
            copied_s.max(read_s) + self.load_latency_s
        };
        let computing_s = self.computing_s(prompt_tokens - part.all());
        let first_token_s = loaded_s.max(busy.engine_s) + computing_s;
        Served { loaded: part, first_token_s, computing_s, busy: Busy { drive_s, engine_s: first_token_s } }
    }
}

/// A token is 1 kB and takes a millisecond to compute, 0.1 ms from RAM, 0.4 ms from the drive.
#[cfg(test)]
pub(super) const EXAMPLE: Machine = Machine {
    bytes_per_token: 1_000.0,
    prefill_rate: Some(1_000.0),
    ram: 10e6,
    nvme_read: 2.5e6,
    nvme_write: None,
    network: None,
    load_latency_s: 0.0,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn served(machine: Machine, hit: TierTokens, busy: Busy) -> (TierTokens, i64) {
        let served = machine.serve(10.0, 1_000, hit, busy);
        (served.loaded, ((served.first_token_s - 10.0) * 1e3).round() as i64)
    }

    #[test]
    fn a_first_token_waits_for_the_load_and_for_the_rest_to_be_computed() {
        let hit = |ram, nvme| TierTokens { ram, nvme };
        let idle = Busy::default();
        // 1,000 tokens without a hit; 500 from RAM, 50 ms; 500 from the drive, 200 ms; both, the longer of copying all and reading.
        for (hit, ms) in [
            (hit(0, 0), 1_000),
            (hit(500, 0), 50 + 500),
            (hit(0, 500), 200 + 500),
            (hit(500, 250), 100 + 250),
            (hit(900, 100), 100),
        ] {
            assert_eq!(served(EXAMPLE, hit, idle), (hit, ms), "{hit:?}");
        }
        let later = Machine { load_latency_s: 0.010, ..EXAMPLE };
        assert_eq!(served(later, hit(500, 0), idle).1, 560);
        assert_eq!(served(later, hit(0, 0), idle).1, 1_000, "nothing is loaded");
        let elsewhere = Machine { network: Some(2e6), ..EXAMPLE };
        assert_eq!(served(elsewhere, hit(500, 0), idle).1, 250 + 500);
    }

    #[test]
    fn a_hit_slower_than_computing_is_no_hit() {
        let slow = Machine { nvme_read: 0.5e6, ..EXAMPLE };
        let hit = TierTokens { ram: 400, nvme: 100 };
        assert_eq!(served(slow, hit, Busy::default()), (TierTokens { ram: 400, nvme: 0 }, 40 + 600));
        let slower = Machine { ram: 0.9e6, ..slow };
        assert_eq!(served(slower, hit, Busy::default()), (TierTokens::default(), 1_000));
        let unasked = Machine { prefill_rate: None, ..slower };
        assert_eq!(unasked.serve(0.0, 1_000, hit, Busy::default()).loaded, hit);
        // What a busy drive has in front of it counts, and what the engine has to do first is time to load.
        let queue = Busy { drive_s: 10.3, engine_s: 0.0 };
        assert_eq!(served(EXAMPLE, TierTokens { ram: 0, nvme: 100 }, queue), (TierTokens::default(), 1_000));
        let both = Busy { drive_s: 10.3, engine_s: 12.0 };
        assert_eq!(served(EXAMPLE, TierTokens { ram: 0, nvme: 100 }, both), (TierTokens { ram: 0, nvme: 100 }, 2_900));
    }

    #[test]
    fn reads_wait_for_reads_and_what_is_not_read_makes_nobody_wait() {
        let first = EXAMPLE.serve(10.0, 1_000, TierTokens { ram: 0, nvme: 500 }, Busy::default());
        assert!((first.busy.drive_s - 10.2).abs() < 1e-9, "{first:?}");
        let second = EXAMPLE.serve(10.1, 1_000, TierTokens { ram: 0, nvme: 500 }, Busy { engine_s: 0.0, ..first.busy });
        assert!((second.busy.drive_s - 10.4).abs() < 1e-9 && (second.first_token_s - 10.9).abs() < 1e-9, "{second:?}");
        let none = EXAMPLE.serve(10.1, 1_000, TierTokens { ram: 500, nvme: 0 }, first.busy);
        assert_eq!(none.busy.drive_s, first.busy.drive_s);
    }
}
