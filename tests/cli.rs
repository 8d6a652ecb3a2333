//! What scripts rely on: exit statuses, sentences about bad input, and the shape of every JSON document. No network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn kvtier(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.env_remove("KVTIER_SERVER").env("XDG_RUNTIME_DIR", "/nonexistent").stdin(Stdio::null());
    command.args(args).output().unwrap()
}

fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

/// What it says on stderr, having printed nothing.
fn refusal(args: &[&str], code: i32) -> String {
    let output = kvtier(args);
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(status(&output), Some(code), "{args:?}: {words}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    assert!(words.starts_with("error: "), "{args:?}: {words}");
    words
}

/// The one document on stdout.
fn json(args: &[&str]) -> Value {
    let output = kvtier(args);
    assert_eq!(status(&output), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

fn has(report: &Value, fields: &[&str]) {
    for field in fields {
        assert!(report.get(field).is_some(), "{field} is not in {report}");
    }
}

/// A small trace, and its folder.
fn trace() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl").to_str().unwrap().to_owned();
    let made = kvtier(&["trace", "generate", "--seed", "7", "--requests", "200", "-o", &path]);
    assert_eq!((status(&made), made.stdout.len()), (Some(0), 0));
    (folder, path)
}

#[test]
fn help_and_version_are_no_errors_and_no_command_is_a_usage_error() {
    for args in [&["--help"][..], &["--version"], &["replay", "--help"], &["replay", "compare", "--help"]] {
        let output = kvtier(args);
        assert_eq!(status(&output), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(status(&kvtier(&[])), Some(2));
    assert_eq!(status(&kvtier(&["dance"])), Some(2));
}

#[test]
fn a_flag_that_breaks_its_rule_is_named_with_its_value_and_its_rule() {
    for (args, words) in [
        (
            &["replay", "x", "--simulate", "--ram", "12 parsecs"][..],
            "--ram is \"12 parsecs\", it must be a size such as",
        ),
        (
            &["replay", "x", "--simulate", "--policy", "magic"],
            "policy is \"magic\", it must be lru, s3-fifo, sieve, w-tinylfu, arc, gdsf, gittins or belady",
        ),
        (&["replay", "x", "--simulate", "--capacity-blocks", "0"], "0 is not in 1..=4294967296"),
        (&["replay", "x", "--simulate", "--block-bytes", "1GiB"], "it must be 1 byte to 64MiB"),
        (&["replay", "x", "--simulate", "--capacity-blocks", "9", "--ram", "1GiB"], "cannot be used with"),
        (&["replay", "x", "--simulate", "--ram", "64KiB"], "large enough for a block of 65536 bytes"),
        (&["trace", "generate", "--turns", "0.5"], "turns is 0.5, it must be 1 to 1000000"),
        (&["replay", "x", "--simulate", "--server", "host:1"], "cannot be used with"),
        (&["replay", "x", "--ram", "1GiB", "--server", "host:1"], "cannot be used with"),
        (&["replay", "x", "--capacity-blocks", "9"], "--simulate"),
        (&["replay"], "<TRACE>"),
        (&["replay", "--json"], "<TRACE>"),
        (&["replay", "x", "--open-loop", "--workers", "2"], "cannot be used with"),
        (&["replay", "x", "--open-loop", "--quiesce"], "cannot be used with"),
        (&["replay", "x", "--open-loop", "--simulate"], "cannot be used with"),
        (&["replay", "x", "--speed", "60"], "--open-loop"),
        (&["replay", "x", "--open-loop", "--speed", "0"], "--speed is 0, it must be a number from 0.001 to 1000000"),
        (&["replay", "x", "--open-loop", "--in-flight", "0"], "0 is not in 1..=1024"),
        (&["replay", "x", "--simulate", "--out", "/dev/null"], "--out is /dev/null, it must be the name of a file"),
        (&["status", "--server", "host"], "server address \"host\" must name a port"),
        (&["inspect", "namespaces", "--data-dir", "x", "--server", "host:1"], "cannot be used with"),
        (&["inspect", "block", "beef"], "block key is \"beef\", it must be 64 hexadecimal digits"),
        (&["lookup", "--server", "host:1"], "--tokens"),
        (&["get", "--tokens", "1", "--json", "--server", "host:1"], "--output"),
        (&["purge", "--server", "host:1"], "--tenant"),
        (&["serve", "--socket", "s"], "--data-dir is absent"),
        (
            &["serve", "--data-dir", "d", "--socket", "s", "--ram", "4KiB"],
            "ram is 4096 bytes, it must be at least 64KiB",
        ),
        (&["verify"], "--data-dir"),
        (&["bench", "--size", "1MiB"], "--size is 1048576 bytes, it must be at least 67108864 bytes"),
        (&["bench", "--quick", "--seconds", "9"], "cannot be used with"),
        (&["bench", "--only", "speed"], "--only is \"speed\", it must be of nvme_read_1mib"),
        (&["verify", "--data-dir", "d", "--server", "host:1"], "cannot be used with"),
        (&["serve", "--data-dir", "d", "--nvme", "/mnt/a"], "nvme is \"/mnt/a\", it must be SIZE or DIR=SIZE"),
        (&["serve", "--data-dir", "d", "--admission", "never"], "it must be always, second-use or ram-eviction"),
        (
            &["serve", "--data-dir", "d", "--socket", "s", "--nvme", "1GiB", "--nvme", "1GiB"],
            "nvme is 1073741824 bytes, it must be another directory than the drives before it have",
        ),
    ] {
        let said = refusal(args, 2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_trace_that_can_not_be_used_fails_with_file_line_field_and_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.jsonl");
    std::fs::write(&path, "{\"timestamp\": 0, \"input_length\": -3, \"output_length\": 1, \"hash_ids\": []}\n")
        .unwrap();
    let path = path.to_str().unwrap();
    for command in [&["trace", "info", path][..], &["replay", path, "--simulate", "--json"]] {
        let said = refusal(command, 1);
        assert!(said.contains(&format!("{path} line 1: input_length is -3, it must be ")), "{said}");
    }
    assert!(refusal(&["trace", "info", "/nonexistent.jsonl"], 1).contains("/nonexistent.jsonl: can't be read"));
}

#[test]
fn a_trace_made_twice_from_one_seed_is_the_same_and_its_info_is_one_document() {
    let (_folder, path) = trace();
    let again = kvtier(&["trace", "generate", "--seed", "7", "--requests", "200"]);
    assert_eq!(std::fs::read(&path).unwrap(), again.stdout);
    let info = json(&["trace", "info", &path, "--json"]);
    has(&info, &["requests", "prompt_tokens", "distinct_blocks", "infinite_hit_rate"]);
    assert_eq!(info["requests"], 200);
}

#[test]
fn a_simulated_replay_reports_the_promised_fields() {
    let (_folder, path) = trace();
    let report = json(&["replay", &path, "--simulate", "--policy", "lru", "--capacity-blocks", "500", "--json"]);
    has(&report, &["requests", "prompt_tokens", "hit_tokens", "miss_tokens", "hit_rate", "blocks_asked", "blocks_hit"]);
    assert_eq!((&report["policy"], &report["capacity_blocks"]), (&"lru".into(), &500.into()));
    has(&report["by_tier"], &["ram", "nvme"]);
    let hit = report["by_tier"]["ram"].as_u64().unwrap() + report["by_tier"]["nvme"].as_u64().unwrap();
    assert_eq!(report["hit_tokens"], hit);
    let two = json(&[
        "replay",
        &path,
        "--simulate",
        "--policy",
        "lru",
        "--ram-blocks",
        "100",
        "--nvme-blocks",
        "500",
        "--json",
    ]);
    assert_eq!((&two["hit_tokens"], &two["ram_blocks"]), (&report["hit_tokens"], &100.into()));
    let sizes =
        json(&["replay", &path, "--simulate", "--ram", "16MiB", "--nvme", "64MiB", "--block-bytes", "1MiB", "--json"]);
    assert_eq!((&sizes["ram_blocks"], &sizes["nvme_blocks"]), (&16.into(), &64.into()));
}

#[test]
fn a_simulated_machine_says_what_it_moves_wears_and_saves() {
    let (_folder, path) = trace();
    let plain = json(&["replay", &path, "--simulate", "--ram-blocks", "100", "--nvme-blocks", "500", "--json"]);
    let sized = [
        "replay",
        &path,
        "--simulate",
        "--ram-blocks",
        "100",
        "--nvme-blocks",
        "500",
        "--model",
        "llama-3.1-8b",
        "--json",
    ];
    let report = json(&sized);
    assert_eq!((&report["hit_tokens"], &report["by_tier"]), (&plain["hit_tokens"], &plain["by_tier"]));
    has(&report, &["bytes_loaded", "bytes_stored", "nvme_bytes_read", "drive_writes_per_day", "nvme_read_busy"]);
    assert_eq!(report["bytes_loaded"], report["hit_tokens"].as_u64().unwrap() * 131_072);
    assert_eq!(report["nvme_bytes_written"], report["blocks_written"].as_u64().unwrap() * 512 * 131_072);
    assert!(report.get("ttft_us").is_none() && report["nvme_write_busy"].is_null(), "{report}");
    let timed = json(
        &[&sized[..], &["--prefill-rate", "10000", "--ram-bandwidth", "20", "--nvme-read", "6", "--nvme-write", "3"]]
            .concat(),
    );
    has(&timed, &["loaded_tokens", "hit_tokens_not_worth_loading", "prefill_seconds_saved_per_day", "nvme_write_busy"]);
    assert!(
        timed["ttft_us"]["mean"].as_u64().unwrap() < timed["ttft_computed_us"]["mean"].as_u64().unwrap(),
        "{timed}"
    );
    // 512 tokens of 128 KiB are 64 MiB, a block; 16 extents of 1 GiB hold 16 each. With 320 KiB a token they are 160 MiB: four parts.
    for (model, ram, nvme) in [("llama-3.1-8b", 256, 1_024), ("llama-3.1-70b", 100, 400)] {
        let sizes = ["replay", &path, "--simulate", "--ram", "16GiB", "--nvme", "64GiB", "--model", model, "--json"];
        let report = json(&sizes);
        assert_eq!((&report["ram_blocks"], &report["nvme_blocks"]), (&ram.into(), &nvme.into()), "{model}");
    }
    let text = kvtier(&[
        "replay",
        &path,
        "--simulate",
        "--ram-blocks",
        "100",
        "--model",
        "gpt-oss-20b",
        "--prefill-rate",
        "1e4",
    ]);
    let text = String::from_utf8(text.stdout).unwrap();
    for shown in
        ["time to first token", "all computed", "on average, without the cache after", "windows and states come on top"]
    {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
}

#[test]
fn several_hosts_are_one_document_by_one_rule_or_by_all() {
    let (_folder, path) = trace();
    let tiers = ["replay", &path, "--simulate", "--ram-blocks", "100", "--nvme-blocks", "500"];
    let plain = json(&[&tiers[..], &["--json"]].concat());
    let machine = [&tiers[..], &["--bytes-per-token", "70000", "--prefill-rate", "10000", "--json"]].concat();
    let one = json(&[&machine[..], &["--hosts", "1"]].concat());
    for field in plain.as_object().unwrap().keys() {
        assert_eq!(one[field], plain[field], "{field}");
    }
    has(&one, &["routing", "speed", "utilisation", "ttft_us", "imbalance", "duplicated", "by_host"]);
    assert_eq!(one["routing"], "cache-aware");
    let all = json(&[&machine[..], &["--hosts", "3", "--load", "0.9", "--routing", "all"]].concat());
    assert!((all["load_without_cache"].as_f64().unwrap() - 0.9).abs() < 1e-9, "{all}");
    assert_eq!(all["without_cache"]["hit_tokens"], 0);
    let rules: Vec<&str> =
        all["routings"].as_array().unwrap().iter().map(|one| one["routing"].as_str().unwrap()).collect();
    assert_eq!(rules, ["round-robin", "least-loaded", "session-sticky", "cache-aware", "cache-approximate"]);
    for rule in all["routings"].as_array().unwrap() {
        assert_eq!((&rule["prompt_tokens"], rule["by_host"].as_array().unwrap().len()), (&plain["prompt_tokens"], 3));
    }
    let text = kvtier(&[&machine[..machine.len() - 1], &["--hosts", "3", "--routing", "all"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("(no cache)") && text.contains("The first token comes soonest by "), "{text}");
}

#[test]
fn a_machine_that_can_not_be_is_refused() {
    let (_folder, path) = trace();
    let replay = ["replay", &path, "--simulate", "--capacity-blocks", "100"];
    for (more, words) in [
        (&["--prefill-rate", "100"][..], "--prefill-rate is 100, it must be with --model NAME or --bytes-per-token N"),
        (&["--model", "gpt-9"], "it must be one of deepseek-v3"),
        (&["--model", "phi-4", "--block-bytes", "1MiB"], "--block-bytes"),
        (&["--model", "phi-4", "--prefill-rate", "0"], "it must be a number above 0"),
        (&["--model", "phi-4", "--hosts", "2"], "--prefill-rate"),
        (
            &["--model", "phi-4", "--prefill-rate", "9", "--hosts", "2", "--routing", "magic"],
            "it must be one of round-robin",
        ),
        (&["--model", "phi-4", "--prefill-rate", "9", "--hosts", "65"], "65"),
        (&["--model", "phi-4", "--policy", "belady"], "--policy is belady, it must be lru with a model"),
    ] {
        let said = refusal(&[&replay[..], more].concat(), 2);
        assert!(said.contains(words), "{more:?}: {said}");
    }
    let small = refusal(&["replay", &path, "--simulate", "--model", "llama-3.1-70b"], 2);
    assert!(
        small.contains("--ram is 268435456 bytes, it must be large enough for a block of 41943040 bytes"),
        "{small}"
    );
}

/// Where the published traces are at hand.
#[test]
fn the_conversation_trace_hits_what_two_other_programs_computed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces/mooncake/conversation_trace.jsonl");
    if !path.is_file() {
        return;
    }
    let report = json(&[
        "replay",
        path.to_str().unwrap(),
        "--simulate",
        "--policy",
        "lru",
        "--capacity-blocks",
        "10000",
        "--json",
    ]);
    assert!((report["hit_rate"].as_f64().unwrap() - 0.2157).abs() < 0.000_05, "{report}");
}

#[test]
fn a_quick_bench_measures_every_figure_against_its_limit_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&["bench", "--quick", "--json", "--dir", folder.path().to_str().unwrap()]);
    let results = report["results"].as_array().unwrap();
    let names: Vec<&str> = results.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let drive = ["nvme_read_1mib", "nvme_read_4mib", "nvme_write_1mib", "nvme_write_4mib"];
    let alone = ["memcpy", "hash_tokens"];
    let beside_a_daemon = [
        "ram_load_shared",
        "ram_load_shared_unverified",
        "ram_handover",
        "load_into_ram",
        "load_into_nvme",
        "put_shared",
        "lookup_4096",
        "fetch_uds",
        "fetch_tcp",
        "put_uds",
        "put_tcp",
    ];
    assert_eq!(names, [&drive[..], &alone, &beside_a_daemon].concat());
    for row in results {
        has(row, &["name", "value", "unit", "limit", "ratio", "rounds"]);
        let value = row["value"].as_f64().unwrap();
        assert!(value > 0.0 && row["rounds"].as_u64().unwrap() >= 3, "{row}");
        assert!(row["at_least"].is_number() || row["at_most"].is_number() || row["name"] == "memcpy", "{row}");
        let name = row["name"].as_str().unwrap();
        if let (Some(limit), Some(ratio)) = (row["limit"].as_f64(), row["ratio"].as_f64()) {
            assert!(limit > 0.0 && (value / limit - ratio).abs() < 1e-9 && row["met"].is_boolean(), "{row}");
        } else if drive.contains(&name) {
            // Without io_uring there is no limit to compare with, and a hint that says why.
            assert!(report["hints"][0].as_str().unwrap().contains("no limit"), "{report}");
        } else {
            assert!(alone.contains(&name), "{row}");
        }
    }
    assert!(
        report["nvme_kind"].as_str().unwrap().contains("O_DIRECT") || !report["hints"].as_array().unwrap().is_empty()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_bench_of_some_figures_takes_those_and_no_drive() {
    let report = json(&["bench", "--quick", "--json", "--only", "put_tcp,hash_tokens"]);
    let names: Vec<&str> =
        report["results"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hash_tokens", "put_tcp"]);
    assert!(report["nvme_kind"].is_null(), "{report}");
}

#[test]
fn a_folder_that_is_no_store_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for command in [&["verify", "--data-dir", dir, "--json"][..], &["inspect", "namespaces", "--data-dir", dir]] {
        let said = refusal(command, 1);
        assert!(said.contains("is no kvtier data folder"), "{said}");
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_so() {
    let said = refusal(&["status", "--json", "--server", "unix:/nonexistent/kvtier.sock"], 1);
    assert!(said.contains("no daemon answers at unix:/nonexistent/kvtier.sock"), "{said}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let shell = format!("{} trace generate --requests 20000 | head -n 1", env!("CARGO_BIN_EXE_kvtier"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &shell]).output().unwrap();
    assert_eq!((status(&output), output.stderr.as_slice()), (Some(0), &b""[..]));
}

/// With the Python that `KVTIER_PYTHON` names, or `python3`, where that has `kvcache-simulator`; else this says so, and claims nothing.
#[test]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "it is told where Python is, and says when it skips"
)]
fn an_independent_simulator_hits_the_same_tokens() {
    let python = std::env::var("KVTIER_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/check_hit_rates.py");
    for name in ["conversation", "synthetic"] {
        let trace = format!("{}/../shared/traces/mooncake/{name}_trace.jsonl", env!("CARGO_MANIFEST_DIR"));
        if !Path::new(&trace).exists() {
            return eprintln!("skipped: ../shared/traces not present");
        }
        let compared = Command::new(&python).args(["-B", script, env!("CARGO_BIN_EXE_kvtier"), &trace]).output();
        let Ok(output) = compared else { return eprintln!("skipped: no Python here") };
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if status(&output) == Some(3) {
            return eprintln!("{said}");
        }
        assert!(output.status.success() && said.contains("all equal"), "{name}: {said}");
    }
}

#[test]
fn a_plan_says_what_each_size_would_hit() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let trace = trace.to_str().unwrap();
    assert_eq!(status(&kvtier(&["trace", "generate", "--requests", "300", "-o", trace])), Some(0));
    let plan = json(&["plan", trace, "--model", "llama-3.1-8b", "--points", "5", "--prefill-cost", "0.05", "--json"]);
    has(&plan, &["knee_blocks", "blocks_for_90_percent", "distinct_blocks", "bytes_per_token", "sample", "prices"]);
    assert_eq!(plan["trace"], trace);
    let policies: Vec<&str> = plan["policies"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((policies.first(), policies.last()), (Some(&"lru"), Some(&"belady")), "{plan}");
    let points = plan["points"].as_array().unwrap();
    assert_eq!(points.len(), 5 * policies.len(), "one a policy and capacity");
    let of = |policy: &str, field: &str| -> Vec<f64> {
        let points = points.iter().filter(|point| point["policy"] == policy);
        points.map(|point| point[field].as_f64().unwrap()).collect()
    };
    let (rates, best) = (of("lru", "hit_rate"), of("belady", "hit_rate"));
    assert!(rates.is_sorted() && rates[4] == plan["infinite_hit_rate"].as_f64().unwrap(), "{plan}");
    assert!(rates.iter().zip(&best).all(|(rate, best)| rate <= best), "{plan}");
    let sizes = plan["sizes"].as_array().unwrap();
    for (at, size) in sizes.iter().enumerate() {
        has(size, &["hit_tokens_per_day", "saved_per_day", "nvme_per_day", "net_per_day", "saved_per_tb_day"]);
        assert_eq!(size["bytes"], size["blocks"].as_u64().unwrap() * 512 * 131_072);
        assert_eq!((&size["lru"], &size["belady"]), (&rates[at].into(), &best[at].into()));
        assert_eq!(size["blocks"].as_f64(), Some(of("lru", "capacity_blocks")[at]));
    }
    let blocks = sizes[2]["blocks"].to_string();
    for policy in &policies {
        let replay = ["replay", trace, "--simulate", "--capacity-blocks", &blocks, "--policy", policy, "--json"];
        assert_eq!(json(&replay)["hit_rate"], of(policy, "hit_rate")[2], "{policy}");
    }
    let sizes = json(&["plan", trace, "--bytes-per-token", "1000", "--size", "100MB", "--size", "10MB", "--json"]);
    let blocks: Vec<&Value> = sizes["sizes"].as_array().unwrap().iter().map(|size| &size["blocks"]).collect();
    assert_eq!(blocks, [19, 195]);
    let said = kvtier(&["plan", trace, "--model", "llama-3.1-8b", "--prefill-cost", "0.05"]).stdout;
    let said = String::from_utf8_lossy(&said);
    for words in ["A TB more than the knee saves", "the size that pays most: it hits", "(a placeholder where"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    let sampled = json(&["plan", trace, "--sample", "0.5", "--points", "3", "--json"]);
    has(&sampled["sample"], &["rate", "requests", "lru_error_max", "lru_error_mean"]);
    assert!(
        sampled["points"].as_array().unwrap().iter().all(|of| of["sampled"] == (of["policy"] != "lru")),
        "{sampled}"
    );
    assert!(refusal(&["plan", trace, "--model", "gpt-9"], 2).contains("it must be one of deepseek-v3"));
    assert!(
        refusal(&["plan", trace, "--size", "1GB"], 2).contains("--size is 1000000000 bytes, it must be with --model")
    );
    let small = refusal(&["plan", trace, "--bytes-per-token", "1000", "--size", "1kB"], 2);
    assert!(small.contains("--size is 1000 bytes, it must be at least a block, 500 KiB"), "{small}");
}

#[test]
fn a_plan_finds_the_cheapest_tiers_for_a_target_or_says_what_is_the_most() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let trace = trace.to_str().unwrap();
    assert_eq!(status(&kvtier(&["trace", "generate", "--requests", "300", "-o", trace])), Some(0));
    let plan = |more: &[&str]| {
        let args = ["plan", trace, "--model", "llama-3.1-8b", "--points", "6", "--json"];
        json(&args.into_iter().chain(more.iter().copied()).collect::<Vec<&str>>())
    };
    let found = plan(&["--target", "0.6", "--ram-share", "0.4"]);
    let mixes = found["target"]["mixes"].as_array().unwrap();
    let costs: Vec<f64> = mixes.iter().map(|mix| mix["cost_month"].as_f64().unwrap()).collect();
    assert!(costs.is_sorted() && costs.len() >= 2, "{found}");
    for mix in mixes {
        assert!(mix["hit_rate"].as_f64().unwrap() >= 0.6 && mix["ram_share"].as_f64().unwrap() >= 0.39, "{mix}");
    }
    let both = mixes.iter().find(|mix| mix["policy"] == "lru" && mix["tiers"] == "ram+nvme").unwrap();
    let [ram, nvme] = ["ram_blocks", "nvme_blocks"].map(|field| both[field].to_string());
    let replayed = json(&[
        "replay",
        trace,
        "--simulate",
        "--policy",
        "lru",
        "--ram-blocks",
        &ram,
        "--nvme-blocks",
        &nvme,
        "--json",
    ]);
    assert_eq!(replayed["hit_rate"], both["hit_rate"], "what two simulated tiers of these sizes hit");
    assert_eq!(found["advice"]["reason"], "target");
    // A slow drive leaves more to RAM.
    let slow = plan(&["--target", "0.6", "--nvme-bandwidth", "1MB"]);
    assert!(
        slow["target"]["mixes"].as_array().unwrap().iter().all(|mix| mix["ram_share"].as_f64().unwrap() > 0.9),
        "{slow}"
    );
    let most = plan(&["--target", "0.99"]);
    assert_eq!(
        (most["target"]["mixes"].as_array().unwrap().len(), &most["target"]["most"]),
        (0, &most["infinite_hit_rate"])
    );
    let output = kvtier(&["plan", trace, "--model", "llama-3.1-8b", "--points", "3", "--target", "0.99"]);
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("No size reaches a hit rate of 99.0 %: the most that can be reached is")
    );
    assert!(refusal(&["plan", trace, "--target", "0.6"], 2).contains("--target is 0.6, it must be with --model"));
    assert!(refusal(&["plan", trace, "--target", "20"], 2).contains("it must be a share from 0 to 1"));
    assert!(refusal(&["plan", trace, "--gpu-hour", "2"], 2).contains("--prefill-rate"));
}

#[test]
fn a_plans_page_stands_alone_and_a_traces_name_can_not_break_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("a<b>&\"{{script}}.jsonl");
    let (page, plots) = (folder.path().join("report.html"), folder.path().join("plots"));
    let [trace, page, plots] = [&trace, &page, &plots].map(|path| path.to_str().unwrap());
    assert_eq!(status(&kvtier(&["trace", "generate", "--requests", "100", "-o", trace])), Some(0));
    let plan = [
        "plan",
        trace,
        "--model",
        "llama-3.1-8b",
        "--points",
        "4",
        "--prefill-cost",
        "0.1",
        "--html",
        page,
        "--svg",
        plots,
    ];
    assert_eq!(status(&kvtier(&plan)), Some(0));
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("a&lt;b&gt;&amp;&quot;{{script}}.jsonl") && !html.contains("a<b>"), "the name is escaped");
    let data = html.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["trace"], trace, "the data is there, whatever the name");
    for name in ["hit-rate", "optimum", "money", "ram"] {
        let svg = std::fs::read_to_string(Path::new(plots).join(format!("{name}.svg"))).unwrap();
        assert!(svg.contains("<path class=\"line") && svg.contains("<style>") && !svg.contains("NaN"), "{name}");
        assert!(html.contains(&format!("<figure id=\"{name}\"")), "{name}");
    }
    assert!(
        refusal(&["plan", trace, "--points", "3", "--html", "/nowhere/at/all.html"], 1)
            .contains("/nowhere/at/all.html: ")
    );
}

// The published figures are rounded (73.7 and 14.8 thousand tokens a second), so they are met to a thousandth.
#[test]
fn deepseeks_published_day_comes_out_of_its_fleet() {
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/deepseek-fleet.toml");
    let sheet = json(&["plan", "--fleet", fleet, "--json"]);
    let day = |field: &str| sheet["day"][field].as_f64().unwrap();
    for (field, published) in [("nodes_average", 226.75), ("cost", 87_072.0), ("revenue", 562_027.0)] {
        assert!((day(field) / published - 1.0).abs() < 0.001, "{field}: {} for {published}", day(field));
    }
    assert!((day("margin_percent") - 545.0).abs() < 1.0, "{sheet}");
    let margins: Vec<f64> = sheet["days"].as_array().unwrap().iter().map(|day| day["cost"].as_f64().unwrap()).collect();
    assert!(
        margins.len() == 5 && margins.is_sorted_by(|one, other| one > other),
        "more hits need fewer nodes: {sheet}"
    );
    assert!(refusal(&["plan"], 2).contains("<TRACE>"));
    let folder = tempfile::tempdir().unwrap();
    let bad = |from: &str, to: &str| {
        let path = folder.path().join("fleet.toml");
        std::fs::write(&path, std::fs::read_to_string(fleet).unwrap().replace(from, to)).unwrap();
        refusal(&["plan", "--fleet", path.to_str().unwrap()], 2)
    };
    assert!(bad("hit_rate = 0.5625", "hit_rate = 56.25").contains("demand.hit_rate is 56.25, it must be from 0 to 1"));
    assert!(bad("gpu_hour", "gpu_hours").contains("unknown field `gpu_hours`"));
}
