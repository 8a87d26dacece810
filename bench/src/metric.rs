//! What a bench returns, and how it is judged and shown.

use serde_json::{Value, json};

/// Values of one quantity.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The values in the order they were taken.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The smallest value that `percent` of all values do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The middle value; of an even number, the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match (sorted.len() % 2, sorted.get(half)) {
            (1, Some(middle)) => *middle,
            (0, Some(upper)) => f64::midpoint(sorted[half - 1], *upper),
            _ => f64::NAN,
        }
    }
}

/// Values of both sides, in the order they were taken.
#[derive(Debug, Default)]
pub struct BothSides {
    /// Ours.
    pub ours: Samples,
    /// The peer's.
    pub peer: Samples,
}

impl BothSides {
    /// Adds one round.
    pub fn push(&mut self, ours: Option<f64>, peer: Option<f64>) {
        if let Some(value) = ours {
            self.ours.push(value);
        }
        if let Some(value) = peer {
            self.peer.push(value);
        }
    }
}

/// Geometric mean of positive values.
pub fn geometric_mean(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    // At most some dozens of values.
    #[expect(clippy::cast_precision_loss, reason = "a short list")]
    let count = values.len() as f64;
    (sum / count).exp()
}

/// What a metric must hold.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Our median divided by the peer's is at most this.
    Ratio(f64),
    /// Our median is at most this, in the metric's unit.
    Median(f64),
    /// Shown because a bounded metric is made of it.
    Part,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Metric {
    /// The bench it belongs to.
    pub bench: &'static str,
    /// Its name within the bench.
    pub name: String,
    /// Unit of all values.
    pub unit: &'static str,
    /// How many values stand behind it.
    pub n: usize,
    /// Our median.
    pub p50: f64,
    /// Our 99th percentile.
    pub p99: f64,
    /// The peer's name and median.
    pub peer: Option<(String, f64)>,
    /// What must hold.
    pub bound: Bound,
}

impl Metric {
    /// A metric of measured values.
    pub fn new(
        bench: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        ours: &Samples,
        peer: Option<(&str, &Samples)>,
        bound: Bound,
    ) -> Self {
        Self {
            bench,
            name: name.into(),
            unit,
            n: ours.len(),
            p50: ours.median(),
            p99: ours.percentile(99),
            peer: peer.map(|(name, samples)| (name.to_owned(), samples.median())),
            bound,
        }
    }

    /// Geometric mean of the ratios of `parts`: the ratio of medians as the
    /// median, the worst round's as the 99th percentile.
    pub fn geometric_mean(
        bench: &'static str,
        peer: &str,
        parts: &[(Samples, Samples)],
        bound: Bound,
    ) -> Self {
        let ratios: Vec<f64> = parts
            .iter()
            .map(|(ours, peer)| ours.median() / peer.median())
            .collect();
        let rounds = parts.iter().map(|(ours, _)| ours.len()).min().unwrap_or(0);
        let mut by_round = Samples::default();
        for round in 0..rounds {
            let ratios: Vec<f64> = parts
                .iter()
                .map(|(ours, peer)| ours.values()[round] / peer.values()[round])
                .collect();
            by_round.push(geometric_mean(&ratios));
        }
        Self {
            bench,
            name: "geometric mean of ratios".to_owned(),
            unit: "×",
            n: rounds,
            p50: geometric_mean(&ratios),
            p99: by_round.percentile(99),
            peer: Some((peer.to_owned(), 1.0)),
            bound,
        }
    }

    /// Our median by the peer's.
    pub fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| self.p50 / peer)
    }

    /// The bound as text.
    pub fn must(&self) -> String {
        match self.bound {
            Bound::Ratio(limit) => format!("ratio <= {}", shown(limit)),
            Bound::Median(limit) => format!("p50 <= {limit} {}", self.unit),
            Bound::Part => "none: part of another metric".to_owned(),
        }
    }

    /// Whether the bound holds; never for something that is not a number.
    pub fn met(&self) -> bool {
        let finite = self.p50.is_finite() && self.ratio().is_none_or(f64::is_finite);
        finite
            && match self.bound {
                Bound::Ratio(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
                Bound::Median(limit) => self.p50 <= limit,
                Bound::Part => true,
            }
    }

    /// Its line of the report for people.
    fn line(&self) -> String {
        let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        let verdict = match (self.bound, self.met()) {
            (Bound::Part, _) => String::new(),
            (_, true) => format!("{}: met", self.must()),
            (_, false) => format!("{}: NOT MET", self.must()),
        };
        let line = format!(
            "{:<9} {:<26} {:>10} {:>10} {:>10} {:>7}  {:>3} {:<5} {}",
            self.bench,
            self.name,
            shown(self.p50),
            shown(self.p99),
            or_dash(self.peer.as_ref().map(|(_, p50)| *p50)),
            or_dash(self.ratio()),
            self.n,
            self.unit,
            verdict
        );
        line.trim_end().to_owned()
    }

    /// The object that `--json` writes.
    pub fn to_json(&self, at: &str) -> Value {
        json!({
            "bench": self.bench,
            "metric": self.name,
            "unit": self.unit,
            "n": self.n,
            "p50": self.p50,
            "p99": self.p99,
            "peer": self.peer.as_ref().map(|(name, p50)| json!({"name": name, "p50": p50})),
            "ratio": self.ratio(),
            "must": self.must(),
            "met": self.met(),
            "at": at,
        })
    }
}

/// A number for people: two digits behind the point, or four if it is small.
fn shown(value: f64) -> String {
    match value.abs() < 0.1 {
        true => format!("{value:.4}"),
        false => format!("{value:.2}"),
    }
}

/// The report for people.
pub fn table(metrics: &[Metric]) -> String {
    let mut text = format!(
        "{:<9} {:<26} {:>10} {:>10} {:>10} {:>7}  {:>3} {:<5} {}\n",
        "bench", "metric", "p50", "p99", "peer p50", "ratio", "n", "unit", "must"
    );
    for metric in metrics {
        text.push_str(&metric.line());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred = samples(&(1..=100).map(f64::from).collect::<Vec<_>>());
        assert_eq!(hundred.percentile(99), 99.0);
        assert_eq!(hundred.median(), 50.5);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).percentile(99), 3.0);
    }

    #[test]
    fn a_ratio_over_its_bound_is_not_met() {
        let peer = samples(&[2.0]);
        let metric = |ours: f64| {
            Metric::new(
                "b",
                "m",
                "ms",
                &samples(&[ours]),
                Some(("q", &peer)),
                Bound::Ratio(1.5),
            )
        };
        assert!(metric(3.0).met());
        assert!(!metric(3.01).met());
    }

    #[test]
    fn nothing_measured_is_never_met() {
        let none = Samples::default();
        for bound in [Bound::Median(1.0), Bound::Part] {
            assert!(!Metric::new("b", "m", "ms", &none, None, bound).met());
        }
        let unmeasured = Metric::new("b", "m", "ms", &samples(&[1.0]), None, Bound::Ratio(1.0));
        assert!(!unmeasured.met());
    }

    #[test]
    fn the_geometric_mean_weighs_ratios_alike() {
        let parts = [
            (samples(&[2.0]), samples(&[1.0])),
            (samples(&[1.0]), samples(&[2.0])),
        ];
        let metric = Metric::geometric_mean("b", "q", &parts, Bound::Ratio(1.0));
        assert!((metric.p50 - 1.0).abs() < 1e-12);
        assert!((metric.p99 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn json_has_every_member_of_the_format() {
        let metric = Metric::new("b", "m", "ms", &samples(&[1.0]), None, Bound::Median(2.0));
        let value = metric.to_json("abc");
        let mut keys: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "at", "bench", "met", "metric", "must", "n", "p50", "p99", "peer", "ratio", "unit"
            ]
        );
        assert!(value["peer"].is_null() && value["ratio"].is_null());
        assert_eq!(value["met"], true);
    }
}
