//! Exports while both sides are killed, again and again: every record is in the exporter's file exactly once, and every
//! settle that was acknowledged is one of them.
//!
//! `KVTIER_KILLS` sets how often the daemon is killed, each time with the exporter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvtier::client::{Client, Correction, ServerAddress, Settle, UsageFilter};
use kvtier::replay::live::namespace_spec;
use kvtier::vocab::{BillingId, Fingerprint, InstanceId, NamespaceName, RequestId, TenantName};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::process::Process;

const TIERS: [&str; 4] = ["--ram", "1MiB", "--nvme", "4MiB"];
const TASKS: u64 = 8;

/// Prompt tokens that were acknowledged, by tenant and billing id.
type Bill = Arc<Mutex<BTreeMap<(String, String), u64>>>;

/// Settles requests, some of them again and some of them at once by others, until the daemon is gone.
async fn settle(address: ServerAddress, fingerprint: Fingerprint, seed: u64, round: u64, bill: Bill) {
    let Ok(client) = Client::connect(&address).await else { return };
    let mut random = SmallRng::seed_from_u64(seed);
    for step in 0.. {
        let number: u64 = round * 100_000 + step - random.random_range(0..=step.min(20));
        let settle = Settle {
            tenant: TenantName::parse(["acme", "bolt"][usize::from(number.is_multiple_of(3))]).unwrap(),
            // Two tasks settle the same requests.
            billing_id: BillingId::parse(&format!("{}-{number}", seed / 2)).unwrap(),
            attempt: 1,
            instance: InstanceId::parse("engine").unwrap(),
            request_id: RequestId::parse("r").unwrap(),
            fingerprint,
            prompt_tokens: 1_000 + number,
            cached_tokens: 0,
            attested_tokens: number % 1_000,
            written_tokens: 0,
            output_tokens: 7,
            receipts: Vec::new(),
            labels: BTreeMap::from([("class".into(), "batch, \"night\"".into())]),
            detail: kvtier::vocab::UsageDetail::default(),
        };
        let Ok(settled) = client.settle(&settle).await else { return };
        assert_eq!(settled.record.prompt_tokens.unsigned_abs(), settle.prompt_tokens);
        if number.is_multiple_of(7) {
            let correction = Correction {
                tenant: settle.tenant.to_string(),
                billing_id: format!("{}-corrected", settle.billing_id),
                corrects: settle.billing_id.to_string(),
                reason: "a \"test\",\n".into(),
                output_tokens: Some(5),
                ..Correction::default()
            };
            if client.correct_usage(correction).await.is_err() {
                return;
            }
        }
        let identity = (settled.record.tenant, settled.record.billing_id);
        bill.lock().unwrap().insert(identity, settle.prompt_tokens);
    }
}

/// The exporter, to its end or for so long. Where it is killed, it also writes Parquet, and as often is killed in that.
fn export(server: &str, file: &Path, patience: Option<Duration>) {
    let format = if file.extension().is_some_and(|end| end == "parquet") { "parquet" } else { "jsonl" };
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.args(["usage", "export", "--format", format, "--server", server, "-o"]).arg(file);
    if format == "jsonl" {
        command.arg("--acknowledge");
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    if let Some(patience) = patience {
        std::thread::sleep(patience);
        child.kill().ok();
    }
    let status = child.wait().unwrap();
    assert!(patience.is_some() || status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_exported_exactly_once_though_both_sides_are_killed() {
    let kills: u64 = std::env::var("KVTIER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("usage.jsonl");
    let (bill, mut random) = (Bill::default(), SmallRng::seed_from_u64(3));
    let name = NamespaceName::parse("billed").unwrap();
    let spec = namespace_spec(16, 4096).unwrap();
    for round in 0..=kills {
        let (mut process, address) = Process::start(dir.path(), &TIERS).await;
        let client = Client::connect(&address).await.unwrap();
        let (fingerprint, _) = client.register_namespace(None, &name, &spec, None).await.unwrap();
        let server = address.to_string();
        if round == kills {
            export(&server, &file, None);
            another_reader_agrees(&server, &file);
            let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
            let count = total.records + total.corrections;
            check(&std::fs::read_to_string(&file).unwrap(), &bill.lock().unwrap(), count, total.prompt_tokens);
            drop(process);
            let audit = kvtier::offline::audit(&dir.path().join("data")).unwrap();
            assert_eq!((audit.differences, audit.records, audit.acknowledged), (0, total.records, count));
            assert!(audit.corrections > 0);
            // The same bill from lines, from Parquet, from the ledger, and from all three: each record is charged once.
            let (lines, parquet, data) =
                (path(&file), path(&file.with_extension("parquet")), path(&dir.path().join("data")));
            let from_lines = priced(&[&lines]);
            assert_eq!(from_lines["records"], total.records);
            assert_eq!((priced(&[&parquet]), priced(&["--data-dir", &data])), (from_lines.clone(), from_lines.clone()));
            let thrice = priced(&[&lines, &parquet, "--data-dir", &data]);
            assert_eq!((&thrice["total"], &thrice["repeated"]), (&from_lines["total"], &Value::from(2 * count)));
            let audited =
                cli(&["usage", "audit", "--json", "--data-dir", &data, "--exported", &lines, "--exported", &parquet]);
            let exported = &audited["exported"];
            assert_eq!([&exported["same"], &exported["repeated"]], [&Value::from(count); 2], "{audited}");
            return;
        }
        let mut settling = JoinSet::new();
        for seed in 0..TASKS {
            settling.spawn(settle(address.clone(), fingerprint, seed, round, Arc::clone(&bill)));
        }
        let (to, patience) = (file.clone(), [0; 3].map(|_| Duration::from_millis(random.random_range(5..100))));
        let exporting = tokio::task::spawn_blocking(move || {
            for patience in patience {
                export(&server, &to, Some(patience));
                export(&server, &to.with_extension("parquet"), Some(patience));
            }
        });
        tokio::time::sleep(Duration::from_millis(random.random_range(100..400))).await;
        process.kill();
        exporting.await.unwrap();
        settling.join_all().await;
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What a command prints that ends well.
fn cli(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kvtier")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn priced(from: &[&str]) -> Value {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prices.toml");
    cli(&[&["usage", "price", "--json", "--book", book], from].concat())
}

/// Readers that share no code with kvtier find the same in CSV and in Parquet as in the JSON lines. With the Python that
/// `KVTIER_PYTHON` names, or `python3`; where there is none this says so, and claims nothing.
fn another_reader_agrees(server: &str, lines: &Path) {
    let csv = lines.with_extension("csv");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    let exported = command.args(["usage", "export", "--format", "csv", "--server", server, "-o"]).arg(&csv).output();
    assert!(exported.unwrap().status.success());
    let parquet = lines.with_extension("parquet");
    export(server, &parquet, None);
    let python = std::env::var("KVTIER_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/check_usage_export.py");
    let output = match Command::new(python).args(["-B", script]).args([lines, &csv, &parquet]).output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: no Python here ({error})"),
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("all equal"), "{said}{complained}");
    eprintln!("{said}");
}

fn check(exported: &str, acknowledged: &BTreeMap<(String, String), u64>, records: u64, prompt_tokens: u64) {
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(acknowledged.len() > 20, "{} settles are no test", acknowledged.len());
    assert_eq!((lines.len() as u64, records >= acknowledged.len() as u64), (records, true));
    assert!((1..).zip(&lines).all(|(sequence, line)| line["sequence"] == sequence));
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let identities: BTreeSet<_> = lines.iter().map(|line| (text(line, "tenant"), text(line, "billing_id"))).collect();
    assert_eq!(identities.len(), lines.len(), "no identity twice");
    assert!(acknowledged.keys().all(|identity| identities.contains(identity)));
    let sum: i64 = lines.iter().map(|line| line["prompt_tokens"].as_i64().unwrap()).sum();
    assert_eq!(sum.unsigned_abs(), prompt_tokens);
    assert!(lines.iter().all(|line| line["labels"]["class"] == "batch, \"night\""));
    eprintln!("{} records, {} of them acknowledged to their settlers", lines.len(), acknowledged.len());
}
