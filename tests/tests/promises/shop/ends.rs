//! Nothing outlives the shop, however it ends.

use rustix::process::{Pid, Signal, kill_process};
use selvage_tests::wait::{self, PATIENCE};

use super::Shop;

/// The processes of applications and sidecars.
fn pids(shop: &Shop) -> Vec<u64> {
    let applications = shop.running["applications"].as_object().expect("a mapping");
    let applications = applications.values().cloned();
    let sidecars = shop.sidecars().into_iter().map(|one| one["pid"].clone());
    let all = applications.chain(sidecars);
    all.map(|pid| pid.as_u64().expect("a pid")).collect()
}

/// Whether a process is there and has not ended: one that nobody has asked after is a zombie.
fn runs(pid: u64) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|text| {
        let after_name = text.rsplit(')').next().unwrap_or_default();
        !after_name.trim_start().starts_with(['Z', 'X'])
    })
}

/// The processes, anybody's, whose command line or working folder lies in the shop's folder.
fn strays(shop: &Shop) -> Vec<String> {
    let place = shop.folder.path().to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").expect("Linux has a /proc");
    let named = processes.filter_map(|entry| {
        let path = entry.ok()?.path();
        let words = std::fs::read_to_string(path.join("cmdline")).ok()?;
        let folder = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let ours = words.contains(&place) || folder.starts_with(&place);
        ours.then(|| words.replace('\0', " "))
    });
    named.collect()
}

async fn all_end(shop: &Shop, pids: &[u64]) {
    wait::until("the end of all processes", 3 * PATIENCE, async || {
        !pids.iter().any(|pid| runs(*pid))
    })
    .await;
    wait::until(
        "the end of databases and servers",
        3 * PATIENCE,
        async || strays(shop).is_empty(),
    )
    .await;
}

#[tokio::test]
async fn nothing_outlives_the_shop() {
    // Its own end by a signal, a death that lets it do nothing more, and the failure of one part.
    for (case, victim, signal, code) in [
        ("interrupted", None, Signal::INT, Some(0)),
        ("killed", None, Signal::KILL, None),
        ("NATS dies", Some("nats-1"), Signal::KILL, Some(1)),
    ] {
        let mut shop = Shop::open().await;
        let pids = pids(&shop);
        assert_eq!(pids.len(), 14, "seven applications with a sidecar each");
        assert!(pids.iter().all(|pid| runs(*pid)), "{case}: all run");
        // Seven applications and their sidecars, PostgreSQL, Redis, the control plane, itself.
        assert!(strays(&shop).len() >= 10, "{:#?}", strays(&shop));
        match victim {
            None => shop.process.signal(signal),
            Some(name) => {
                let pid = shop.running["applications"][name].as_i64().expect("a pid");
                let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("positive");
                kill_process(pid, signal).expect("it runs");
            }
        }
        let status = shop.process.exit(3 * PATIENCE).await;
        assert_eq!(status.code(), code, "{case}: {}", shop.process.log());
        all_end(&shop, &pids).await;
    }
}
