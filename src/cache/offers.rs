//! Chains on offer to the planner, longer than one event goes through: a part of the first, then a message, and so on, so
//! that nobody waits for a long one.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::plan::{Answer, BlockRef, PutId};
use crate::vocab::limits::OFFERS_MAX;

/// Those that are not through.
#[derive(Default)]
pub(super) struct Offers(VecDeque<Part>);

/// A chain of which a part was offered: what is wanted of that, and who waits for the rest.
pub(super) struct Part {
    pub(super) put: PutId,
    wanted: Vec<Option<BlockRef>>,
    reply: oneshot::Sender<Answer>,
}

impl Part {
    /// A chain whose first part is being offered.
    pub(super) fn first(put: PutId, reply: oneshot::Sender<Answer>) -> Self {
        Self { put, wanted: Vec::new(), reply }
    }
}

impl Offers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no more may come in before one is through.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= OFFERS_MAX
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Option<Part> {
        self.0.pop_front()
    }

    /// Takes in what is wanted of a part, and answers after the last.
    pub(super) fn answered(&mut self, mut part: Part, answer: Answer) {
        let Answer::Offered { wanted, complete, more } = answer else { return drop(part.reply.send(answer)) };
        part.wanted.extend(wanted);
        if more {
            self.0.push_back(part);
        } else {
            // Who has left needs no answer.
            part.reply.send(Answer::Offered { wanted: part.wanted, complete, more }).ok();
        }
    }
}
