//! Which engine a run uses: io_uring where it is allowed, epoll where it is not and nobody asked for io_uring by name.

use super::uring::Uring;
use crate::error::{BenchError, Result};
use crate::plan::Plan;
use crate::scenario::EngineKind;

/// Makes sure that io_uring can be opened where a plan uses it; the sentence to be told when epoll takes its place.
///
/// Errors: io_uring was asked for by name and is not to be had.
pub(crate) fn settle<'a>(plans: impl Iterator<Item = &'a mut Plan>) -> Result<Option<String>> {
    settle_if(plans, |threads| {
        // As many as the run will open, each by its own thread: what may be locked, and files, are shared by all.
        let rings: std::io::Result<Vec<Uring>> = (0..threads).map(|_| Uring::new(true)).collect();
        rings.map(drop).map_err(|error| error.to_string())
    })
}

fn settle_if<'a>(
    plans: impl Iterator<Item = &'a mut Plan>,
    opens: impl Fn(u32) -> std::result::Result<(), String>,
) -> Result<Option<String>> {
    let mut wanted: Vec<&mut Plan> = plans.filter(|plan| plan.engine == EngineKind::IoUring).collect();
    let Some(threads) = wanted.iter().map(|plan| plan.threads).max() else { return Ok(None) };
    let Err(reason) = opens(threads) else { return Ok(None) };
    if wanted.iter().any(|plan| plan.options.engine.is_some()) {
        return Err(BenchError::Plan(refusal(EngineKind::IoUring, &reason)));
    }
    wanted.iter_mut().for_each(|plan| plan.engine = EngineKind::Epoll);
    Ok(Some(format!("the engine is epoll, for io_uring is not to be had: {reason}")))
}

/// Why an engine cannot be used, and what to do.
pub(super) fn refusal(engine: EngineKind, reason: &str) -> String {
    let instead = if engine == EngineKind::Epoll { "" } else { "; or take --engine epoll" };
    format!("--engine {}: {reason}{instead}", engine.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Command, Options};

    fn plan(engine: Option<EngineKind>) -> Plan {
        Plan::check(Command::Throughput, Options { engine, threads: Some(2), ..Options::default() }).unwrap()
    }

    #[test]
    fn epoll_takes_the_place_of_what_nobody_named() {
        let denied = |threads| if threads == 2 { Err("denied".to_owned()) } else { Ok(()) };
        let mut plans = [plan(None), plan(Some(EngineKind::Epoll))];
        assert_eq!(settle_if(plans.iter_mut(), |_| Ok(())).unwrap(), None);
        assert_eq!(plans[0].engine, EngineKind::IoUring);
        assert!(settle_if(plans.iter_mut(), denied).unwrap().unwrap().ends_with("denied"));
        assert_eq!((plans[0].engine, plans[1].engine), (EngineKind::Epoll, EngineKind::Epoll));

        let mut named = [plan(Some(EngineKind::IoUring))];
        let refused = settle_if(named.iter_mut(), denied).unwrap_err().to_string();
        assert_eq!(refused, "--engine io-uring: denied; or take --engine epoll");
    }
}
