//! Claims about how the planner's thread is reached.

use std::sync::Arc;
use std::time::Duration;

use super::message::Message;
use crate::cache::{Cache, Chain, Keys, Namespace, Parts};
use crate::plan::{AdmissionKind, PolicyKind};
use crate::tiers::RamShelf;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{BlockKey, ByteCount, NamespaceName, NamespaceSpec, Owner, SystemClock, TenantName, TierShape};

fn cache() -> (Arc<Cache>, Arc<Namespace>) {
    let parts = Parts {
        ram: RamShelf::new(TierShape::carve(ByteCount(4 << 20))).unwrap(),
        nvme: None,
        places: Vec::new(),
        ledger: None,
        policy: PolicyKind::default(),
        admission: AdmissionKind::default(),
        wear_bytes_per_day: None,
        clock: Arc::new(SystemClock),
        recorder: None,
    };
    let (cache, _) = Cache::start(parts).unwrap();
    let spec = NamespaceSpec {
        weights: Weights::Digest(Box::new([1; 32])),
        dtype: "u8".into(),
        layout: "test".into(),
        block_tokens: 16,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: 4_096,
        prefill_tokens_per_second: 0,
    };
    let (namespace, _) = cache.register(None, NamespaceName::parse("test").unwrap(), spec).unwrap();
    (cache, namespace)
}

fn chain(namespace: &Arc<Namespace>) -> Chain {
    let keys = Keys::Known((0..8).map(|byte| BlockKey::from_bytes([byte; 32])).collect());
    let owner = Owner { namespace: namespace.id, ..Owner::default() };
    Chain::of(Arc::clone(namespace), TenantName::parse("acme").unwrap(), owner, keys)
}

/// A put whose end is lost keeps its slots until a restart.
#[tokio::test]
async fn what_can_not_wait_is_told_however_full_the_inbox_is_and_where_there_is_no_runtime() {
    let (cache, namespace) = cache();
    let (walk, _) = cache.put(&chain(&namespace)).await.unwrap();
    assert!(cache.status().await.unwrap().holdings.reservations > 0);
    let (go_on, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let (says, held) = tokio::sync::oneshot::channel();
    let driver = cache.driver.clone();
    let holds = driver.look(move |_| {
        says.send(()).unwrap();
        gate.recv().unwrap();
    });
    let fill = async {
        held.await.unwrap();
        while cache.driver.inbox.try_send(Message::Wake).is_ok() {}
        std::thread::spawn(move || drop(walk)).join().unwrap();
        go_on.send(()).unwrap();
    };
    tokio::join!(async { holds.await.unwrap() }, fill);
    assert!(cache.quiesce(Duration::from_secs(20)).await.unwrap());
    let held = cache.status().await.unwrap().holdings;
    assert_eq!((held.puts, held.reservations, held.ram_used_bytes), (0, 0, 0));
}
