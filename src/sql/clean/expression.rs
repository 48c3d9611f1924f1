//! Expressions: operators, functions, casts, literals.

use sqlparser::ast::{
    Array, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DuplicateTreatment, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, Interval,
    ObjectName, TypedString, UnaryOperator, Value, WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};

use super::{
    NotClean, Walk,
    names::{fold, qualified},
    tables::{FUNCTIONS, GRAMMAR_FUNCTIONS, GRAMMAR_VALUES, OPERATORS, RESERVED_FUNCTIONS, SET_FUNCTIONS, TYPES},
};

/// Deeper ones are not judged: the walk recurses.
const DEPTH_MAX: usize = 100;

impl Walk {
    pub(super) fn expressions(&mut self, expressions: &[Expr]) -> Result<(), NotClean> {
        expressions.iter().try_for_each(|expression| self.expression(expression))
    }

    pub(super) fn expression(&mut self, expression: &Expr) -> Result<(), NotClean> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(NotClean::new(format!("an expression of more than {DEPTH_MAX} levels")));
        }
        self.node(expression)?;
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, expression: &Expr) -> Result<(), NotClean> {
        match expression {
            Expr::Identifier(name) => {
                self.bare.insert(fold(name)?);
                Ok(())
            }
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => literal(&value.value),
            Expr::Nested(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => self.expression(inner),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.operation("=", left, right)
            }
            Expr::BinaryOp { .. } => self.binary(expression),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::AnyOp { left, compare_op, right, is_some: _ } | Expr::AllOp { left, compare_op, right } => {
                self.operation(&compare_op.to_string(), left, right)
            }
            Expr::InList { expr, list, negated } => {
                let name = if *negated { "<>" } else { "=" };
                list.iter().try_for_each(|value| self.compares(name, expr, value))?;
                self.expression(expr)?;
                self.expressions(list)
            }
            Expr::Between { expr, negated, low, high } => {
                let (above, below) = if *negated { ("<", ">") } else { (">=", "<=") };
                self.compares(above, expr, low)?;
                self.compares(below, expr, high)?;
                [expr, low, high].into_iter().try_for_each(|part| self.expression(part))
            }
            Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => self.pattern(expression),
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.compares("=", expr, expr)?;
                self.expression(expr)?;
                self.query(subquery)
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => self.query(subquery),
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                for CaseWhen { condition, result } in conditions {
                    operand.iter().try_for_each(|operand| self.compares("=", operand, condition))?;
                    self.expression(condition)?;
                    self.expression(result)?;
                }
                operand.iter().chain(else_result).try_for_each(|result| self.expression(result))
            }
            Expr::Array(Array { elem, named: true }) => self.expressions(elem),
            Expr::Function(function) => self.function(function),
            Expr::Cast { .. } | Expr::TypedString(_) | Expr::Interval(_) => self.cast(expression),
            _ => self.grammar_function(expression),
        }
    }

    /// Functions with a syntax of their own. PostgreSQL finds some of them as it finds any function.
    fn grammar_function(&mut self, expression: &Expr) -> Result<(), NotClean> {
        match expression {
            Expr::Extract { field: _, syntax: _, expr } => self.calls(&["extract", "date_part"], [&**expr]),
            Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(sqlparser::ast::DateTimeField::NoDateTime) } => {
                self.calls(&["ceil", "ceiling"], [&**expr])
            }
            Expr::Floor { expr, field: CeilFloorKind::DateTimeField(sqlparser::ast::DateTimeField::NoDateTime) } => {
                self.calls(&["floor"], [&**expr])
            }
            Expr::Position { expr, r#in } => self.calls(&["position"], [&**expr, &**r#in]),
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                let parts = substring_from.iter().chain(substring_for).map(|part| &**part);
                self.calls(&["substring", "substr"], [&**expr].into_iter().chain(parts))
            }
            Expr::Trim { trim_where: _, trim_what, expr, trim_characters } => {
                let parts = trim_what.iter().map(|part| &**part).chain(trim_characters.iter().flatten());
                self.calls(&["btrim", "ltrim", "rtrim"], [&**expr].into_iter().chain(parts))
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let parts = [&**expr, &**overlay_what, &**overlay_from].into_iter();
                self.calls(&["overlay"], parts.chain(overlay_for.iter().map(|part| &**part)))
            }
            Expr::AtTimeZone { timestamp, time_zone } => self.calls(&["timezone"], [&**timestamp, &**time_zone]),
            _ => Err(NotClean::new("an expression of a form that is not on the list")),
        }
    }

    fn calls<'e>(&mut self, names: &[&str], arguments: impl IntoIterator<Item = &'e Expr>) -> Result<(), NotClean> {
        self.found.functions.extend(names.iter().map(|name| (*name).to_owned()));
        arguments.into_iter().try_for_each(|argument| self.expression(argument))
    }

    /// `t.column`, `schema.t.column`.
    fn column(&mut self, parts: &[Ident]) -> Result<(), NotClean> {
        let [first @ .., last] = parts else { return Err(NotClean::new("a name without parts")) };
        first.iter().try_for_each(|part| fold(part).map(drop))?;
        // Behind a point any word may be a name, also a reserved one.
        let is_quoted = last.quote_style == Some('"');
        let name = if is_quoted { last.value.clone() } else { last.value.to_ascii_lowercase() };
        if (last.quote_style.is_some() && !is_quoted) || parts.len() > 3 {
            return Err(NotClean::new("a column's name of an unusual form"));
        }
        self.found.columns.insert(name);
        Ok(())
    }

    /// A chain such as `a AND b AND …` leans to the left, as deep as it is long: it is walked without recursion.
    fn binary(&mut self, mut expression: &Expr) -> Result<(), NotClean> {
        while let Expr::BinaryOp { left, op, right } = expression {
            if matches!(op, BinaryOperator::And | BinaryOperator::Or) {
                self.expression(right)?;
            } else if let (Expr::Tuple(lefts), Expr::Tuple(rights)) = (&**left, &**right) {
                if lefts.len() != rights.len() {
                    return Err(NotClean::new("rows of different lengths"));
                }
                return lefts
                    .iter()
                    .zip(rights)
                    .try_for_each(|(left, right)| self.operation(&name_of(op), left, right));
            } else {
                self.compares(&name_of(op), left, right)?;
                self.expression(right)?;
            }
            expression = left;
        }
        self.expression(expression)
    }

    /// Which operator is meant must be certain. (Its operands are still to be walked.)
    fn compares(&mut self, name: &str, left: &Expr, right: &Expr) -> Result<(), NotClean> {
        if typed(left) || typed(right) { self.operator(name) } else { Err(untyped(name)) }
    }

    fn operation(&mut self, name: &str, left: &Expr, right: &Expr) -> Result<(), NotClean> {
        self.compares(name, left, right)?;
        self.expression(left)?;
        self.expression(right)
    }

    fn unary(&mut self, op: UnaryOperator, operand: &Expr) -> Result<(), NotClean> {
        match op {
            UnaryOperator::Not => {}
            UnaryOperator::Minus | UnaryOperator::Plus | UnaryOperator::BitwiseNot => {
                typed(operand).then_some(()).ok_or_else(|| untyped(&op.to_string()))?;
                self.operator(&op.to_string())?;
            }
            _ => return Err(NotClean::new(format!("the operator {op}"))),
        }
        self.expression(operand)
    }

    /// An operator that a server finds by its name.
    pub(super) fn operator(&mut self, name: &str) -> Result<(), NotClean> {
        if !OPERATORS.contains(&name) {
            return Err(NotClean::new(format!("the operator {name} is not on the list")));
        }
        self.found.operators.insert(name.to_owned());
        Ok(())
    }

    fn pattern(&mut self, expression: &Expr) -> Result<(), NotClean> {
        let (name, inverse, expr, pattern, escape) = match expression {
            Expr::Like { negated: _, any: false, expr, pattern, escape_char } => {
                ("~~", "!~~", expr, pattern, escape_char)
            }
            Expr::ILike { negated: _, any: false, expr, pattern, escape_char } => {
                ("~~*", "!~~*", expr, pattern, escape_char)
            }
            Expr::SimilarTo { negated: _, expr, pattern, escape_char } => ("~", "!~", expr, pattern, escape_char),
            _ => return Err(NotClean::new("LIKE ANY")),
        };
        self.operator(inverse)?;
        self.operation(name, expr, pattern)?;
        escape.iter().try_for_each(|escape| self.expression(escape))
    }

    fn cast(&mut self, expression: &Expr) -> Result<(), NotClean> {
        match expression {
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
                self.data_type(data_type)?;
                self.expression(expr)
            }
            Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false }) => {
                self.data_type(data_type)?;
                literal(&value.value)
            }
            Expr::Interval(Interval { value, .. }) => match &**value {
                Expr::Value(value) => literal(&value.value),
                _ => Err(NotClean::new("INTERVAL of something else than a string")),
            },
            _ => Err(NotClean::new("a cast of an unusual form")),
        }
    }

    fn data_type(&mut self, data_type: &DataType) -> Result<(), NotClean> {
        if let DataType::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(element, _)) = data_type {
            return self.data_type(element);
        }
        let shown = data_type.to_string().to_ascii_lowercase();
        let bare = shown.split('(').next().unwrap_or_default().trim();
        // Words of the grammar: no search path has a say in them.
        const GRAMMAR: [&str; 22] = [
            "bigint",
            "bit",
            "bit varying",
            "boolean",
            "char",
            "character",
            "character varying",
            "dec",
            "decimal",
            "double precision",
            "float",
            "int",
            "integer",
            "interval",
            "numeric",
            "real",
            "smallint",
            "time",
            "timestamp",
            "time with time zone",
            "timestamp with time zone",
            "varchar",
        ];
        let name = match data_type {
            DataType::Custom(name, modifiers) if modifiers.is_empty() => match qualified(name)? {
                (Some(schema), name) if schema == "pg_catalog" => return listed_type(&name),
                (None, name) => name,
                _ => return Err(NotClean::new(format!("the type {name} is not of pg_catalog"))),
            },
            DataType::Custom(..) => return Err(NotClean::new("a type with modifiers")),
            _ if GRAMMAR.contains(&bare) || bare.ends_with("without time zone") => return Ok(()),
            _ => bare.to_owned(),
        };
        listed_type(&name)?;
        self.found.types.insert(name);
        Ok(())
    }

    fn function(&mut self, function: &Function) -> Result<(), NotClean> {
        let Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } =
            function;
        if *uses_odbc_syntax || *parameters != FunctionArguments::None || null_treatment.is_some() {
            return Err(NotClean::new(format!("{name}: a call of an unusual form")));
        }
        self.function_name(name, matches!(args, FunctionArguments::None))?;
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => self.query(query)?,
            FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses }) => {
                let (None | Some(DuplicateTreatment::Distinct | DuplicateTreatment::All)) = duplicate_treatment;
                if let [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
                ] = args.as_slice()
                    && name.to_string().eq_ignore_ascii_case("nullif")
                {
                    self.compares("=", left, right)?;
                }
                args.iter().try_for_each(|argument| self.argument(argument))?;
                clauses.iter().try_for_each(|clause| match clause {
                    FunctionArgumentClause::OrderBy(order) => self.order_by(order),
                    _ => Err(NotClean::new(format!("{name}: a clause that is not on the list"))),
                })?;
            }
        }
        self.order_by(within_group)?;
        filter.iter().try_for_each(|filter| self.expression(filter))?;
        match over {
            Some(WindowType::WindowSpec(window)) => self.window(window),
            Some(WindowType::NamedWindow(window)) => fold(window).map(drop),
            None => Ok(()),
        }
    }

    fn function_name(&mut self, name: &ObjectName, is_value: bool) -> Result<(), NotClean> {
        let unlisted =
            || NotClean::new(format!("the function {name} is not on the list of those that leave nothing behind"));
        let shown = name.to_string().to_ascii_lowercase();
        if is_value {
            return GRAMMAR_VALUES.contains(&shown.as_str()).then_some(()).ok_or_else(unlisted);
        }
        if GRAMMAR_FUNCTIONS.contains(&shown.as_str()) {
            return Ok(());
        }
        let (schema, function) = match RESERVED_FUNCTIONS.contains(&shown.as_str()) {
            true => (None, shown),
            false => qualified(name)?,
        };
        let is_listed = [FUNCTIONS, SET_FUNCTIONS].iter().any(|list| list.contains(&function.as_str()));
        if !is_listed || schema.as_deref().is_some_and(|schema| schema != "pg_catalog") {
            return Err(unlisted());
        }
        self.found.functions.insert(function);
        Ok(())
    }

    pub(super) fn argument(&mut self, argument: &FunctionArg) -> Result<(), NotClean> {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => self.expression(argument),
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => Ok(()),
            FunctionArg::Named { name: _, arg: FunctionArgExpr::Expr(argument), operator: _ } => {
                self.expression(argument)
            }
            _ => Err(NotClean::new("an argument of an unusual form")),
        }
    }

    pub(super) fn window(&mut self, window: &WindowSpec) -> Result<(), NotClean> {
        let WindowSpec { window_name, partition_by, order_by, window_frame } = window;
        window_name.iter().try_for_each(|name| fold(name).map(drop))?;
        self.expressions(partition_by)?;
        self.order_by(order_by)?;
        let Some(WindowFrame { units: _, start_bound, end_bound }) = window_frame else { return Ok(()) };
        [start_bound].into_iter().chain(end_bound).try_for_each(|bound| match bound {
            WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset)) => {
                self.expression(offset)
            }
            WindowFrameBound::Preceding(None) | WindowFrameBound::Following(None) | WindowFrameBound::CurrentRow => {
                Ok(())
            }
        })
    }
}

fn listed_type(name: &str) -> Result<(), NotClean> {
    TYPES.contains(&name).then_some(()).ok_or_else(|| NotClean::new(format!("the type {name} is not on the list")))
}

/// The name that PostgreSQL looks up.
fn name_of(op: &BinaryOperator) -> String {
    match op {
        BinaryOperator::NotEq => "<>".to_owned(),
        other => other.to_string(),
    }
}

fn literal(value: &Value) -> Result<(), NotClean> {
    match value {
        Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(()),
        Value::Placeholder(name) if name.starts_with('$') => Ok(()),
        _ => Err(NotClean::new("a literal of an unusual form")),
    }
}

fn untyped(operator: &str) -> NotClean {
    NotClean::new(format!(
        "{operator} between literals or parameters only: cast one of them, to say which {operator} is meant"
    ))
}

/// Whether an operand has a type of its own; which operator is meant is open between literals and parameters.
fn typed(expression: &Expr) -> bool {
    match expression {
        Expr::Nested(inner) => typed(inner),
        Expr::Value(value) => matches!(value.value, Value::Number(..) | Value::Boolean(_)),
        Expr::Tuple(_) => false,
        Expr::Array(Array { elem, .. }) => elem.iter().any(typed),
        _ => true,
    }
}
