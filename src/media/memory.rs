//! A drive in memory, for tests and simulation: sparse, so that a simulated terabyte costs what was written to it.

use std::io;
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;

use super::device::{Device, Gauges, Io, Moved};
use super::lock;
use super::pool::Pool;
use crate::copy::{Span, SpanMut};
use crate::vocab::limits::{ALIGNMENT, DEVICE_INFLIGHT_BYTES};
use crate::watch::Watch;

const PAGE: usize = ALIGNMENT as usize;

#[derive(Default)]
struct Pages(Mutex<HashMap<u64, Box<[u8]>>>);

/// A drive in memory. What was never written reads as zeroes.
pub struct MemDevice {
    pages: Arc<Pages>,
    size: u64,
    /// Without threads, jobs end before `submit` returns.
    pool: Option<Pool>,
    stopped: Mutex<bool>,
    /// Of jobs that ended before `submit` returned.
    moved: Moved,
}

impl MemDevice {
    /// Ends every job before `submit` returns, on the caller's thread: runs are repeatable.
    #[must_use]
    pub fn inline(size: u64) -> Self {
        Self { pages: Arc::default(), size, pool: None, stopped: Mutex::new(false), moved: Moved::default() }
    }

    /// Ends jobs on a thread of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn threaded(size: u64) -> io::Result<Self> {
        let pages = Arc::<Pages>::default();
        let of_pool = Arc::clone(&pages);
        let pool = Pool::start(
            "kvtier-mem",
            1,
            DEVICE_INFLIGHT_BYTES,
            Box::new(move |io| of_pool.carry_out(size, io)),
            &Watch::default(),
        )?;
        Ok(Self { pages, size, pool: Some(pool), stopped: Mutex::new(false), moved: Moved::default() })
    }
}

impl Device for MemDevice {
    fn submit(&self, mut io: Io) -> Result<(), Io> {
        if let Some(pool) = &self.pool {
            return pool.submit(io);
        }
        if *lock(&self.stopped) {
            return Err(io);
        }
        let result = self.pages.carry_out(self.size, &mut io);
        if result.is_ok() {
            self.moved.add(io.op, io.length);
        }
        io.complete(result);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn gauges(&self) -> Gauges {
        self.pool.as_ref().map_or_else(|| self.moved.fill(Gauges::default()), Pool::gauges)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn stop(&self) {
        *lock(&self.stopped) = true;
        if let Some(pool) = &self.pool {
            pool.stop();
        }
    }
}

impl Pages {
    fn carry_out(&self, size: u64, io: &mut Io) -> io::Result<()> {
        io.check(size)?;
        io.transfer(|to, at| Ok(self.read(to, at)), |from, at| Ok(self.write(from, at)))
    }

    fn read(&self, to: &mut SpanMut<'_>, at: u64) -> usize {
        let pages = lock(&self.0);
        for (number, start) in (at / ALIGNMENT..).zip((0..to.len()).step_by(PAGE)) {
            let fits = to.write(start, pages.get(&number).map_or(&[0; PAGE], |page| &page[..]));
            debug_assert!(fits, "a job is whole pages");
        }
        to.len()
    }

    fn write(&self, from: Span<'_>, at: u64) -> usize {
        let mut pages = lock(&self.0);
        for (number, start) in (at / ALIGNMENT..).zip((0..from.len()).step_by(PAGE)) {
            let page = pages.entry(number).or_insert_with(|| Box::new([0; PAGE]));
            let fits = from.read(start, page);
            debug_assert!(fits, "a job is whole pages");
        }
        from.len()
    }
}
