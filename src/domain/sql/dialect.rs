//! The SQL dialect: sqlparser's generic one, with its work bounded and one precedence corrected.
//!
//! sqlparser tries some constructs in two ways, one inside the other, so a statement of a few hundred bytes may take it
//! weeks (CASE, CAST, ARRAY, INTERVAL … nested twenty-five deep). Every try begins with a prefix, so prefixes
//! are counted, and past a budget each further one is an error.
//!
//! `IS [NOT] DISTINCT FROM` takes the rest of the expression as its right side in sqlparser 0.62; here it binds like
//! every other IS (fixed upstream after 0.62, datafusion-sqlparser-rs pull request 2436).

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;
use std::any::TypeId;
use std::cell::Cell;

/// Prefixes that any statement may have, and more for each of its tokens: eight nested tries of two ways each.
const PREFIXES_MIN: u64 = 100_000;
const PREFIXES_PER_TOKEN: u64 = 8;

/// The error text for a statement that is too much work.
pub const TOO_MUCH_WORK: &str = "the statement is nested in too many ways to be parsed";

/// The dialect of one statement.
#[derive(Debug)]
pub struct BoundedDialect {
    prefixes_left: Cell<u64>,
}

impl BoundedDialect {
    /// Returns the dialect for a statement of `tokens` tokens.
    pub fn new(tokens: usize) -> Self {
        let prefixes = PREFIXES_MIN.saturating_add(PREFIXES_PER_TOKEN.saturating_mul(tokens as u64));
        Self { prefixes_left: Cell::new(prefixes) }
    }

    /// Counts one prefix.
    fn spend(&self) -> Result<(), ParserError> {
        match self.prefixes_left.get().checked_sub(1) {
            Some(left) => {
                self.prefixes_left.set(left);
                Ok(())
            }
            None => Err(ParserError::ParserError(TOO_MUCH_WORK.to_owned())),
        }
    }
}

/// Answers like the generic dialect.
macro_rules! like_generic {
    ($($flag:ident)+) => {
        $(fn $flag(&self) -> bool {
            GenericDialect.$flag()
        })+
    };
}

impl Dialect for BoundedDialect {
    /// Poses as the generic dialect: the parser asks for the type of its dialect in a hundred places.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    fn parse_prefix(&self, _: &mut Parser) -> Option<Result<Expr, ParserError>> {
        self.spend().err().map(Err)
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        let keyword = |at| match &parser.peek_nth_token_ref(at).token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        let (is_not, tokens) = match [0, 1, 2, 3].map(keyword) {
            [Keyword::IS, Keyword::DISTINCT, Keyword::FROM, _] => (false, 3),
            [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM] => (true, 4),
            _ => return None,
        };
        (0..tokens).for_each(|_| parser.advance_token());
        let (left, right) = (Box::new(expr.clone()), parser.parse_subexpr(precedence));
        Some(right.map(Box::new).map(|right| match is_not {
            true => Expr::IsNotDistinctFrom(left, right),
            false => Expr::IsDistinctFrom(left, right),
        }))
    }

    /// Makes operators such as `->` bind tighter than IS: `a IS DISTINCT FROM b -> 'k'`.
    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::PgOther => 25,
            other => GenericDialect.prec_value(other),
        }
    }

    like_generic! {
        supports_unicode_string_literal supports_partition_by_after_order_by supports_array_join_syntax
        supports_group_by_expr supports_group_by_with_modifier supports_left_associative_joins_without_parens
        supports_connect_by supports_match_recognize supports_pipe_operator supports_start_transaction_modifier
        supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables
        supports_select_wildcard_except support_map_literal_syntax allow_extract_custom allow_extract_single_quotes
        supports_extract_comma_syntax supports_create_view_comment_syntax supports_parens_around_table_factor
        supports_values_as_table_factor supports_create_index_with_clause supports_explain_with_utility_options
        supports_limit_comma supports_update_order_by supports_from_first_select supports_projection_trailing_commas
        supports_asc_desc_in_column_definition supports_try_convert supports_bitwise_shift_operators
        supports_comment_on supports_load_extension supports_named_fn_args_with_assignment_operator
        supports_struct_literal supports_empty_projections supports_nested_comments supports_multiline_comment_hints
        supports_user_host_grantee supports_string_escape_constant supports_array_typedef_with_brackets
        supports_match_against supports_set_names supports_comma_separated_set_assignments
        supports_filter_during_aggregation supports_select_wildcard_exclude supports_data_type_signed_suffix
        supports_interval_options supports_quote_delimited_string supports_select_wildcard_replace
        supports_select_wildcard_ilike supports_select_wildcard_rename supports_optimize_table supports_install
        supports_detach supports_prewhere supports_with_fill supports_limit_by supports_interpolate supports_settings
        supports_select_format supports_comment_optimizer_hint supports_constraint_keyword_without_name
        supports_key_column_option supports_comma_separated_trim supports_cte_without_as
        supports_select_item_multi_column_alias supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::dialect::BoundedDialect;
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    #[test]
    fn parsing_is_bounded_however_it_nests() {
        for open in ["CASE WHEN a THEN ", "CASE WHEN t.end THEN ", "coalesce(e.end, CASE WHEN "] {
            let sql = format!("SELECT {}1", open.repeat(40));
            let dialect = BoundedDialect::new(sql.len());
            // Whatever it makes of it, it ends: without a bound this takes years.
            assert!(Parser::new(&dialect).try_with_sql(&sql).unwrap().parse_statements().is_err(), "{open}");
        }
    }

    #[test]
    fn is_distinct_from_binds_like_is() {
        let dialect = BoundedDialect::new(100);
        let parse = |sql| Parser::new(&dialect).try_with_sql(sql).unwrap().parse_expr().unwrap();
        for (sql, same) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b OR c = 1", "(a IS NOT DISTINCT FROM b) OR c = 1"),
            ("a IS DISTINCT FROM b + 1 AND c", "(a IS DISTINCT FROM (b + 1)) AND c"),
            ("NOT a IS DISTINCT FROM b", "NOT (a IS DISTINCT FROM b)"),
        ] {
            assert_eq!(shape(&parse(sql)), shape(&parse(same)), "{sql}");
        }
    }

    /// Prints an expression with all its parentheses.
    fn shape(expr: &sqlparser::ast::Expr) -> String {
        use sqlparser::ast::Expr::*;
        match expr {
            Nested(inner) => shape(inner),
            BinaryOp { left, op, right } => format!("({} {op} {})", shape(left), shape(right)),
            UnaryOp { op, expr } => format!("({op} {})", shape(expr)),
            IsDistinctFrom(left, right) => format!("({} <> {})", shape(left), shape(right)),
            IsNotDistinctFrom(left, right) => format!("({} == {})", shape(left), shape(right)),
            other => other.to_string(),
        }
    }

    #[test]
    fn ordinary_statements_parse_as_the_generic_dialect_parses_them() {
        for sql in [
            "SELECT a, b AS c FROM t AS u JOIN v USING (k) WHERE a > 1 AND b LIKE 'x%' GROUP BY ALL ORDER BY 1 LIMIT 5",
            "SELECT * EXCEPT (a) FROM t",
            "SELECT CASE WHEN a THEN CASE WHEN b THEN 1 END END",
            "SELECT [1, 2][1], {'a': 1}, x -> y",
            "INSERT INTO t VALUES (1, 2)",
            "SELECT E'a\\n', TIMESTAMP '2020-01-01', INTERVAL '1' DAY",
            "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) SELECT * FROM a",
        ] {
            let generic = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| error.to_string());
            let dialect = BoundedDialect::new(100);
            let ours = Parser::parse_sql(&dialect, sql).map_err(|error| error.to_string());
            assert_eq!(ours, generic, "{sql}");
        }
    }
}
