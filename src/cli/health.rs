//! Health in `kvtier status`.

use serde::Serialize;

use crate::client::{HealthState, ServiceHealth};

/// A service, or the daemon as a whole, as programs see it. Field names are a contract: add, never rename.
#[derive(Serialize)]
pub(super) struct Health {
    /// Empty for the daemon as a whole.
    service: String,
    /// `starting`, `serving`, `degraded` or `stopping`; `unknown` of a daemon that says something newer.
    state: &'static str,
    /// Whether `grpc.health.v1` says SERVING.
    serving: bool,
    reasons: Vec<String>,
}

impl From<ServiceHealth> for Health {
    fn from(health: ServiceHealth) -> Self {
        let state = match health.state() {
            HealthState::Starting => "starting",
            HealthState::Serving => "serving",
            HealthState::Degraded => "degraded",
            HealthState::Stopping => "stopping",
            HealthState::Unspecified => "unknown",
        };
        Self { service: health.service, state, serving: health.serving, reasons: health.reasons }
    }
}

/// What the first line says of the daemon, and a line for each reason of each service.
pub(super) fn text(all: &[Health]) -> (&'static str, String) {
    let whole = all.iter().find(|health| health.service.is_empty()).map_or("unknown", |health| health.state);
    let line = |of: &Health, why: &String| {
        let refused = if of.serving { "" } else { ", NOT_SERVING" };
        format!("  {}, {}{refused}: {why}\n", of.service, of.state)
    };
    let services = all.iter().filter(|health| !health.service.is_empty());
    (whole, services.flat_map(|of| of.reasons.iter().map(move |why| line(of, why))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degraded_daemon_says_of_which_service_and_why_and_a_well_one_says_so() {
        let health = |service: &str, state, serving, reasons: &[&str]| Health {
            service: service.into(),
            state,
            serving,
            reasons: reasons.iter().copied().map(Into::into).collect(),
        };
        let well = [health("", "serving", true, &[]), health("kvtier.v1.Cache", "serving", true, &[])];
        assert_eq!(text(&well), ("serving", String::new()));
        let ill = [
            health("", "degraded", true, &["drive 1 is out", "no room"]),
            health("kvtier.v1.Cache", "degraded", true, &["drive 1 is out"]),
            health("kvtier.v1.Usage", "degraded", false, &["no room"]),
        ];
        let lines = "  kvtier.v1.Cache, degraded: drive 1 is out\n  kvtier.v1.Usage, degraded, NOT_SERVING: no room\n";
        assert_eq!(text(&ill), ("degraded", lines.to_owned()));
        assert_eq!(text(&[]), ("unknown", String::new()));
    }
}
