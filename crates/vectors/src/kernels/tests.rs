//! Each kernel of this machine against the oracle.
use super::*;

/// Sums of an `f32` kernel may differ from the exact ones by this much, see the module's documentation.
fn bound(n: usize, magnitude: f64) -> f64 {
    2f64.powi(-24) * (n as f64 / 8.0 + 16.0) * magnitude + n as f64 * 2f64.powi(-149)
}

/// A xorshift generator: reproducible, and no two lengths get the same numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From −1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Whether a kernel's sum agrees with the exact one: within the bound, or, where Σ|term| comes near what `f32` holds,
/// infinite or NaN.
fn agrees(what: &str, n: usize, actual: f32, exact: f64, magnitude: f64) {
    if magnitude * 1.01 > f64::from(f32::MAX) && !actual.is_finite() {
        return;
    }
    let error = (f64::from(actual) - exact).abs();
    assert!(
        error <= bound(n, magnitude),
        "{what}, length {n}: {actual} instead of {exact}, off by {error:e}"
    );
}

fn check<E: Element>(kernels: &[&'static Kernels<E>], scale: impl Fn(f32) -> f32) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for n in 1..=1100 {
        // One element more on either side, so that a kernel that reads beyond its part gives a wrong sum.
        let a: Vec<E> = (0..n + 2).map(|_| E::nearest(scale(numbers.unit()))).collect();
        let b: Vec<E> = (0..n + 2).map(|_| E::nearest(scale(numbers.unit()))).collect();
        let (a, b) = (&a[1..=n], &b[1..=n]);
        let pairs = || {
            a.iter()
                .zip(b)
                .map(|(x, y)| (f64::from(x.to_f32()), f64::from(y.to_f32())))
        };
        for kernel in kernels {
            let name = kernel.name();
            let sum = |term: fn((f64, f64)) -> f64| pairs().map(term).sum::<f64>();
            let magnitude = |term: fn((f64, f64)) -> f64| pairs().map(|pair| term(pair).abs()).sum::<f64>();
            let check = |what: &str, actual: f32, term: fn((f64, f64)) -> f64| {
                agrees(&format!("{name} {what}"), n, actual, sum(term), magnitude(term));
            };
            check("l2_squared", kernel.l2_squared(a, b), |(x, y)| (x - y) * (x - y));
            check("inner_product", kernel.inner_product(a, b), |(x, y)| x * y);
            check("l1", kernel.l1(a, b), |(x, y)| (x - y).abs());
            let parts = kernel.cosine(a, b);
            check("cosine dot", parts.dot, |(x, y)| x * y);
            check("cosine left", parts.left, |(x, _)| x * x);
            check("cosine right", parts.right, |(_, y)| y * y);
            let (norm, exact) = (kernel.norm_squared(a), sum(|(x, _)| x * x));
            assert!(
                (norm - exact).abs() <= 1e-13 * exact,
                "{name} norm, length {n}: {norm} instead of {exact}"
            );
        }
    }
}

#[test]
fn every_kernel_agrees_with_the_oracle_on_ordinary_numbers() {
    check(&available_f32(), |x| x);
    check(&available_f16(), |x| x);
}

#[test]
fn every_kernel_agrees_with_the_oracle_on_huge_numbers() {
    check(&available_f32(), |x| x * 1e18);
    check(&available_f32(), |x| x * f32::MAX);
    check(&available_f16(), |x| x * 65504.0);
}

#[test]
fn every_kernel_agrees_with_the_oracle_on_denormal_numbers() {
    check(&available_f32(), |x| x * 1e-22);
    check(&available_f32(), |x| x * 1e-40);
    check(&available_f16(), |x| x * 5e-5);
}

#[test]
fn every_kernel_agrees_with_the_oracle_on_mixed_magnitudes() {
    check(&available_f32(), |x| x.signum() * (x.abs() * 40.0 - 20.0).exp());
    check(&available_f16(), |x| x.signum() * (x.abs() * 20.0 - 10.0).exp());
}

#[test]
fn every_f16_is_loaded_as_its_value() {
    let all: Vec<f16> = (0..=u16::MAX)
        .map(f16::from_bits)
        .filter(|half| half.is_finite())
        .collect();
    for kernel in available_f16() {
        for part in all.chunks(16) {
            for &half in part {
                // Alone, in a full register, and in its last place: the three ways an element is loaded.
                for (before, after) in [(0, 0), (3, 60), (66, 0)] {
                    let mut padded = vec![f16::ZERO; before + 1 + after];
                    padded[before] = half;
                    let ones = vec![f16::ONE; padded.len()];
                    assert_eq!(
                        kernel.inner_product(&padded, &ones),
                        half.to_f32(),
                        "{} {half}",
                        kernel.name()
                    );
                }
            }
        }
    }
}

#[test]
fn the_oracle_is_always_there_and_comes_last() {
    assert_eq!(available_f32().last().unwrap().name(), "scalar");
    assert_eq!(available_f16().last().unwrap().name(), "scalar");
    assert_eq!(f32_kernels().name(), available_f32()[0].name());
}

#[test]
fn lengths_that_differ_use_the_shorter() {
    for kernel in available_f32() {
        assert_eq!(kernel.inner_product(&[1.0; 100], &[1.0; 40]), 40.0);
        assert_eq!(
            kernel.cosine(&[2.0; 7], &[1.0; 40]),
            CosineParts {
                dot: 14.0,
                left: 28.0,
                right: 7.0
            }
        );
    }
}
