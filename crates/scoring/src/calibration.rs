//! The calibration record: how a similarity and a background become a score, a probability and a verdict.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::background::MAX_NEIGHBOURS;
use crate::standing::{Found, Lead, Standing, Verified, probability_of};

/// A longer calibration is refused before it is parsed.
pub const MAX_CALIBRATION_BYTES: usize = 16 << 10;

/// What a match means to the people who see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not a copy.
    Different,
    /// A person should look.
    Review,
    /// A copy.
    Copy,
}

impl Verdict {
    /// `copy`, `review` or `different`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Review => "review",
            Self::Different => "different",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a calibration was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// More bytes than any calibration needs.
    #[error("the calibration has {bytes} bytes; at most {MAX_CALIBRATION_BYTES} are read")]
    TooLarge {
        /// Length of the text.
        bytes: usize,
    },
    /// Not JSON, a missing or unknown field, or a value of the wrong type.
    #[error("calibration field {field}: {problem}")]
    Syntax {
        /// Path of the field; `.` is the document itself.
        field: String,
        /// What the parser found, with line and column.
        problem: String,
    },
    /// A value outside its range.
    #[error("calibration field {field}: {value} is not allowed; {allowed}")]
    Value {
        /// Path of the field.
        field: &'static str,
        /// The value found.
        value: f64,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl CalibrationError {
    /// Path of the field that is wrong, where one field is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Syntax { field, .. } => Some(field),
            Self::Value { field, .. } => Some(field),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Compare the calibration with models/default/calibration.json, or fit it again."
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCalibration {
    #[serde(default = "default_neighbours")]
    neighbours: usize,
    #[serde(default = "default_factor")]
    factor: f64,
    clamp: [f64; 2],
    intercept: f64,
    similarity_weight: f64,
    background_weight: f64,
    copy_probability: f64,
    review_probability: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lead: Option<Lead>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
}

/// The paper averages the five nearest training descriptors.
fn default_neighbours() -> usize {
    5
}

/// The paper tried 2.0, 2.5 and 3.0.
fn default_factor() -> f64 {
    2.5
}

/// A validated calibration. It belongs to one model and one background set.
///
/// As JSON: `{"neighbours": 5, "factor": 2.5, "clamp": [low, high], "intercept": _, "similarity_weight": _,
/// "background_weight": _, "copy_probability": _, "review_probability": _}`; `neighbours` and `factor` may be left out.
/// Since version 2 of the record also `"lead"`, a [`Lead`], which weighs how the reference stands among the
/// query's other references, and `"verified"`, a [`Verified`], for pairs that were compared. A record without
/// them answers as it always did.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration(StoredCalibration);

impl Calibration {
    /// Reads and validates a calibration.
    ///
    /// # Errors
    /// [`CalibrationError`] with the path of the first field that is missing, unknown, of the wrong type or out of
    /// range: `neighbours` 1..=1000; `factor` 0.01..=100; `clamp` 0.001 <= low <= high <= 1 (a stretch of zero or less
    /// would erase or reverse the order of the references); `similarity_weight` at least 0 (more alike is never
    /// less probable); all weights finite, in -1e6..=1e6; probabilities 0 <= review <= copy <= 1.
    pub fn from_json(json: &str) -> Result<Self, CalibrationError> {
        if json.len() > MAX_CALIBRATION_BYTES {
            return Err(CalibrationError::TooLarge { bytes: json.len() });
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let record: StoredCalibration =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|error| CalibrationError::Syntax {
                field: error.path().to_string(),
                problem: error.inner().to_string(),
            })?;
        deserializer.end().map_err(|error| CalibrationError::Syntax {
            field: ".".to_owned(),
            problem: error.to_string(),
        })?;
        Self::validated(record)
    }

    fn validated(record: StoredCalibration) -> Result<Self, CalibrationError> {
        let refuse = |field, value, allowed| Err(CalibrationError::Value { field, value, allowed });
        if !(1..=MAX_NEIGHBOURS).contains(&record.neighbours) {
            return refuse("neighbours", record.neighbours as f64, "it must be in 1..=1000");
        }
        if !(0.01..=100.0).contains(&record.factor) {
            return refuse("factor", record.factor, "it must be in 0.01..=100");
        }
        let [low, high] = record.clamp;
        if !(0.001..=1.0).contains(&low) {
            return refuse(
                "clamp[0]",
                low,
                "it must be in 0.001..=1, or the stretch would lose the order",
            );
        }
        if !(high >= low && high <= 1.0) {
            return refuse("clamp[1]", high, "it must be in clamp[0]..=1");
        }
        let weights = [
            ("intercept", record.intercept),
            ("similarity_weight", record.similarity_weight),
            ("background_weight", record.background_weight),
        ];
        for (field, weight) in weights {
            if !(-1e6..=1e6).contains(&weight) {
                return refuse(field, weight, "it must be in -1000000..=1000000");
            }
        }
        if record.similarity_weight < 0.0 {
            let allowed = "it must be at least 0, so that more alike is never less probable";
            return refuse("similarity_weight", record.similarity_weight, allowed);
        }
        let lead = record.lead.iter().flat_map(Lead::weights);
        let verified = record.verified.iter().flat_map(Verified::weights);
        for (field, weight, must_not_fall) in lead.chain(verified) {
            if !(-1e6..=1e6).contains(&weight) {
                return refuse(field, weight, "it must be in -1000000..=1000000");
            }
            if must_not_fall && weight < 0.0 {
                return refuse(
                    field,
                    weight,
                    "it must be at least 0, so that more evidence is never less probable",
                );
            }
        }
        if record.verified.is_some() && record.lead.is_none() {
            return Err(CalibrationError::Syntax {
                field: "lead".to_owned(),
                problem: "a record with verified needs lead, too".to_owned(),
            });
        }
        if !(0.0..=1.0).contains(&record.copy_probability) {
            return refuse("copy_probability", record.copy_probability, "it must be in 0..=1");
        }
        if !(record.review_probability >= 0.0 && record.review_probability <= record.copy_probability) {
            return refuse(
                "review_probability",
                record.review_probability,
                "it must be in 0..=copy_probability",
            );
        }
        let calibration = Self(record);
        let [review, copy] = calibration.verified_thresholds();
        if !(0.0..=1.0).contains(&copy) {
            return refuse("verified.copy_probability", copy, "it must be in 0..=1");
        }
        if !(review >= 0.0 && review <= copy) {
            let allowed = "it must be in 0..=copy_probability";
            return refuse("verified.review_probability", review, allowed);
        }
        Ok(calibration)
    }

    /// The same with other thresholds, for probabilities of every kind; `None` leaves what is there.
    #[must_use]
    pub fn with_thresholds(mut self, copy: Option<f64>, review: Option<f64>) -> Self {
        let record = &mut self.0;
        record.copy_probability = copy.unwrap_or(record.copy_probability);
        record.review_probability = review.unwrap_or(record.review_probability).min(record.copy_probability);
        if let Some(verified) = &mut record.verified {
            let upper = copy.or(verified.copy_probability).unwrap_or(record.copy_probability);
            let lower = review
                .or(verified.review_probability)
                .unwrap_or(record.review_probability);
            verified.copy_probability = Some(upper);
            verified.review_probability = Some(lower.min(upper));
        }
        self
    }

    /// Review and copy, of probabilities that rest on evidence.
    fn verified_thresholds(&self) -> [f64; 2] {
        let own = self.0.verified.as_ref();
        [
            own.and_then(|own| own.review_probability)
                .unwrap_or(self.0.review_probability),
            own.and_then(|own| own.copy_probability)
                .unwrap_or(self.0.copy_probability),
        ]
    }

    /// The calibration as JSON, which [`Calibration::from_json`] reads back.
    pub fn to_json(&self) -> String {
        // Finite numbers only: there is nothing in it that JSON cannot say.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// k: how many background descriptors are averaged, 1..=1000.
    pub fn neighbours(&self) -> usize {
        self.0.neighbours
    }

    /// What the clamped background is multiplied by to give the query's length, above 0.
    pub fn factor(&self) -> f64 {
        self.0.factor
    }

    /// Bounds of the background before it is multiplied.
    pub fn clamp(&self) -> [f64; 2] {
        self.0.clamp
    }

    /// Probability from which a match is a copy.
    pub fn copy_probability(&self) -> f64 {
        self.0.copy_probability
    }

    /// Probability from which a match deserves a look.
    pub fn review_probability(&self) -> f64 {
        self.0.review_probability
    }

    /// The stretched score, -|s q - r|^2 for unit q and r with s = factor x clamp(background).
    ///
    /// `similarity` is q . r, `background` the mean of [`crate::Background::mean_top_k`]. Expanded:
    /// -(s^2 + 1) + 2 s similarity. Within one query the order is that of the similarity, because s > 0; between
    /// queries the same similarity counts for less where the background is near. Source: the paper's descriptor
    /// stretching, with the clamp that keeps a query unlike all of the background from being stretched to
    /// nothing. NaN in, NaN out.
    pub fn stretch(&self, similarity: f64, background: f64) -> f64 {
        let [low, high] = self.0.clamp;
        let s = self.0.factor * background.clamp(low, high);
        -(s * s + 1.0) + 2.0 * s * similarity
    }

    /// Probability that the pair is a copy:
    /// 1 / (1 + exp(-(intercept + similarity_weight x similarity + background_weight x background))). NaN in, NaN out.
    pub fn probability(&self, similarity: f64, background: f64) -> f64 {
        let record = &self.0;
        let logit = record.intercept + record.similarity_weight * similarity + record.background_weight * background;
        probability_of(logit)
    }

    /// Whether the record weighs a reference's standing among the query's other references.
    pub fn weighs_standing(&self) -> bool {
        self.0.lead.is_some()
    }

    /// Whether the record weighs what verification finds.
    pub fn weighs_evidence(&self) -> bool {
        self.0.verified.is_some()
    }

    /// Probability that the pair is a copy, from as much as is known and the record weighs: similarity and background
    /// alone ([`Calibration::probability`]), the standing, the evidence. NaN in, NaN out.
    pub fn probability_with(
        &self,
        similarity: f64,
        background: f64,
        standing: Option<Standing>,
        found: Option<Found>,
    ) -> f64 {
        match (&self.0.lead, &self.0.verified, standing, found) {
            (_, Some(verified), Some(standing), Some(found)) => {
                probability_of(verified.log_odds(similarity, background, standing, found))
            }
            (Some(lead), _, Some(standing), _) => probability_of(lead.log_odds(similarity, background, standing)),
            _ => self.probability(similarity, background),
        }
    }

    /// The score of a probability that rests on evidence: its log-odds, comparable between queries, in the same order.
    pub fn evidence_score(probability: f64) -> f64 {
        let p = probability.clamp(1e-15, 1.0 - 1e-15);
        libm::log(p / (1.0 - p))
    }

    /// The verdict at a probability; both thresholds belong to the upper verdict. NaN is [`Verdict::Different`].
    pub fn verdict(&self, probability: f64) -> Verdict {
        verdict(probability, [self.0.review_probability, self.0.copy_probability])
    }

    /// The verdict at a probability that rests on evidence, which has thresholds of its own.
    pub fn verified_verdict(&self, probability: f64) -> Verdict {
        verdict(probability, self.verified_thresholds())
    }
}

fn verdict(probability: f64, [review, copy]: [f64; 2]) -> Verdict {
    if probability >= copy {
        Verdict::Copy
    } else if probability >= review {
        Verdict::Review
    } else {
        Verdict::Different
    }
}
