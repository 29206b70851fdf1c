//! What the store promises of its transactions.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
use super::*;

fn key(name: &str) -> Key {
    Key {
        kind: "Service".into(),
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn put(name: &str, value: u64, order: u64) -> Edit {
    Edit::Put(key(name), Value::from(value), order)
}

fn certificate(serial: &str, not_after: u64) -> Certificate {
    Certificate {
        serial: serial.into(),
        identity: "spiffe://t/ns/a/sa/b".into(),
        not_after,
        kind: "attest".into(),
    }
}

#[test]
fn order_is_that_of_first_apply_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let db = Db::open(&path).unwrap();
    assert_eq!(db.edit(&[put("b", 1, 1), put("a", 1, 2)]).unwrap(), 2);
    assert_eq!(db.edit(&[put("b", 2, 1)]).unwrap(), 3);
    drop(db);
    let db = Db::open(&path).unwrap();
    let names: Vec<_> = db
        .resources()
        .unwrap()
        .into_iter()
        .map(|r| (r.key.name, r.revision))
        .collect();
    assert_eq!(names, [("b".to_owned(), 3), ("a".to_owned(), 2)]);
    assert_eq!(db.revision().unwrap(), 3);
    assert_eq!(
        db.edit(&[Edit::Delete(key("none"))]).unwrap(),
        3,
        "nothing changed"
    );
    assert_eq!(db.edit(&[Edit::Delete(key("a"))]).unwrap(), 4);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let crashed = folder.path().join("crashed.redb");
    let db = Db::open(&path).unwrap();
    for value in 0..10 {
        db.edit(&[put("a", value, 1)]).unwrap();
        // The file as it is on disk at this moment, never closed.
        std::fs::copy(&path, &crashed).unwrap();
        let copy = Db::open(&crashed).unwrap();
        assert_eq!(copy.resources().unwrap()[0].document, value);
        assert_eq!(copy.revision().unwrap(), value + 1);
    }
}

#[test]
fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _first = Db::open(&path).unwrap();
    assert!(matches!(Db::open(&path), Err(StoreError::InUse)));
}

#[test]
fn a_token_is_spent_only_with_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("store.redb")).unwrap();
    let token = Token {
        identity: "spiffe://t/ns/a/sa/b".into(),
        services: vec!["b".into()],
        expires_at: 100,
        uses_left: 1,
    };
    db.put_token([1; 32], &token, 10).unwrap();
    let failing = db.redeem([1; 32], 20, |_| -> Result<((), Certificate), _> {
        Err(StoreError::Signing("no".into()))
    });
    assert!(matches!(failing, Err(StoreError::Signing(_))));
    assert_eq!(db.binding(&token.identity).unwrap(), Binding::default());
    let sign = |_: &Token| Ok(((), certificate("01", 1000)));
    assert!(
        matches!(db.redeem([2; 32], 20, sign), Err(StoreError::Token)),
        "unknown"
    );
    assert!(
        matches!(db.redeem([1; 32], 100, sign), Err(StoreError::Token)),
        "expired"
    );
    assert!(db.token_is_valid([1; 32], 20).unwrap());
    db.redeem([1; 32], 20, sign).unwrap();
    assert_eq!(db.certificates().unwrap(), 1);
    assert_eq!(db.binding(&token.identity).unwrap().services, ["b"]);
    assert!(
        matches!(db.redeem([1; 32], 20, sign), Err(StoreError::Token)),
        "used up"
    );
    assert!(!db.token_is_valid([1; 32], 20).unwrap());
}

#[test]
fn what_ended_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("store.redb")).unwrap();
    db.put_certificate(&certificate("01", 10), 5).unwrap();
    db.put_certificate(&certificate("02", 10_000_000), 9_000_000)
        .unwrap();
    assert_eq!(db.certificates().unwrap(), 1);
    let token = Token {
        identity: "i".into(),
        services: vec![],
        expires_at: 5,
        uses_left: 1,
    };
    db.put_token([1; 32], &token, 0).unwrap();
    let later = Token {
        expires_at: 50,
        ..token
    };
    db.put_token([2; 32], &later, 10).unwrap();
    assert!(!db.token_is_valid([1; 32], 0).unwrap());
    assert!(db.token_is_valid([2; 32], 10).unwrap());
}

#[test]
fn registrations_are_kept_until_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let db = Db::open(&path).unwrap();
    db.put_registration("shop/a", &Value::from("x")).unwrap();
    db.put_registration("shop/b", &Value::from("y")).unwrap();
    drop(db);
    let db = Db::open(&path).unwrap();
    assert_eq!(db.registrations().unwrap().len(), 2);
    assert_eq!(
        db.delete_registrations(&["shop/a".into(), "shop/c".into()])
            .unwrap(),
        3
    );
    assert_eq!(db.registrations().unwrap(), ["y"]);
}
