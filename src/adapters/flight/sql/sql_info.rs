//! Answers GetSqlInfo: the server's description of itself for SQL drivers, one line for each property.
//!
//! Values are what the engine does, not what it might do: drivers generate SQL from them.

use crate::adapters::serving::ServerOptions;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SqlSupportsConvert,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use std::collections::BTreeMap;

/// Longest name of a table, in bytes; the engine has the same limit.
const NAME_BYTES_MAX: i64 = 255;

/// Functions that SQL drivers may translate their escapes to; all of them are DataFusion's.
const NUMERIC: [&str; 24] = [
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cot", "degrees", "exp", "floor", "ln", "log10", "log2",
    "pi", "power", "radians", "random", "round", "signum", "sin", "sqrt", "tan", "trunc",
];
const STRING: [&str; 18] = [
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "initcap",
    "left",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "repeat",
    "replace",
    "reverse",
    "right",
    "substr",
    "upper",
];
const DATETIME: [&str; 8] =
    ["current_date", "current_time", "date_bin", "date_part", "date_trunc", "from_unixtime", "now", "to_timestamp"];

/// Answers GetSqlInfo for the given numbers, or for all if there are none.
///
/// # Errors
///
/// `Internal` if the table does not fit its schema.
pub fn sql_info(wanted: &[u32], options: &ServerOptions) -> Result<RecordBatch> {
    all(options)?.record_batch(wanted.iter().copied()).map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("the server's own description does not fit its schema").with_source(error)
}

fn bits(numbers: impl IntoIterator<Item = i32>) -> i32 {
    numbers.into_iter().fold(0, |bits, number| bits | 1 << number)
}

fn all(options: &ServerOptions) -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info, options);
    syntax(&mut info);
    features(&mut info);
    bounds(&mut info, options);
    info.build().map_err(failed)
}

fn server(info: &mut SqlInfoDataBuilder, options: &ServerOptions) {
    let timeout_ms = i32::try_from(options.limits.query_timeout_ms).unwrap_or(i32::MAX);
    info.append(SqlInfo::FlightSqlServerName, "zepto-flight");
    info.append(SqlInfo::FlightSqlServerVersion, options.info.version.as_str());
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, timeout_ms);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn syntax(info: &mut SqlInfoDataBuilder) {
    let insensitive = SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32;
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, insensitive);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Quoted names are compared exactly, which the enumeration has no value for.
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    // NULLS LAST when ascending, NULLS FIRST when descending.
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlKeywords, ["QUALIFY", "EXCLUDE", "UNNEST", "TRUNCATE", "SYMBOL"].as_slice());
    info.append(SqlInfo::SqlNumericFunctions, NUMERIC.as_slice());
    info.append(SqlInfo::SqlStringFunctions, STRING.as_slice());
    info.append(SqlInfo::SqlSystemFunctions, ["coalesce", "greatest", "least", "nullif", "nvl"].as_slice());
    info.append(SqlInfo::SqlDatetimeFunctions, DATETIME.as_slice());
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlProcedureTerm, "");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
}

fn features(info: &mut SqlInfoDataBuilder) {
    use SqlSupportedSubqueries::*;
    let subqueries = [SqlSubqueriesInComparisons, SqlSubqueriesInExists, SqlSubqueriesInIns].map(|kind| kind as i32);
    for (name, value) in [
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, false),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlTransactionsSupported, false),
        (SqlInfo::SqlDataDefinitionCausesTransactionCommit, false),
        (SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false),
        (SqlInfo::SqlBatchUpdatesSupported, true),
        (SqlInfo::SqlSavepointsSupported, false),
        (SqlInfo::SqlNamedParametersSupported, true),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
    ] {
        info.append(name, value);
    }
    let beyond = [SqlSupportedGroupBy::SqlGroupByUnrelated, SqlSupportedGroupBy::SqlGroupByBeyondSelect];
    info.append(SqlInfo::SqlSupportedGroupBy, bits(beyond.map(|kind| kind as i32)));
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar, SupportedSqlGrammar::SqlCoreGrammar];
    info.append(SqlInfo::SqlSupportedGrammar, bits(grammar.map(|kind| kind as i32)));
    let joins = [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins, SqlOuterJoinsSupportLevel::SqlFullOuterJoins];
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(joins.map(|kind| kind as i32)));
    info.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    info.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    info.append(SqlInfo::SqlSupportedSubqueries, bits(subqueries));
    let unions = [SqlSupportedUnions::SqlUnion, SqlSupportedUnions::SqlUnionAll];
    info.append(SqlInfo::SqlSupportedUnions, bits(unions.map(|kind| kind as i32)));
    info.append(SqlInfo::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionNone as i64);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, 0_i32);
    info.append(SqlInfo::SqlSupportedResultSetTypes, bits([1]));
    info.append(SqlInfo::SqlSupportsConvert, conversions());
}

/// Lists the conversions of CAST: numbers among each other, and every type from and to text.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert::*;
    let numbers = [SqlConvertTinyint, SqlConvertSmallint, SqlConvertInteger, SqlConvertBigint, SqlConvertReal]
        .into_iter()
        .chain([SqlConvertFloat, SqlConvertDecimal, SqlConvertNumeric, SqlConvertBit])
        .map(|kind| kind as i32)
        .collect::<Vec<_>>();
    let text = SqlConvertVarchar as i32;
    let from_text: Vec<_> = numbers
        .iter()
        .copied()
        .chain([SqlConvertDate, SqlConvertTime, SqlConvertTimestamp].map(|kind| kind as i32))
        .collect();
    let mut map: BTreeMap<i32, Vec<i32>> =
        numbers.iter().map(|from| (*from, numbers.iter().copied().chain([text]).collect())).collect();
    for time in [SqlConvertDate, SqlConvertTime, SqlConvertTimestamp] {
        map.insert(time as i32, vec![text]);
    }
    map.insert(SqlConvertDate as i32, vec![text, SqlConvertTimestamp as i32]);
    map.insert(SqlConvertTimestamp as i32, vec![text, SqlConvertDate as i32]);
    map.insert(text, from_text);
    map
}

/// Adds the limits; 0 means that there is none, or none that is known.
fn bounds(info: &mut SqlInfoDataBuilder, options: &ServerOptions) {
    let limits = &options.limits;
    let number = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    for (name, value) in [
        (SqlInfo::SqlMaxBinaryLiteralLength, number(limits.sql_bytes_max)),
        (SqlInfo::SqlMaxCharLiteralLength, number(limits.sql_bytes_max)),
        (SqlInfo::SqlMaxColumnNameLength, 0),
        (SqlInfo::SqlMaxColumnsInGroupBy, 0),
        (SqlInfo::SqlMaxColumnsInIndex, 0),
        (SqlInfo::SqlMaxColumnsInOrderBy, 0),
        (SqlInfo::SqlMaxColumnsInSelect, 0),
        (SqlInfo::SqlMaxColumnsInTable, 0),
        (SqlInfo::SqlMaxConnections, number(limits.connections_max)),
        (SqlInfo::SqlMaxCursorNameLength, 0),
        (SqlInfo::SqlMaxIndexLength, 0),
        (SqlInfo::SqlDbSchemaNameLength, NAME_BYTES_MAX),
        (SqlInfo::SqlMaxProcedureNameLength, 0),
        (SqlInfo::SqlMaxCatalogNameLength, NAME_BYTES_MAX),
        (SqlInfo::SqlMaxRowSize, 0),
        (SqlInfo::SqlMaxStatementLength, number(limits.sql_bytes_max)),
        (SqlInfo::SqlMaxStatements, number(limits.query_concurrency_max)),
        (SqlInfo::SqlMaxTableNameLength, NAME_BYTES_MAX),
        (SqlInfo::SqlMaxTablesInSelect, 0),
        (SqlInfo::SqlMaxUsernameLength, 0),
    ] {
        info.append(name, value);
    }
    info.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}
