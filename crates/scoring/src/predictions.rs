//! Predictions gathered one by one, in any order and in parts, and the metrics over them.
//!
//! Eight bytes a prediction: the scores of correct and of wrong ones stand in two lists, which
//! are sorted where they lie.

/// One pair that was returned: its score, higher is more alike, and whether the pair is truly a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Any scale; only the order counts.
    pub score: f64,
    /// Whether the pair is in the ground truth.
    pub correct: bool,
}

/// Precision and recall of "everything from this score upwards".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// The lowest score that is accepted.
    pub threshold: f64,
    /// Correct predictions over accepted ones.
    pub precision: f64,
    /// Correct predictions over all true pairs.
    pub recall: f64,
}

/// Why nothing can be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Without a true pair there is no recall.
    #[error("there are no true pairs, so recall is undefined")]
    NoPositives,
    /// More correct predictions than true pairs: a pair was counted twice.
    #[error("{correct} predictions are correct, but there are only {positives} true pairs")]
    TooManyCorrect {
        /// Correct predictions.
        correct: usize,
        /// True pairs.
        positives: usize,
    },
    /// A score that has no place in an order.
    #[error("the score of prediction {index} is NaN")]
    NotANumber {
        /// Position in the list, from 0.
        index: usize,
    },
    /// A precision outside (0, 1].
    #[error("precision {precision} is not allowed; it must be above 0 and at most 1")]
    Precision {
        /// The precision asked for.
        precision: f64,
    },
}

/// Predictions of all queries together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    correct: Vec<f64>,
    wrong: Vec<f64>,
    sorted: bool,
}

/// A serialised list that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no list of predictions")]
pub struct NoPredictions;

impl Predictions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Predictions held.
    pub fn len(&self) -> usize {
        self.correct.len() + self.wrong.len()
    }

    /// Correct ones among them.
    pub fn copies(&self) -> usize {
        self.correct.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `more` predictions of one kind. False where the memory is not to be had.
    pub fn try_reserve(&mut self, correct: usize, wrong: usize) -> bool {
        self.correct.try_reserve(correct).is_ok() && self.wrong.try_reserve(wrong).is_ok()
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`MetricError::NotANumber`] for a score that is NaN.
    pub fn push(&mut self, prediction: Prediction) -> Result<(), MetricError> {
        if prediction.score.is_nan() {
            return Err(MetricError::NotANumber { index: self.len() });
        }
        self.sorted = false;
        // Adding zero makes -0.0 and 0.0, which are the same score, the same number.
        let score = prediction.score + 0.0;
        if prediction.correct {
            &mut self.correct
        } else {
            &mut self.wrong
        }
        .push(score);
        Ok(())
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: &Predictions) {
        self.sorted = false;
        self.correct.extend_from_slice(&other.correct);
        self.wrong.extend_from_slice(&other.wrong);
    }

    /// Bytes that [`Predictions::from_bytes`] reads back, on a machine of the same byte order or another.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * (1 + self.len()));
        bytes.extend_from_slice(&(self.correct.len() as u64).to_le_bytes());
        for score in self.correct.iter().chain(&self.wrong) {
            bytes.extend_from_slice(&score.to_le_bytes());
        }
        bytes
    }

    /// Reads [`Predictions::to_bytes`].
    ///
    /// # Errors
    /// [`NoPredictions`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoPredictions> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return Err(NoPredictions);
        };
        let [count, scores @ ..] = words else {
            return Err(NoPredictions);
        };
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| NoPredictions)?;
        if count > scores.len() {
            return Err(NoPredictions);
        }
        let (correct, wrong) = scores.split_at(count);
        let floats = |words: &[[u8; 8]]| words.iter().map(|&word| f64::from_le_bytes(word)).collect::<Vec<f64>>();
        let read = Self {
            correct: floats(correct),
            wrong: floats(wrong),
            sorted: false,
        };
        if read.correct.iter().chain(&read.wrong).any(|score| score.is_nan()) {
            return Err(NoPredictions);
        }
        Ok(read)
    }

    /// See [`crate::micro_average_precision`].
    ///
    /// # Errors
    /// [`MetricError`] for no positives, or more correct predictions than positives.
    pub fn micro_average_precision(&mut self, positives: usize) -> Result<f64, MetricError> {
        self.sort(positives)?;
        let mut sum = 0.0;
        let mut wrong = 0;
        for (before, score) in self.correct.iter().enumerate() {
            // Ties are ordered against us: every wrong one of the same score comes first.
            wrong += self.wrong[wrong..].partition_point(|other| other >= score);
            sum += (before + 1) as f64 / (before + 1 + wrong) as f64;
        }
        Ok(sum / positives as f64)
    }

    /// See [`crate::precision_recall`].
    ///
    /// # Errors
    /// As [`Predictions::micro_average_precision`].
    pub fn precision_recall(&mut self, positives: usize) -> Result<Vec<OperatingPoint>, MetricError> {
        let mut points = Vec::new();
        self.walk(positives, |point| points.push(point))?;
        Ok(points)
    }

    /// The point of [`crate::recall_at_precision`] and [`crate::threshold_at_precision`], `None` where the precision is
    /// never reached.
    ///
    /// # Errors
    /// As [`Predictions::micro_average_precision`], and for a `precision` outside (0, 1].
    pub fn at_precision(&mut self, positives: usize, precision: f64) -> Result<Option<OperatingPoint>, MetricError> {
        checked_precision(precision)?;
        let mut best = None;
        self.walk(positives, |point| best = best_of(best, point, precision))?;
        Ok(best)
    }

    /// One point for each different score, from the highest down.
    fn walk(&mut self, positives: usize, mut visit: impl FnMut(OperatingPoint)) -> Result<(), MetricError> {
        self.sort(positives)?;
        let (mut correct, mut wrong) = (0, 0);
        loop {
            let threshold = match (self.correct.get(correct), self.wrong.get(wrong)) {
                (Some(a), Some(b)) => a.max(*b),
                (Some(one), None) | (None, Some(one)) => *one,
                (None, None) => return Ok(()),
            };
            correct += self.correct[correct..]
                .iter()
                .take_while(|score| **score == threshold)
                .count();
            wrong += self.wrong[wrong..]
                .iter()
                .take_while(|score| **score == threshold)
                .count();
            visit(OperatingPoint {
                threshold,
                precision: correct as f64 / (correct + wrong) as f64,
                recall: correct as f64 / positives as f64,
            });
        }
    }

    fn sort(&mut self, positives: usize) -> Result<(), MetricError> {
        if positives == 0 {
            return Err(MetricError::NoPositives);
        }
        let correct = self.correct.len();
        if correct > positives {
            return Err(MetricError::TooManyCorrect { correct, positives });
        }
        if !self.sorted {
            self.correct.sort_unstable_by(|a, b| b.total_cmp(a));
            self.wrong.sort_unstable_by(|a, b| b.total_cmp(a));
            self.sorted = true;
        }
        Ok(())
    }
}

/// A threshold accepts all of a tie or none of it. Inside a tie the precision is lowest after the wrong predictions and
/// rises from there, so the point of largest recall is always the end of a tie.
fn best_of(best: Option<OperatingPoint>, point: OperatingPoint, precision: f64) -> Option<OperatingPoint> {
    if point.precision >= precision && best.is_none_or(|best| point.recall > best.recall) {
        Some(point)
    } else {
        best
    }
}

pub(crate) fn checked_precision(precision: f64) -> Result<(), MetricError> {
    if precision > 0.0 && precision <= 1.0 {
        Ok(())
    } else {
        Err(MetricError::Precision { precision })
    }
}
