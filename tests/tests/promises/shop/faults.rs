//! What a customer sees while inventory fails: nothing of one replica, and of all of them a page
//! that says what it does not know.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;

use super::{REPLICAS, Shop, is_whole, records, stock};

/// GETs of the gateway while one replica answers 503.
const GETS: usize = 240;
/// Customers at a time.
const CUSTOMERS: usize = 4;
/// Orders in that time.
const ORDERS: u32 = 12;
/// A breaker's longest backoff here (2 s) with its jitter, a health check, and a machine at work.
const HEALED_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test]
async fn the_shop_outlives_its_inventory() {
    let shop = Shop::open().await;
    an_order_is_placed(&shop).await;
    one_replica_answers_503(&shop).await;
    all_replicas_are_down(&shop).await;
    everything_is_back(&shop).await;
    records::every_hop_is_mutual_tls(&shop).await;
    records::strangers_are_denied(&shop).await;
}

async fn an_order_is_placed(shop: &Shop) {
    let before = shop.products().await;
    assert!(is_whole(&before), "{before}");
    let answer = shop.order("wool", 3).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let order: Value = serde_json::from_slice(&answer.body).unwrap();
    let after = shop.products().await;
    assert_eq!(stock(&after, "wool"), stock(&before, "wool") - 3);
    assert_eq!(after["recentOrders"][0]["id"], order["id"], "{after}");
    notified(shop, &order).await;
    // What cannot be is refused, and takes nothing.
    for (sku, quantity, status) in [("wool", 0, 400), ("silk", 1, 404), ("cotton", 100, 201)] {
        let answer = shop.order(sku, quantity).await;
        assert_eq!(
            answer.status,
            status,
            "{quantity} of {sku}: {}",
            answer.text()
        );
    }
    let left = stock(&shop.products().await, "cotton");
    assert_eq!(left, 100, "of 200");
    for (quantity, status) in [(60, 201), (60, 409)] {
        assert_eq!(shop.order("cotton", quantity).await.status, status);
    }
    assert_eq!(stock(&shop.products().await, "cotton"), 40);
}

/// Waits until the notifier has heard of an order.
async fn notified(shop: &Shop, order: &Value) {
    let log = shop.folder.path().join("shop/logs/notifier-1.log");
    let line = format!("notified order={} ", order["id"].as_str().expect("an id"));
    wait::until("the notifier's line", PATIENCE, async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains(&line))
    })
    .await;
}

async fn one_replica_answers_503(shop: &Shop) {
    for _ in 0..20 {
        shop.products().await;
    }
    let before = shop.products().await;
    // The one that its callers like best: its failure is felt at once.
    let replica = records::busiest(shop, "inventory").await;
    shop.tell(&["break", &replica, "unavailable"]).await;
    let begin = Instant::now();
    let customer = async || {
        let mut missed = 0;
        for _ in 0..GETS / CUSTOMERS {
            let answer = shop.get("/products").await;
            let said = serde_json::from_slice(&answer.body).unwrap_or_default();
            missed += usize::from(answer.status != 200 || !is_whole(&said));
        }
        missed
    };
    let buyer = async {
        let mut refused = 0;
        for _ in 0..ORDERS {
            refused += u32::from(shop.order("linen", 2).await.status != 201);
        }
        refused
    };
    let (missed, refused) = tokio::join!(join_all((0..CUSTOMERS).map(|_| customer())), buyer);
    let missed: usize = missed.into_iter().sum();
    let retries = records::sum(shop, "selvage_http_retries_total", &[]).await;
    let opened = [("to", "open")];
    let opened = records::sum(shop, "selvage_breaker_transitions_total", &opened).await;
    println!(
        "one replica answers 503: {GETS} GETs, {missed} failed; {ORDERS} orders, {refused} failed; \
         {retries} retries, breakers opened {opened} times; {:?}",
        begin.elapsed()
    );
    assert_eq!((missed, refused), (0, 0));
    assert!(retries > 0 && opened > 0, "the broken replica was met");
    let after = shop.products().await;
    let taken = u64::from(ORDERS) * 2;
    assert_eq!(
        stock(&after, "linen"),
        stock(&before, "linen") - taken,
        "each once"
    );
    shop.tell(&["heal", &replica]).await;
}

async fn all_replicas_are_down(shop: &Shop) {
    let before = shop.products().await;
    for replica in REPLICAS {
        shop.tell(&["break", replica, "down"]).await;
    }
    let begin = Instant::now();
    for _ in 0..20 {
        let partial = shop.products().await;
        assert_eq!(
            partial["missing"],
            serde_json::json!(["stock"]),
            "{partial}"
        );
        assert_eq!(partial["recentOrders"], before["recentOrders"]);
        assert!(partial["products"][0]["stock"].is_null(), "{partial}");
    }
    let each = begin.elapsed() / 20;
    let page = shop.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("stock unknown"), "{}", page.text());
    let refused = shop.order("wool", 1).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    println!("all replicas down: 21 GETs, all 200 and partial, {each:?} each; an order gets 503");
}

async fn everything_is_back(shop: &Shop) {
    let answered = Instant::now();
    for replica in REPLICAS {
        shop.tell(&["heal", replica]).await;
    }
    let began = Instant::now();
    let whole = wait::until("the page to be whole", HEALED_WITHIN, async || {
        is_whole(&shop.products().await)
    })
    .await;
    let before = shop.products().await;
    let mut order = Value::Null;
    wait::until("an order to be taken", HEALED_WITHIN, async || {
        let answer = shop.order("wool", 5).await;
        order = serde_json::from_slice(&answer.body).unwrap_or_default();
        answer.status == 201
    })
    .await;
    println!(
        "healed: whole after {whole:?}, an order taken after {:?}, {:?} after the first heal",
        began.elapsed(),
        answered.elapsed()
    );
    let after = shop.products().await;
    assert_eq!(
        stock(&after, "wool"),
        stock(&before, "wool") - 5,
        "refused orders took nothing"
    );
    assert_eq!(after["recentOrders"][0]["id"], order["id"], "{after}");
    notified(shop, &order).await;
}
