//! Days, months and zones: between instants and what a calendar on the wall says.
//!
//! Instants are nanoseconds since 1970 UTC. The calendar is the proleptic Gregorian one; the conversions between days and
//! dates are those of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use arrow::array::timezone::Tz;
use arrow::datatypes::TimestampNanosecondType;
use arrow::temporal_conversions::as_datetime_with_timezone;

/// Nanoseconds of a day of 24 hours.
pub const DAY_NS: i64 = 86_400_000_000_000;

/// Returns the day, counted from 1970-01-01, on which a month begins that is counted from 1970-01.
pub fn day_of_month_start(month: i64) -> i64 {
    let (year, month) = (1970 + month.div_euclid(12), month.rem_euclid(12) + 1);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Returns the month, counted from 1970-01, in which a day lies that is counted from 1970-01-01.
pub fn month_of_day(day: i64) -> i64 {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year - 1970) * 12 + month - 1
}

/// Returns how far a zone is ahead of UTC at an instant; 0 for instants beyond the calendar.
pub fn offset_ns(instant_ns: i64, zone: Tz) -> i64 {
    as_datetime_with_timezone::<TimestampNanosecondType>(instant_ns, zone)
        .and_then(|at| at.naive_local().and_utc().timestamp_nanos_opt())
        .map_or(0, |local_ns| local_ns.saturating_sub(instant_ns))
}

/// Returns the first instant at which clocks of a zone show `local_ns`; where they skip it, the one at which they jump.
pub fn instant_ns(local_ns: i64, zone: Tz) -> i64 {
    // The offsets around it: whatever it is, it is one of them.
    let before = offset_ns(local_ns.saturating_sub(DAY_NS), zone);
    let after = offset_ns(local_ns.saturating_add(DAY_NS), zone);
    let candidates = [before.max(after), before.min(after)].map(|offset| (local_ns.saturating_sub(offset), offset));
    let shown = candidates.into_iter().find(|(instant, offset)| offset_ns(*instant, zone) == *offset);
    shown.map_or(local_ns.saturating_sub(before), |(instant, _)| instant)
}

/// Returns the first instant after `from_ns`, up to `to_ns`, at which clocks of a zone jump; none where they do not, as far as
/// the offsets of both show.
pub fn jump_ns(from_ns: i64, to_ns: i64, zone: Tz) -> Option<i64> {
    const SECOND_NS: i64 = 1_000_000_000;
    let before = offset_ns(from_ns, zone);
    if offset_ns(to_ns, zone) == before {
        return None;
    }
    // Clocks jump on whole seconds.
    let (mut low, mut high) = (from_ns.div_euclid(SECOND_NS), to_ns.div_euclid(SECOND_NS));
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if offset_ns(middle.checked_mul(SECOND_NS)?, zone) == before {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.checked_mul(SECOND_NS)
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::timeseries::civil::{DAY_NS, day_of_month_start, instant_ns, month_of_day, offset_ns};

    #[test]
    fn every_day_lies_in_its_month() {
        let mut month = month_of_day(-200_000);
        for day in -200_000..200_000 {
            if day_of_month_start(month + 1) == day {
                month += 1;
            }
            assert_eq!(month_of_day(day), month, "{day}");
        }
        assert_eq!((day_of_month_start(0), day_of_month_start(12), day_of_month_start(-1)), (0, 365, -31));
    }

    #[test]
    fn clocks_that_jump_show_midnight_once() {
        let hour_ns = DAY_NS / 24;
        let berlin = "Europe/Berlin".parse().unwrap();
        // 2024-03-31, when 02:00 does not exist, and 2024-10-27, when it exists twice.
        let (spring, autumn) = (19_813 * DAY_NS, 20_023 * DAY_NS);
        assert_eq!(instant_ns(spring, berlin), spring - hour_ns);
        assert_eq!(instant_ns(spring + DAY_NS, berlin), spring + DAY_NS - 2 * hour_ns);
        assert_eq!(instant_ns(spring + 2 * hour_ns, berlin), spring + hour_ns);
        assert_eq!(instant_ns(autumn + 2 * hour_ns, berlin), autumn, "the first of both");
        assert_eq!(offset_ns(autumn + hour_ns, berlin), hour_ns);
        // In Havana midnight came twice on 2024-11-03, and never on 2024-03-10.
        let havana = "America/Havana".parse().unwrap();
        let (spring, autumn) = (19_792 * DAY_NS, 20_030 * DAY_NS);
        assert_eq!(instant_ns(autumn, havana), autumn + 4 * hour_ns);
        assert_eq!(instant_ns(spring, havana), spring + 5 * hour_ns);
    }
}
