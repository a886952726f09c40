//! Buckets of time: which one an instant lies in, where it begins, and which one comes next.
//!
//! A bucket contains its start and not its end, before 1970 as well. With a zone, buckets of a day and longer begin when
//! clocks there show midnight, so a day may have 23 or 25 hours; shorter ones count from the local time, and one ends where
//! clocks jump, so the hour that they show twice is in two of them: instants stay in their order.

use crate::domain::executor::error::refused;
use crate::domain::executor::time_units::unit_ns;
use crate::domain::executor::timeseries::civil::{
    DAY_NS, day_of_month_start, instant_ns, jump_ns, month_of_day, offset_ns,
};
use crate::domain::executor::timeseries::spans::Span;
use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{Result, plan_err};
use std::sync::Arc;

/// 2000-01-03, a Monday, in nanoseconds since 1970.
pub const MONDAY_NS: i64 = 10_959 * DAY_NS;

/// 2000-01, counted from 1970-01.
const YEAR_2000: i64 = 360;

/// Buckets of one width.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    width: Span,
    /// Where one of them begins: in months since 1970-01, or in nanoseconds since 1970, as clocks show it.
    origin: i64,
    /// How much later than the grid all of them begin.
    shift_ns: i64,
    zone: Option<Tz>,
}

impl Buckets {
    /// Makes buckets that count from 1970-01-01, which is a Thursday.
    pub fn since_1970(width: Span) -> Self {
        Self { width, origin: 0, shift_ns: 0, zone: None }
    }

    /// Makes buckets as calendars have them: weeks begin on Mondays, months on their first day.
    pub fn calendar(width: Span) -> Self {
        let origin = if matches!(width, Span::Months(_)) { YEAR_2000 } else { MONDAY_NS };
        Self { origin, ..Self::since_1970(width) }
    }

    /// Returns the same buckets in a zone.
    pub fn in_zone(self, zone: Tz) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// Returns the same buckets, so much later.
    pub fn shifted(self, shift_ns: i64) -> Self {
        Self { shift_ns, ..self }
    }

    /// Returns the same buckets, one of which begins at `origin_ns`.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for months that are to begin elsewhere than at the beginning of one.
    pub fn with_origin(self, origin_ns: i64) -> Result<Self> {
        let origin = match self.width {
            Span::Ns(_) => origin_ns,
            Span::Months(_) => {
                let month = month_of_day(origin_ns.div_euclid(DAY_NS));
                if day_of_month_start(month) * DAY_NS != origin_ns {
                    return Err(refused("buckets of months begin with a month".to_owned()));
                }
                month
            }
        };
        Ok(Self { origin, ..self })
    }

    /// Returns the same buckets, one of which begins at `from_ns` where they have a fixed width.
    ///
    /// # Errors
    ///
    /// None so far; months keep to the calendar.
    pub fn beginning_at(self, from_ns: i64) -> Result<Self> {
        match self.width {
            Span::Ns(_) => self.with_origin(from_ns),
            Span::Months(_) => Ok(self),
        }
    }

    /// Returns where the bucket begins that an instant lies in; none beyond 64 bits.
    pub fn start_ns(&self, at_ns: i64) -> Option<i64> {
        let shifted_ns = at_ns.checked_sub(self.shift_ns)?;
        let Some(zone) = self.zone else {
            return self.floor(shifted_ns)?.checked_add(self.shift_ns);
        };
        let offset_ns = offset_ns(shifted_ns, zone);
        let local_ns = self.floor(shifted_ns.checked_add(offset_ns)?)?;
        let start_ns = match self.is_by_midnight() {
            true => instant_ns(local_ns, zone),
            // Where clocks jump a bucket ends.
            false => {
                let start_ns = local_ns.checked_sub(offset_ns)?;
                jump_ns(start_ns, shifted_ns, zone).unwrap_or(start_ns)
            }
        };
        start_ns.checked_add(self.shift_ns)
    }

    /// Returns where the bucket after the one begins that begins at `start_ns`; none beyond 64 bits.
    pub fn next_ns(&self, start_ns: i64) -> Option<i64> {
        let step = |at_ns: i64| match self.width {
            Span::Ns(width) => at_ns.checked_add(width),
            Span::Months(months) => month_start_ns(month_of_day(at_ns.div_euclid(DAY_NS)).saturating_add(months)),
        };
        let shifted_ns = start_ns.checked_sub(self.shift_ns)?;
        let next_ns = match self.zone {
            Some(zone) if self.is_by_midnight() => {
                // Where midnight does not exist the bucket began later than that.
                let local_ns = self.floor(shifted_ns.checked_add(offset_ns(shifted_ns, zone))?)?;
                instant_ns(step(local_ns)?, zone)
            }
            Some(zone) => {
                let offset_ns = offset_ns(shifted_ns, zone);
                let next_ns = step(self.floor(shifted_ns.checked_add(offset_ns)?)?)?.checked_sub(offset_ns)?;
                jump_ns(shifted_ns, next_ns, zone).unwrap_or(next_ns)
            }
            None => step(shifted_ns)?,
        };
        next_ns.checked_add(self.shift_ns)
    }

    /// Returns whether `data_type` is a TIMESTAMP whose unit holds the start of every bucket.
    pub fn fit(&self, data_type: &DataType) -> bool {
        let (DataType::Timestamp(..), Some(unit_ns)) = (data_type, unit_ns(data_type)) else { return false };
        let is_whole = |ns: i64| ns % unit_ns == 0;
        is_whole(self.shift_ns)
            && match self.width {
                Span::Ns(width) => is_whole(width) && is_whole(self.origin),
                Span::Months(_) => true,
            }
    }

    fn is_by_midnight(&self) -> bool {
        match self.width {
            Span::Months(_) => true,
            Span::Ns(width) => width >= DAY_NS,
        }
    }

    fn floor(&self, at_ns: i64) -> Option<i64> {
        match self.width {
            Span::Ns(width) => {
                let after = (i128::from(at_ns) - i128::from(self.origin)).rem_euclid(i128::from(width));
                at_ns.checked_sub(i64::try_from(after).ok()?)
            }
            Span::Months(months) => {
                let month = month_of_day(at_ns.div_euclid(DAY_NS));
                month_start_ns(month - (month - self.origin).rem_euclid(months))
            }
        }
    }

    /// Returns the start of the bucket of each of `times`, a TIMESTAMP of any unit, in the same type.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for a start that the unit cannot hold.
    pub fn starts(&self, times: &ArrayRef) -> Result<ArrayRef> {
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self.starts_of::<TimestampSecondType>(times, 1_000_000_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                self.starts_of::<TimestampMillisecondType>(times, 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.starts_of::<TimestampMicrosecondType>(times, 1_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => self.starts_of::<TimestampNanosecondType>(times, 1),
            other => plan_err!("{other} is no TIMESTAMP"),
        }
    }

    fn starts_of<T: ArrowTimestampType>(&self, times: &ArrayRef, unit_ns: i64) -> Result<ArrayRef> {
        let times = times.as_primitive::<T>();
        // Times mostly come in order: the bucket of the row before is looked at first.
        let (mut start, mut end, mut answer) = (0_i64, 0_i64, 0_i64);
        let mut starts = Vec::with_capacity(times.len());
        for (row, time) in times.values().iter().enumerate() {
            if times.is_null(row) {
                starts.push(0);
                continue;
            }
            let at_ns = time.checked_mul(unit_ns).ok_or_else(beyond)?;
            if at_ns < start || at_ns >= end {
                start = self.start_ns(at_ns).ok_or_else(beyond)?;
                end = self.next_ns(start).unwrap_or(i64::MAX);
                if start.rem_euclid(unit_ns) != 0 {
                    return Err(too_coarse());
                }
                answer = start.div_euclid(unit_ns);
            }
            starts.push(answer);
        }
        let starts = PrimitiveArray::<T>::new(starts.into(), times.nulls().cloned());
        let starts = starts.with_timezone_opt(zone_of(times.data_type()));
        Ok(Arc::new(starts))
    }
}

/// Says that a column cannot hold where its buckets begin.
pub fn too_coarse() -> datafusion::error::DataFusionError {
    refused("the column's unit is too coarse for these buckets".to_owned())
}

fn zone_of(data_type: &DataType) -> Option<Arc<str>> {
    match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

fn month_start_ns(month: i64) -> Option<i64> {
    // Far beyond what nanoseconds hold, so that the days cannot overflow.
    if !(-12_000_000..=12_000_000).contains(&month) {
        return None;
    }
    day_of_month_start(month).checked_mul(DAY_NS)
}

fn beyond() -> datafusion::error::DataFusionError {
    refused("the start of a bucket is beyond what nanoseconds can hold".to_owned())
}

/// Returns `times`, a TIMESTAMP, DATE or text, as nanoseconds.
///
/// # Errors
///
/// `InvalidQuery` for times that nanoseconds cannot hold.
pub fn as_nanoseconds(times: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(times, &DataType::Timestamp(TimeUnit::Nanosecond, zone_of(times.data_type())))?)
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::buckets::Buckets;
    use crate::domain::executor::timeseries::civil::DAY_NS;
    use crate::domain::executor::timeseries::spans::Span;

    #[test]
    fn an_instant_lies_in_its_bucket_and_buckets_follow_each_other() {
        let hour = DAY_NS / 24;
        for zone in
            [None, Some("Europe/Berlin"), Some("America/Havana"), Some("Asia/Kolkata"), Some("Australia/Lord_Howe")]
        {
            for width in [Span::Ns(hour), Span::Ns(3 * hour), Span::Ns(DAY_NS), Span::Ns(7 * DAY_NS), Span::Months(1)] {
                let mut buckets = Buckets::calendar(width);
                if let Some(zone) = zone {
                    buckets = buckets.in_zone(zone.parse().unwrap());
                }
                let mut at = 19_700 * DAY_NS;
                while at < 20_100 * DAY_NS {
                    let start = buckets.start_ns(at).unwrap();
                    let next = buckets.next_ns(start).unwrap();
                    assert!(start <= at && at < next, "{zone:?} {width:?} {start} {at} {next}");
                    assert_eq!(buckets.start_ns(start), Some(start), "{zone:?} {width:?} {at}");
                    at += hour / 2 + 7;
                }
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_no_bucket() {
        for width in [Span::Ns(DAY_NS), Span::Ns(i64::MAX), Span::Months(1), Span::Months(i64::MAX / 2)] {
            let buckets = Buckets::calendar(width);
            for at in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
                if let Some(start) = buckets.start_ns(at) {
                    assert!(start <= at, "{width:?} {at} {start}");
                }
            }
        }
        assert_eq!(Buckets::since_1970(Span::Ns(300)).start_ns(-1), Some(-300));
    }
}
