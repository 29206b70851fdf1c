//! One case, one row: its requests are sent in order, and each answer judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::HeaderMap;

use super::backend::{Arrival, ID, text};
use super::caller::{self, Came, Connection, Road};
use super::case::{Carrier, Case, Expectation, Session, Speaks};
use super::judge::{self, Asked};
use super::scene::{Ground, Scene};
use super::table::Row;
use crate::wait::{self, PATIENCE};

/// How long copies may take to arrive.
const COPIES: Duration = Duration::from_secs(3);

/// Requests of a session.
const SESSION: usize = 10;

/// How long one case may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Plays a case; `None` where it is not for the profile.
pub async fn play(ground: &Ground, case: &Case) -> Option<Row> {
    let name = case.name(ground.profile)?.to_owned();
    let mut wrong = Vec::new();
    let mut checked = 0;
    let scene = wait::within(&name, 3 * PATIENCE, Scene::set(ground, case)).await;
    let all = wait::within(&name, LIMIT, async {
        for (index, due) in case.expectations(ground.profile).enumerate() {
            let id = format!("{}.{index}.", case.file);
            let found = expect(&scene, due, &id).await;
            let words = |found: String| format!("row {}, {}: {found}", index + 1, in_words(due));
            wrong.extend(found.into_iter().map(words));
            checked += 1;
        }
        if ground.control.is_some() {
            for due in case.conditions(ground.profile) {
                wrong.extend(scene.condition(due).await);
                checked += 1;
            }
        }
    });
    all.await;
    scene.clear().await;
    Some(Row {
        name,
        profile: ground.profile,
        mode: ground.mode,
        checked,
        wrong,
    })
}

fn in_words(due: &Expectation) -> String {
    let host = due.host.as_deref().unwrap_or_default();
    let sni = due
        .sni
        .as_deref()
        .map(|sni| format!(" within TLS to {sni}"));
    format!(
        "{:?} {} {host}{} {:?}{}",
        due.speaks,
        due.method,
        due.path,
        due.headers,
        sni.unwrap_or_default()
    )
}

/// What is wrong with what comes of one expectation.
async fn expect(scene: &Scene<'_>, due: &Expectation, id: &str) -> Vec<String> {
    let usual = match scene.ground.profile {
        super::case::Profile::Gateway => "conformance.example",
        super::case::Profile::Mesh => "echo.infra",
    };
    let asked = Asked {
        host: due.host.as_deref().unwrap_or(usual),
        scheme: if due.sni.is_some() { "https" } else { "http" },
        due,
    };
    let port = due.port.unwrap_or(if due.sni.is_some() { 443 } else { 80 });
    let road = Road {
        address: scene.address(due.at.as_deref(), port),
        sni: due.sni.clone(),
        speaks: due.speaks,
    };
    if let Some(session) = &due.session {
        return stays(&asked, &road, session, id).await;
    }
    let times = due.times.unwrap_or(1);
    let came = all(&asked, &road, times, id).await;
    if due.refused {
        return match came {
            Err(_) => Vec::new(),
            Ok(came) => vec![format!(
                "answered {}, expected no connection",
                came[0].status
            )],
        };
    }
    let came = match came {
        Ok(came) => came,
        Err(error) => return vec![format!("no answer: {error}")],
    };
    let mut wrong: Vec<String> = came.iter().flat_map(|one| asked.judge(one)).collect();
    wrong.truncate(3);
    let mut by = BTreeMap::new();
    for name in came
        .iter()
        .filter_map(|one| one.account["backend"].as_str())
    {
        *by.entry(name.to_owned()).or_insert(0) += 1;
    }
    wrong.extend(judge::shares(due, &by, times));
    if let Some(name) = &due.certificate
        && came[0].certificate != Some(scene.ground.leaf(name))
    {
        wrong.push(format!("another certificate than `{name}` was shown"));
    }
    wrong.extend(arrived(scene, due, times, id).await);
    wrong
}

/// Asks so many times, each with an id of its own.
async fn all(
    asked: &Asked<'_>,
    road: &Road,
    times: usize,
    id: &str,
) -> Result<Vec<Came>, crate::body::BoxError> {
    let mut came = Vec::with_capacity(times);
    if road.speaks == Speaks::Tcp {
        for _ in 0..times {
            came.push(caller::bytes(road).await?);
        }
        return Ok(came);
    }
    let mut connection = Connection::open(road).await?;
    for number in 0..times {
        let headers = headers(asked.due, &format!("{id}{number}"));
        let (path, method) = (&asked.due.path, &asked.due.method);
        came.push(connection.ask(asked.host, path, method, &headers).await?);
    }
    Ok(came)
}

fn headers(due: &Expectation, id: &str) -> Vec<(String, String)> {
    let own = due.headers.iter();
    let own = own.map(|(name, value)| (name.clone(), value.clone()));
    own.chain([(ID.to_owned(), id.to_owned())]).collect()
}

/// What is wrong with what came to the backends: copies, and tries.
async fn arrived(scene: &Scene<'_>, due: &Expectation, times: usize, id: &str) -> Vec<String> {
    let arrivals = || -> Vec<Arrival> { scene.ground.arrivals.of(id) };
    if !due.mirrored.is_empty() {
        // Copies travel beside the requests: the last may still be under way.
        let enough = async {
            while !judge::copies(due, &arrivals(), times).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // When they never are, what is judged below says how many there were.
        let _ = tokio::time::timeout(COPIES, enough).await;
        return judge::copies(due, &arrivals(), times);
    }
    match due.tries {
        Some(tries) if arrivals().len() != tries => {
            vec![format!(
                "{} tries reached backends, expected {tries}",
                arrivals().len()
            )]
        }
        _ => Vec::new(),
    }
}

/// What is wrong with a session: its token, and where its requests go.
async fn stays(asked: &Asked<'_>, road: &Road, session: &Session, id: &str) -> Vec<String> {
    match follow(asked, road, session, id).await {
        Ok(wrong) => wrong,
        Err(error) => vec![format!("no answer: {error}")],
    }
}

async fn follow(
    asked: &Asked<'_>,
    road: &Road,
    session: &Session,
    id: &str,
) -> Result<Vec<String>, crate::body::BoxError> {
    let first = all(asked, road, 1, id).await?.remove(0);
    let mut wrong = asked.judge(&first);
    let Some(token) = token(&first.headers, session, &mut wrong) else {
        return Ok(wrong);
    };
    let mut due = asked.due.clone();
    due.headers.extend([token]);
    let within = Asked {
        due: &due,
        ..*asked
    };
    for came in all(&within, road, SESSION, id).await? {
        wrong.extend(within.judge(&came));
        if who(&came) != who(&first) {
            wrong.push(format!(
                "{} answered within the session of {}",
                who(&came),
                who(&first)
            ));
        }
    }
    let others: BTreeSet<String> = all(asked, road, SESSION, id)
        .await?
        .iter()
        .map(who)
        .collect();
    if others.len() < 2 {
        wrong.push(format!("without a token, too, all went to {others:?}"));
    }
    wrong.truncate(3);
    Ok(wrong)
}

fn who(came: &Came) -> String {
    format!("{}#{}", came.account["backend"], came.account["replica"])
}

/// The header that carries on a session, and what is wrong with its token.
fn token(
    headers: &HeaderMap,
    session: &Session,
    wrong: &mut Vec<String>,
) -> Option<(String, String)> {
    let said = match session.carrier {
        Carrier::Header => text(headers, session.name.as_str()),
        Carrier::Cookie => text(headers, "set-cookie"),
    };
    if said.is_empty() {
        wrong.push("no token came".to_owned());
        return None;
    }
    if session.carrier == Carrier::Header {
        return Some((session.name.clone(), said));
    }
    let mut parts = said.split(';').map(str::trim);
    let pair = parts.next().unwrap_or_default().to_owned();
    let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    if !pair.starts_with(&format!("{}=", session.name)) {
        wrong.push(format!(
            "the cookie is `{pair}`, expected one called `{}`",
            session.name
        ));
    }
    let has = |name: &String| {
        attributes
            .iter()
            .any(|one| one.split('=').next() == Some(name) || one == name)
    };
    for name in &session.attributes {
        if !has(name) {
            wrong.push(format!("the cookie `{said}` lacks {name}"));
        }
    }
    for name in &session.without {
        if has(name) {
            wrong.push(format!("the cookie `{said}` has {name}"));
        }
    }
    Some(("cookie".to_owned(), pair))
}
