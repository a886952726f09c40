//! Reads numbers that a double cannot hold as decimals.
//!
//! The planner reads `9007199254740993.5` as the nearest double, and a whole number of more than 20 digits too. To keep
//! all digits, such a literal becomes a cast of its text to the narrowest decimal that holds them. Literals that a
//! double holds stay doubles, so `1.5` has the usual type.

use crate::domain::storage::{DecimalText, holds_f64};
use crate::ports::{Error, Result};
use sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Statement, Value, ValueWithSpan, visit_expressions_mut,
};
use std::ops::ControlFlow;

/// Rewrites the literals of `statement` that a double cannot hold.
///
/// # Errors
///
/// `InvalidQuery` for a number that neither a double nor any decimal holds.
pub fn keep_digits(statement: &mut Statement) -> Result<()> {
    let visited = visit_expressions_mut(statement, |expr| {
        let Expr::Value(ValueWithSpan { value: Value::Number(text, _), span }) = expr else {
            return ControlFlow::Continue(());
        };
        match decimal_type(text) {
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
            Ok(Some((plain, precision, scale))) => {
                let text = Value::SingleQuotedString(plain).with_span(*span);
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(Expr::Value(text)),
                    data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(
                        u64::from(precision),
                        i64::from(scale),
                    )),
                    array: false,
                    format: None,
                };
                ControlFlow::Continue(())
            }
        }
    });
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Returns a number's text, precision and scale where a double would lose some of its digits.
fn decimal_type(text: &str) -> Result<Option<(String, u8, i8)>> {
    // Whole numbers of 64 bits are read as such.
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return Ok(None);
    }
    let (Some(number), Ok(double)) = (DecimalText::parse(text), text.parse::<f64>()) else { return Ok(None) };
    if holds_f64(double, text) {
        return Ok(None);
    }
    match number.decimal_type() {
        Some((precision, scale)) => Ok(Some((number.plain(), precision, scale))),
        None => Err(Error::invalid(format!("the number {text:.80} is out of range"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::sql::literals::keep_digits;
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    fn rewritten(sql: &str) -> Result<String, String> {
        let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
        keep_digits(&mut statements[0]).map_err(|error| error.to_string())?;
        Ok(statements[0].to_string())
    }

    #[test]
    fn only_what_a_double_would_lose_becomes_a_decimal() {
        for sql in ["SELECT 1, 1.5, -0.1, 1e300, 9223372036854775807, 18446744073709551615, 0.1 + 0.2", "VALUES (1.23)"]
        {
            assert_eq!(rewritten(sql).unwrap(), sql);
        }
        assert_eq!(
            rewritten("SELECT 9007199254740993.0, 0.1234567890123456789").unwrap(),
            "SELECT CAST('9007199254740993' AS DECIMAL(16,0)), CAST('0.1234567890123456789' AS DECIMAL(19,19))"
        );
        assert_eq!(
            rewritten("SELECT 99999999999999999999999").unwrap(),
            "SELECT CAST('99999999999999999999999' AS DECIMAL(23,0))"
        );
        assert!(rewritten("SELECT 1e400").unwrap_err().contains("out of range"));
    }
}
