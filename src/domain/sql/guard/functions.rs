//! Checks expressions and calls of functions.

use crate::domain::sql::guard::select::window_spec;
use crate::domain::sql::guard::{Refused, absent, refused};
use sqlparser::ast::{
    AccessExpr, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, WindowType,
};

/// The kind that the planner takes a call for; of each kind it reads other clauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callee {
    /// A function of one row's values. The planner reads only its arguments.
    Scalar,
    /// A function of one row's values, the names of whose arguments are not read either: `unnest`, `map`, and
    /// higher-order functions.
    Nameless,
    /// A function of the rows of its window: `row_number`, `lag`, `first_value(…) OVER …`.
    Window,
    /// An aggregate, or a name that the planner does not know.
    Aggregate,
}

/// Returns the [`Callee`] of a name, with OVER or without: `first_value` is a window function or an aggregate.
pub type Functions<'a> = &'a dyn Fn(&str, bool) -> Callee;

/// Checks one expression. Variants that the planner does not know it refuses itself, so only those matter that it reads
/// in part.
pub(super) fn expr(expr: &Expr, functions: Functions) -> Result<(), Refused> {
    match expr {
        Expr::Function(function) => self::function(function, functions),
        Expr::Trim { trim_where: _, trim_what: _, expr: _, trim_characters } => {
            let strings = trim_characters.as_ref().map_or(0, Vec::len);
            absent(strings > 1, "TRIM of several strings")
        }
        Expr::CompoundFieldAccess { root, access_chain } => element(root, access_chain),
        // DataFusion resolves the columns of the query against the wrong table (apache/datafusion issue 25258).
        Expr::AnyOp { left: _, compare_op: _, right, is_some: _ } | Expr::AllOp { left: _, compare_op: _, right } => {
            let is_query = matches!(bare(right), Expr::Subquery(_));
            absent(is_query, "ANY or ALL of a query (use IN, EXISTS, or compare with its min or max)")
        }
        // DataFusion takes the pattern for a regular expression that may match anywhere.
        Expr::SimilarTo { .. } => Err(refused("SIMILAR TO (use LIKE, or ~ with a regular expression)")),
        // `FROM` or a comma, nothing else.
        Expr::Extract { field: _, syntax: _, expr: _ } => Ok(()),
        _ => Ok(()),
    }
}

/// Checks `array_agg(x)[n]`: it becomes `nth_value(x, n)`, an aggregate that ignores DISTINCT and null treatment.
fn element(root: &Expr, access_chain: &[AccessExpr]) -> Result<(), Refused> {
    let (Expr::Function(function), Some(AccessExpr::Subscript(_))) = (bare(root), access_chain.first()) else {
        return Ok(());
    };
    let CallClauses { distinct, ordered: _, nulls, named: _ } = call_clauses(&function.args)?;
    let is_lost = distinct || nulls || function.null_treatment.is_some();
    absent(
        is_lost && is_one_of(&function.name, &["array_agg"]),
        "an element of array_agg with DISTINCT or IGNORE NULLS (use a subquery for array_agg)",
    )
}

fn bare(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

fn function(function: &Function, functions: Functions) -> Result<(), Refused> {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } = function;
    absent(!matches!(parameters, FunctionArguments::None), "parameters before the arguments of a function: f(p)(x)")?;
    if let Some(WindowType::WindowSpec(spec)) = over {
        window_spec(spec)?;
    }
    let CallClauses { distinct, ordered, nulls, named } = call_clauses(args)?;
    let nulls = nulls || null_treatment.is_some();
    let callee = callee(name, over.is_some(), functions);
    match callee {
        Callee::Scalar | Callee::Nameless => {
            absent(named && callee == Callee::Nameless, "named arguments of this function")?;
            absent(over.is_some(), "OVER with a function of one row")?;
            absent(filter.is_some(), "FILTER with a function of one row")?;
            absent(!within_group.is_empty(), "WITHIN GROUP with a function of one row")?;
            absent(distinct, "DISTINCT with a function of one row")?;
            absent(ordered, "ORDER BY with a function of one row")?;
            absent(nulls, "IGNORE NULLS and RESPECT NULLS with a function of one row")
        }
        Callee::Window => {
            // FILTER is refused.
            absent(distinct, "DISTINCT with a window function that is not an aggregate")?;
            absent(nulls && !treats_nulls(name), "IGNORE NULLS and RESPECT NULLS with this function")
        }
        // Without OVER the planner knows itself which aggregates treat nulls.
        Callee::Aggregate => {
            absent(distinct && is_one_of(name, &IGNORES_DISTINCT), "DISTINCT with this aggregate")?;
            absent(ordered && is_reordered(name, args), "ORDER BY another value than a percentile's own")?;
            absent(nulls && over.is_some() && !treats_nulls(name), "IGNORE NULLS and RESPECT NULLS with this function")
        }
    }
}

/// The clauses between the parentheses of a call.
#[derive(Debug, Clone, Copy, Default)]
struct CallClauses {
    distinct: bool,
    ordered: bool,
    nulls: bool,
    named: bool,
}

fn call_clauses(args: &FunctionArguments) -> Result<CallClauses, Refused> {
    let list = match args {
        FunctionArguments::None => return Ok(CallClauses::default()),
        FunctionArguments::Subquery(_) => {
            return Err(refused("a query in place of a function's arguments: ARRAY(SELECT …)"));
        }
        FunctionArguments::List(list) => list,
    };
    let FunctionArgumentList { duplicate_treatment, args, clauses } = list;
    let distinct = *duplicate_treatment == Some(DuplicateTreatment::Distinct);
    args.iter().try_for_each(|arg| argument(arg, distinct))?;
    let named = args.iter().any(|arg| !matches!(arg, FunctionArg::Unnamed(_)));
    let mut found = CallClauses { distinct, named, ..CallClauses::default() };
    for clause in clauses {
        match clause {
            FunctionArgumentClause::OrderBy(_) => found.ordered = true,
            FunctionArgumentClause::IgnoreOrRespectNulls(_) => found.nulls = true,
            // Refused.
            FunctionArgumentClause::Limit(_)
            | FunctionArgumentClause::OnOverflow(_)
            | FunctionArgumentClause::Having(_)
            | FunctionArgumentClause::Separator(_)
            | FunctionArgumentClause::JsonNullClause(_)
            | FunctionArgumentClause::JsonReturningClause(_) => {}
        }
    }
    Ok(found)
}

/// Checks an argument: the planner reads both `*` and `t.*` as the number 1 in an aggregate.
fn argument(arg: &FunctionArg, distinct: bool) -> Result<(), Refused> {
    // Names of arguments are refused elsewhere, or only spelling.
    let (FunctionArg::Named { name: _, arg, operator: _ }
    | FunctionArg::ExprNamed { name: _, arg, operator: _ }
    | FunctionArg::Unnamed(arg)) = arg;
    match arg {
        FunctionArgExpr::Expr(_) => Ok(()),
        FunctionArgExpr::Wildcard => absent(distinct, "DISTINCT * in a function (use SELECT DISTINCT in a subquery)"),
        FunctionArgExpr::QualifiedWildcard(_) => Err(refused("t.* in a function")),
        // Refused.
        FunctionArgExpr::WildcardWithOptions(_) => Ok(()),
    }
}

/// Aggregates that accept DISTINCT and ignore it.
const IGNORES_DISTINCT: [&str; 16] = [
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "corr",
    "covar",
    "covar_pop",
    "covar_samp",
    "nth_value",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];

/// Returns whether IGNORE NULLS has an effect on a function over a window.
fn treats_nulls(name: &ObjectName) -> bool {
    is_one_of(name, &["first_value", "last_value", "nth_value", "lag", "lead", "array_agg"])
}

/// Returns whether a percentile is ordered by another value: in `percentile_cont(x, 0.5 ORDER BY y)` the planner reads
/// `y` in the place of `x`.
fn is_reordered(name: &ObjectName, args: &FunctionArguments) -> bool {
    let percentiles =
        &["percentile_cont", "quantile_cont", "approx_percentile_cont", "approx_percentile_cont_with_weight"];
    let FunctionArguments::List(list) = args else { return false };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), _, ..] = list.args.as_slice() else { return false };
    let order = list.clauses.iter().find_map(|clause| match clause {
        FunctionArgumentClause::OrderBy(order) => order.first(),
        _ => None,
    });
    is_one_of(name, percentiles) && order.is_some_and(|order| order.expr != *value)
}

fn callee(name: &ObjectName, windowed: bool, functions: Functions) -> Callee {
    // No function has a schema, so the planner doesn't find one.
    function_name(name).map_or(Callee::Aggregate, |name| functions(&name, windowed))
}

fn is_one_of(name: &ObjectName, names: &[&str]) -> bool {
    function_name(name).is_some_and(|name| names.contains(&name.as_str()))
}

/// Returns the name that the planner looks a function up by.
fn function_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(Ident { value, quote_style: None, span: _ })] => Some(value.to_ascii_lowercase()),
        [ObjectNamePart::Identifier(Ident { value, quote_style: Some(_), span: _ })] => Some(value.clone()),
        _ => None,
    }
}
