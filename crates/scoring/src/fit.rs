//! Logistic regression of "is a copy" on similarity and background: the probability of a [`crate::Calibration`].
//!
//! Newton's method on the penalised log-likelihood over standardised columns. The ridge, in units of the mean
//! log-likelihood, is so slight that it decides only where the data do not: classes that one line separates, for which
//! the likelihood alone has no maximum.

/// Copies, and others, below which nothing is fitted.
pub const LEAST_EXAMPLES: usize = 10;

/// The ridge, per example, on standardised weights.
const RIDGE: f64 = 1e-5;
/// A column that varies by less says nothing.
const LEAST_SPREAD: f64 = 1e-9;
/// Newton's method on a strictly convex function takes ten or so.
const MOST_STEPS: usize = 200;
/// Largest weight that a calibration may have.
const LARGEST_WEIGHT: f64 = 1e6;

/// A judged pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// Cosine similarity of query and reference, −1..=1.
    pub similarity: f64,
    /// The query's mean similarity to its nearest background descriptors, −1..=1.
    pub background: f64,
    /// Whether the query is a copy of the reference.
    pub is_copy: bool,
}

/// The fitted curve: 1 / (1 + exp(−(intercept + similarity_weight × similarity + background_weight × background))).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Log-odds where both are 0.
    pub intercept: f64,
    /// At least 0.
    pub similarity_weight: f64,
    /// Any sign.
    pub background_weight: f64,
    /// Newton steps.
    pub steps: usize,
    /// The examples wanted a negative weight for the similarity, and were not given it.
    pub reversed: bool,
}

/// Why no curve was fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A class with fewer than [`LEAST_EXAMPLES`].
    #[error(
        "{copies} copies and {others} others are too few to fit a probability; at least {LEAST_EXAMPLES} of each are \
         needed"
    )]
    TooFew {
        /// Examples that are copies.
        copies: usize,
        /// Examples that are none.
        others: usize,
    },
    /// NaN, infinite, or no cosine.
    #[error("{field} of example {index} is {value}; it must lie between -1 and 1")]
    Value {
        /// Position, from 0.
        index: usize,
        /// `similarity` or `background`.
        field: &'static str,
        /// What was found.
        value: f64,
    },
    /// Arithmetic gave out.
    #[error("the fit of the probability does not converge")]
    NoConvergence,
}

/// Fits the curve.
///
/// # Errors
/// [`FitError`] for too few examples of a class, and for a value that is no cosine.
pub fn fit(examples: &[Example]) -> Result<Fit, FitError> {
    let copies = examples.iter().filter(|example| example.is_copy).count();
    let others = examples.len() - copies;
    if copies < LEAST_EXAMPLES || others < LEAST_EXAMPLES {
        return Err(FitError::TooFew { copies, others });
    }
    for (index, example) in examples.iter().enumerate() {
        for (field, value) in [("similarity", example.similarity), ("background", example.background)] {
            // A little over 1 is rounding.
            if !(-1.001..=1.001).contains(&value) {
                return Err(FitError::Value { index, field, value });
            }
        }
    }
    let similarity = Column::of(examples, |example| example.similarity);
    let background = Column::of(examples, |example| example.background);
    let free = Problem {
        examples,
        columns: [similarity, background],
        used: [similarity.spread >= LEAST_SPREAD, background.spread >= LEAST_SPREAD],
    };
    let (mut weights, mut steps) = free.solve()?;
    let reversed = weights[1] < 0.0;
    if reversed {
        // The function is convex: with one bound, its minimum within the bound lies on it.
        let bound = Problem {
            used: [false, free.used[1]],
            ..free
        };
        (weights, steps) = bound.solve()?;
    }
    let similarity_weight = weights[1] / similarity.spread.max(LEAST_SPREAD);
    let background_weight = weights[2] / background.spread.max(LEAST_SPREAD);
    let intercept = weights[0] - similarity_weight * similarity.centre - background_weight * background.centre;
    if [intercept, similarity_weight, background_weight]
        .iter()
        .any(|weight| weight.is_nan() || weight.abs() > LARGEST_WEIGHT)
    {
        return Err(FitError::NoConvergence);
    }
    Ok(Fit {
        intercept,
        similarity_weight: similarity_weight.max(0.0),
        background_weight,
        steps,
        reversed,
    })
}

#[derive(Clone, Copy)]
struct Column {
    centre: f64,
    spread: f64,
}

impl Column {
    fn of(examples: &[Example], value: impl Fn(&Example) -> f64) -> Self {
        let count = examples.len() as f64;
        let centre = examples.iter().map(&value).sum::<f64>() / count;
        let squares: f64 = examples.iter().map(|example| (value(example) - centre).powi(2)).sum();
        Self {
            centre,
            spread: (squares / count).sqrt(),
        }
    }
}

struct Problem<'a> {
    examples: &'a [Example],
    columns: [Column; 2],
    /// A column that is not used has weight 0.
    used: [bool; 2],
}

impl Problem<'_> {
    fn row(&self, example: &Example) -> [f64; 3] {
        let standard = |value: f64, at: usize| {
            let column = self.columns[at];
            if self.used[at] {
                (value - column.centre) / column.spread
            } else {
                0.0
            }
        };
        [1.0, standard(example.similarity, 0), standard(example.background, 1)]
    }

    /// The penalised negative log-likelihood.
    fn loss(&self, weights: [f64; 3]) -> f64 {
        let likelihood: f64 = self
            .examples
            .iter()
            .map(|example| {
                let logit = dot(self.row(example), weights);
                let signed = if example.is_copy { -logit } else { logit };
                // ln(1 + e^x), neither tail overflowing.
                signed.max(0.0) + (-signed.abs()).exp().ln_1p()
            })
            .sum();
        let ridge = RIDGE * self.examples.len() as f64;
        likelihood + 0.5 * ridge * (weights[1].powi(2) + weights[2].powi(2))
    }

    fn solve(&self) -> Result<([f64; 3], usize), FitError> {
        let ridge = RIDGE * self.examples.len() as f64;
        let mut weights = [0.0; 3];
        let mut loss = self.loss(weights);
        for step in 1..=MOST_STEPS {
            let mut gradient = [0.0, ridge * weights[1], ridge * weights[2]];
            // The last term keeps the matrix invertible where a column is not used, or every example is certain.
            let mut hessian = [[1e-9, 0.0, 0.0], [0.0, ridge + 1e-9, 0.0], [0.0, 0.0, ridge + 1e-9]];
            for example in self.examples {
                let row = self.row(example);
                let probability = sigmoid(dot(row, weights));
                let error = probability - f64::from(u8::from(example.is_copy));
                let curvature = probability * (1.0 - probability);
                for i in 0..3 {
                    gradient[i] += error * row[i];
                    for j in 0..3 {
                        hessian[i][j] += curvature * row[i] * row[j];
                    }
                }
            }
            let direction = solve3(hessian, gradient).ok_or(FitError::NoConvergence)?;
            let mut length = 1.0;
            // Newton's step may overshoot far from the minimum.
            let (next, better) = loop {
                let next = [0, 1, 2].map(|i| weights[i] - length * direction[i]);
                let better = self.loss(next);
                if better <= loss || length < 1e-9 {
                    break (next, better);
                }
                length *= 0.5;
            };
            if !better.is_finite() {
                return Err(FitError::NoConvergence);
            }
            // No better to the last digits: rounding decides from here on.
            let arrived = loss - better <= 1e-13 * (1.0 + loss);
            if better <= loss {
                (weights, loss) = (next, better);
            }
            if arrived {
                return Ok((weights, step));
            }
        }
        Err(FitError::NoConvergence)
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn sigmoid(logit: f64) -> f64 {
    if logit >= 0.0 {
        1.0 / (1.0 + (-logit).exp())
    } else {
        let odds = logit.exp();
        odds / (1.0 + odds)
    }
}

/// Solves a symmetric positive definite system by elimination with pivots.
fn solve3(mut matrix: [[f64; 3]; 3], mut right: [f64; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let largest = matrix[column][column].abs();
        if largest.is_nan() || largest <= 1e-300 {
            return None;
        }
        let above = matrix[column];
        for row in column + 1..3 {
            let factor = matrix[row][column] / above[column];
            for (value, above) in matrix[row].iter_mut().zip(above).skip(column) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; 3];
    for row in (0..3).rev() {
        let known: f64 = (row + 1..3).map(|i| matrix[row][i] * solution[i]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution.iter().all(|value| value.is_finite()).then_some(solution)
}
