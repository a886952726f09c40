//! The contract suite: every case over every path.
//!
//! A case is a plain async function of a [`Sut`]. *Laws* hold for whatever implements the ports, the stub included;
//! *behaviour* is what an engine does, wherever it is.

mod behaviour;
mod changes;
mod ingest;
mod laws;
mod types;

/// One test for each case and path.
macro_rules! paths {
    ($($path:ident: $($group:ident)+;)+) => {
        $(
            mod $path {
                $(cases!($path, $group);)+
            }
        )+
    };
}

macro_rules! cases {
    ($path:ident, laws) => {
        expand!($path, laws: stream_schema_is_every_batchs_schema described_schema_is_the_streams
            dropping_a_stream_early_is_safe calls_may_be_made_concurrently a_change_is_refused_to_a_reader);
    };
    ($path:ident, behaviour) => {
        expand!($path, behaviour: describe_tells_kind_schema_and_exact_rows errors_keep_kind_and_message
            empty_results_keep_their_schema names_match_exactly_then_by_case parameters_are_bound
            named_parameters_are_bound open_parameters_are_described rows_of_parameters_make_rows
            a_callers_stream_is_a_table_of_one_query
            rows_come_back_in_ingestion_order snapshots_stay_as_they_were view_types_do_not_leak
            an_error_after_the_first_batch_is_an_error exact_counts_are_exact a_deadline_is_kept
            all_parts_together_are_the_answer a_statement_asked_again_sees_what_changed
            a_table_says_which_column_is_its_time system_tables_are_read_like_others);
        expand!($path, changes: tables_come_and_go rows_are_inserted rows_are_deleted_where_true
            rows_are_updated columns_come_go_and_change_names definitions_answer_nothing
            subqueries_in_changes_see_one_state);
        expand!($path, ingest: a_stream_makes_its_table columns_match_by_name_or_position
            a_stream_that_fails_leaves_no_trace arrival_time_is_filled_in empty_streams_are_legal
            what_does_not_fit_is_refused many_small_batches_come_back_in_order
            a_stream_says_what_to_do_about_its_table a_numbered_commit_counts_once
            a_writer_that_is_taken_over_is_refused);
        expand!($path, types: every_type_comes_back_bit_by_bit random_batches_come_back_equal);
    };
}

macro_rules! expand {
    ($path:ident, $group:ident: $($case:ident)+) => {
        mod $group {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let sut = crate::harness::Sut::$path().await;
                    crate::contract::$group::$case(sut).await;
                }
            )+
        }
    };
}

paths! {
    in_process: laws behaviour;
    durable: laws behaviour;
    restarted: laws behaviour;
    flushed: laws behaviour;
    flight: laws behaviour;
    http: laws behaviour;
    gateway: laws behaviour;
    stub: laws;
}
