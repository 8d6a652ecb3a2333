//! The loop of a live replay: starts requests when they may, and counts what comes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::super::live_report::LiveFigures;
use super::super::{RequestView, Tally, Trace};
use super::cost::Watch;
use super::figures::{End, Figures};
use super::pace::{Pace, Schedule, wait};
use super::timeline::{ROW_EVERY, Timeline};
use super::walk::{Visit, Worker};
use super::{LiveError, Run};
use crate::client::Client;

/// A replay under way.
pub(super) struct Running<'a> {
    run: Arc<Run>,
    trace: &'a Trace,
    tally: Tally,
    figures: Figures,
    timeline: Timeline,
    watch: Watch,
    in_flight_peak: usize,
    held_starts: u64,
}

/// What came of it.
pub(super) struct Ended {
    pub(super) tally: Tally,
    pub(super) figures: LiveFigures,
    pub(super) resident_bytes_max: u64,
}

impl<'a> Running<'a> {
    pub(super) fn new(run: Run, trace: &'a Trace, client: Client) -> Result<Self, LiveError> {
        Ok(Self {
            run: Arc::new(run),
            trace,
            tally: Tally::default(),
            figures: Figures::new()?,
            timeline: Timeline::new()?,
            watch: Watch::start(client),
            in_flight_peak: 0,
            held_starts: 0,
        })
    }

    /// As many requests are under way as there are `idle` connections, at most.
    pub(super) async fn run(
        mut self,
        idle: Vec<Client>,
        mut progress: impl FnMut(u64, &Tally),
    ) -> Result<Ended, LiveError> {
        // Those that waited longest go first, so that all are used alike.
        let mut idle = VecDeque::from(idle);
        let (trace, pace) = (self.trace, self.run.options.pace);
        let most = self.run.options.max_requests.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let requests = trace.requests().take(most);
        let span = pace.span(trace, requests.len() as u64).unwrap_or_default();
        let mut requests = (0..).zip(requests).peekable();
        // Dropped on an error, the set ends the others.
        let mut visits: JoinSet<Result<Visit, LiveError>> = JoinSet::new();
        let started = Instant::now();
        let schedule = Schedule::new(pace, started, trace);
        let mut ticks = tokio::time::interval_at((started + ROW_EVERY).into(), ROW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while requests.peek().is_some() || !visits.is_empty() {
            let next = requests.peek().map(|(_, request)| schedule.due(request.timestamp_ms));
            tokio::select! {
                biased;
                () = wait(next.flatten()), if next.is_some() && !idle.is_empty() => {
                    if let (Some((number, request)), Some(client)) = (requests.next(), idle.pop_front()) {
                        self.start(&mut visits, client, (number, request), next.flatten());
                    }
                }
                Some(visit) = visits.join_next(), if !visits.is_empty() => {
                    // Its time came, and nobody was free.
                    let is_held = idle.is_empty() && next.flatten().is_some_and(|due| due < Instant::now());
                    self.held_starts += u64::from(is_held);
                    idle.push_back(self.add(visit??));
                    progress(self.tally.requests(), &self.tally);
                }
                _ = ticks.tick() => {
                    self.timeline.tick(started.elapsed(), &self.tally, visits.len(), self.watch.resident_bytes());
                    if let Pace::Open { .. } = pace {
                        progress(self.tally.requests(), &self.tally);
                    }
                }
            }
        }
        Ok(self.end(started.elapsed(), span))
    }

    fn start(
        &mut self,
        visits: &mut JoinSet<Result<Visit, LiveError>>,
        client: Client,
        (number, request): (u64, RequestView<'_>),
        due: Option<Instant>,
    ) {
        let worker = Worker { run: Arc::clone(&self.run), client };
        visits.spawn(worker.visit(number, request.to_owned(), due));
        self.in_flight_peak = self.in_flight_peak.max(visits.len());
    }

    fn add(&mut self, visit: Visit) -> Client {
        self.tally.add(&visit.request.view(), visit.counts, self.trace.block_tokens());
        self.figures.add(&visit);
        self.timeline.add(&visit);
        visit.client
    }

    fn end(self, took: Duration, span: Duration) -> Ended {
        let Self { run, tally, figures, timeline, watch, in_flight_peak, held_starts, .. } = self;
        let pace = run.options.pace;
        let end = End { pace, requests: tally.requests(), took, span, in_flight_peak, held_starts };
        let mut figures = figures.report(&end);
        figures.details.timeline = timeline.end(took, &tally, watch.resident_bytes());
        Ended { tally, figures, resident_bytes_max: watch.resident_bytes_max() }
    }
}
