//! Functions whose cost is checked before each call.
//!
//! Everything else of a guarded function is DataFusion's own: the guard forwards all that the planner and the optimiser
//! ask. The result of simplifying a call is guarded again, because some functions are rebuilt there from functions that
//! are not registered.

use crate::domain::executor::error::unsupported;
use crate::domain::executor::functions::bounds::{check_bounds, check_type_text};
use crate::domain::executor::functions::classes::{Class, class_of};
use crate::domain::executor::memory::QueryMemory;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, StructFieldMapping,
};
use std::sync::Arc;

/// Elements of a constant list that `array_has` may become a comparison each of.
const COMPARISONS_MAX: usize = 1_000;

/// Returns `function` behind a guard.
pub fn guarded(function: &Arc<ScalarUDF>, memory: &QueryMemory) -> Arc<ScalarUDF> {
    let inner = function.as_ref().clone();
    Arc::new(ScalarUDF::from(CostGuardedUdf { inner, memory: memory.clone() }))
}

/// Returns whether a function is behind a guard already.
fn is_guarded(function: &ScalarUDF) -> bool {
    function.inner().is::<CostGuardedUdf>()
}

/// A function behind a guard.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CostGuardedUdf {
    inner: ScalarUDF,
    memory: QueryMemory,
}

impl ScalarUDFImpl for CostGuardedUdf {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        // These two are never called: they become a cast once the type that their text names is known.
        if let ("arrow_cast" | "arrow_try_cast", Some(Some(text))) = (self.name(), args.scalar_arguments.get(1)) {
            check_type_text(text)?;
        }
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = check_bounds(self.name(), &args.args, args.number_rows)?;
        let reserved = self.memory.reserve_result(bytes)?;
        match (self.inner.invoke_with_args(args)?, reserved) {
            (ColumnarValue::Array(array), Some(reserved)) => {
                self.memory.counted(array, reserved).map(ColumnarValue::Array)
            }
            (result, _) => Ok(result),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // A pattern is checked when the function is called; an operator in its place would not be.
        let stays = self.name() == "regexp_like" || (self.name() == "array_has" && is_long_list(args.first()));
        if stays {
            return Ok(ExprSimplifyResult::Original(args));
        }
        Ok(match self.inner.simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => ExprSimplifyResult::Simplified(guard_calls(expr, &self.memory)?),
            original => original,
        })
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        // Beyond what the type holds a bound is NULL, and a comparison with it never true
        // (apache/datafusion issue 25135, fixed after 55.2).
        Ok(match self.inner.preimage(args, literal, info)? {
            PreimageResult::Range { expr, interval } if !interval.lower().is_null() && !interval.upper().is_null() => {
                PreimageResult::Range { expr, interval }
            }
            _ => PreimageResult::None,
        })
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn struct_field_mapping(&self, literal_args: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.inner().struct_field_mapping(literal_args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }
}

fn is_long_list(list: Option<&Expr>) -> bool {
    let Some(Expr::Literal(value, _)) = list else { return false };
    let items = match value {
        ScalarValue::List(list) => list.value_length(0) as usize,
        ScalarValue::LargeList(list) => list.value_length(0) as usize,
        ScalarValue::FixedSizeList(list) => list.value_length() as usize,
        _ => 0,
    };
    items > COMPARISONS_MAX
}

/// Replaces functions by guarded ones, before anything of a statement is computed.
#[derive(Debug)]
pub struct GuardFunctions {
    /// The account that results are taken from.
    pub memory: QueryMemory,
}

impl FunctionRewrite for GuardFunctions {
    fn name(&self) -> &str {
        "guard_functions"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        guard_call(expr, &self.memory)
    }
}

/// Guards every call in an expression.
fn guard_calls(expr: Expr, memory: &QueryMemory) -> Result<Expr> {
    expr.transform_up(|expr| guard_call(expr, memory)).data()
}

fn guard_call(expr: Expr, memory: &QueryMemory) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            match class_of(name) {
                Some(Class::Linear) if name != "date_part" => Ok(Transformed::no(Expr::ScalarFunction(call))),
                Some(Class::Linear | Class::Guarded) if is_guarded(&call.func) => {
                    Ok(Transformed::no(Expr::ScalarFunction(call)))
                }
                Some(Class::Linear | Class::Guarded) => {
                    let func = guarded(&call.func, memory);
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, ..call })))
                }
                // Our own are bounded where they are made.
                None if name.starts_with("__zepto") => Ok(Transformed::no(Expr::ScalarFunction(call))),
                Some(Class::Refused) | None => Err(unsupported(format!("function {name} is not supported"))),
            }
        }
        Expr::HigherOrderFunction(_) => Err(unsupported("higher-order functions are not supported".to_owned())),
        other => Ok(Transformed::no(other)),
    }
}
