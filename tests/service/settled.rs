//! What a settle may say, what of it bills, and by what the bill is summed.

use kvtier::proto;
use tonic::Code;

use crate::support::{self, Server, chain, payload, spec};

const MIB: u64 = 1 << 20;

fn settle(layout: &bytes::Bytes, billing_id: &str, request_id: &str, cached_tokens: u64) -> proto::SettleRequest {
    proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: billing_id.into(),
        instance: "engine".into(),
        request_id: request_id.into(),
        fingerprint: layout.clone(),
        prompt_tokens: 128,
        cached_tokens,
        written_tokens: 48,
        output_tokens: 7,
        ..Default::default()
    }
}

// `put` is the name of the request that stores in these tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefill_that_is_repeated_after_preemption_is_no_hit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    // Another request has left 2 blocks; this one hits them, stores 3 of its own, is preempted, and loads all 5 again.
    let (other, _other_stream) = server.session("other").await;
    server.put(other, chain(&layout, 1, 2), |block| payload(1, block)).await;
    let (_, first) = server.fetch(session, "put", chain(&layout, 1, 2)).await;
    assert_eq!(first.tokens, 32);
    server.put(session, chain(&layout, 1, 5), |block| payload(1, block)).await;
    let (_, resumed) = server.fetch(session, "put", chain(&layout, 1, 5)).await;
    assert_eq!(resumed.tokens, 80, "it gets its bytes");
    let greedy = proto::SettleRequest { receipts: vec![resumed.receipt], ..settle(&layout, "b-1", "put", 80) };
    support::refused(server.usage().settle(greedy.clone()).await, Code::FailedPrecondition, &["80", "32"]);
    let honest = proto::SettleRequest {
        cached_tokens: 32,
        preempted_tokens: 80,
        finish_reason: proto::FinishReason::Stop.into(),
        ..greedy
    };
    let record = server.usage().settle(honest).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.hit_tokens, record.miss_tokens, record.preempted_tokens), (32, 96, 80));
    let (_, hit) = server.fetch(session, "later", chain(&layout, 1, 5)).await;
    assert_eq!(hit.tokens, 80);
    let record = server.usage().settle(settle(&layout, "b-2", "later", 80)).await.unwrap().into_inner().record.unwrap();
    assert_eq!(record.hit_tokens, 80, "for others what it stored is a hit");
    server.stop().await;
    let found = kvtier::offline::audit(&dir.path().join("data")).unwrap().divergences;
    assert_eq!((found.overclaimed_requests, found.overclaimed_tokens, found.unclaimed_requests), (1, 48, 0));
    let largest = &found.largest[0];
    assert_eq!((largest.billing_id.as_str(), largest.claimed_tokens, largest.delivered_tokens), ("b-1", 80, 32));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disaggregated_pair_settles_once_and_only_the_prefill_side_bills() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 5), |block| payload(1, block)).await;
    server.fetch(session, "decodes", chain(&layout, 1, 5)).await;
    server.fetch(session, "prefills", chain(&layout, 1, 3)).await;
    let role = proto::NodeRole::Decode.into();
    let decode = proto::SettleRequest { role, ..settle(&layout, "pair", "decodes", 80) };
    let parts = ["cached_tokens is 80 tokens with role decode", "must be 0", "settle the pair once"];
    support::refused(server.usage().settle(decode).await, Code::InvalidArgument, &parts);
    let role = proto::NodeRole::Prefill.into();
    let pair = proto::SettleRequest { role, ..settle(&layout, "pair", "prefills", 48) };
    let record = server.usage().settle(pair).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.hit_tokens, record.delivered_tokens_ram, record.role), (48, 48, role));
    let role = proto::NodeRole::Decode.into();
    let alone = proto::SettleRequest { role, ..settle(&layout, "alone", "decodes", 0) };
    let record = server.usage().settle(alone).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.hit_tokens, record.delivered_tokens_ram), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bill_is_summed_by_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let layout = server.register(spec()).await;
    for (at, (user, key)) in [("ann", "k-1"), ("ann", "k-2"), ("bob", "k-1"), ("", "")].into_iter().enumerate() {
        let settle = proto::SettleRequest {
            user: user.into(),
            api_key_id: key.into(),
            written_by_class: [("1h".to_owned(), 16), ("5m".to_owned(), 32)].into(),
            ..settle(&layout, &format!("b-{at}"), "r", 0)
        };
        let record = server.usage().settle(settle).await.unwrap().into_inner().record.unwrap();
        assert_eq!((record.user.as_str(), record.api_key_id.as_str(), record.written_by_class["5m"]), (user, key, 32));
    }
    let by = async |names: &[&str]| {
        let group_by = names.iter().map(|name| (*name).to_owned()).collect();
        let request = proto::SummarizeUsageRequest { group_by, ..Default::default() };
        server.usage().summarize_usage(request).await.map(tonic::Response::into_inner)
    };
    let rows = by(&["user"]).await.unwrap().rows;
    let rows: Vec<_> = rows.iter().map(|row| (row.user.as_str(), row.tenant.as_str(), row.hour, row.records)).collect();
    assert_eq!(rows, [("", "", 0, 1), ("ann", "", 0, 2), ("bob", "", 0, 1)]);
    assert_eq!(by(&["tenant", "user", "api_key"]).await.unwrap().rows.len(), 4);
    let all = by(&[]).await.unwrap();
    assert_eq!((all.rows.len(), all.rows[0].records, all.rows[0].output_tokens), (1, 4, 28));
    support::refused(by(&["moon"]).await, Code::InvalidArgument, &["group_by is moon", "tenant, namespace, hour"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_compares_with_a_gateways_log_and_fails_with_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let layout = server.register(spec()).await;
    for billing_id in ["b-1", "b-2"] {
        server.usage().settle(settle(&layout, billing_id, "r", 0)).await.unwrap();
    }
    server.stop().await;
    let log = dir.path().join("gateway.jsonl");
    let audit = |lines: &[(&str, u64)]| {
        let line = |(billing_id, output): &(&str, u64)| {
            let counts = format!("\"prompt_tokens\":128,\"cached_tokens\":0,\"output_tokens\":{output}");
            format!("{{\"tenant\":\"acme\",\"billing_id\":\"{billing_id}\",{counts}}}\n")
        };
        std::fs::write(&log, lines.iter().map(line).collect::<String>()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvtier"));
        command.args(["usage", "audit", "--json", "--data-dir"]).arg(dir.path().join("data"));
        let output = command.arg("--gateway-log").arg(&log).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report["gateway"].clone(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, report, _) = audit(&[("b-2", 7), ("b-1", 7)]);
    assert_eq!((code, &report["same"], &report["examples"]), (Some(0), &2.into(), &serde_json::json!([])));
    let (code, report, said) = audit(&[("b-1", 8), ("b-3", 7)]);
    assert_eq!((code, &report["differing"], &report["only_in_ledger"]), (Some(1), &1.into(), &1.into()));
    assert_eq!(report["only_in_log"], 1);
    assert!(
        said.contains("disagree 3 times: record 1 (acme b-1): output_tokens is 7, line 1 of the log says 8"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_settle_can_not_say_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let layout = server.register(spec()).await;
    let good = settle(&layout, "b", "r", 0);
    let class = |name: &str, tokens| [(name.to_owned(), tokens)].into();
    let cases = [
        (proto::SettleRequest { user: "a b".into(), ..good.clone() }, "user \"a b\" must be"),
        (proto::SettleRequest { api_key_id: "a b".into(), ..good.clone() }, "api_key_id \"a b\" must be"),
        (proto::SettleRequest { finish_reason: 6, ..good.clone() }, "finish_reason is 6, it must be"),
        (proto::SettleRequest { role: -1, ..good.clone() }, "role is -1, it must be"),
        (proto::SettleRequest { written_by_class: class("", 1), ..good.clone() }, "written_by_class \"\" must not be"),
        (
            proto::SettleRequest { written_by_class: class("1h", 49), ..good.clone() },
            "written_by_class adds up to 49, it must be at most written_tokens, 48",
        ),
        (
            proto::SettleRequest { preempted_tokens: u64::MAX, ..good.clone() },
            "preempted_tokens is 18446744073709551615, it must be at most",
        ),
    ];
    for (request, words) in cases {
        support::refused(server.usage().settle(request).await, Code::InvalidArgument, &[words]);
    }
    assert!(!server.usage().settle(good).await.unwrap().into_inner().repeated, "nothing was half recorded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_request_is_corrected_and_refunded_by_records_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 5), |block| payload(1, block)).await;
    server.fetch(session, "r", chain(&layout, 1, 5)).await;
    server.usage().settle(settle(&layout, "b-1", "r", 80)).await.unwrap();
    let correction = proto::CorrectUsageRequest {
        tenant: "acme".into(),
        billing_id: "c-1".into(),
        corrects: "b-1".into(),
        reason: "the engine counted twice".into(),
        cached_tokens: Some(48),
        ..Default::default()
    };
    let corrected = server.usage().correct_usage(correction.clone()).await.unwrap().into_inner();
    let record = corrected.record.clone().unwrap();
    assert_eq!((record.hit_tokens, record.miss_tokens, record.prompt_tokens, corrected.repeated), (-32, 32, 0, false));
    assert_eq!((record.corrects.as_str(), record.correction_reason.as_str()), ("b-1", "the engine counted twice"));
    let again = server.usage().correct_usage(correction.clone()).await.unwrap().into_inner();
    assert_eq!((again.record, again.repeated), (corrected.record, true));
    let refused = async |changed: proto::CorrectUsageRequest, code, words: &str| {
        support::refused(server.usage().correct_usage(changed).await, code, &[words]);
    };
    let other = proto::CorrectUsageRequest { billing_id: "c-2".into(), ..correction.clone() };
    let more = proto::CorrectUsageRequest { cached_tokens: Some(81), ..other.clone() };
    refused(more, Code::FailedPrecondition, "cached_tokens is 81 tokens, but only 80 tokens were delivered").await;
    let unknown = proto::CorrectUsageRequest { corrects: "b-9".into(), ..other.clone() };
    refused(unknown, Code::NotFound, "corrects is b-9: nobody has settled it here").await;
    let nothing = proto::CorrectUsageRequest { cached_tokens: Some(48), ..other.clone() };
    refused(nothing, Code::InvalidArgument, "the correction changes nothing").await;
    let both = proto::CorrectUsageRequest { refund: true, ..other.clone() };
    refused(both, Code::InvalidArgument, "refund is true, it must be false where a number is given").await;
    let silent = proto::CorrectUsageRequest { reason: String::new(), ..other.clone() };
    refused(silent, Code::InvalidArgument, "reason must be 1 to 128 bytes").await;
    let same = proto::CorrectUsageRequest { cached_tokens: Some(47), ..correction };
    refused(same, Code::AlreadyExists, "c-1 was settled before with another content").await;
    let refund = proto::CorrectUsageRequest { refund: true, cached_tokens: None, ..other };
    let record = server.usage().correct_usage(refund).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.prompt_tokens, record.hit_tokens, record.written_tokens), (-128, -48, -48));
    let sums = server.usage().summarize_usage(proto::SummarizeUsageRequest::default()).await.unwrap().into_inner();
    let total = sums.total.unwrap();
    assert_eq!((total.records, total.corrections, total.prompt_tokens, total.output_tokens), (1, 2, 0, 0));
    server.stop().await;
    let audit = kvtier::offline::audit(&dir.path().join("data")).unwrap();
    assert_eq!((audit.differences, audit.records, audit.corrections), (0, 1, 2), "{:?}", audit.examples);
}
