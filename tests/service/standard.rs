//! What every gRPC server should answer: on TCP and on a Unix socket at once, health, and reflection.

use kvtier::daemon::{Config, Daemon};
use kvtier::proto;
use kvtier::proto::admin_client::AdminClient;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

use crate::support::{Server, config, refused};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_serves_tcp_and_a_socket_and_says_what_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let both = Config { listen: Some("127.0.0.1:0".parse().unwrap()), ..config(dir.path(), MIB, MIB) };
    let daemon = Daemon::start(both).await.unwrap();
    let bound = daemon.tcp().unwrap();
    let tcp = tonic::transport::Endpoint::try_from(format!("http://{bound}")).unwrap().connect().await.unwrap();
    let unix = format!("unix:{}", daemon.socket().unwrap().display());
    let unix = tonic::transport::Endpoint::try_from(unix).unwrap().connect().await.unwrap();
    for channel in [&tcp, &unix] {
        let status = AdminClient::new(channel.clone()).get_status(proto::GetStatusRequest {}).await.unwrap();
        assert_eq!(status.into_inner().version, env!("CARGO_PKG_VERSION"));
        let check = HealthCheckRequest { service: "kvtier.v1.Cache".into() };
        let health = HealthClient::new(channel.clone()).check(check).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving);
    }
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(tcp.clone())
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) = answer else {
        panic!("a list of services, not {answer:?}")
    };
    for name in ["kvtier.v1.Sessions", "kvtier.v1.Cache", "kvtier.v1.Usage", "kvtier.v1.Admin"] {
        assert!(service.iter().any(|service| service.name == name), "{name} is not in {service:?}");
    }
    let other = Config { listen: Some(bound), socket: None, ..config(&dir.path().join("other"), MIB, MIB) };
    let taken = Daemon::start(other).await.err().unwrap().to_string();
    assert!(taken.contains(&bound.to_string()) && taken.contains("in use"), "{taken}");
    drop((tcp, unix, answers));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_built_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    refused(server.admin().retire(proto::RetireRequest::default()).await, Code::Unimplemented, &["Retire"]);
    server.stop().await;
}
