//! Seats that stand in for each other: all of a rotation, or those of one zone.
//! A draw by weight is one look at a table (the alias method of Walker, in
//! integers and so exact).

use super::Seat;

/// A run of seats, and how to draw one of them.
#[derive(Debug)]
pub(crate) struct Tier {
    /// Its first seat.
    first: usize,
    /// Its seats.
    count: usize,
    /// Beside the seats; empty where all weigh the same.
    columns: Box<[Column]>,
    weight: u64,
}

/// Draws are spread evenly over columns; in each, those below a mark are its
/// own seat's, the rest another's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) below: u64,
    pub(super) other: u32,
}

impl Tier {
    /// Those of `seats` from `first` to `end`.
    pub(super) fn of(seats: &[Seat], first: usize, end: usize) -> Self {
        let own = &seats[first..end];
        let weight = own.iter().map(|seat| u64::from(seat.weight)).sum();
        let is_even = own.windows(2).all(|two| two[0].weight == two[1].weight);
        Self {
            first,
            count: own.len(),
            columns: if is_even {
                Box::default()
            } else {
                columns(own, weight)
            },
            weight,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Its seats.
    pub(crate) const fn seats(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }

    /// Whether all weigh the same.
    pub(crate) const fn is_even(&self) -> bool {
        self.columns.is_empty()
    }

    /// The weight of all.
    pub(crate) const fn weight(&self) -> u64 {
        self.weight
    }

    /// The mean weight.
    pub(crate) fn mean(&self) -> f64 {
        self.weight as f64 / self.count as f64
    }

    /// A seat by chance, in proportion to weight. There is at least one.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let seat = rng.usize(..self.count);
        let drawn = match self.columns.get(seat) {
            Some(column) if rng.u64(..self.weight) >= column.below => column.other as usize,
            _ => seat,
        };
        self.first + drawn
    }

    /// A seat by chance that is not `one`, each alike. There are at least two.
    pub(crate) fn draw_other(&self, one: usize, rng: &mut fastrand::Rng) -> usize {
        let seat = self.first + rng.usize(..self.count - 1);
        seat + usize::from(seat >= one)
    }

    #[cfg(test)]
    pub(super) const fn columns(&self) -> &[Column] {
        &self.columns
    }
}

/// Weights are scaled by the number of seats, so that the mean is `weight` and
/// every column holds just that much: what a light seat leaves of its column
/// is filled by a heavy one, until nothing is left over.
fn columns(seats: &[Seat], weight: u64) -> Box<[Column]> {
    let scaled = |seat: &Seat| u64::from(seat.weight) * seats.len() as u64;
    let own = |(other, seat): (u32, &Seat)| Column {
        below: scaled(seat),
        other,
    };
    let mut columns: Box<[Column]> = (0..).zip(seats).map(own).collect();
    let (mut light, mut heavy): (Vec<_>, Vec<_>) =
        (0..seats.len()).partition(|seat| columns[*seat].below < weight);
    while let Some(small) = light.pop()
        && let Some(&large) = heavy.last()
    {
        columns[small].other = large as u32;
        columns[large].below -= weight - columns[small].below;
        if columns[large].below < weight {
            heavy.pop();
            light.push(large);
        }
    }
    columns
}
