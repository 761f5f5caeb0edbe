//! Judged pairs without a person: edited copies of a set's own references, each looked up as an upload would be, and
//! pictures that are copies of nothing.

use crate::fit::Example;

/// How strongly copies are edited, in turn.
pub const EDIT_STRENGTHS: [f64; 3] = [0.3, 0.6, 1.0];

/// What `clamp` never goes below: a query that is like none of the background is not stretched to nothing.
const LEAST_CLAMP: f64 = 0.001;

/// The share of queries at either end whose background is cut to the others'.
const CLAMPED: f64 = 0.01;

/// Judged pairs: the half that fits the curve, and the one that sets the thresholds.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pairs {
    /// The half that fits the curve.
    pub fitting: Vec<Example>,
    /// The half that sets the thresholds.
    pub judging: Vec<Example>,
}

impl Pairs {
    /// Takes a pair into the half that sets the thresholds (`judged`), or the one that fits the curve.
    pub fn add(&mut self, pair: Example, judged: bool) {
        let half = if judged { &mut self.judging } else { &mut self.fitting };
        half.push(pair);
    }
}

/// Which copy is made of a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EditedCopy {
    /// Number of the edit.
    pub edit: usize,
    /// Number of the edit that is made of the result; a third of the copies have one, as people do.
    pub then: Option<usize>,
    /// Strength of both.
    pub strength: f64,
    /// Seed of both.
    pub seed: u64,
}

impl EditedCopy {
    /// Copy `number` (from 1) of a sample, with one or two of `edits` edits. `chance` is a hash of the reference.
    pub fn drawn(chance: u64, number: usize, edits: usize) -> Self {
        let one_of_them = |chance: u64| (chance % edits.max(1) as u64) as usize;
        EditedCopy {
            edit: one_of_them(chance),
            then: (chance / 64).is_multiple_of(3).then(|| one_of_them(chance / 4096)),
            strength: EDIT_STRENGTHS[number % EDIT_STRENGTHS.len()],
            seed: chance,
        }
    }
}

/// What comparing pictures made of copies.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Copies that were compared with what they found.
    pub copies: usize,
    /// Of these, called a copy of their reference.
    pub right: usize,
    /// Of these, called a copy of another one.
    pub wrong: usize,
    /// Copies that were compared with what they found while their reference was not there.
    pub strangers: usize,
    /// Of these, called a copy.
    pub strangers_wrong: usize,
}

impl Compared {
    /// A copy and the best reference that it found: whether the verdict was copy, and whether it is the right one.
    pub fn copy(&mut self, called_a_copy: bool, is_right: bool) {
        self.copies += 1;
        self.right += usize::from(called_a_copy && is_right);
        self.wrong += usize::from(called_a_copy && !is_right);
    }

    /// The same without its reference.
    pub fn stranger(&mut self, called_a_copy: bool) {
        self.strangers += 1;
        self.strangers_wrong += usize::from(called_a_copy);
    }
}

/// What edited copies and unrelated pictures found.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct EditedPairs {
    /// The pairs.
    pub pairs: Pairs,
    /// Copies that were looked up.
    pub copies: usize,
    /// Of these, those whose reference came first.
    pub recalled: usize,
    /// What comparing pictures made of some of them.
    pub compared: Compared,
    /// Pictures that are copies of nothing.
    pub unrelated: usize,
    /// The background of every query.
    backgrounds: Vec<f64>,
}

impl EditedPairs {
    /// A copy of the reference at `place` of the sample (from 1): its similarity to that one, and to the nearest that
    /// is not the same picture. As a user meets it: the best match counts, right or wrong. The half that fits the curve
    /// also sees what stands beside a copy.
    pub fn copy(&mut self, place: u64, background: f64, own: f64, other: Option<f64>) {
        self.copies += 1;
        self.backgrounds.push(background);
        let judged = is_judged(place);
        let found = other.is_none_or(|other| own >= other);
        let mut add = |similarity, is_copy| {
            let pair = Example {
                similarity,
                background,
                is_copy,
            };
            self.pairs.add(pair, judged);
        };
        if found {
            add(own, true);
        }
        if let Some(other) = other.filter(|_| !found || !judged) {
            add(other, false);
        }
        self.recalled += usize::from(found);
    }

    /// Picture `place` (from 1) that is a copy of nothing, and the similarity of what it found: the tail of false
    /// positives.
    pub fn unrelated(&mut self, place: u64, background: f64, similarity: f64) {
        self.unrelated += 1;
        self.backgrounds.push(background);
        let pair = Example {
            similarity,
            background,
            is_copy: false,
        };
        self.pairs.add(pair, is_judged(place));
    }

    /// Part of the copies whose reference came first; None without copies.
    pub fn recall_at_1(&self) -> Option<f64> {
        (self.copies > 0).then(|| self.recalled as f64 / self.copies as f64)
    }

    /// Between what a query's background is cut to.
    pub fn clamp(&mut self) -> [f64; 2] {
        self.backgrounds.sort_by(f64::total_cmp);
        let at_least = |share| percentile(&self.backgrounds, share).map_or(LEAST_CLAMP, |found| found.max(LEAST_CLAMP));
        [at_least(CLAMPED), at_least(1.0 - CLAMPED).min(1.0)]
    }
}

/// Whether the pair at this place of a sample is of the half that sets the thresholds.
fn is_judged(place: u64) -> bool {
    place.is_multiple_of(2)
}

/// The value below which `share` of the sorted values lie, between two of them where it falls there; None without any.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * (sorted.len().checked_sub(1)? as f64);
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (at - at.floor()) * (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_are_edited_in_turn_and_a_third_of_them_twice() {
        let drawn: Vec<EditedCopy> = (0..3000_u64)
            .map(|n| EditedCopy::drawn(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1, n as usize + 1, 20))
            .collect();
        let twice = drawn.iter().filter(|copy| copy.then.is_some()).count();
        assert!((900..1100).contains(&twice), "{twice}");
        for edit in 0..20 {
            assert!(drawn.iter().any(|copy| copy.edit == edit) && drawn.iter().any(|copy| copy.then == Some(edit)));
        }
        assert_eq!(
            [drawn[0].strength, drawn[1].strength, drawn[2].strength],
            [0.6, 1.0, 0.3]
        );
        // As 0.2.0 drew it: kinds[1 + chance % 20], and kinds[1 + chance / 4096 % 20] where chance / 64 % 3 = 0.
        let chance = 3_326_025_917_165_803_207;
        let expected = EditedCopy {
            edit: 7,
            then: Some(17),
            strength: 0.6,
            seed: chance,
        };
        assert_eq!(EditedCopy::drawn(chance, 1, 20), expected);
    }

    #[test]
    fn the_best_match_counts_and_the_fit_also_sees_what_stands_beside_a_copy() {
        let mut edited = EditedPairs::default();
        edited.copy(1, 0.3, 0.9, Some(0.5));
        edited.copy(2, 0.3, 0.9, Some(0.5));
        edited.copy(3, 0.3, 0.4, Some(0.6));
        edited.copy(4, 0.3, 0.4, Some(0.6));
        edited.copy(6, 0.3, 0.8, None);
        edited.unrelated(1, 0.2, 0.1);
        edited.unrelated(2, 0.2, 0.15);
        let of = |half: &[Example]| {
            half.iter()
                .map(|pair| (pair.similarity, pair.is_copy))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&edited.pairs.fitting),
            [(0.9, true), (0.5, false), (0.6, false), (0.1, false)]
        );
        assert_eq!(
            of(&edited.pairs.judging),
            [(0.9, true), (0.6, false), (0.8, true), (0.15, false)]
        );
        assert_eq!((edited.copies, edited.recalled, edited.unrelated), (5, 3, 2));
        assert_eq!(edited.recall_at_1(), Some(0.6));
        assert_eq!(EditedPairs::default().recall_at_1(), None);
    }

    #[test]
    fn what_pictures_show_is_counted_with_and_without_the_reference() {
        let mut compared = Compared::default();
        for (called, right) in [(true, true), (true, false), (false, true), (false, false)] {
            compared.copy(called, right);
        }
        compared.stranger(true);
        compared.stranger(false);
        let expected = Compared {
            copies: 4,
            right: 1,
            wrong: 1,
            strangers: 2,
            strangers_wrong: 1,
        };
        assert_eq!(compared, expected);
    }

    #[test]
    fn percentiles_are_those_of_percentile_cont() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.01), Some(1.0));
        assert_eq!(percentile(&values[..4], 0.5), Some(1.5));
        assert_eq!(percentile(&values[..1], 0.99), Some(0.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn the_clamp_lies_between_nothing_and_one(backgrounds in prop::collection::vec(-1.0f64..2.0, 0..300)) {
            let mut edited = EditedPairs::default();
            for (place, background) in (1..).zip(&backgrounds) {
                edited.unrelated(place, *background, 0.0);
            }
            let [low, high] = edited.clamp();
            prop_assert!(LEAST_CLAMP <= low && high <= 1.0 && (low <= high || low > 1.0));
        }
    }
}
