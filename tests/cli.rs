//! What scripts rely on: exit statuses, sentences about bad input, and the shape of every JSON document. No network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

#[path = "shared/command.rs"]
mod command;

use command::{has, json, kvtier, refusal, status};

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
        "fetch_into_uds",
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
