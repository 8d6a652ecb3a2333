//! A reader may leave at any moment, also before it is told where to read: nothing is held for it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::host::Host;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_past_ram_that_nobody_waits_for_any_more_holds_no_slot() {
    let host = Host::new();
    host.put(0..40).await;
    let mut left = 0;
    for round in 0..300_u32 {
        // Long gone from RAM.
        let request = host.request((round % 16) as u8, false);
        let id = request.session.id;
        let (out, _blocks) = tokio::sync::mpsc::channel(1);
        {
            let mut fetch = pin!(Arc::clone(&host.cache).fetch(request, out));
            // Now and then it has its answer before it has to wait.
            left += u32::from(fetch.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            if round % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        host.cache.close_session(id);
    }
    assert!(left > 30, "{left} readers have left before their answer");
    assert!(host.cache.quiesce(Duration::from_secs(10)).await.unwrap(), "a read has never ended");
    for seed in 0..16 {
        assert!(host.fetch(seed).await, "{seed}");
    }
    host.stop();
}
