//! Checks FROM: tables, joins and aliases.

use crate::domain::sql::guard::{Refused, absent, refused};
use sqlparser::ast::{
    Expr, FunctionArg, Ident, Join, JoinConstraint, JoinOperator, JsonPath, TableAlias, TableAliasColumnDef,
    TableFactor, TableFunctionArgs, TableIndexHints, TableSample, TableSampleKind, TableSampleMethod,
    TableSampleModifier, TableSampleQuantity, TableSampleUnit, TableVersion, TableWithJoins,
};

/// Most tables in one FROM, its joins included: they nest in the plan.
const FROM_MAX: usize = 200;

/// Words before JOIN in other dialects: AJ0 JOIN, LT JOIN, ANY LEFT JOIN, POSITIONAL JOIN. The parser reads them as the
/// alias of the table before them, which leaves another join.
const JOIN_WORDS: [&str; 16] = [
    "AJ",
    "AJ0",
    "ALL",
    "ANY",
    "APPROX",
    "BROADCAST",
    "EACH",
    "HASH",
    "HORIZON",
    "LOOP",
    "LT",
    "MERGE",
    "PASTE",
    "PLUS",
    "POSITIONAL",
    "SPLICE",
];

/// Words after a table in other dialects, which would be its alias here: `FROM t FINAL`, `FROM t TIMESTAMP(ts)`.
const TABLE_WORDS: [&str; 6] = ["FILL", "FINAL", "LATEST", "NOLOCK", "TIMESTAMP", "TOLERANCE"];

pub(super) fn from(from: &[TableWithJoins]) -> Result<(), Refused> {
    let tables: usize = from.iter().map(|from| 1 + from.joins.len()).sum();
    absent(tables > FROM_MAX, "more than 200 tables in one FROM")?;
    from.iter().try_for_each(table_with_joins)
}

fn table_with_joins(tables: &TableWithJoins) -> Result<(), Refused> {
    let TableWithJoins { relation, joins } = tables;
    let mut before = relation;
    for join in joins {
        absent(is_alias_in(before, &JOIN_WORDS), "this kind of JOIN (to use the word as an alias, write AS)")?;
        self::join(join)?;
        before = &join.relation;
    }
    Ok(())
}

pub(super) fn join(join: &Join) -> Result<(), Refused> {
    // The planner reads ON outside of CROSS JOIN, USING and NATURAL, and reads or refuses each kind of join as a whole.
    let Join { relation: _, global, join_operator } = join;
    absent(*global, "GLOBAL JOIN")?;
    match join_operator {
        JoinOperator::Join(JoinConstraint::None) | JoinOperator::Inner(JoinConstraint::None) => {
            Err(refused("JOIN without ON or USING (use CROSS JOIN for all pairs)"))
        }
        // DataFusion 55 answers NULL in the key's column for rows that only one side has.
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            absent(shares_columns(constraint), "RIGHT JOIN with USING or NATURAL (use LEFT JOIN, or ON)")
        }
        JoinOperator::Left(JoinConstraint::Natural) | JoinOperator::LeftOuter(JoinConstraint::Natural) => {
            Err(refused("NATURAL LEFT JOIN (use ON, and name the columns)"))
        }
        JoinOperator::FullOuter(constraint) => {
            absent(shares_columns(constraint), "FULL JOIN with USING or NATURAL (use ON, and coalesce the keys)")
        }
        _ => Ok(()),
    }
}

/// Returns whether `*` has the key of a LEFT JOIN with USING from its right side, where it may be NULL: DataFusion takes it from
/// the table whose name sorts first (apache/datafusion issue 20989).
pub(super) fn loses_key(tables: &TableWithJoins) -> bool {
    if loses_key_inside(&tables.relation) {
        return true;
    }
    let mut left = relation_names(&tables.relation);
    for join in &tables.joins {
        let right = relation_names(&join.relation);
        let is_left = matches!(
            join.join_operator,
            JoinOperator::Left(JoinConstraint::Using(_)) | JoinOperator::LeftOuter(JoinConstraint::Using(_))
        );
        let sorts_first = right.iter().any(|right| left.iter().any(|left| right < left));
        if loses_key_inside(&join.relation) || is_left && sorts_first {
            return true;
        }
        left.extend(right);
    }
    false
}

fn loses_key_inside(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::NestedJoin { table_with_joins, alias: None } if loses_key(table_with_joins))
}

/// Returns what columns of a relation are qualified with: its name, or those of all that it joins.
fn relation_names(relation: &TableFactor) -> Vec<String> {
    match relation {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            let joined = table_with_joins.joins.iter().map(|join| &join.relation);
            std::iter::once(&table_with_joins.relation).chain(joined).flat_map(relation_names).collect()
        }
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            vec![alias.name.value.clone()]
        }
        TableFactor::Table { name, .. } => {
            let last = name.0.last().and_then(|part| part.as_ident());
            vec![last.map(|ident| ident.value.clone()).unwrap_or_default()]
        }
        _ => vec![String::new()],
    }
}

fn shares_columns(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

/// Returns whether a table has one of `words` for an alias, neither quoted nor after AS.
fn is_alias_in(factor: &TableFactor, words: &[&str]) -> bool {
    let Some(TableAlias { explicit: false, name, columns: _, at: _ }) = alias_of(factor) else { return false };
    let Ident { value, quote_style: None, span: _ } = name else { return false };
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn alias_of(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::JsonTable { alias, .. }
        | TableFactor::OpenJsonTable { alias, .. }
        | TableFactor::NestedJoin { alias, .. }
        | TableFactor::Pivot { alias, .. }
        | TableFactor::Unpivot { alias, .. }
        | TableFactor::MatchRecognize { alias, .. }
        | TableFactor::XmlTable { alias, .. }
        | TableFactor::SemanticView { alias, .. } => alias.as_ref(),
    }
}

pub(super) fn table_factor(factor: &TableFactor) -> Result<(), Refused> {
    absent(
        is_alias_in(factor, &TABLE_WORDS),
        "FINAL and the like after a table (to use the word as an alias, write AS)",
    )?;
    alias_of(factor).into_iter().try_for_each(table_alias)?;
    match factor {
        TableFactor::Table {
            name,
            alias: _,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            absent(*with_ordinality, "WITH ORDINALITY")?;
            absent(args.is_some() && name.0.len() > 1, "a table function with a schema")?;
            args.iter().try_for_each(table_function_args)?;
            table_modifiers(with_hints, version.as_ref(), partitions, json_path.as_ref(), index_hints)?;
            self::sample(sample.as_ref())
        }
        TableFactor::Derived { lateral: _, subquery: _, alias: _, sample } => self::sample(sample.as_ref()),
        TableFactor::Function { lateral: _, name, args, with_ordinality, alias: _ } => {
            absent(*with_ordinality, "WITH ORDINALITY")?;
            absent(name.0.len() > 1, "a table function with a schema")?;
            args.iter().try_for_each(table_function_arg)
        }
        TableFactor::NestedJoin { table_with_joins, alias: _ } => self::table_with_joins(table_with_joins),
        // WITH OFFSET and WITH ORDINALITY are refused.
        TableFactor::UNNEST { alias: _, array_exprs: _, with_offset: _, with_offset_alias: _, with_ordinality: _ } => {
            Ok(())
        }
        // Refused as a whole.
        TableFactor::TableFunction { .. }
        | TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::Pivot { .. }
        | TableFactor::Unpivot { .. }
        | TableFactor::MatchRecognize { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::SemanticView { .. } => Ok(()),
    }
}

fn table_modifiers(
    with_hints: &[Expr],
    version: Option<&TableVersion>,
    partitions: &[Ident],
    json_path: Option<&JsonPath>,
    index_hints: &[TableIndexHints],
) -> Result<(), Refused> {
    absent(!with_hints.is_empty(), "WITH (…) after a table")?;
    absent(version.is_some(), "AS OF after a table")?;
    absent(!partitions.is_empty(), "PARTITION (…) after a table")?;
    absent(json_path.is_some(), "a path into a table")?;
    absent(!index_hints.is_empty(), "USE, IGNORE and FORCE INDEX")
}

/// Lets `SAMPLE 0.1` and `TABLESAMPLE BERNOULLI (10)` pass, which the executor plans: a share of the rows.
fn sample(sample: Option<&TableSampleKind>) -> Result<(), Refused> {
    let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample else {
        return Ok(());
    };
    let TableSample { modifier, name, quantity, seed, bucket, offset } = sample.as_ref();
    let refuse = || Err(refused("this form of sampling (use SAMPLE 0.1 or TABLESAMPLE BERNOULLI (10))"));
    let Some(TableSampleQuantity { parenthesized: _, value: _, unit }) = quantity else { return refuse() };
    let is_share = match (modifier, name) {
        (TableSampleModifier::Sample, None) => unit.is_none(),
        (TableSampleModifier::TableSample, Some(TableSampleMethod::Bernoulli)) => {
            matches!(unit, None | Some(TableSampleUnit::Percent))
        }
        _ => false,
    };
    if is_share && seed.is_none() && bucket.is_none() && offset.is_none() { Ok(()) } else { refuse() }
}

fn table_function_args(args: &TableFunctionArgs) -> Result<(), Refused> {
    // Other than after LATERAL, named arguments are refused.
    let TableFunctionArgs { args: _, settings } = args;
    absent(settings.is_some(), "SETTINGS of a table function")
}

fn table_function_arg(arg: &FunctionArg) -> Result<(), Refused> {
    match arg {
        FunctionArg::Unnamed(_) => Ok(()),
        FunctionArg::Named { name: _, arg: _, operator: _ }
        | FunctionArg::ExprNamed { name: _, arg: _, operator: _ } => {
            Err(refused("named arguments of a table function"))
        }
    }
}

pub(super) fn table_alias(alias: &TableAlias) -> Result<(), Refused> {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    absent(at.is_some(), "AT after an alias")?;
    columns.iter().try_for_each(alias_column)
}

fn alias_column(column: &TableAliasColumnDef) -> Result<(), Refused> {
    let TableAliasColumnDef { name: _, data_type } = column;
    absent(data_type.is_some(), "types in the columns of an alias (use CAST)")
}
