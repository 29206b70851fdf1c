//! What the door times, says and leaves to others.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// One read that finds nothing, as hyper makes between two requests, after a look at the clock.
async fn waits(door: &mut Door<tokio::io::DuplexStream>) -> bool {
    let _ = clock::now();
    std::future::poll_fn(|cx| {
        let mut space = [0; 64];
        let mut buf = ReadBuf::new(&mut space);
        Poll::Ready(Pin::new(&mut *door).poll_read(cx, &mut buf).is_pending())
    })
    .await
}

fn limits(idle: Duration, quiet: Option<Duration>) -> DoorLimits {
    DoorLimits {
        head: Duration::from_secs(10),
        idle: Some(idle),
        quiet,
        drop_ends: true,
    }
}

#[tokio::test]
async fn idle_time_begins_anew_after_each_request() {
    let (ours, mut callers) = tokio::io::duplex(64);
    let idle = Duration::from_millis(200);
    let bell = Arc::new(DoorBell::default());
    let mut door = Door::new(ours, bell.clone(), limits(idle, None));
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < idle * 3 {
        assert!(waits(&mut door).await, "closed while it was in use");
        callers
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("room");
        door.read_u8().await.expect("a byte of the head");
        bell.request();
        bell.response_ended();
        door.flush().await.expect("flushed");
        let mut rest = [0; 17];
        door.read_exact(&mut rest).await.expect("the rest of it");
        bell.request();
        bell.response_ended();
        door.flush().await.expect("flushed");
        tokio::time::sleep(idle / 10).await;
    }
    assert!(waits(&mut door).await);
    tokio::time::sleep(idle * 2).await;
    assert!(!waits(&mut door).await, "idle for longer than it may be");
}

#[tokio::test]
async fn quiet_is_said_between_requests_alone_and_is_no_end() {
    let (ours, mut callers) = tokio::io::duplex(64);
    let (idle, quiet) = (Duration::from_millis(300), Duration::from_millis(20));
    let bell = Arc::new(DoorBell::default());
    let mut door = Door::new(ours, bell.clone(), limits(idle, Some(quiet)));
    callers.write_all(b"G").await.expect("room");
    door.read_u8().await.expect("a byte of the head");
    for during in [true, false] {
        assert!(waits(&mut door).await);
        tokio::time::sleep(quiet * 2).await;
        assert!(waits(&mut door).await);
        assert!(!bell.is_quiet(), "in a head, and in a journey");
        if during {
            bell.request();
        }
    }
    bell.response_ended();
    door.flush().await.expect("flushed");
    assert!(waits(&mut door).await);
    tokio::time::sleep(quiet * 2).await;
    assert!(waits(&mut door).await);
    assert!(bell.is_quiet());
    callers.write_all(b"G").await.expect("room");
    door.read_u8().await.expect("a byte of the next head");
    assert!(!bell.is_quiet());
    bell.request();
    bell.response_ended();
    door.flush().await.expect("flushed");
    for wait in [quiet * 2, idle] {
        assert!(waits(&mut door).await);
        tokio::time::sleep(wait).await;
    }
    assert!(!waits(&mut door).await, "idle for longer than it may be");
}

#[tokio::test]
async fn who_is_answered_may_not_idle_within_the_rest_of_its_request() {
    let (ours, mut callers) = tokio::io::duplex(64);
    let idle = Duration::from_millis(200);
    let bell = Arc::new(DoorBell::default());
    let mut door = Door::new(ours, bell.clone(), limits(idle, None));
    bell.request();
    bell.response_ended_early();
    door.flush().await.expect("flushed");
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < idle * 2 {
        assert!(waits(&mut door).await, "closed while the rest was coming");
        callers.write_all(b"more").await.expect("room");
        door.read_exact(&mut [0; 4]).await.expect("more of it");
        tokio::time::sleep(idle / 10).await;
    }
    assert!(waits(&mut door).await);
    tokio::time::sleep(idle * 2).await;
    assert!(!waits(&mut door).await, "idle for longer than it may be");
}

#[tokio::test]
async fn a_caller_is_waited_for_between_requests_and_not_within_a_journey() {
    let (ours, _callers) = tokio::io::duplex(64);
    let idle = Duration::from_secs(60);
    let bell = Arc::new(DoorBell::default());
    let mut door = Door::new(ours, bell.clone(), limits(idle, None));
    assert_eq!(bell.due(), None, "nobody has asked yet");
    bell.request();
    assert!(waits(&mut door).await);
    assert_eq!(bell.due(), None, "the journey has limits of its own");
    bell.response_ended();
    assert_eq!(bell.due(), None, "the answer has not left");
    door.flush().await.expect("flushed");
    assert_eq!(bell.due(), Some(clock::recent() + idle));
    bell.leave();
    assert_eq!(bell.due(), None, "hyper is to end");
}

/// Whether the caller has heard something: bytes, or the end.
async fn heard(caller: &mut tokio::io::DuplexStream) -> bool {
    std::future::poll_fn(|cx| {
        let mut space = [0; 1];
        let mut buf = ReadBuf::new(&mut space);
        Poll::Ready(Pin::new(&mut *caller).poll_read(cx, &mut buf).is_ready())
    })
    .await
}

#[tokio::test]
async fn an_end_is_left_to_the_drop_where_that_says_the_same() {
    // Whether it is an upgrade, holds bytes that nobody read, is more than a
    // socket; and whether its end is said before it is dropped.
    let table = [
        (false, false, false, false),
        (true, false, false, true),
        (false, true, false, true),
        (false, false, true, true),
    ];
    for (upgraded, unread, more, said) in table {
        let (ours, mut callers) = tokio::io::duplex(64);
        let bell = Arc::new(DoorBell::default());
        let limits = DoorLimits {
            drop_ends: !more,
            ..limits(Duration::from_secs(60), None)
        };
        let mut door = Door::new(ours, bell.clone(), limits);
        bell.request();
        if !upgraded {
            bell.response_ended();
            door.flush().await.expect("flushed");
        }
        if unread {
            callers.write_all(b"more").await.expect("room");
        }
        door.shutdown().await.expect("an end");
        assert_eq!(heard(&mut callers).await, said);
        drop(door);
        assert_eq!(callers.read(&mut [0; 1]).await.expect("an end"), 0);
    }
}
