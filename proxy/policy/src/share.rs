//! A share of requests, drawn by chance. It knows no requests.

/// A share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

const WHOLE: u32 = 1_000_000;

impl Share {
    /// So many of a million; `None` for more than all.
    #[must_use]
    pub fn of_million(parts: u32) -> Option<Self> {
        (parts <= WHOLE).then_some(Self(parts))
    }

    /// In per cent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1e4
    }

    /// Whether this one is among them.
    pub fn draw(self, rng: &mut fastrand::Rng) -> bool {
        rng.u32(..WHOLE) < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeded;

    #[test]
    fn the_share_that_is_asked_for_is_drawn() {
        assert_eq!(Share::of_million(1_000_001), None);
        let mut rng = seeded();
        for (parts, least, most) in [
            (0, 0, 0),
            (1_000, 900, 1_100), // 0.1 %
            (500_000, 498_000, 502_000),
            (1_000_000, 1_000_000, 1_000_000),
        ] {
            let share = Share::of_million(parts).expect("at most all");
            let drawn = (0..1_000_000).filter(|_| share.draw(&mut rng)).count();
            assert!((least..=most).contains(&drawn), "{parts}: {drawn}");
        }
    }
}
