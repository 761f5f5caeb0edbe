//! How a reference stands among the query's other references, and what the two pictures have in common: the evidence
//! beyond the similarity itself.

use serde::{Deserialize, Serialize};

/// References nearer to the judged one than this are the same picture, registered more than once: no others.
pub const SAME_PICTURE: f64 = 0.985;

/// Neighbours that a query needs for [`Standing`]: the judged one and five others, with room for some registered twice.
pub const STANDING_NEIGHBOURS: usize = 12;

/// The query's similarity to the best and to the fifth of the other references of its neighbourhood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Similarity to the best other.
    pub best: f64,
    /// Similarity to the fifth other.
    pub fifth: f64,
}

impl Standing {
    /// The standing of neighbour `judged`, of neighbours by falling similarity. `is_same` says which of the others are
    /// the judged picture registered again. Where there are fewer than five others the background alone is the level,
    /// which [`Lead::probability`] takes where it is higher.
    pub fn of(similarities: &[f64], judged: usize, is_same: impl Fn(usize) -> bool) -> Self {
        let mut others = (0..similarities.len())
            .filter(|&other| other != judged && !is_same(other))
            .map(|other| similarities[other]);
        let best = others.next().unwrap_or(-1.0);
        let fifth = others.nth(3).unwrap_or(-1.0);
        Self { best, fifth }
    }
}

/// What verification found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Found {
    /// ln(1 + inliers).
    pub inliers: f64,
    /// The most `inliers` of any other reference.
    pub other_inliers: f64,
    /// Share of the compared content that agrees, 0 to 1.
    pub agreement: f64,
    /// The most `agreement` of any other reference.
    pub other_agreement: f64,
    /// Share of the compared content that agrees apart from the largest block that does not, 0 to 1: at least
    /// `agreement`, and more where something was laid over the picture.
    pub uncovered: f64,
    /// How many cells of content were compared.
    pub compared: f64,
    /// How many features of the reference could be found.
    pub features: f64,
    /// Share of the reference that is of one tone, 0 to 1: high for drawn pictures (pages, charts,
    /// forms), low for photographs.
    pub ground: f64,
}

/// Agreement above that of any other reference that is chance, and, for a single compared cell, how much more there is
/// no more to prove from: two forms of one kind agree in four fifths of their cells, with each other and with a third,
/// more or less by as much as so few cells say.
const CHANCE: f64 = 0.03;
const PLAIN: f64 = 1.8;

/// A banner over a picture hides content, and most features stay where they were. So a reference stands out by its
/// features, too: by how much the logarithm of the inliers is above that of any other (the template that forms share
/// has as many in all of them), how many they are, and how much of the content agrees that no one thing covers; between
/// the first and the second of each.
const FEATURES_LEAD: [f64; 2] = [0.4, 0.9];
const FEATURES: [f64; 2] = [12.0, 30.0];
const UNCOVERED: [f64; 2] = [0.8, 0.9];

/// Where descriptors say that two pictures are all but one, their content must agree in nearly all that both show:
/// between the first similarity and the second, and between the first agreement and the second, a pair is taken to be
/// contradicted more and more.
const ALIKE: [f64; 2] = [0.7, 0.85];
const AGREES: [f64; 2] = [0.75, 0.65];
/// Nearer than strangers of one kind ever are, up to the picture itself: what its content is too fine for a sketch to
/// show is no contradiction then.
const ITSELF: [f64; 2] = [0.993, 0.998];
/// What is left of the log-odds of a pair that is contradicted.
const LEFT: f64 = 0.05;

/// Drawn pictures have a ground of one tone, and share their templates' lines with strangers however alike their
/// descriptors are: of such a reference (between these shares of ground) more content must agree (between these
/// agreements), unless more features lie where they should than templates have in common (between these inliers), or
/// the agreement stands out from that with another reference of the kind: one that shares the template (with at least
/// these agreements) or is as similar (from these on).
const GROUND: [f64; 2] = [0.34, 0.42];
const DRAWN_AGREES: [f64; 2] = [0.9, 0.83];
const DRAWN_INLIERS: [f64; 2] = [30.0, 50.0];
const TEMPLATE: [f64; 2] = [0.2, 0.4];
const KIND: [f64; 2] = [0.6, 0.7];

/// Nor does it need to where a good part of the reference's features lie where they should, which those of a template
/// alone never are (between these shares of all, and these numbers), and the content agrees that no one thing covers
/// (between these agreements).
const DRAWN_SHARE: [f64; 2] = [0.25, 0.35];
const DRAWN_SHARED: [f64; 2] = [8.0, 14.0];
const DRAWN_UNCOVERED: [f64; 2] = [0.88, 0.95];

/// How far a value is from the first bound to the second, 0 to 1.
fn between(value: f64, [first, second]: [f64; 2]) -> f64 {
    ((value - first) / (second - first)).clamp(0.0, 1.0)
}

impl Found {
    /// How far the agreement stands out from that with any other reference, 0 to 1.
    fn content_stands_out(&self) -> f64 {
        let plain = CHANCE + PLAIN / self.compared.max(1.0).sqrt();
        between(self.agreement - self.other_agreement, [CHANCE, plain])
    }

    /// How far the features do, 0 to 1.
    fn features_stand_out(&self) -> f64 {
        between(self.inliers - self.other_inliers, FEATURES_LEAD)
            * between(self.inliers.exp_m1(), FEATURES)
            * between(self.uncovered, UNCOVERED)
    }

    /// The agreement as far as it, or the features, stand out from those of any other reference, 0 to 1.
    pub fn outstanding(&self) -> f64 {
        (self.agreement * self.content_stands_out()).max(self.uncovered * self.features_stand_out())
    }

    /// How far so many of the reference's features are found as a template alone never gives, 0 to 1.
    fn features_abound(&self) -> f64 {
        let count = self.inliers.exp_m1();
        between(count / self.features.max(1.0), DRAWN_SHARE)
            * between(count, DRAWN_SHARED)
            * between(self.uncovered, DRAWN_UNCOVERED)
    }

    /// How far the content contradicts descriptors that are so similar, 0 to 1.
    fn contradicts(&self, similarity: f64, standing: Standing) -> f64 {
        let of_the_kind = between(self.other_agreement, TEMPLATE).max(between(standing.best, KIND));
        let alike = between(similarity, ALIKE) * between(self.agreement, AGREES);
        let drawn = between(self.ground, GROUND)
            * between(self.agreement, DRAWN_AGREES)
            * (1.0 - between(self.inliers.exp_m1(), DRAWN_INLIERS))
            * (1.0 - self.features_abound())
            * (1.0 - self.content_stands_out().max(self.features_stand_out()) * of_the_kind);
        alike.max(drawn) * (1.0 - between(similarity, ITSELF))
    }
}

/// Log-odds from similarity, background and standing.
///
/// The level that a reference must stand above is the larger of the query's other references and its background, so
/// that a small set with few of a kind promises no more than a large one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lead {
    /// Log-odds where all is 0.
    pub intercept: f64,
    /// Weight of the similarity, at least 0.
    pub similarity: f64,
    /// Weight of the background.
    pub background: f64,
    /// Weight of the similarity above the best other, at least 0.
    pub best: f64,
    /// Weight of the similarity above the fifth other, at least 0.
    pub fifth: f64,
}

/// Log-odds that weigh the evidence of verification as well, and the thresholds of probabilities that rest on it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// As [`Lead::intercept`].
    pub intercept: f64,
    /// As [`Lead::similarity`].
    pub similarity: f64,
    /// As [`Lead::background`].
    pub background: f64,
    /// As [`Lead::best`].
    pub best: f64,
    /// As [`Lead::fifth`].
    pub fifth: f64,
    /// Weight of [`Found::inliers`], at least 0.
    pub inliers: f64,
    /// Weight of the inliers above those of any other reference, at least 0.
    pub inliers_lead: f64,
    /// Weight of [`Found::agreement`], at least 0.
    pub agreement: f64,
    /// Weight of [`Found::outstanding`], at least 0.
    pub outstanding: f64,
    /// Probability from which the verdict is copy; without it the record's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_probability: Option<f64>,
    /// Probability from which the verdict is review; without it the record's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_probability: Option<f64>,
}

impl Lead {
    /// Log-odds that the pair is a copy. NaN in, NaN out.
    pub fn log_odds(&self, similarity: f64, background: f64, standing: Standing) -> f64 {
        self.intercept
            + self.similarity * similarity
            + self.background * background
            + self.best * (similarity - standing.best.max(background))
            + self.fifth * (similarity - standing.fifth.max(background))
    }

    /// Names and values of what must be finite, and whether it must not be negative.
    pub(crate) fn weights(&self) -> [(&'static str, f64, bool); 5] {
        [
            ("lead.intercept", self.intercept, false),
            ("lead.similarity", self.similarity, true),
            ("lead.background", self.background, false),
            ("lead.best", self.best, true),
            ("lead.fifth", self.fifth, true),
        ]
    }
}

impl Verified {
    /// Log-odds that the pair is a copy: never less for more evidence of it, and hardly above even where the content
    /// contradicts descriptors that are nearly the same. NaN in, NaN out.
    pub fn log_odds(&self, similarity: f64, background: f64, standing: Standing, found: Found) -> f64 {
        let lead = Lead {
            intercept: self.intercept,
            similarity: self.similarity,
            background: self.background,
            best: self.best,
            fifth: self.fifth,
        };
        let odds = lead.log_odds(similarity, background, standing)
            + self.inliers * found.inliers
            + self.inliers_lead * (found.inliers - found.other_inliers)
            + self.agreement * found.agreement
            + self.outstanding * found.outstanding();
        if odds > 0.0 {
            odds * (1.0 - (1.0 - LEFT) * found.contradicts(similarity, standing))
        } else {
            odds
        }
    }

    pub(crate) fn weights(&self) -> [(&'static str, f64, bool); 9] {
        [
            ("verified.intercept", self.intercept, false),
            ("verified.similarity", self.similarity, true),
            ("verified.background", self.background, false),
            ("verified.best", self.best, true),
            ("verified.fifth", self.fifth, true),
            ("verified.inliers", self.inliers, true),
            ("verified.inliers_lead", self.inliers_lead, true),
            ("verified.agreement", self.agreement, true),
            ("verified.outstanding", self.outstanding, true),
        ]
    }
}

/// Probability of log-odds. exp of a non-positive number only, so that neither tail overflows.
pub fn probability_of(log_odds: f64) -> f64 {
    if log_odds >= 0.0 {
        1.0 / (1.0 + (-log_odds).exp())
    } else {
        let odds = log_odds.exp();
        odds / (1.0 + odds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_picture_registered_six_times_stands_like_one_registered_once() {
        let once = Standing::of(&[0.9, 0.5, 0.45, 0.4, 0.35, 0.3], 0, |_| false);
        let often = Standing::of(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.45, 0.4, 0.35, 0.3], 2, |other| {
            other < 6
        });
        assert_eq!(once, often);
        assert_eq!(once, Standing { best: 0.5, fifth: 0.3 });
    }

    #[test]
    fn a_set_with_few_references_has_the_background_for_a_level() {
        let alone = Standing::of(&[0.8], 0, |_| false);
        assert_eq!(
            alone,
            Standing {
                best: -1.0,
                fifth: -1.0
            }
        );
        let lead = Lead {
            intercept: 0.0,
            similarity: 0.0,
            background: 0.0,
            best: 1.0,
            fifth: 1.0,
        };
        assert!((lead.log_odds(0.8, 0.5, alone) - 0.6).abs() < 1e-12);
    }

    fn verified() -> impl Strategy<Value = Verified> {
        (proptest::array::uniform9(0.0f64..20.0), -20.0f64..20.0, -20.0f64..20.0).prop_map(
            |(w, intercept, background)| Verified {
                intercept,
                similarity: w[1],
                background,
                best: w[2],
                fifth: w[3],
                inliers: w[4],
                inliers_lead: w[5],
                agreement: w[6],
                outstanding: w[7],
                copy_probability: None,
                review_probability: None,
            },
        )
    }

    proptest! {
        #[test]
        fn more_evidence_is_never_less_probable(
            model in verified(), similarity in -1.0f64..1.0, background in -1.0f64..1.0, best in -1.0f64..1.0,
            fifth in -1.0f64..1.0, inliers in 0.0f64..6.0, agreement in 0.0f64..1.0, clear in 0.0f64..1.0,
            others in (0.0f64..6.0, 0.0f64..1.0), more in 0.0f64..3.0,
            compared in 0.0f64..256.0, (features, ground) in (0.0f64..200.0, 0.0f64..1.0),
        ) {
            let standing = Standing { best, fifth };
            let uncovered = agreement + (1.0 - agreement) * clear;
            let (other_inliers, other_agreement) = others;
            let found = Found {
                inliers, agreement, uncovered, other_inliers, other_agreement, compared, features, ground,
            };
            let odds = model.log_odds(similarity, background, standing, found);
            let more_inliers = Found { inliers: inliers + more, ..found };
            prop_assert!(model.log_odds(similarity, background, standing, more_inliers) >= odds - 1e-9);
            let more_agreement = Found { agreement: (agreement + more).min(1.0), ..found };
            prop_assert!(model.log_odds(similarity, background, standing, more_agreement) >= odds - 1e-9);
            let less_covered = Found { uncovered: (uncovered + more).min(1.0), ..found };
            prop_assert!(model.log_odds(similarity, background, standing, less_covered) >= odds - 1e-9);
            // Of a drawn picture nothing but another of the template tells what the template is.
            let odds_of_photograph = model.log_odds(similarity, background, standing, Found { ground: 0.0, ..found });
            prop_assert!(odds <= odds_of_photograph + 1e-9);
            let more_rivals = Found {
                ground: 0.0,
                other_inliers: other_inliers + more,
                other_agreement: (other_agreement + more).min(1.0),
                ..found
            };
            prop_assert!(model.log_odds(similarity, background, standing, more_rivals) <= odds_of_photograph + 1e-9);
            let worse = Standing { best: best + more, fifth: fifth + more };
            let photograph = Found { ground: 0.0, ..found };
            prop_assert!(model.log_odds(similarity, background, worse, photograph) <= odds_of_photograph + 1e-9);
            if agreement >= 0.9 {
                prop_assert!(model.log_odds(similarity + more, background, standing, found) >= odds - 1e-9);
            }
        }
    }

    #[test]
    fn under_a_banner_features_stand_out_where_content_does_not() {
        let screen = Found {
            inliers: 45.0_f64.ln_1p(),
            other_inliers: 16.0_f64.ln_1p(),
            agreement: 0.76,
            other_agreement: 0.7,
            uncovered: 0.95,
            compared: 150.0,
            features: 190.0,
            ground: 0.6,
        };
        assert!(screen.outstanding() > 0.9);
        assert!(screen.contradicts(0.8, Standing { best: 0.82, fifth: 0.7 }) < 0.05);
        let template = Found {
            other_inliers: 40.0_f64.ln_1p(),
            ..screen
        };
        assert!(
            template.outstanding() < 0.4,
            "its features are in another reference, too"
        );
        let words = Found {
            uncovered: 0.8,
            ..screen
        };
        assert!(words.outstanding() < 0.4, "what differs lies everywhere");
    }

    #[test]
    fn content_that_contradicts_leaves_little_above_even() {
        let model = Verified {
            intercept: -3.0,
            similarity: 0.0,
            background: 0.0,
            best: 10.0,
            fifth: 10.0,
            inliers: 0.1,
            inliers_lead: 1.0,
            agreement: 0.0,
            outstanding: 7.0,
            copy_probability: None,
            review_probability: None,
        };
        let standing = Standing { best: 0.3, fifth: 0.2 };
        let found = |agreement| Found {
            inliers: 1.0,
            other_inliers: 1.0,
            agreement,
            compared: 100.0,
            ..Found::default()
        };
        let odds = |similarity, agreement| model.log_odds(similarity, 0.1, standing, found(agreement));
        assert!(probability_of(odds(0.98, 0.4)) < 0.7);
        assert!(probability_of(odds(0.98, 0.9)) > 0.99);
        assert!(
            probability_of(odds(1.0, 0.06)) > 0.99,
            "noise, whose sketch shows nothing of it, is itself all the same"
        );
        assert!(odds(0.65, 0.4) > 4.0, "of an edited copy less is asked");
    }

    #[test]
    fn a_drawn_picture_that_is_the_only_one_of_its_kind_must_agree_in_nearly_all() {
        let model = Verified {
            intercept: -3.0,
            similarity: 0.0,
            background: 0.0,
            best: 10.0,
            fifth: 10.0,
            inliers: 0.1,
            inliers_lead: 1.0,
            agreement: 0.0,
            outstanding: 7.0,
            copy_probability: None,
            review_probability: None,
        };
        let standing = Standing { best: 0.3, fifth: 0.2 };
        let form = Found {
            inliers: 25.0_f64.ln_1p(),
            agreement: 0.78,
            compared: 160.0,
            ground: 0.68,
            ..Found::default()
        };
        let probability = |found| probability_of(model.log_odds(0.69, 0.4, standing, found));
        assert!(
            probability(form) < 0.75,
            "another form of the template, filled in by somebody else"
        );
        assert!(
            probability(Found {
                agreement: 0.95,
                ..form
            }) > 0.99,
            "the form, smaller"
        );
        assert!(
            probability(Found {
                inliers: 60.0_f64.ln_1p(),
                ..form
            }) > 0.99,
            "the form with a banner across: its features are where they were"
        );
        let drawing = Found {
            features: 60.0,
            uncovered: 0.97,
            ..form
        };
        assert!(
            probability(drawing) > 0.99,
            "a drawing of few lines with a banner across: two fifths of its features are where they were"
        );
        assert!(
            probability(Found {
                features: 140.0,
                ..drawing
            }) < 0.75,
            "of a form as many belong to the template"
        );
        assert!(
            probability(Found {
                other_agreement: 0.6,
                ..form
            }) > 0.99,
            "another form of the template is a reference, too, and agrees less"
        );
        assert!(
            probability(Found { ground: 0.1, ..form }) > 0.99,
            "a photograph with a text on it"
        );
    }
}
