//! The commands that speak to a server, against one of their own on a Unix socket: what a person types works, and what
//! a script reads is there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const KVTIER: &str = env!("CARGO_BIN_EXE_kvtier");

/// A `kvtier serve` in a temporary folder.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut serve = Command::new(KVTIER);
        serve.current_dir(folder.path()).args(["serve", "--data-dir", "data", "--socket", "s", "--log", "warn"]);
        let child = serve.args(["--ram", "16MiB", "--nvme", "64MiB"]).spawn().unwrap();
        let server = Self { folder, child };
        let started = Instant::now();
        while server.run(&["status"], b"").status.code() != Some(0) {
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(KVTIER);
        command.current_dir(self.folder.path()).env("KVTIER_SERVER", "unix:s").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may be gone already.
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    }

    fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(args, b"payload of some blocks made by hand")).unwrap()
    }

    /// SIGTERM, and the end.
    fn stop(mut self) -> tempfile::TempDir {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "a drained server ends well");
        let folder = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, folder)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tokens(count: u32) -> String {
    (0..count).map(|token| token.to_string()).collect::<Vec<_>>().join(",")
}

fn verify(data: &Path) -> (Option<i32>, Value) {
    let output = Command::new(KVTIER).args(["verify", "--json", "--data-dir"]).arg(data).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn bytes_put_by_hand_are_found_read_back_inspected_evicted_and_purged() {
    let server = Server::start();
    let tokens = tokens(70);
    let payload: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    server.ok(&["put", "--tokens", &tokens], &payload);
    assert!(server.ok(&["get", "--tokens", &tokens], b"") == payload, "what was put comes back");
    let found = server.json(&["lookup", "--tokens", &tokens, "--json"]);
    assert_eq!((&found["hit_tokens"], &found["miss_tokens"]), (&64.into(), &6.into()));
    let again = server.json(&["put", "--tokens", &tokens, "--json"]);
    assert_eq!((&again["wanted_blocks"], &again["stored_through"]), (&0.into(), &4.into()));

    let prefix = server.json(&["inspect", "prefix", "--tokens", &tokens, "--json"]);
    let key = prefix["blocks"][3]["key"].as_str().unwrap();
    let block = server.json(&["inspect", "block", key, "--json"]);
    assert_eq!((&block["readable"], &block["length"]), (&true.into(), &25_000.into()));
    assert_eq!(server.json(&["lookup", "--block-keys", key, "--json"])["blocks_hit"], 1);
    let namespaces = server.json(&["inspect", "namespaces", "--json"]);
    assert_eq!(
        (&namespaces["namespaces"][0]["name"], &namespaces["namespaces"][0]["blocks"]),
        (&"by-hand".into(), &4.into())
    );

    assert_eq!(server.json(&["evict", "--tokens", &tokens, "--from-block", "3", "--json"])["blocks"], 1);
    assert_eq!(server.run(&["inspect", "block", key], b"").status.code(), Some(1));
    let short = server.run(&["get", "--tokens", &tokens], b"");
    assert_eq!((short.status.code(), short.stdout.as_slice()), (Some(1), &payload[..75_000]));
    assert_eq!(server.json(&["purge", "--tenant", "default", "--json"])["blocks"], 3);
    assert_eq!(server.json(&["lookup", "--tokens", &tokens, "--json"])["hit_tokens"], 0);
}

#[test]
fn status_usage_and_a_live_replay_have_the_promised_fields() {
    let server = Server::start();
    let trace = server.path("trace.jsonl");
    server.ok(&["trace", "generate", "--requests", "40", "-o", &trace], b"");
    let replay =
        ["replay", &trace, "--server", "unix:s", "--settle", "--tenant", "acme", "--block-bytes", "4KiB", "--json"];
    let report = server.json(&replay);
    for field in ["mismatched_blocks", "bytes_loaded", "bytes_stored", "seconds", "lookup_us", "load_us", "hit_rate"] {
        assert!(report.get(field).is_some(), "{field}");
    }
    assert_eq!(report["mismatched_blocks"], 0);
    let usage = server.json(&["usage", "summary", "--json"]);
    for field in ["prompt_tokens", "hit_tokens", "miss_tokens"] {
        assert_eq!(usage[field], report[field], "{field}");
    }
    assert_eq!((&usage["records"], &usage["rows"][0]["tenant"]), (&40.into(), &"acme".into()));
    let status = server.json(&["status", "--json"]);
    for field in
        ["version", "uptime_s", "sessions", "leases", "hit_tokens", "miss_tokens", "counters", "policy", "admission"]
    {
        assert!(status.get(field).is_some(), "{field}");
    }
    for field in
        ["number", "dir", "kind", "note", "written_bytes_total", "written_bytes_day", "wear_budget_bytes_per_day"]
    {
        assert!(status["drives"][0].get(field).is_some(), "{field}");
    }
    assert_eq!((&status["drives"][0]["state"], &status["scrub"]["corrupt"]), (&"ok".into(), &0.into()));
    for field in ["cpu_seconds", "resident_bytes", "resident_bytes_max"] {
        assert!(status["process"][field].as_f64() > Some(0.0), "{field}");
    }
    for tier in ["ram", "nvme"] {
        for field in ["used_bytes", "capacity_bytes", "blocks"] {
            assert!(status["tiers"][tier][field].as_u64() > Some(0), "{tier} {field}");
        }
    }
    for command in [&["status"][..], &["usage", "summary"], &["inspect", "namespaces"]] {
        assert!(String::from_utf8(server.ok(command, b"")).unwrap().contains('│'), "{command:?}");
    }
}

/// Settles requests of a tenant: as many as said.
fn settle(server: &Server, tenant: &str, requests: &str) {
    let trace = server.path("trace.jsonl");
    server.ok(&["trace", "generate", "--requests", requests, "-o", &trace], b"");
    let to = ["--server", "unix:s", "--settle", "--tenant", tenant, "--block-bytes", "4KiB", "--json"];
    server.json(&[&["replay", &trace][..], &to].concat());
}

#[test]
fn exported_records_read_in_other_words_and_are_priced_once() {
    let server = Server::start();
    settle(&server, "acme", "50");
    let file = server.path("usage.jsonl");
    server.ok(&["usage", "export", "-o", &file], b"");
    let summary = server.json(&["usage", "summary", "--json"]);
    let shaped = String::from_utf8(server.ok(&["usage", "export", "--shape", "deepseek"], b"")).unwrap();
    let shaped: Vec<Value> = shaped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum = |field: &str| -> u64 { shaped.iter().map(|line| line[field].as_u64().unwrap()).sum() };
    let (hit, miss) = (sum("prompt_cache_hit_tokens"), sum("prompt_cache_miss_tokens"));
    assert_eq!((shaped.len(), summary["prompt_tokens"] == hit + miss), (50, true));
    let book = server.path("book.toml");
    let prices = "currency = 'USD'\ntime_zone = 'UTC'\n[[price]]\nvalid_from = 2020-01-01\nhit = 1\nmiss = 1\nwritten = 0\noutput = 0\n";
    std::fs::write(&book, prices).unwrap();
    let invoice = server.json(&["usage", "price", "--book", &book, "--json", &file, &file]);
    assert_eq!((&invoice["records"], &invoice["repeated"]), (&50.into(), &50.into()), "charged once");
    let total: f64 = invoice["total"].as_str().unwrap().parse().unwrap();
    assert!((total - summary["prompt_tokens"].as_f64().unwrap() / 1e6).abs() < 0.006, "{total}");
}

#[test]
fn an_export_goes_on_where_its_file_ends_whatever_cut_it() {
    let server = Server::start();
    let lines = |path: &str| -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    settle(&server, "acme", "40");
    let file = server.path("usage.jsonl");
    let export = ["usage", "export", "-o", &file, "--acknowledge", "--json"];
    let report = server.json(&export);
    assert_eq!((&report["records"], &report["last"], &report["acknowledged"]), (&40.into(), &40.into(), &40.into()));
    let whole = std::fs::read(&file).unwrap();
    for cut in [1, 30, 700] {
        std::fs::File::options().write(true).open(&file).unwrap().set_len(whole.len() as u64 - cut).unwrap();
        server.json(&export);
        assert!(std::fs::read(&file).unwrap() == whole, "cut by {cut} bytes, and the same again");
    }
    assert_eq!(server.json(&export)["records"], 0);

    settle(&server, "bolt", "10");
    let news = String::from_utf8(server.ok(&["usage", "export", "--unacknowledged"], b"")).unwrap();
    assert_eq!(news.lines().count(), 10);
    assert!(server.ok(&["usage", "export", "--after", "40"], b"") == news.as_bytes());
    assert_eq!(server.json(&export)["last"], 50);
    let records = lines(&file);
    assert!((1..).zip(&records).all(|(sequence, record)| record["sequence"] == sequence));
    let summary = server.json(&["usage", "summary", "--json"]);
    for field in ["prompt_tokens", "hit_tokens", "hit_tokens_ram", "hit_tokens_nvme", "miss_tokens", "written_tokens"] {
        let sum: u64 = records.iter().map(|record| record[field].as_u64().unwrap()).sum();
        assert_eq!(summary[field], sum, "{field}");
    }

    let table = server.path("usage.csv");
    server.ok(&["usage", "export", "--format", "csv", "-o", &table], b"");
    let text = std::fs::read_to_string(&table).unwrap();
    assert_eq!((text.lines().count(), text.starts_with("sequence,tenant,billing_id,")), (51, true));
    for mistake in [
        &["usage", "export", "--shape", "openai", "-o", &file][..],
        &["usage", "export", "--shape", "azure"],
        &["usage", "export", "-o", &table],
        &["usage", "export", "-o", &file, "--after", "3"],
        &["usage", "export", "--acknowledge"],
        &["usage", "export", "--after", "3", "--unacknowledged"],
        &["usage", "export", "--after", "3", "--acknowledge", "-o", &server.path("new.jsonl")],
    ] {
        let output = server.run(mistake, b"");
        assert!(!output.status.success() && !output.stderr.is_empty(), "{mistake:?}");
    }
    assert!(std::fs::read_to_string(&table).unwrap() == text, "left as it was");

    let audit = |data: &Path| {
        let output = Command::new(KVTIER).args(["usage", "audit", "--json", "--data-dir"]).arg(data).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    assert_eq!(audit(&server.folder.path().join("data")).0, Some(1), "in use");
    let folder = server.stop();
    let (code, report) = audit(&folder.path().join("data"));
    assert_eq!((code, &report["records"], &report["differences"]), (Some(0), &50.into(), &0.into()));
    assert_eq!((&report["acknowledged"], &report["prompt_tokens"]), (&50.into(), &summary["prompt_tokens"]));
    assert_eq!(audit(folder.path()).0, Some(1), "no data folder");
}

#[test]
fn a_flipped_byte_on_a_stopped_servers_drive_is_found_and_fails_the_command() {
    let server = Server::start();
    server.ok(&["put", "--tokens", &tokens(64)], &[7; 40_000]);
    let running = server.run(&["verify", "--data-dir", "data"], b"");
    assert_eq!(running.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&running.stderr).contains("is in use by process"));
    // A put is answered before the drive has its blocks, and only blocks on a drive are verified.
    let asked = Instant::now();
    let online = loop {
        let online = server.json(&["verify", "--server", "unix:s", "--json"]);
        if online["blocks"] == 4 || asked.elapsed() > Duration::from_secs(30) {
            break online;
        }
    };
    for (field, value) in [("blocks", 4), ("bytes", 40_000), ("corrupt", 0), ("stale", 0), ("orphaned", 0)] {
        assert_eq!(online[field], value, "{field}");
    }
    let folder = server.stop();
    let data = folder.path().join("data");
    let (code, report) = verify(&data);
    assert_eq!(
        (code, &report["blocks"], &report["corrupt"], &report["stale"]),
        (Some(0), &4.into(), &0.into(), &0.into())
    );
    std::fs::File::options().write(true).open(data.join("slots/0.kv")).unwrap().write_all_at(&[8], 100).unwrap();
    let (code, report) = verify(&data);
    assert_eq!((code, &report["corrupt"], &report["orphaned"]), (Some(1), &1.into(), &0.into()));
}

#[test]
fn an_embedded_replay_that_waits_for_quiet_hits_what_the_simulation_says() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.jsonl").to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let output = Command::new(KVTIER).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["trace", "generate", "--requests", "80", "-o", &trace]);
    let tiers = ["--ram", "4MiB", "--nvme", "8MiB", "--block-bytes", "64KiB", "--json"];
    let replay = |how: &str| -> Value {
        serde_json::from_slice(&run(&[&["replay", &trace, how][..], &tiers].concat())).unwrap()
    };
    let (live, simulated) = (replay("--quiesce"), replay("--simulate"));
    for field in ["hit_tokens", "by_tier", "miss_tokens", "blocks_hit", "ram_blocks", "nvme_blocks", "policy"] {
        assert_eq!(live[field], simulated[field], "{field}");
    }
    assert!(live["by_tier"]["nvme"].as_u64() > Some(0), "both tiers take part: {live}");
    let predicted = &live["predicted"];
    assert_eq!((&predicted["by_tier"], &predicted["difference_points"]), (&live["by_tier"], &0.0.into()));
    assert!(live["process_cpu_seconds"].as_f64() > Some(0.0) && live.get("server_cpu_seconds").is_none(), "{live}");
    let alone = replay("--no-prediction");
    assert_eq!((alone.get("predicted"), alone.get("not_predicted")), (None, None));
}

#[test]
fn records_of_replays_are_compared_and_what_differs_is_named() {
    let server = Server::start();
    let trace = server.path("trace.jsonl");
    server.ok(&["trace", "generate", "--requests", "60", "-o", &trace], b"");
    let to = ["--server", "unix:s", "--block-bytes", "4KiB", "--json"];
    let replay = |flags: &[&str]| server.json(&[&["replay", &trace][..], flags, &to].concat());
    let first = replay(&["--out", "a.json"]);
    assert!(first["server_cpu_seconds"].is_number() && first["server_resident_bytes_max"].is_number(), "{first}");
    let second = replay(&["--open-loop", "--speed", "100000", "--in-flight", "4", "--out", "b.json"]);
    assert_eq!((&second["open_loop"]["speed"], &second["open_loop"]["in_flight_max"]), (&100_000.0.into(), &4.into()));
    assert_eq!(second["miss_tokens"], 0, "the server had all of it");
    let simulate = ["replay", &trace, "--simulate", "--ram", "16MiB", "--nvme", "64MiB", "--out", "c.json", "--json"];
    let simulated = server.json(&simulate);

    let record: Value = serde_json::from_slice(&std::fs::read(server.path("a.json")).unwrap()).unwrap();
    assert_eq!(record["report"], first, "a record has the report as it was printed");
    assert_eq!((&record["kvtier_replay_record"], &record["trace"]["requests"]), (&1.into(), &60.into()));
    let rows = record["timeline"].as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap());
    assert_eq!(rows.sum::<u64>(), 60);
    let lookups = record["histograms"]["lookup_us"].as_array().unwrap();
    assert_eq!(lookups.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), 60);

    let compare = |a: &str, b: &str| server.json(&["replay", "compare", a, b, "--json"]);
    let figure = |comparison: &Value, name: &str| -> Value {
        let figures = comparison["figures"].as_array().unwrap().iter();
        figures.clone().find(|figure| figure["name"] == name).cloned().unwrap_or_default()
    };
    let names = |comparison: &Value| -> Vec<String> {
        comparison["differs"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let both = compare("a.json", "b.json");
    assert_eq!(names(&both), ["options.in_flight", "options.speed", "options.workers"]);
    let hits = figure(&both, "hit_rate");
    assert_eq!((&hits["a"], &hits["b"], &hits["b_is"]), (&first["hit_rate"], &second["hit_rate"], &"better".into()));
    assert_eq!(figure(&both, "open_loop.lag_us.p99")["a"], Value::Null);
    assert_eq!(names(&compare("a.json", "a.json")), [""; 0]);
    let both = compare("c.json", "a.json");
    assert!(
        names(&both).contains(&"options.mode".to_owned()) && figure(&both, "hit_rate")["a"] == simulated["hit_rate"]
    );
    let text = String::from_utf8(server.ok(&["replay", "compare", "a.json", "b.json"], b"")).unwrap();
    assert!(
        text.contains("warning: options.workers differs: 1 in a, absent in b") && text.contains("│ hit_rate "),
        "{text}"
    );

    let refused = |args: &[&str], code: i32, words: &str| {
        let output = server.run(args, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{args:?}: {said}");
    };
    refused(&["replay", "compare", "a.json", "absent.json"], 1, "absent.json");
    refused(&["replay", "compare", "a.json", &trace], 1, "trace.jsonl: ");
    refused(&["replay", "compare", "a.json"], 2, "<B>");
    refused(&["replay", &trace, "--simulate", "--out", "absent/a.json"], 1, "absent/a.json");
    // What is called as the command is named with its folder.
    std::fs::copy(&trace, server.path("compare")).unwrap();
    assert_eq!(server.json(&["replay", "./compare", "--simulate", "--json"])["requests"], 60);
}

#[test]
fn the_demo_is_one_document_with_nothing_wrong_in_it() {
    let output = Command::new(KVTIER).args(["demo", "--requests", "30", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["replay"]["mismatched_blocks"], &report["usage"]["records"]), (&0.into(), &30.into()));
    assert_eq!((&report["verify"]["corrupt"], &report["verify"]["stale"]), (&0.into(), &0.into()));
}
