//! A class for every function of DataFusion: how its cost is bounded.
//!
//! Functions allocate and compute outside every budget, many of them while the statement is still being planned. So a
//! function that is not in these tables is refused, and a test compares them with what DataFusion registers: a new
//! release cannot add a function that was not reviewed. The classes were found by reading each kernel of DataFusion
//! 55.2.

/// The bound on the cost of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Time and result are at most a small multiple of its arguments.
    Linear,
    /// Its result may be much larger than its arguments, or take much longer: its bounds are checked before each call.
    Guarded,
    /// Nothing bounds it, or it tells about the server.
    Refused,
}

/// Scalar functions by their own names, as `Class::Linear`.
const LINEAR: &str = "nullif arrow_field cast_to_type try_cast_to_type arrow_metadata with_metadata nvl nvl2 coalesce arrow_typeof \
    get_field greatest least union_extract union_tag current_date current_time date_bin date_part date_trunc from_unixtime \
    make_date make_time now to_date to_local_time to_time to_unixtime to_timestamp to_timestamp_seconds to_timestamp_millis \
    to_timestamp_micros to_timestamp_nanos decode abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees \
    exp factorial floor gcd isnan iszero lcm ln log log2 log10 nanvl pi power radians random signum sin sinh sqrt tan tanh \
    round trunc digest md5 sha224 sha256 sha384 sha512 character_length find_in_set initcap left reverse right substr \
    substr_index translate ascii bit_length chr ends_with lower octet_length split_part starts_with to_hex upper uuid \
    contains array_compact array_dims cardinality array_ndims array_except array_element array_pop_back array_pop_front \
    array_any_value empty array_length array_normalize array_add array_avg array_product array_scale array_subtract \
    array_sum cosine_distance inner_product array_distance flatten array_max array_min array_sort array_reverse \
    array_distinct array_intersect array_position array_positions array_remove array_remove_all array_remove_n map_entries \
    map_extract map_keys map_values xbar time_bucket timestamp_floor epoch_s epoch_ms date_bin_gapfill \
    time_bucket_gapfill __zepto_sample __zepto_sample_fill __zepto_sample_first locf interpolate __zepto_fill haversine st_within";

/// Scalar functions by their own names, as `Class::Guarded`.
const GUARDED: &str = "arrow_cast arrow_try_cast overlay named_struct struct to_char encode lpad rpad concat concat_ws repeat \
    replace array_to_string string_to_array range generate_series array_append array_prepend array_concat make_array \
    array_repeat array_resize array_union arrays_zip array_replace_n array_replace_all array_replace map array_slice \
    regexp_count regexp_instr regexp_like regexp_match regexp_replace strpos btrim ltrim rtrim levenshtein array_has \
    array_has_all array_has_any";

/// Scalar functions by their own names, as `Class::Refused`.
const REFUSED: &str = "version input_file_name file_row_index";

/// Aggregates whose state is bounded by their input.
const AGGREGATES: &str = "any_value array_agg first_value last_value covar_samp covar_pop corr sum max min median count regr_slope \
    regr_intercept regr_count regr_r2 regr_avgx regr_avgy regr_sxx regr_syy regr_sxy var var_pop stddev stddev_pop \
    approx_median approx_distinct approx_percentile_cont approx_percentile_cont_with_weight percentile_cont string_agg \
    bit_and bit_or bit_xor bool_and bool_or avg grouping nth_value vwap wavg twap first last arg_min arg_max \
    selector_first selector_last selector_min selector_max";

/// Window functions.
const WINDOWS: &str = "cume_dist row_number lead lag rank dense_rank percent_rank ntile first_value last_value nth_value ema delta ratio \
    __zepto_ema_by";

/// Table functions, which generate their rows as they are read.
const TABLES: &str = "generate_series range";

fn lists(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|known| known == name)
}

/// Returns the class of a scalar function by its own name; none for one that was not reviewed.
pub fn class_of(name: &str) -> Option<Class> {
    if lists(LINEAR, name) {
        Some(Class::Linear)
    } else if lists(GUARDED, name) {
        Some(Class::Guarded)
    } else {
        lists(REFUSED, name).then_some(Class::Refused)
    }
}

/// Returns whether an aggregate is known.
pub fn is_known_aggregate(name: &str) -> bool {
    lists(AGGREGATES, name)
}

/// Returns whether a window function is known.
pub fn is_known_window(name: &str) -> bool {
    lists(WINDOWS, name)
}

/// Returns whether a table function may be called.
pub fn is_table_function(name: &str) -> bool {
    lists(TABLES, name)
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::functions::classes::{
        class_of, is_known_aggregate, is_known_window, is_table_function,
    };
    use datafusion::execution::SessionStateBuilder;

    #[test]
    fn every_registered_function_has_a_class() {
        let state = SessionStateBuilder::new_with_default_features().build();
        let mut unknown: Vec<&str> = Vec::new();
        unknown.extend(
            state.scalar_functions().values().map(|known| known.name()).filter(|name| class_of(name).is_none()),
        );
        let aggregates = state.aggregate_functions().values().map(|known| known.name());
        unknown.extend(aggregates.filter(|name| !is_known_aggregate(name)));
        unknown
            .extend(state.window_functions().values().map(|known| known.name()).filter(|name| !is_known_window(name)));
        unknown.extend(state.table_functions().keys().map(String::as_str).filter(|name| !is_table_function(name)));
        assert!(unknown.is_empty(), "these functions have no class: {unknown:?}");
    }
}
