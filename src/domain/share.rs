use serde::Serialize;

/// `count` of `of`, with the bounds between which the true share lies in 95 of 100 such samples (Wilson).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    pub count: usize,
    pub of: usize,
    /// `None` where `of` is 0.
    pub share: Option<f64>,
    pub low: f64,
    pub high: f64,
}

impl Share {
    pub fn new(count: usize, of: usize) -> Self {
        if of == 0 {
            return Self { count, of, share: None, low: 0.0, high: 1.0 };
        }
        const Z: f64 = 1.959_964;
        let (n, p) = (of as f64, count as f64 / of as f64);
        let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self { count, of, share: Some(p), low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_with_wilsons_bounds() {
        let share = Share::new(90, 100);
        assert!((share.low - 0.8256).abs() < 1e-3 && (share.high - 0.9448).abs() < 1e-3, "{share:?}");
        let none = Share::new(0, 60);
        assert!(none.low < 1e-9 && (none.high - 0.0602).abs() < 1e-3, "{none:?}");
        assert_eq!(Share::new(0, 0).share, None);
    }
}
