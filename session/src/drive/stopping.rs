//! An application that is shut down: what is still done, and for how long.

use std::time::{Duration, Instant};

use super::app::{Shared, clock};
use crate::endpoint::SessionId;

/// How long what waits may take to leave.
pub(super) const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// How long peers may take to answer our goodbye.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// What waits may leave, but neither a node that takes nothing nor a peer that does not answer keeps us.
pub(super) struct Stopping {
    flush_by: Instant,
    farewell_by: Instant,
    /// Sessions whose peers were told that we go.
    closing: Vec<SessionId>,
}

impl Stopping {
    /// Sessions that nobody can go on with (`close`) are closed, so that peers need not find out.
    pub(super) fn begin(shared: &Shared, close: bool) -> Self {
        let now = clock();
        let mut closing = Vec::new();
        if close {
            let mut state = shared.lock();
            closing.extend(state.endpoint.sessions());
            for id in &closing {
                // One that is closing, or closed, already stays as it is.
                let _ = state.endpoint.with_session(now, *id, |session| session.close(now));
            }
        }
        Self { flush_by: now.instant + FLUSH_WAIT, farewell_by: now.instant + FAREWELL_WAIT, closing }
    }

    /// How long to go on at most, if there is something to go on for; `waiting`: something has not left yet.
    pub(super) fn until(&self, shared: &Shared, waiting: bool) -> Option<Instant> {
        let mut state = shared.lock();
        let mut open = |id: &SessionId| state.endpoint.session(*id).is_some_and(|session| !session.is_closed());
        let closing = self.closing.iter().any(&mut open).then_some(self.farewell_by);
        let until = waiting.then_some(self.flush_by).max(closing)?;
        (Instant::now() < until).then_some(until)
    }

    /// How long what was taken from the queue may take to leave.
    pub(super) fn left(&self) -> Duration {
        self.flush_by.saturating_duration_since(Instant::now())
    }
}
