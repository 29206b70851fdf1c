//! Which of many texts a given one begins with, the longest first.
//!
//! The texts are sorted, and each knows the longest other that it begins with
//! itself. Of all that a given text begins with, the last one before it in
//! that order begins with all of them: one binary search finds it, and links
//! lead from there to the shorter ones. A trie finds them as well, but keeps a
//! table at every branch; this is three words a text, and a lookup grows with
//! the logarithm of their number.

/// Texts, by their order: a text's place in it is its number.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    texts: Box<[Box<[u8]>]>,
    /// For each text the longest that it begins with.
    shorter: Box<[Option<u32>]>,
}

impl Prefixes {
    /// Of texts in their order, none of them twice.
    pub(super) fn new(texts: Vec<Box<[u8]>>) -> Self {
        debug_assert!(texts.is_sorted_by(|one, next| one < next), "sorted, once");
        let mut shorter: Vec<Option<u32>> = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            // The one before it begins with whatever both begin with.
            let mut candidate = at.checked_sub(1).and_then(|at| u32::try_from(at).ok());
            while let Some(number) = candidate {
                if text.starts_with(&texts[number as usize]) {
                    break;
                }
                candidate = shorter[number as usize];
            }
            shorter.push(candidate);
        }
        Self {
            texts: texts.into(),
            shorter: shorter.into(),
        }
    }

    /// The numbers of those that `text` begins with, the longest first.
    pub(super) fn of<'a>(&'a self, text: &[u8]) -> impl Iterator<Item = usize> + use<'a> {
        let after = self.texts.partition_point(|it| **it <= *text);
        let mut candidate = after.checked_sub(1);
        if let Some(last) = candidate {
            let shared = shared(&self.texts[last], text);
            while let Some(number) = candidate {
                if self.texts[number].len() <= shared {
                    break;
                }
                candidate = self.next(number);
            }
        }
        std::iter::successors(candidate, |number| self.next(*number))
    }

    /// How long a text is, by its number.
    pub(super) fn length(&self, number: usize) -> usize {
        self.texts[number].len()
    }

    fn next(&self, number: usize) -> Option<usize> {
        self.shorter[number].map(|number| number as usize)
    }
}

/// How many bytes two texts begin with alike.
pub(super) fn shared(one: &[u8], other: &[u8]) -> usize {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    differs.unwrap_or_else(|| one.len().min(other.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(texts: &[&str]) -> Prefixes {
        Prefixes::new(texts.iter().map(|text| text.as_bytes().into()).collect())
    }

    #[test]
    fn the_longest_comes_first() {
        let prefixes = of(&["", "/a", "/a/b", "/a/b/c", "/ab", "/b"]);
        let table: [(&str, &[usize]); 7] = [
            ("/a/b/d", &[2, 1, 0]),
            ("/a/b/c", &[3, 2, 1, 0]),
            ("/ab/c", &[4, 1, 0]),
            ("/aa", &[1, 0]),
            ("/c", &[0]),
            ("/", &[0]),
            ("", &[0]),
        ];
        for (text, expected) in table {
            let found: Vec<usize> = prefixes.of(text.as_bytes()).collect();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(of(&[]).of(b"/a").count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_that_a_text_begins_with_are_found(
            texts in prop::collection::btree_set("[ab/]{0,5}", 0..20),
            text in "[ab/]{0,8}",
        ) {
            let texts: Vec<String> = texts.into_iter().collect();
            let prefixes = Prefixes::new(texts.iter().map(|it| it.as_bytes().into()).collect());
            let found: Vec<usize> = prefixes.of(text.as_bytes()).collect();
            let mut expected: Vec<usize> =
                (0..texts.len()).filter(|&at| text.starts_with(&texts[at])).collect();
            expected.sort_by_key(|&at| std::cmp::Reverse(texts[at].len()));
            prop_assert_eq!(found, expected);
        }
    }
}
