//! What a live replay should have hit: its requests on the planner alone.

use std::time::Instant;

use serde::Serialize;

use super::report::TierTokens;
use super::{AdmissionKind, PolicyKind, ReplayReport, SimulateOptions, Simulation, Trace};

/// A simulation's hits beside those of a live replay of the same requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Predicted {
    /// Tokens that need no prefill.
    pub hit_tokens: u64,
    /// Of these, by tier.
    pub by_tier: TierTokens,
    /// Share of the prompts' tokens.
    pub hit_rate: f64,
    /// How far the live replay's hit rate is above it, in points (hundredths).
    pub difference_points: f64,
    /// The same of each tier's share of the prompts' tokens.
    pub by_tier_difference_points: TierPoints,
    /// How long the simulation took.
    pub seconds: f64,
}

/// Points by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TierPoints {
    /// In memory.
    pub ram: f64,
    /// On a drive.
    pub nvme: f64,
}

/// Simulates the requests of a live replay that began on an empty server, and sets both side by side.
///
/// # Errors
/// A sentence that says why it can't be predicted.
pub fn predict(trace: &Trace, live: &ReplayReport, mut progress: impl FnMut(u64)) -> Result<Predicted, String> {
    let options = options(live)?;
    let started = Instant::now();
    let mut simulation = Simulation::new(options);
    let requests = usize::try_from(live.requests).unwrap_or(usize::MAX);
    for (done, request) in (1..).zip(trace.requests().take(requests)) {
        simulation.request(&request, trace.block_tokens());
        progress(done);
    }
    let simulated = simulation.report();
    let (by_tier, hit_tokens) = (simulated.by_tier, simulated.hit_tokens);
    let points = |live_tokens, tokens| points(live_tokens, tokens, live.prompt_tokens);
    Ok(Predicted {
        hit_tokens,
        by_tier,
        hit_rate: simulated.hit_rate,
        difference_points: points(live.hit_tokens, hit_tokens),
        by_tier_difference_points: TierPoints {
            ram: points(live.by_tier.ram, by_tier.ram),
            nvme: points(live.by_tier.nvme, by_tier.nvme),
        },
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The tiers and rules of the server that was replayed against, as it told them.
fn options(live: &ReplayReport) -> Result<SimulateOptions, String> {
    let (Some(ram), Some(nvme)) = (live.ram_blocks, live.nvme_blocks) else {
        return Err("the server does not tell this caller its sizes".to_owned());
    };
    let said = live.live.as_ref().map(|live| (live.details.admission.as_str(), live.server.as_ref()));
    let (admission, server) = said.unwrap_or_default();
    if server.is_some_and(|server| server.wear_budget_bytes_per_day > 0) {
        return Err("the server's drives have a wear budget, which goes by the wall's clock".to_owned());
    }
    let unknown = |what, name: &str| format!("the server's {what} {name:?} is none that can be simulated here");
    let policy = PolicyKind::from_name(&live.policy).ok_or_else(|| unknown("policy", &live.policy))?;
    let admission = AdmissionKind::from_name(admission).ok_or_else(|| unknown("admission", admission))?;
    Ok(SimulateOptions { policy, admission, ..SimulateOptions::lru(ram, nvme) })
}

#[expect(clippy::cast_precision_loss, reason = "tokens of a trace are far below 2^53")]
fn points(live: u64, predicted: u64, prompt: u64) -> f64 {
    if prompt == 0 { 0.0 } else { (live as f64 - predicted as f64) / prompt as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::super::live_report::{LiveFigures, RunDetails, ServerFigures};
    use super::super::{GenerateOptions, Generator, simulate};
    use super::*;

    fn trace() -> Trace {
        let options = GenerateOptions { requests: 120, ..GenerateOptions::default() };
        Trace::collect(GenerateOptions::default().block_tokens, Generator::new(options).unwrap())
    }

    /// A live replay of the first `requests` that hit what its simulation does.
    fn live(trace: &Trace, requests: usize, admission: AdmissionKind) -> ReplayReport {
        let options = SimulateOptions { admission, ..SimulateOptions::lru(100, 400) };
        let part = Trace::collect(trace.block_tokens(), trace.requests().take(requests).map(|one| one.to_owned()));
        let details = RunDetails { admission: admission.name().to_owned(), ..RunDetails::default() };
        let live = LiveFigures { details, server: Some(ServerFigures::default()), ..LiveFigures::default() };
        ReplayReport { live: Some(live), ..simulate(&part, options, |_, _| {}) }
    }

    #[test]
    fn a_replay_of_some_requests_is_predicted_with_its_own_requests_tiers_and_admission() {
        let trace = trace();
        for admission in AdmissionKind::ALL {
            let live = live(&trace, 70, admission);
            let mut done = 0;
            let predicted = predict(&trace, &live, |requests| done = requests).unwrap();
            assert_eq!((predicted.hit_tokens, predicted.by_tier, done), (live.hit_tokens, live.by_tier, 70));
            assert_eq!((predicted.difference_points, predicted.hit_rate), (0.0, live.hit_rate));
        }
    }

    #[test]
    fn a_difference_is_told_in_points_and_has_the_sign_of_the_live_replay() {
        let trace = trace();
        let mut live = live(&trace, 120, AdmissionKind::Always);
        let moved = live.prompt_tokens / 100;
        (live.hit_tokens, live.by_tier.nvme) = (live.hit_tokens - moved, live.by_tier.nvme - moved);
        let predicted = predict(&trace, &live, |_| {}).unwrap();
        assert!((predicted.difference_points + 1.0).abs() < 0.01, "{predicted:?}");
        assert_eq!(predicted.by_tier_difference_points, TierPoints { ram: 0.0, nvme: predicted.difference_points });
    }

    #[test]
    fn what_can_not_be_predicted_says_why() {
        let trace = trace();
        let live = live(&trace, 5, AdmissionKind::Always);
        let why = |change: fn(&mut ReplayReport)| {
            let mut live = live.clone();
            change(&mut live);
            predict(&trace, &live, |_| {}).unwrap_err()
        };
        assert!(why(|live| live.policy = "server".into()).contains("policy \"server\""));
        assert!(why(|live| live.ram_blocks = None).contains("sizes"));
        assert!(why(|live| live.live = None).contains("admission"));
        let budget = |live: &mut ReplayReport| {
            let server = live.live.as_mut().and_then(|live| live.server.as_mut());
            server.unwrap().wear_budget_bytes_per_day = 1;
        };
        assert!(why(budget).contains("wear budget"));
    }
}
