//! One delivery, one bill: whoever settles it, under whatever ids, with whatever in between.

use kvtier::proto;
use kvtier::proto::usage_client::UsageClient;
use tokio::task::JoinSet;
use tonic::Code;

use crate::process::Process;
use crate::support::{self, Gate, Server, chain, payload, spec};

const MIB: u64 = 1 << 20;
const DELIVERED: u64 = 80;

fn settle(layout: &bytes::Bytes, billing_id: &str, cached_tokens: u64) -> proto::SettleRequest {
    proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: billing_id.into(),
        attempt: 1,
        instance: "engine".into(),
        request_id: "r".into(),
        fingerprint: layout.clone(),
        prompt_tokens: 128,
        cached_tokens,
        output_tokens: 7,
        ..Default::default()
    }
}

/// Delivers 80 tokens to request `r`, and gives the receipt.
async fn deliver(gate: &Gate) -> (bytes::Bytes, bytes::Bytes) {
    let (session, _stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    gate.put(session, chain(&layout, 1, 5), |block| payload(1, block)).await;
    let (_, end) = gate.fetch(session, "r", chain(&layout, 1, 5)).await;
    assert_eq!(end.tokens, DELIVERED);
    (layout, end.receipt)
}

async fn record(
    usage: &mut UsageClient<tonic::transport::Channel>,
    request: proto::SettleRequest,
) -> proto::UsageRecord {
    usage.settle(request).await.unwrap().into_inner().record.unwrap()
}

fn total(records: &proto::SummarizeUsageReply) -> (u64, u64) {
    let total = records.total.as_ref().unwrap();
    (total.records, total.hit_tokens)
}

fn audited(dir: &std::path::Path) -> kvtier::offline::DeliveryReport {
    let audit = kvtier::offline::audit(&dir.join("data")).unwrap();
    assert_eq!(audit.differences, 0, "{:?}", audit.examples);
    audit.deliveries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_settled_under_three_ids_is_billed_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (layout, receipt) = deliver(&server).await;
    let mut usage = server.usage();
    let first = record(&mut usage, settle(&layout, "b1", DELIVERED)).await;
    assert_eq!((first.hit_tokens, first.request_id.as_str()), (80, "r"));
    assert!(usage.settle(settle(&layout, "b1", DELIVERED)).await.unwrap().into_inner().repeated);
    let refusal = ["request_id r of instance engine is billed by b1 (record 1)", "settle with cached_tokens 0"];
    for id in ["b2", "b3"] {
        support::refused(usage.settle(settle(&layout, id, DELIVERED)).await, Code::AlreadyExists, &refusal);
        let proven = proto::SettleRequest { receipts: vec![receipt.clone()], ..settle(&layout, id, 16) };
        support::refused(usage.settle(proven).await, Code::AlreadyExists, &refusal);
    }
    let second = record(&mut usage, settle(&layout, "b2", 0)).await;
    assert_eq!((second.hit_tokens, second.miss_tokens, second.delivered_tokens_ram), (0, 128, 0));
    let refund = |id: &str, corrects: &str| proto::CorrectUsageRequest {
        tenant: "acme".into(),
        billing_id: id.into(),
        corrects: corrects.into(),
        reason: "tried again".into(),
        refund: true,
        ..Default::default()
    };
    usage.correct_usage(refund("c1", "b1")).await.unwrap();
    assert_eq!(record(&mut usage, settle(&layout, "b3", 64)).await.hit_tokens, 64, "a refund makes it free");
    let again = proto::CorrectUsageRequest {
        refund: false,
        prompt_tokens: Some(128),
        cached_tokens: Some(16),
        ..refund("c2", "b1")
    };
    support::refused(usage.correct_usage(again).await, Code::AlreadyExists, &["is billed by b3 (record 4)"]);
    let sums = usage.summarize_usage(proto::SummarizeUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(total(&sums), (3, 64));
    server.stop().await;
    let joined = audited(dir.path());
    assert_eq!((joined.known, joined.billed, joined.delivered_tokens, joined.billed_tokens), (1, 1, 80, 64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_stays_its_first_settlers_over_a_kill_and_where_only_receipts_prove_it() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--ram", "1MiB", "--nvme", "4MiB"];
    let socket = dir.path().join("s");
    let (mut process, _) = Process::start(dir.path(), &args).await;
    let (layout, receipt) = deliver(&Gate::connect(&socket).await).await;
    process.kill();
    // Nobody has settled yet, and the daemon has forgotten.
    let (mut process, _) = Process::start(dir.path(), &args).await;
    let mut usage = Gate::connect(&socket).await.usage();
    let unproven = usage.settle(settle(&layout, "b1", DELIVERED)).await;
    support::refused(unproven, Code::FailedPrecondition, &["only 0 tokens were delivered"]);
    let proven = |id: &str| proto::SettleRequest { receipts: vec![receipt.clone()], ..settle(&layout, id, DELIVERED) };
    assert_eq!(record(&mut usage, proven("b1")).await.hit_tokens, 80);
    let refusal = ["is billed by b1 (record 1)"];
    support::refused(usage.settle(proven("b2")).await, Code::AlreadyExists, &refusal);
    process.kill();
    let (mut process, _) = Process::start(dir.path(), &args).await;
    let gate = Gate::connect(&socket).await;
    let mut usage = gate.usage();
    for request in [proven("b2"), settle(&layout, "b2", DELIVERED)] {
        support::refused(usage.settle(request).await, Code::AlreadyExists, &refusal);
    }
    let repeated = usage.settle(settle(&layout, "b1", DELIVERED)).await.unwrap().into_inner();
    assert!(repeated.repeated, "the very same settle, though nothing proves it any more");
    // The same name in another use: it is the first one's as long as its record is kept.
    deliver(&gate).await;
    let refused = usage.settle(settle(&layout, "b3", DELIVERED)).await;
    support::refused(refused, Code::AlreadyExists, &["A request_id may come again once the records"]);
    process.kill();
    assert_eq!(audited(dir.path()).billed_tokens, DELIVERED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_who_settle_one_delivery_at_once_one_is_billed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (layout, _) = deliver(&server).await;
    let mut racing = JoinSet::new();
    for at in 0..64 {
        let (mut usage, request) = (server.usage(), settle(&layout, &format!("b{at}"), DELIVERED));
        racing.spawn(async move { usage.settle(request).await.map_err(|status| status.code()).map(drop) });
    }
    let answers = racing.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(Code::AlreadyExists)).count(), 63);
    server.stop().await;
    assert_eq!(audited(dir.path()).billed_tokens, DELIVERED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_proof_no_request_or_another_try_is_refused_by_name_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (layout, receipt) = deliver(&server).await;
    let mut usage = server.usage();
    let good = proto::SettleRequest { receipts: vec![receipt.clone()], ..settle(&layout, "b1", DELIVERED) };
    let mut altered = receipt.to_vec();
    altered[60] ^= 1;
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Server::start(other.path(), MIB, 4 * MIB).await;
    let (_, foreign) = deliver(&elsewhere).await;
    elsewhere.stop().await;
    let with = |receipt: Vec<u8>| proto::SettleRequest { receipts: vec![receipt.into()], ..good.clone() };
    let another = "the delivery receipt was issued for another";
    let cases = [
        (
            proto::SettleRequest { instance: String::new(), ..good.clone() },
            "instance \"\" must not be empty".to_owned(),
        ),
        (
            proto::SettleRequest { request_id: String::new(), ..good.clone() },
            "request_id \"\" must not be empty".into(),
        ),
        (with(altered), "receipts[0]: the delivery receipt was changed after it was issued".into()),
        (with(foreign.to_vec()), "receipts[0]: the delivery receipt was issued by another daemon".into()),
        (with(vec![2; 9]), "receipts[0]: a delivery receipt has at most".into()),
        (proto::SettleRequest { tenant: "bolt".into(), ..good.clone() }, format!("receipts[0]: {another} tenant")),
        (proto::SettleRequest { instance: "e".into(), ..good.clone() }, format!("receipts[0]: {another} instance")),
        (proto::SettleRequest { request_id: "s".into(), ..good.clone() }, format!("receipts[0]: {another} request_id")),
    ];
    for (request, words) in cases {
        for cached_tokens in [request.cached_tokens, 0] {
            let request = proto::SettleRequest { cached_tokens, ..request.clone() };
            support::refused(usage.settle(request).await, Code::InvalidArgument, &[&words]);
        }
    }
    assert_eq!(record(&mut usage, good.clone()).await.sequence, 1, "nothing was half applied");
    let attempt = |attempt| proto::SettleRequest { attempt, ..good.clone() };
    let back = ["attempt is 0, but b1 was settled with attempt 1 (record 1)", "an attempt that was given up"];
    support::refused(usage.settle(attempt(0)).await, Code::AlreadyExists, &back);
    let forward = ["attempt is 2, but b1 was settled with attempt 1 (record 1)", "a request is billed once"];
    support::refused(usage.settle(attempt(2)).await, Code::AlreadyExists, &forward);
    let correction = proto::CorrectUsageRequest {
        tenant: "acme".into(),
        billing_id: "c1".into(),
        corrects: "b1".into(),
        reason: "r".into(),
        output_tokens: Some(6),
        ..Default::default()
    };
    usage.correct_usage(correction.clone()).await.unwrap();
    let named = ["billing_id is c1, which names a correction of b1 (record 2)", "a billing_id of its own"];
    support::refused(usage.settle(settle(&layout, "c1", 0)).await, Code::AlreadyExists, &named);
    let own = proto::CorrectUsageRequest { billing_id: "b1".into(), ..correction };
    let named = ["billing_id is b1, which names a settled request (record 1)"];
    support::refused(usage.correct_usage(own).await, Code::AlreadyExists, &named);
    let sums = usage.summarize_usage(proto::SummarizeUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(total(&sums), (1, DELIVERED));
    server.stop().await;
    assert_eq!(audited(dir.path()).billed_tokens, DELIVERED);
}

// What a lost answer leaves: the gateway asks again with the very same settle, also with a receipt that is none by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_that_is_repeated_needs_no_proof_and_no_known_layout() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (layout, _) = deliver(&server).await;
    let first = record(&mut server.usage(), settle(&layout, "b1", DELIVERED)).await;
    server.stop().await;
    std::fs::remove_dir_all(dir.path().join("data/catalog")).unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let mut usage = server.usage();
    let again = proto::SettleRequest { receipts: vec![vec![1; 200].into()], ..settle(&layout, "b1", DELIVERED) };
    let again = usage.settle(again).await.unwrap().into_inner();
    assert_eq!((again.record, again.repeated), (Some(first), true));
    let unknown = usage.settle(settle(&layout, "b2", 0)).await;
    support::refused(unknown, Code::NotFound, &["fingerprint ", "call RegisterNamespace first"]);
    server.stop().await;
}
