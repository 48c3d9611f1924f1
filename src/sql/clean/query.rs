//! Queries: SELECT, VALUES, WITH, set operations, FROM.

use sqlparser::ast::{
    Cte, Distinct, Fetch, GroupByExpr, Join, JoinConstraint, JoinOperator, LimitClause, LockClause,
    NamedWindowDefinition, NamedWindowExpr, Offset, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, OrderBySort,
    Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetQuantifier, TableFactor,
    TableFunctionArgs, TableWithJoins, Values, WildcardAdditionalOptions, With,
};

use super::{
    NotClean, RelationName, Walk,
    names::{fold, qualified},
    tables::SET_FUNCTIONS,
};

pub(super) fn none(is_none: bool, what: &'static str) -> Result<(), NotClean> {
    if is_none { Ok(()) } else { Err(NotClean::new(what)) }
}

impl Walk {
    pub(super) fn query(&mut self, query: &Query) -> Result<(), NotClean> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        none(locks.is_empty() || self.may_lock, "it locks rows (FOR UPDATE, FOR SHARE)")?;
        locks
            .iter()
            .flat_map(|LockClause { lock_type: _, of, nonblock: _ }| of)
            .try_for_each(|table| qualified(table).map(drop))?;
        let other = for_clause.is_none() && settings.is_none() && format_clause.is_none() && pipe_operators.is_empty();
        none(other, "a clause that PostgreSQL does not have")?;
        if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
            for cte in cte_tables {
                self.with_query(cte)?;
            }
        }
        self.body(body)?;
        if let Some(OrderBy { kind, interpolate }) = order_by {
            none(interpolate.is_none(), "INTERPOLATE")?;
            match kind {
                OrderByKind::Expressions(expressions) => self.order_by(expressions)?,
                OrderByKind::All(_) => return Err(NotClean::new("ORDER BY ALL")),
            }
        }
        match limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                none(limit_by.is_empty(), "LIMIT BY")?;
                limit.iter().try_for_each(|limit| self.expression(limit))?;
                if let Some(Offset { value, rows: _ }) = offset {
                    self.expression(value)?;
                }
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => return Err(NotClean::new("LIMIT with a comma")),
            None => {}
        }
        if let Some(Fetch { with_ties: _, percent, quantity }) = fetch {
            none(!percent, "FETCH PERCENT")?;
            quantity.iter().try_for_each(|quantity| self.expression(quantity))?;
        }
        Ok(())
    }

    fn with_query(&mut self, cte: &Cte) -> Result<(), NotClean> {
        let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = cte;
        none(from.is_none(), "WITH … FROM")?;
        self.alias(alias, false)?;
        self.with.insert(fold(&alias.name)?);
        self.query(query)
    }

    fn body(&mut self, body: &SetExpr) -> Result<(), NotClean> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, op: _, set_quantifier, right } => {
                let known =
                    matches!(set_quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None);
                none(known, "a set operation BY NAME")?;
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Values(Values { explicit_row, value_keyword, rows }) => {
                none(!explicit_row && !value_keyword, "VALUES ROW")?;
                rows.iter().flat_map(|row| row.iter()).try_for_each(|value| self.expression(value))
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(NotClean::new("it writes"))
            }
            SetExpr::Table(_) => Err(NotClean::new("TABLE: write SELECT * FROM")),
        }
    }

    fn select(&mut self, select: &Select) -> Result<(), NotClean> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        none(into.is_none(), "SELECT INTO makes a table")?;
        let foreign = optimizer_hints.is_empty()
            && select_modifiers.is_none()
            && top.is_none()
            && exclude.is_none()
            && lateral_views.is_empty()
            && prewhere.is_none()
            && connect_by.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && qualify.is_none()
            && value_table_mode.is_none()
            && *flavor == SelectFlavor::Standard;
        none(foreign, "a clause that PostgreSQL does not have")?;
        match distinct {
            Some(Distinct::On(expressions)) => self.expressions(expressions)?,
            Some(Distinct::All | Distinct::Distinct) | None => {}
        }
        from.iter().try_for_each(|tables| self.tables(tables))?;
        projection.iter().try_for_each(|item| self.item(item))?;
        match group_by {
            GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => {
                self.expressions(expressions)?
            }
            _ => return Err(NotClean::new("GROUP BY ALL, or with modifiers")),
        }
        selection.iter().chain(having).try_for_each(|condition| self.expression(condition))?;
        for NamedWindowDefinition(name, window) in named_window {
            fold(name)?;
            match window {
                NamedWindowExpr::WindowSpec(window) => self.window(window)?,
                NamedWindowExpr::NamedWindow(name) => fold(name).map(drop)?,
            }
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: &SelectItem) -> Result<(), NotClean> {
        let plain = |options: &WildcardAdditionalOptions| {
            let WildcardAdditionalOptions {
                wildcard_token: _,
                opt_ilike,
                opt_exclude,
                opt_except,
                opt_replace,
                opt_rename,
                opt_alias,
            } = options;
            let is_plain = opt_ilike.is_none()
                && opt_exclude.is_none()
                && opt_except.is_none()
                && opt_replace.is_none()
                && opt_rename.is_none()
                && opt_alias.is_none();
            none(is_plain, "a wildcard with options")
        };
        match item {
            SelectItem::UnnamedExpr(expression) => self.expression(expression),
            SelectItem::ExprWithAlias { expr, alias } => {
                // Behind AS any word may be a name, also a reserved one.
                none(matches!(alias.quote_style, None | Some('"')), "an alias that is a string")?;
                self.expression(expr)
            }
            SelectItem::Wildcard(options) => plain(options),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                qualified(name)?;
                plain(options)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _)
            | SelectItem::ExprWithAliases { .. } => Err(NotClean::new("a select item of an unusual form")),
        }
    }

    pub(super) fn order_by(&mut self, expressions: &[OrderByExpr]) -> Result<(), NotClean> {
        expressions.iter().try_for_each(|OrderByExpr { expr, options, with_fill }| {
            let OrderByOptions { sort, nulls_first: _ } = options;
            let known = matches!(sort, None | Some(OrderBySort::Asc | OrderBySort::Desc));
            none(known && with_fill.is_none(), "ORDER BY with an operator")?;
            self.expression(expr)
        })
    }

    pub(super) fn tables(&mut self, tables: &TableWithJoins) -> Result<(), NotClean> {
        let TableWithJoins { relation, joins } = tables;
        self.table(relation)?;
        for Join { relation, global, join_operator } in joins {
            none(!global, "GLOBAL JOIN")?;
            self.table(relation)?;
            match join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint)
                | JoinOperator::CrossJoin(constraint) => self.join(constraint)?,
                _ => return Err(NotClean::new("a join that PostgreSQL does not have")),
            }
        }
        Ok(())
    }

    fn join(&mut self, constraint: &JoinConstraint) -> Result<(), NotClean> {
        match constraint {
            JoinConstraint::On(condition) => self.expression(condition),
            JoinConstraint::Using(columns) => {
                self.operator("=")?;
                columns.iter().try_for_each(|column| qualified(column).map(drop))
            }
            JoinConstraint::Natural => self.operator("="),
            JoinConstraint::None => Ok(()),
        }
    }

    fn table(&mut self, table: &TableFactor) -> Result<(), NotClean> {
        match table {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let plain = with_hints.is_empty()
                    && version.is_none()
                    && partitions.is_empty()
                    && json_path.is_none()
                    && sample.is_none()
                    && index_hints.is_empty();
                none(plain, "a table with a sample or hints")?;
                let (schema, name) = qualified(name)?;
                let Some(TableFunctionArgs { args, settings }) = args else {
                    none(!with_ordinality, "WITH ORDINALITY of a table")?;
                    self.rows.insert(name.clone());
                    self.found.relations.insert(RelationName { schema, name, may_be_absent: false });
                    return alias.iter().try_for_each(|alias| self.alias(alias, false));
                };
                none(settings.is_none(), "SETTINGS")?;
                let is_set =
                    SET_FUNCTIONS.contains(&name.as_str()) && schema.is_none_or(|schema| schema == "pg_catalog");
                none(is_set, "FROM a function that is not on the list")?;
                self.found.functions.insert(name);
                args.iter().try_for_each(|argument| self.argument(argument))?;
                alias.iter().try_for_each(|alias| self.alias(alias, !with_ordinality))
            }
            TableFactor::Derived { lateral: _, subquery, alias, sample } => {
                none(sample.is_none(), "TABLESAMPLE")?;
                alias.iter().try_for_each(|alias| self.alias(alias, false))?;
                self.query(subquery)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias, with_ordinality } => {
                none(!with_offset && with_offset_alias.is_none(), "UNNEST WITH OFFSET")?;
                self.found.functions.insert("unnest".into());
                // Several arrays make rows.
                let is_scalar = array_exprs.len() == 1 && !with_ordinality;
                alias.iter().try_for_each(|alias| self.alias(alias, is_scalar))?;
                self.expressions(array_exprs)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                alias.iter().try_for_each(|alias| self.alias(alias, false))?;
                self.tables(table_with_joins)
            }
            _ => Err(NotClean::new("FROM something else than tables, subqueries and listed functions")),
        }
    }
}
