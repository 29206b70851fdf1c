//! No text makes the parser panic, hang or grow without bound.

use proptest::prelude::*;
use selvage_core::parse::parse;

use crate::parsing::EVERYTHING;

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    let deep = format!("kind: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_block: String = (0..5000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    let large = " ".repeat(10 * 1024 * 1024 + 1);
    for text in [bomb, deep, deep_block, large] {
        let found = parse("bomb.yaml", &text).unwrap_err();
        assert_eq!(found.as_slice().len(), 1, "{}", found.render(false));
    }
}

#[test]
fn findings_are_bounded() {
    let text = "kind: Pod\n---\n".repeat(500);
    let found = parse("pods.yaml", &text).unwrap_err();
    assert_eq!(
        found.as_slice().len(),
        selvage_core::diagnostic::MAX_DIAGNOSTICS
    );
    assert!(found.render(false).ends_with("and 400 more\n"));
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let found = parse("t", "kind: \"\\e[31mred\"\n").unwrap_err();
    assert!(!found.render(false).contains('\u{1b}'));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = parse("t", &text).map_err(|found| found.render(true));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse("t", &text).map_err(|found| found.render(false));
    }

    #[test]
    fn no_damage_makes_it_panic(
        at in 0..EVERYTHING.len(),
        length in 0usize..40,
        put in "[ \\n:{}\\[\\]&*!|>'\"%@`#a-z0-9\\-]{0,6}",
    ) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, put.into_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse("t", &text).map_err(|found| found.render(false));
    }
}
