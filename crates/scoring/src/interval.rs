//! How far a proportion can be trusted: Clopper and Pearson's exact interval (Biometrika 26, 1934).
//!
//! It never promises more than it holds, however few the cases; Wilson's, which is narrower, does near 0 and 1, where
//! precisions lie.

/// Lower end of the one-sided interval: with probability `confidence` the true proportion is no less. In 0..=1.
///
/// `confidence` is in (0, 1); `correct` is at most `total`. Of no cases nothing is known: 0.
pub fn lower_bound(correct: usize, total: usize, confidence: f64) -> f64 {
    if correct == 0 {
        return 0.0;
    }
    let wrong = total.saturating_sub(correct);
    beta_quantile(1.0 - confidence, correct as f64, wrong as f64 + 1.0)
}

/// Upper end of the one-sided interval: with probability `confidence` the true proportion is no more. In 0..=1.
pub fn upper_bound(correct: usize, total: usize, confidence: f64) -> f64 {
    1.0 - lower_bound(total.saturating_sub(correct), total, confidence)
}

/// The two-sided interval, (lower, upper). Of no cases: (0, 1).
pub fn proportion_interval(correct: usize, total: usize, confidence: f64) -> (f64, f64) {
    let each_side = f64::midpoint(1.0, confidence);
    (
        lower_bound(correct, total, each_side),
        upper_bound(correct, total, each_side),
    )
}

/// How many cases without one error it takes until [`lower_bound`] reaches `precision`; both in (0, 1).
pub fn needed_without_error(precision: f64, confidence: f64) -> usize {
    // p^n = 1 - confidence.
    (libm::log(1.0 - confidence) / libm::log(precision)).ceil() as usize
}

/// The x at which the beta distribution's cumulative function is `probability`.
fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    // Halving: sure, and quick enough for a function that is asked once a threshold.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if beta_cumulative(middle, a, b) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8, Lentz's method).
fn beta_cumulative(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges quickly on this side of the mean only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cumulative(1.0 - x, b, a);
    }
    let front =
        libm::exp(a * libm::log(x) + b * libm::log1p(-x) + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)) / a;
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front * fraction
}
