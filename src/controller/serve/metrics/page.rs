//! The page that a scrape reads. Names and labels come from the definitions only.

use std::fmt;

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric as _, MetricEncoder,
        NoLabelSet,
    },
    metrics::histogram::Histogram,
};

use super::definition::MetricDefinition;

/// Writes the metrics of a scrape.
pub(super) struct Page<'e>(pub DescriptorEncoder<'e>);

impl Page<'_> {
    /// Writes all series of a metric.
    pub fn metric(
        &mut self,
        of: &MetricDefinition,
        write: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let (name, unit) = of.encoded();
        // Without its links: those are for the page of the documentation.
        let help = without_links(of.meaning);
        let kind = of.kind.encoded();
        let encoder = self.0.encode_descriptor(name, &help, unit.as_ref(), kind)?;
        write(&mut Series {
            encoder,
            labels: of.labels,
        })
    }
}

/// The series of one metric.
pub(super) struct Series<'e> {
    encoder: MetricEncoder<'e>,
    labels: &'static [&'static str],
}

impl Series<'_> {
    /// `values`: of the labels, in the order of the definition.
    pub fn gauge(&mut self, values: &[&str], value: &impl EncodeGaugeValue) -> fmt::Result {
        self.labelled(values, |encoder| encoder.encode_gauge(value))
    }

    pub fn counter(&mut self, values: &[&str], value: &impl EncodeCounterValue) -> fmt::Result {
        self.labelled(values, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, f64>(value, None)
        })
    }

    pub fn histogram(&mut self, values: &[&str], value: &Histogram) -> fmt::Result {
        let labels = self.with_names(values);
        value.encode(self.encoder.encode_family(&labels)?)
    }

    pub fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels = self.with_names(values);
        self.encoder.encode_info(&labels)
    }

    fn labelled(
        &mut self,
        values: &[&str],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        let labels = self.with_names(values);
        write(&mut self.encoder.encode_family(&labels)?)
    }

    fn with_names<'v>(&self, values: &[&'v str]) -> Vec<(&'static str, &'v str)> {
        debug_assert_eq!(self.labels.len(), values.len(), "{:?}", self.labels);
        self.labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect()
    }
}

/// `[reason](reasons.md)` becomes `reason`.
fn without_links(text: &str) -> String {
    let mut parts = text.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (words, rest) = part.split_once("](").unwrap_or((part, ""));
        let rest = rest.split_once(')').map_or(rest, |(_, rest)| rest);
        plain.push_str(words);
        plain.push_str(rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_no_links() {
        let text = "policies, by [reason](reasons.md) and [cause](operate.md#events): all";
        assert_eq!(without_links(text), "policies, by reason and cause: all");
        assert_eq!(without_links("no link"), "no link");
    }
}
