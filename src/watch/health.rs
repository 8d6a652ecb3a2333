//! The board: what each service is by now, and why.

use std::sync::Arc;

use tokio::sync::watch;

/// A service of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Engine processes and namespaces.
    Sessions,
    /// Lookups, loads, puts.
    Cache,
    /// Settles and bills.
    Usage,
    /// Looking inside, and taking out.
    Admin,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sessions, Self::Cache, Self::Usage, Self::Admin];

    /// Its full name, as in `proto/kvtier/v1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "kvtier.v1.Sessions",
            Self::Cache => "kvtier.v1.Cache",
            Self::Usage => "kvtier.v1.Usage",
            Self::Admin => "kvtier.v1.Admin",
        }
    }
}

/// What a service, or the daemon, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What is on the drives is being taken in; nothing is served yet.
    Starting,
    /// All is well.
    Serving,
    /// Something is wrong with it, and the reasons say what.
    Degraded,
    /// It takes no more requests.
    Stopping,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Serving, Self::Degraded, Self::Stopping];

    /// Its name, as in `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

/// Something that is wrong with a service while it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whose it is.
    pub of: Service,
    /// What it is, for people.
    pub why: String,
}

/// A service as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// Its full name; empty for the daemon as a whole.
    pub name: &'static str,
    /// What it is.
    pub state: State,
    /// Whether `grpc.health.v1` says SERVING. A degraded service does, but for `kvtier.v1.Usage`: its only trouble is that
    /// no settle is taken, and a gateway should turn to another.
    pub serves: bool,
    /// Why it is so, unless it serves and all is well.
    pub reasons: Vec<String>,
}

/// Everything that is known, at one moment.
#[derive(Clone, Debug)]
pub struct Board {
    phase: Phase,
    troubles: Vec<Trouble>,
}

/// Only ever the next one.
#[derive(Clone, Debug)]
enum Phase {
    Starting(String),
    Serving,
    Stopping(String),
}

impl Board {
    /// A service, or the daemon as a whole.
    #[must_use]
    pub fn of(&self, service: Option<Service>) -> ServiceHealth {
        let name = service.map_or("", Service::name);
        let is_its = |trouble: &&Trouble| service.is_none_or(|service| service == trouble.of);
        let reasons = || self.troubles.iter().filter(is_its).map(|trouble| trouble.why.clone()).collect::<Vec<_>>();
        let (state, reasons) = match &self.phase {
            Phase::Starting(what) => (State::Starting, vec![what.clone()]),
            Phase::Stopping(why) => (State::Stopping, vec![why.clone()]),
            Phase::Serving => match reasons() {
                none if none.is_empty() => (State::Serving, none),
                some => (State::Degraded, some),
            },
        };
        let serves = match state {
            State::Serving => true,
            State::Degraded => service != Some(Service::Usage),
            State::Starting | State::Stopping => false,
        };
        ServiceHealth { name, state, serves, reasons }
    }

    /// The daemon as a whole, then each service.
    #[must_use]
    pub fn all(&self) -> Vec<ServiceHealth> {
        std::iter::once(None).chain(Service::ALL.map(Some)).map(|service| self.of(service)).collect()
    }
}

/// The board, for those who write on it and those who read it. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Health(Arc<watch::Sender<Board>>);

impl Default for Health {
    fn default() -> Self {
        let board = Board { phase: Phase::Starting("opening the data folder".into()), troubles: Vec::new() };
        Self(Arc::new(watch::Sender::new(board)))
    }
}

impl Health {
    /// What it says now.
    #[must_use]
    pub fn board(&self) -> Board {
        self.0.borrow().clone()
    }

    /// What it says, and that it says something else.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Board> {
        self.0.subscribe()
    }

    /// How far a start has come.
    pub fn starting(&self, what: String) {
        self.0.send_if_modified(|board| match &mut board.phase {
            Phase::Starting(before) if *before != what => {
                *before = what;
                true
            }
            _ => false,
        });
    }

    /// Requests are taken from now on.
    pub fn serve(&self) {
        self.0.send_if_modified(|board| {
            let is_next = matches!(board.phase, Phase::Starting(_));
            if is_next {
                board.phase = Phase::Serving;
            }
            is_next
        });
    }

    /// No more are. The first reason stays.
    pub fn stop(&self, why: &str) {
        self.0.send_if_modified(|board| {
            let is_next = !matches!(board.phase, Phase::Stopping(_));
            if is_next {
                board.phase = Phase::Stopping(why.to_owned());
            }
            is_next
        });
    }

    /// All that is wrong now; one log line for each that came, and for each that went.
    pub fn set_troubles(&self, troubles: Vec<Trouble>) {
        let before = self.0.borrow().troubles.clone();
        if before == troubles {
            return;
        }
        for Trouble { of, why } in troubles.iter().filter(|trouble| !before.contains(trouble)) {
            tracing::warn!(service = of.name(), why, "degraded");
        }
        for Trouble { of, why } in before.iter().filter(|trouble| !troubles.contains(trouble)) {
            tracing::info!(service = of.name(), was = why, "no longer degraded by that");
        }
        self.0.send_modify(|board| board.troubles = troubles);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(of: Service, why: &str) -> Trouble {
        Trouble { of, why: why.into() }
    }

    fn of(health: &Health, service: Option<Service>) -> (State, bool, usize) {
        let ServiceHealth { state, serves, reasons, .. } = health.board().of(service);
        (state, serves, reasons.len())
    }

    #[test]
    fn a_daemon_starts_serves_and_stops_and_never_goes_back() {
        let health = Health::default();
        assert_eq!(of(&health, None), (State::Starting, false, 1));
        health.starting("half of it".into());
        assert_eq!(health.board().of(Some(Service::Usage)).reasons, ["half of it"]);
        health.serve();
        health.starting("again".into());
        assert_eq!(of(&health, Some(Service::Admin)), (State::Serving, true, 0));
        health.stop("the planner is gone");
        health.stop("SIGTERM");
        health.serve();
        assert_eq!(of(&health, None), (State::Stopping, false, 1));
        assert_eq!(health.board().of(None).reasons, ["the planner is gone"]);
    }

    #[test]
    fn a_trouble_degrades_its_service_and_the_whole_and_only_the_meter_stops_serving_by_it() {
        let health = Health::default();
        health.serve();
        health.set_troubles(vec![trouble(Service::Cache, "drive 1 is out")]);
        assert_eq!(of(&health, Some(Service::Cache)), (State::Degraded, true, 1));
        assert_eq!(of(&health, Some(Service::Usage)), (State::Serving, true, 0));
        health.set_troubles(vec![trouble(Service::Cache, "drive 1 is out"), trouble(Service::Usage, "no room")]);
        assert_eq!(of(&health, Some(Service::Usage)), (State::Degraded, false, 1));
        assert_eq!(of(&health, None), (State::Degraded, true, 2));
        assert_eq!(of(&health, Some(Service::Sessions)), (State::Serving, true, 0));
        health.set_troubles(Vec::new());
        assert_eq!(of(&health, None), (State::Serving, true, 0));
    }
}
