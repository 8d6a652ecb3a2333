//! What a scrape brings: every sample is well formed and described once, and says what the status says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kvtier::daemon::{Config, Daemon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::several_drives::two_drives;
use crate::support::{Gate, chain, payload, spec};

const MIB: u64 = 1 << 20;

/// A request by hand, as any HTTP client sends it: status, headers and body.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_lowercase(), body.to_owned())
}

/// Samples by their name with labels, each checked against the grammar and against its description.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut types, mut described) = (BTreeMap::new(), BTreeSet::new(), None);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if lines.peek().is_none() {
            assert_eq!(line, "# EOF");
            break;
        }
        if let Some(description) = line.strip_prefix("# TYPE ") {
            let (name, kind) = description.split_once(' ').unwrap();
            assert!(types.insert(name), "{name} is described once");
            described = Some((name, kind));
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert!(labels.ends_with('}'), "{line}");
            let suffixes = |kind: &str| match kind {
                "counter" => ["_total"].as_slice(),
                "info" => &["_info"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_count", "_sum"],
                other => panic!("{other}: {line}"),
            };
            let (described, kind) = described.unwrap_or_else(|| panic!("{line}: comes after its description"));
            assert!(name.strip_prefix(described).is_some_and(|suffix| suffixes(kind).contains(&suffix)), "{line}");
            assert!(name.starts_with("kvtier_"), "{line}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{sample} comes once");
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_is_well_formed_and_says_what_the_status_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { metrics: "127.0.0.1:0".parse().ok(), ..two_drives(dir.path(), MIB, MIB) };
    let daemon = Daemon::start(config).await.unwrap();
    let gate = Gate::connect(&dir.path().join("kvtier.sock")).await;
    let (session, stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    gate.put(session, chain(&layout, 1, 40), |block| payload(1, block)).await;
    gate.quiesce().await;
    gate.lookup(chain(&layout, 1, 50)).await;
    let address = daemon.metrics().unwrap();
    let (code, head, body) = ask(address, "GET", "/metrics").await;
    assert_eq!(code, 200, "{head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let samples = parse(&body);
    let status = gate.status().await;
    let sample = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("{name} is not in\n{body}"));
    assert_eq!((sample("kvtier_hit_tokens_total"), sample("kvtier_miss_tokens_total")), (640.0, 160.0));
    assert_eq!((sample("kvtier_sessions"), sample("kvtier_blocks_stored_total")), (1.0, 40.0));
    assert_eq!(sample("kvtier_used_bytes{tier=\"nvme\"}"), 40.0 * 4096.0);
    assert_eq!(sample("kvtier_capacity_bytes{tier=\"nvme\"}"), 2.0 * MIB as f64);
    for drive in &status.drives {
        let of = |name: &str| sample(&format!("kvtier_{name}{{drive=\"{}\"}}", drive.number));
        assert_eq!(of("nvme_written_bytes_total"), drive.device_written_bytes as f64);
        assert_eq!(of("drive_lifetime_written_bytes_total"), drive.written_bytes_total as f64);
        assert_eq!((of("drive_out"), of("drive_missing"), of("nvme_read_errors_total")), (0.0, 0.0, 0.0));
    }
    assert!(status.drives.iter().all(|drive| drive.device_written_bytes > 0), "{:?}", status.drives);
    let backend = format!("kvtier_io_backend_info{{drive=\"1\",kind=\"{}\"", status.drives[1].kind);
    assert!(samples.keys().any(|sample| sample.starts_with(&backend)), "{backend} is not in\n{body}");
    assert_eq!(ask(address, "GET", "/").await.0, 404);
    assert_eq!(ask(address, "POST", "/metrics").await.0, 405);
    let (code, head, body) = ask(address, "HEAD", "/metrics").await;
    assert_eq!((code, body.as_str()), (200, ""), "{head}");
    drop((stream, gate));
    daemon.stop().await;
}
