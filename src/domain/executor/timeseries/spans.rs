//! Spans of time as statements write them: intervals, counts of nanoseconds, `5m`.

use crate::domain::executor::error::refused;
use crate::domain::executor::timeseries::civil::DAY_NS;
use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Result, ScalarValue};

/// A span of whole months, or of nanoseconds; never of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Of calendar months, of whatever length.
    Months(i64),
    /// Of nanoseconds; a day has 24 hours.
    Ns(i64),
}

impl Span {
    /// Reads a span; an integer counts nanoseconds, a text is one as in `5m` ([`Span::parse`]). None for NULL.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for what is no span, for months mixed with days, and for a span beyond 64 bits of nanoseconds.
    pub fn read(value: &ScalarValue) -> Result<Option<Self>> {
        let (months, days, ns) = match value {
            value if value.is_null() => return Ok(None),
            ScalarValue::IntervalMonthDayNano(Some(value)) => {
                (i64::from(value.months), i64::from(value.days), value.nanoseconds)
            }
            ScalarValue::IntervalDayTime(Some(value)) => {
                (0, i64::from(value.days), i64::from(value.milliseconds) * 1_000_000)
            }
            ScalarValue::IntervalYearMonth(Some(months)) => (i64::from(*months), 0, 0),
            ScalarValue::DurationSecond(Some(count)) => (0, 0, scaled(*count, 1_000_000_000)?),
            ScalarValue::DurationMillisecond(Some(count)) => (0, 0, scaled(*count, 1_000_000)?),
            ScalarValue::DurationMicrosecond(Some(count)) => (0, 0, scaled(*count, 1_000)?),
            ScalarValue::DurationNanosecond(Some(count)) => (0, 0, *count),
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                let interval = DataType::Interval(IntervalUnit::MonthDayNano);
                return match value.cast_to(&interval) {
                    // `1 hour`, as INTERVAL takes it.
                    Ok(interval) if text.contains(' ') => Self::read(&interval),
                    _ => Self::parse(text).map(Some),
                };
            }
            other => match other.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(Some(ns))) if other.data_type().is_integer() => (0, 0, ns),
                _ => return Err(refused(format!("{other} is no span of time"))),
            },
        };
        match months {
            0 => {
                let days_ns = scaled(days, DAY_NS)?;
                days_ns.checked_add(ns).map(Self::Ns).map(Some).ok_or_else(too_long)
            }
            _ if days == 0 && ns == 0 => Ok(Some(Self::Months(months))),
            _ => Err(refused("a span of months cannot have days or less as well".to_owned())),
        }
    }

    /// Reads a count and a unit, such as `5m`: n, U, T, s, m, h, d, w, M and y for nano-, micro- and milliseconds, seconds,
    /// minutes, hours, days, weeks, months and years (QuestDB, `SAMPLE BY`).
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for another form, and for a span beyond 64 bits of nanoseconds.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            refused(format!("{text:?} is no span of time; write it as in '5m', with n, U, T, s, m, h, d, w, M or y"))
        };
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let digits = text[..text.len() - unit.len_utf8()].trim();
        let count: i64 = if digits.is_empty() { 1 } else { digits.parse().map_err(|_| wrong())? };
        let unit_ns = match unit {
            'n' => 1,
            'U' | 'u' => 1_000,
            'T' => 1_000_000,
            's' => 1_000_000_000,
            'm' => 60_000_000_000,
            'h' | 'H' => 3_600_000_000_000,
            'd' | 'D' => DAY_NS,
            'w' | 'W' => 7 * DAY_NS,
            'M' => return Ok(Self::Months(count)),
            'y' | 'Y' => return count.checked_mul(12).map(Self::Months).ok_or_else(too_long),
            _ => return Err(wrong()),
        };
        scaled(count, unit_ns).map(Self::Ns)
    }

    /// Returns the span if it is longer than nothing.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` naming `what`.
    pub fn positive(self, what: &str) -> Result<Self> {
        match self {
            Self::Months(count) | Self::Ns(count) if count > 0 => Ok(self),
            Self::Months(count) => Err(refused(format!("the width of {what} is {count} months; it has to be above 0"))),
            Self::Ns(count) => Err(refused(format!("the width of {what} is {count} ns; it has to be above 0"))),
        }
    }
}

fn scaled(count: i64, unit_ns: i64) -> Result<i64> {
    count.checked_mul(unit_ns).ok_or_else(too_long)
}

fn too_long() -> datafusion::error::DataFusionError {
    refused("a span of time is beyond 64 bits of nanoseconds".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::spans::Span;
    use datafusion::common::ScalarValue;

    #[test]
    fn spans_are_read_in_every_form() {
        for (text, span) in [
            ("5m", Span::Ns(300_000_000_000)),
            ("s", Span::Ns(1_000_000_000)),
            ("50T", Span::Ns(50_000_000)),
            ("2w", Span::Ns(1_209_600_000_000_000)),
            ("1M", Span::Months(1)),
            ("2y", Span::Months(24)),
        ] {
            assert_eq!(Span::parse(text).unwrap(), span, "{text}");
        }
        for wrong in ["", "5", "5 x", "m5", "99999999999999d", "é"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Span::read(&ScalarValue::new_interval_mdn(0, 1, 5)).unwrap(), Some(Span::Ns(86_400_000_000_005)));
        assert_eq!(Span::read(&ScalarValue::Int64(Some(7))).unwrap(), Some(Span::Ns(7)));
        assert_eq!(Span::read(&ScalarValue::Int64(None)).unwrap(), None);
        assert!(Span::read(&ScalarValue::new_interval_mdn(1, 1, 0)).is_err());
        assert!(Span::read(&ScalarValue::Float64(Some(1.5))).is_err());
        assert!(Span::Ns(0).positive("xbar").is_err() && Span::Months(-1).positive("xbar").is_err());
    }
}
