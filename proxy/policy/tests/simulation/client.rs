//! Callers: an open loop. Requests come as a Poisson process whatever becomes
//! of those before, and none is sent again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::Method;

use crate::clock::Clock;
use crate::proxy::{Answer, Proxy};
use crate::server::{Request, Route};

/// What callers of one proxy send.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Requests per second, from when on; in order.
    pub(crate) rates: Vec<(Duration, f64)>,
    /// How many in a hundred are POST.
    pub(crate) post_percent: u32,
    /// How many in a hundred take which other route than [`Route::Shallow`].
    pub(crate) others: (u32, Route),
}

impl Load {
    /// GETs at one rate.
    pub(crate) fn steady(rate: f64) -> Self {
        Self {
            rates: vec![(Duration::ZERO, rate)],
            post_percent: 0,
            others: (0, Route::Shallow),
        }
    }

    fn rate(&self, at: Duration) -> f64 {
        let begun = self.rates.iter().rev().find(|(from, _)| *from <= at);
        begun.map_or(0.0, |(_, rate)| *rate)
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> Request {
        let mut one_of = |percent| rng.u32(..100) < percent;
        let (percent, route) = self.others;
        Request {
            method: match one_of(self.post_percent) {
                true => Method::POST,
                false => Method::GET,
            },
            route: match one_of(percent) {
                true => route,
                false => Route::Shallow,
            },
        }
    }
}

/// One request, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// When it was sent, since the start.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) caller: usize,
    pub(crate) route: Route,
    pub(crate) answer: Answer,
}

/// Where calls are gathered, in the order of their ends.
pub(crate) type Calls = Rc<RefCell<Vec<Call>>>;

/// Sends `load` to `proxy` until `end`, since the start.
pub(crate) async fn calls(
    clock: Clock,
    proxy: Rc<Proxy>,
    load: Load,
    end: Duration,
    calls: Calls,
    seed: u64,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        let gap = -(1.0 - rng.f64()).ln() / load.rate(clock.elapsed());
        clock.sleep(Duration::from_secs_f64(gap)).await;
        let at = clock.elapsed();
        if at >= end {
            return;
        }
        let request = load.draw(&mut rng);
        let (clock_, proxy, calls) = (clock.clone(), Rc::clone(&proxy), Rc::clone(&calls));
        clock.spawn(async move {
            let answer = proxy.handle(&request).await;
            calls.borrow_mut().push(Call {
                at,
                took: clock_.elapsed() - at,
                caller: proxy.number(),
                route: request.route,
                answer,
            });
        });
    }
}
