//! `kvtier plan` as scripts rely on it: the shape of its JSON, its sums, and sentences about bad input.

use std::path::Path;

use serde_json::Value;

#[path = "shared/command.rs"]
mod command;

use command::{has, json, kvtier, refusal, status};

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
