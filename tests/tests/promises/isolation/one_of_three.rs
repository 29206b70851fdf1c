//! One of three replicas is broken, each in its way: callers do not notice, it
//! is left in peace but for one request per backoff, and it is back soon after
//! it is well.

use std::time::Duration;

use selvage_tests::replica::Fault;

use super::scene::{BACKOFF, SLACK, Story, TAKES};

/// Failures in a row that open a breaker, as shipped.
const IN_A_ROW: usize = 5;
/// Requests that may be under way to the broken replica when its breaker opens: a few
/// milliseconds of load, and what a machine that stood still sends at once.
const UNDER_WAY: usize = 5;

impl Story {
    fn no_caller_noticed(&self) {
        for (when, shots) in [
            ("before", &self.healthy),
            ("broken", &self.broken),
            ("mended", &self.mended),
        ] {
            assert_eq!(shots.failed().len(), 0, "{when}: {:?}", shots.kinds());
        }
    }

    fn it_was_left_in_peace(&self, before_it_opened: usize) {
        let most = before_it_opened + UNDER_WAY + self.tries;
        assert!(
            self.requests[0] <= most,
            "it got {} requests, {} times let try",
            self.requests[0],
            self.tries
        );
    }

    /// At most 1.5 times the healthy p99 is meant. What little is measured of both goes by the
    /// tens of milliseconds where others work on the same cores.
    fn nobody_waited(&self) {
        let healthy = self.healthy.latency(0.99).max(2 * TAKES);
        let limit = healthy * 3 * SLACK / 2;
        let late = self.settled.latency(0.99);
        assert!(late <= limit, "p99 {late:?}, before it broke {healthy:?}");
    }

    fn it_came_back(&self) {
        let limit = SLACK * (BACKOFF + Duration::from_secs(1));
        assert!(
            self.back_after.is_some_and(|after| after <= limit),
            "after {:?}",
            self.back_after
        );
    }
}

#[tokio::test]
async fn one_that_refuses_costs_nobody_anything() {
    let story = Story::of(Fault::Refuse).await;
    story.no_caller_noticed();
    story.nobody_waited();
    story.it_came_back();
}

#[tokio::test]
async fn one_that_answers_503_costs_nobody_anything() {
    let story = Story::of(Fault::Status(503)).await;
    story.no_caller_noticed();
    story.it_was_left_in_peace(IN_A_ROW);
    story.nobody_waited();
    story.it_came_back();
}

#[tokio::test]
async fn one_that_hangs_costs_nobody_an_answer() {
    let story = Story::of(Fault::Hang).await;
    story.no_caller_noticed();
    // Until the first of them times out, nothing says that it hangs: at most its share of 200 ms.
    story.it_was_left_in_peace(40 / 3 + IN_A_ROW);
    story.it_came_back();
}

#[tokio::test]
async fn one_that_resets_mid_body_costs_five_and_then_one_per_backoff() {
    let story = Story::of(Fault::ResetMidBody).await;
    let failed = story.broken.failed();
    assert!(
        failed.len() <= IN_A_ROW + UNDER_WAY + story.tries,
        "what has begun cannot be repeated, but {} failed: {:?}",
        failed.len(),
        failed.kinds()
    );
    let while_well = story.healthy.failed().len() + story.mended.failed().len();
    assert_eq!(while_well, 0, "before and after");
    story.it_was_left_in_peace(IN_A_ROW);
    story.it_came_back();
}

#[tokio::test]
async fn one_that_is_ten_times_slower_is_spared() {
    let story = Story::of(Fault::Slow(10)).await;
    story.no_caller_noticed();
    println!("its share: {:.1} %", story.settled_share * 100.0);
    assert!(
        story.settled_share <= 0.1,
        "a third is its share when it is as fast as the others, {:.2} now",
        story.settled_share
    );
}
