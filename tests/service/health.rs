//! What a probe, a load balancer and a person are told: starting before it serves, on the connections that serve later; what is
//! wrong and with which service; and that it stops. A wrong address is refused before anything is touched.

use std::time::Duration;

use kvtier::daemon::{Config, Daemon, StartError};
use kvtier::proto::{self, HealthState};
use kvtier::watch::{Health, Watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::metrics::{ask, parse};
use crate::support::{Gate, Server, chain, config, payload, refused, spec};

const MIB: u64 = 1 << 20;
/// Longer than anything here takes, and shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: [&str; 4] = ["kvtier.v1.Sessions", "kvtier.v1.Cache", "kvtier.v1.Usage", "kvtier.v1.Admin"];

async fn check(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
}

async fn watch(channel: &Channel, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner()
}

async fn next(said: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let said = tokio::time::timeout(PATIENCE, said.message()).await.expect("it says something, or ends");
    said.unwrap().map(|said| said.status())
}

async fn connect(address: String) -> Channel {
    Endpoint::try_from(address).unwrap().connect().await.unwrap()
}

/// A port that is free at this moment.
fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_during_a_slow_start_sees_starting_and_then_serving_on_the_same_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 40), |block| payload(1, block)).await;
    server.quiesce().await;
    drop(stream);
    server.stop().await;

    let (tcp, metrics) = (free_port(), free_port());
    let slow = Config { listen: Some(tcp), metrics: Some(metrics), ..config(dir.path(), MIB, 4 * MIB) };
    let parts = Watch::with_fault("recovery");
    let starting = tokio::spawn(Daemon::start_with(slow, parts.clone(), Health::default()));
    let socket = dir.path().join("kvtier.sock");
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let gate = Gate::connect(&socket).await;
    let recovering = loop {
        let refusal = gate.admin().get_status(proto::GetStatusRequest {}).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
        assert!(refusal.message().starts_with("the daemon is starting: "), "{refusal:?}");
        if refusal.message().contains("recovering") {
            break refusal;
        }
    };
    assert!(recovering.message().contains("recovering 0 of about 40 blocks"), "{recovering:?}");
    let mut said = Vec::new();
    for channel in [connect(format!("unix:{}", socket.display())).await, connect(format!("http://{tcp}")).await] {
        for service in SERVICES.into_iter().chain([""]) {
            assert_eq!(check(&channel, service).await, ServingStatus::NotServing, "{service:?}");
            let mut stream = watch(&channel, service).await;
            assert_eq!(next(&mut stream).await, Some(ServingStatus::NotServing));
            said.push((service, stream));
        }
        let refusal = HealthClient::new(channel).check(HealthCheckRequest { service: "nobody".into() }).await;
        refused(refusal, Code::NotFound, &["nobody"]);
    }
    refused(gate.try_lookup(0, "", chain(&layout, 1, 40), 0).await, Code::Unavailable, &["the daemon is starting"]);
    let samples = parse(&ask(metrics, "GET", "/metrics").await.2);
    assert_eq!(samples["kvtier_health{service=\"daemon\",state=\"starting\"}"], 1.0);
    assert_eq!(samples["kvtier_health_serving{service=\"kvtier.v1.Cache\"}"], 0.0);
    assert!(!starting.is_finished());

    parts.arm();
    let daemon = starting.await.unwrap().unwrap();
    for (service, stream) in &mut said {
        assert_eq!(next(stream).await, Some(ServingStatus::Serving), "{service:?}");
    }
    assert_eq!(gate.lookup(chain(&layout, 1, 40)).await.blocks_nvme, 40, "on the connection of before");
    let status = gate.status().await;
    let states: Vec<_> = status.health.iter().map(|health| (health.service.as_str(), health.state())).collect();
    let expected: Vec<_> = std::iter::once("").chain(SERVICES).map(|name| (name, HealthState::Serving)).collect();
    assert_eq!(states, expected);
    let samples = parse(&ask(metrics, "GET", "/metrics").await.2);
    assert_eq!(samples["kvtier_health{service=\"daemon\",state=\"starting\"}"], 0.0);
    assert_eq!(samples["kvtier_health{service=\"kvtier.v1.Usage\",state=\"serving\"}"], 1.0);
    assert_eq!(samples["kvtier_health_serving{service=\"kvtier.v1.Usage\"}"], 1.0);

    // A stop says so first, and does not wait for those who listen: their streams end, and are not cut off.
    daemon.stop().await;
    for (service, stream) in &mut said {
        assert_eq!(next(stream).await, Some(ServingStatus::NotServing), "{service:?}");
        assert_eq!(next(stream).await, None, "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_ledger_the_meter_does_not_serve_while_the_cache_does() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), MIB, 4 * MIB).await.stop().await;
    std::fs::write(dir.path().join("data/ledger/CURRENT"), "no such manifest\n").unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let channel = connect(format!("unix:{}", dir.path().join("kvtier.sock").display())).await;
    for (service, expected) in [
        ("kvtier.v1.Usage", ServingStatus::NotServing),
        ("kvtier.v1.Cache", ServingStatus::Serving),
        ("", ServingStatus::Serving),
    ] {
        assert_eq!(check(&channel, service).await, expected, "{service:?}");
    }
    let health = server.status().await.health;
    let of = |name: &str| health.iter().find(|health| health.service == name).unwrap();
    assert_eq!((of("kvtier.v1.Usage").state(), of("kvtier.v1.Usage").serving), (HealthState::Degraded, false));
    assert_eq!((of("").state(), of("").serving, of("").reasons.len()), (HealthState::Degraded, true, 1));
    assert_eq!((of("kvtier.v1.Cache").state(), of("kvtier.v1.Cache").reasons.len()), (HealthState::Serving, 0));
    assert!(of("kvtier.v1.Usage").reasons[0].contains("ledger"), "{health:?}");
    drop(channel);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_was_begun_anew_degrades_the_cache_which_serves() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), MIB, 4 * MIB).await.stop().await;
    std::fs::write(dir.path().join("data/catalog/CURRENT"), "no such manifest\n").unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let health = server.status().await.health;
    let of = |name: &str| health.iter().find(|health| health.service == name).unwrap();
    assert_eq!((of("kvtier.v1.Cache").state(), of("kvtier.v1.Cache").serving), (HealthState::Degraded, true));
    assert!(of("kvtier.v1.Cache").reasons[0].contains("begun anew"), "{health:?}");
    assert_eq!(of("kvtier.v1.Usage").state(), HealthState::Serving);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_is_refused_before_the_folder_is_there_and_gives_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let living = std::os::unix::net::UnixListener::bind(dir.path().join("living")).unwrap();
    std::fs::write(dir.path().join("file"), "no socket").unwrap();
    let free = free_port();
    let base = || Config { listen: Some(free), ..config(dir.path(), MIB, MIB) };
    for (wrong, words) in [
        (Config { listen: Some(taken), ..base() }, [taken.to_string(), "in use".into()]),
        (Config { metrics: Some(taken), ..base() }, [taken.to_string(), "in use".into()]),
        (Config { socket: Some(dir.path().join("living")), ..base() }, ["living".into(), "another daemon".into()]),
        (Config { socket: Some(dir.path().join("file")), ..base() }, ["file".into(), "no socket".into()]),
    ] {
        let refusal = Daemon::start(wrong).await.err().unwrap();
        let said = refusal.to_string();
        assert!(matches!(refusal, StartError::Listen { .. }) && words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!dir.path().join("data").exists(), "nothing is touched: {said}");
        assert!(!dir.path().join("kvtier.sock").exists(), "its own socket is gone: {said}");
    }
    drop((holder, living));
    // What was taken meanwhile is free again.
    let daemon = Daemon::start(base()).await.unwrap();
    // A second daemon on the folder of the first one, at other addresses, hears of the folder.
    let other = Config { socket: Some(dir.path().join("other")), ..config(dir.path(), MIB, MIB) };
    let said = Daemon::start(other).await.err().unwrap().to_string();
    assert!(said.contains("data") && said.contains("in use"), "{said}");
    assert!(!dir.path().join("other").exists(), "the socket of the one that was refused is gone");
    daemon.stop().await;
    assert!(!dir.path().join("kvtier.sock").exists() && !dir.path().join("kvtier.sock.arena").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_may_lie_in_the_data_folder_from_its_first_start_on() {
    let dir = tempfile::tempdir().unwrap();
    let inside = || Config { socket: Some(dir.path().join("data/s")), ..config(dir.path(), MIB, MIB) };
    for _ in 0..2 {
        let daemon = Daemon::start(inside()).await.unwrap();
        assert!(daemon.socket().unwrap().exists());
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_embeds_a_daemon_is_told_that_a_part_of_it_has_failed_and_can_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Watch::with_fault("planner");
    let daemon = Daemon::start_with(config(dir.path(), MIB, MIB), parts.clone(), Health::default()).await.unwrap();
    let channel = connect(format!("unix:{}", dir.path().join("kvtier.sock").display())).await;
    let mut said = watch(&channel, "kvtier.v1.Cache").await;
    assert_eq!(next(&mut said).await, Some(ServingStatus::Serving));
    parts.arm();
    let failure = daemon.failed().await;
    assert_eq!(failure.part, "planner");
    assert!(failure.why.starts_with("panicked") && failure.why.contains("a test has planner panic"), "{failure}");
    assert_eq!(next(&mut said).await, Some(ServingStatus::NotServing));
    daemon.stop().await;
}
