//! Threads and tasks that are watched.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::Fault;
use crate::vocab::{Clock, Timestamp};

thread_local! {
    /// Where this thread panicked last: only a panic hook is told, and whoever catches the panic comes after it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// To be called by the program's panic hook, so that a [`Failure`] says where it was.
pub fn note_panic(info: &PanicHookInfo<'_>) {
    PLACE.set(info.location().map(ToString::to_string));
}

/// Who is told of parts that end on their own. Clones are the same watch; the default one is heard by nobody.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    failed: tokio::sync::watch::Sender<Option<Failure>>,
    /// Parts that can be done without, by name, and why they ended.
    lost: Mutex<BTreeMap<String, String>>,
    fault: Option<Arc<Fault>>,
}

/// A part has ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {why}")]
pub struct Failure {
    /// The name of its thread or task.
    pub part: String,
    /// `panicked at FILE:LINE:COLUMN: MESSAGE`, or how else it ended.
    pub why: String,
}

/// How the work of a part may end: nothing is said, or why it was too early.
pub trait Ending {
    /// Why it should not have ended.
    fn trouble(&self) -> Option<String>;
}

impl Ending for () {
    fn trouble(&self) -> Option<String> {
        None
    }
}

impl<E: Display> Ending for Result<(), E> {
    fn trouble(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!("ended: {error}"))
    }
}

/// One thread, or one task.
#[derive(Clone, Debug)]
pub struct Part {
    name: Arc<str>,
    watch: Watch,
    is_vital: bool,
    fault: Option<Arc<Fault>>,
}

impl Watch {
    /// A part without which nothing goes on: its end is the process's.
    #[must_use]
    pub fn vital(&self, name: impl Into<Arc<str>>) -> Part {
        self.part(name.into(), true)
    }

    /// A part that can be done without: its end is told, in the log and as a reason of [`Health`](super::Health).
    #[must_use]
    pub fn optional(&self, name: impl Into<Arc<str>>) -> Part {
        self.part(name.into(), false)
    }

    fn part(&self, name: Arc<str>, is_vital: bool) -> Part {
        let fault = self.0.fault.clone().filter(|fault| fault.part == *name);
        Part { name, watch: self.clone(), is_vital, fault }
    }

    /// The first vital part that has ended on its own.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.0.failed.borrow().clone()
    }

    /// Waits until one has.
    pub async fn failed(&self) -> Failure {
        let mut failed = self.0.failed.subscribe();
        loop {
            if let Some(failure) = failed.borrow_and_update().clone() {
                return failure;
            }
            // The sender lives as long as `self`.
            failed.changed().await.ok();
        }
    }

    /// Parts that can be done without and have ended on their own.
    #[must_use]
    pub fn lost(&self) -> Vec<Failure> {
        let lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().map(|(part, why)| Failure { part: part.clone(), why: why.clone() }).collect()
    }

    /// For tests of this program: a watch under which the part of this name panics once it is [armed](Self::arm), or the
    /// step of this name [waits](Self::step) until then.
    #[must_use]
    pub fn with_fault(part: &str) -> Self {
        Self(Arc::new(Watched { fault: Some(Arc::new(Fault::new(part))), ..Watched::default() }))
    }

    /// For tests: from now on.
    pub fn arm(&self) {
        if let Some(fault) = &self.0.fault {
            fault.arm();
        }
    }

    /// Which part or step a test has in mind; none outside of tests.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.0.fault.as_deref().map(|fault| fault.part.as_str())
    }

    /// A step that a test may stop at: goes on at once where none does. Blocks its thread.
    pub fn step(&self, name: &str) {
        if let Some(fault) = self.0.fault.as_deref().filter(|fault| fault.part == name) {
            fault.wait();
        }
    }

    fn tell(&self, part: &Part, why: String) {
        let name = part.name.to_string();
        if part.is_vital {
            self.0.failed.send_if_modified(|failed| {
                let is_first = failed.is_none();
                failed.get_or_insert(Failure { part: name, why });
                is_first
            });
        } else {
            tracing::error!(part = name, why, "a part has ended that can be done without");
            self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert(why);
        }
    }
}

impl Part {
    /// What the thread's name should be.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// Does a thread's work: a panic, and an ending with trouble, are told. The panic goes on, so that who joins the thread
    /// sees it.
    pub fn run<T: Ending>(&self, work: impl FnOnce() -> T) -> T {
        let ended = self.caught(work);
        match ended {
            Ok(ended) => self.judge(ended),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Does one step of a thread that goes on after a panic in it, which is told; `None` then.
    pub fn attempt<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        self.caught(step).ok()
    }

    /// Does a task's work, as [`run`](Self::run) does a thread's. A task that is dropped before its end has not ended.
    pub fn task<T: Ending>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut work = Box::pin(work);
        poll_fn(move |context| {
            let polled = self.caught(|| {
                self.beat();
                work.as_mut().poll(context)
            });
            match polled {
                Ok(polled) => polled.map(|ended| self.judge(ended)),
                Err(panic) => resume_unwind(panic),
            }
        })
    }

    /// Each round of a thread's loop calls this: where a test wants the part to panic, it does.
    #[track_caller]
    pub fn beat(&self) {
        if let Some(fault) = &self.fault {
            assert!(!fault.is_armed(), "a test has {} panic", self.name);
        }
    }

    /// A clock of which each look is a [beat](Self::beat), for a thread that looks at it all the time; the same clock outside
    /// of tests.
    #[must_use]
    pub fn clock(&self, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        if self.fault.is_none() { clock } else { Arc::new(Beating { clock, part: self.clone() }) }
    }

    fn judge<T: Ending>(&self, ended: T) -> T {
        if let Some(why) = ended.trouble() {
            self.watch.tell(self, why);
        }
        ended
    }

    fn caught<T>(&self, work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
        // What the work has broken is not used again: the process ends, or the work's thread does.
        catch_unwind(AssertUnwindSafe(work)).inspect_err(|panic| {
            let place = PLACE.take().map(|place| format!(" at {place}")).unwrap_or_default();
            self.watch.tell(self, format!("panicked{place}: {}", message(&**panic)));
        })
    }
}

struct Beating {
    clock: Arc<dyn Clock>,
    part: Part,
}

impl Clock for Beating {
    fn now(&self) -> Timestamp {
        self.part.beat();
        self.clock.now()
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(watch: &Watch) -> String {
        watch.failure().map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_thread_that_panics_is_told_and_who_joins_it_still_sees_the_panic() {
        let watch = Watch::default();
        let part = watch.vital("planner");
        let joined = std::thread::spawn(move || part.run::<()>(|| panic!("no {}", "way"))).join();
        assert!(joined.is_err());
        assert_eq!(failed(&watch), "planner panicked: no way");
    }

    #[test]
    fn a_part_that_ends_as_it_was_told_is_no_failure_and_one_that_ends_with_trouble_is() {
        let watch = Watch::default();
        watch.vital("writer").run(|| ());
        watch.vital("ring").run(|| Ok::<_, String>(())).unwrap();
        assert_eq!(watch.failure(), None);
        assert!(watch.vital("ring").run(|| Err("the ring broke")).is_err());
        assert_eq!(failed(&watch), "ring ended: the ring broke");
        assert!(watch.vital("other").run(|| Err("later")).is_err());
        assert_eq!(failed(&watch), "ring ended: the ring broke", "the first one is the cause");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_and_one_that_is_dropped_is_not() {
        let watch = Watch::default();
        let endless = tokio::spawn(watch.vital("endless").task(std::future::pending::<()>()));
        tokio::task::yield_now().await;
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
        assert_eq!(watch.failure(), None);
        let panics = async {
            tokio::task::yield_now().await;
            panic!("late");
        };
        assert!(tokio::spawn(watch.vital("clock").task::<()>(panics)).await.unwrap_err().is_panic());
        assert_eq!(watch.failed().await, Failure { part: "clock".into(), why: "panicked: late".into() });
    }

    #[test]
    fn what_can_be_done_without_is_told_once_and_fails_nothing() {
        let watch = Watch::default();
        for why in ["first", "second"] {
            assert_eq!(watch.optional("record").attempt(|| std::panic::panic_any(why)), None::<()>);
        }
        assert_eq!((watch.failure(), watch.lost().len()), (None, 1));
        assert_eq!(watch.lost()[0].to_string(), "record panicked: first");
    }

    #[test]
    fn a_fault_is_of_its_part_and_waits_until_it_is_armed() {
        let watch = Watch::with_fault("one");
        let (one, other) = (watch.vital("one"), watch.vital("other"));
        one.beat();
        watch.arm();
        other.beat();
        assert!(one.attempt(|| one.beat()).is_none());
        assert_eq!(failed(&watch), "one panicked: a test has one panic");
    }
}
