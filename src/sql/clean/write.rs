//! Statements that write: plain INSERT, UPDATE and DELETE. What a table does by itself when it is written is for the
//! server's catalogue to say.

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, DoUpdate, Expr, FromTable, Insert, ObjectName, OnConflict,
    OnConflictAction, OnInsert, Query, SelectItem, SetExpr, Statement, TableAliasWithoutColumns, TableFactor,
    TableObject, TableWithJoins, Update, UpdateTableFromKind, Values,
};

use super::{
    NotClean, RelationName, Walk,
    names::{fold, qualified},
    query::none,
};

impl Walk {
    /// A query, or a statement that writes.
    pub(super) fn statement(&mut self, statement: &Statement) -> Result<(), NotClean> {
        match statement {
            Statement::Query(query) => self.query(query),
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            _ => Err(NotClean::new("only SELECT, VALUES, INSERT, UPDATE and DELETE can be clean")),
        }
    }

    fn insert(&mut self, insert: &Insert) -> Result<(), NotClean> {
        let Insert {
            insert_token: _,
            optimizer_hints,
            or,
            ignore,
            into,
            table,
            table_alias,
            columns,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        let plain = optimizer_hints.is_empty()
            && or.is_none()
            && *into
            && !ignore
            && !overwrite
            && assignments.is_empty()
            && partitioned.is_none()
            && after_columns.is_empty()
            && !has_table_keyword
            && output.is_none()
            && !replace_into
            && priority.is_none()
            && insert_alias.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && multi_table_insert_type.is_none()
            && multi_table_into_clauses.is_empty()
            && multi_table_when_clauses.is_empty()
            && multi_table_else_clause.is_none();
        none(plain, "an INSERT with clauses that PostgreSQL does not have")?;
        let TableObject::TableName(name) = table else { return Err(NotClean::new("INSERT into what is no table")) };
        self.written(name)?;
        if let Some(TableAliasWithoutColumns { explicit, alias }) = table_alias {
            none(*explicit, "a table's name without AS")?;
            self.rows.insert(fold(alias)?);
        }
        columns.iter().try_for_each(|column| self.target(column))?;
        source.iter().try_for_each(|query| self.source(query))?;
        match on {
            None => {}
            Some(OnInsert::OnConflict(OnConflict { conflict_target, action })) => {
                self.on_conflict(conflict_target.as_ref(), action)?;
            }
            Some(_) => return Err(NotClean::new("ON DUPLICATE KEY")),
        }
        self.returning(returning.as_deref())
    }

    /// What is inserted; among values DEFAULT may stand.
    fn source(&mut self, query: &Query) -> Result<(), NotClean> {
        let is_plain = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none()
            && query.locks.is_empty();
        match &*query.body {
            SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows }) if is_plain => {
                rows.iter().flat_map(|row| row.iter()).try_for_each(|value| self.value(value))
            }
            _ => self.query(query),
        }
    }

    fn on_conflict(&mut self, target: Option<&ConflictTarget>, action: &OnConflictAction) -> Result<(), NotClean> {
        match target {
            Some(ConflictTarget::Columns(columns)) => columns.iter().try_for_each(|column| fold(column).map(drop))?,
            Some(ConflictTarget::OnConstraint(name)) => qualified(name).map(drop)?,
            None => {}
        }
        self.rows.insert("excluded".into());
        match action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(DoUpdate { assignments, selection }) => {
                self.assignments(assignments)?;
                selection.iter().try_for_each(|condition| self.expression(condition))
            }
        }
    }

    fn update(&mut self, update: &Update) -> Result<(), NotClean> {
        let Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
        } = update;
        let plain =
            optimizer_hints.is_empty() && output.is_none() && or.is_none() && order_by.is_empty() && limit.is_none();
        none(plain, "an UPDATE with clauses that PostgreSQL does not have")?;
        self.written_table(table)?;
        self.assignments(assignments)?;
        match from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => tables.iter().try_for_each(|tables| self.tables(tables))?,
            Some(UpdateTableFromKind::BeforeSet(_)) => return Err(NotClean::new("UPDATE … FROM before SET")),
        }
        selection.iter().try_for_each(|condition| self.expression(condition))?;
        self.returning(returning.as_deref())
    }

    fn delete(&mut self, delete: &Delete) -> Result<(), NotClean> {
        let Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
        } = delete;
        let plain = optimizer_hints.is_empty()
            && tables.is_empty()
            && output.is_none()
            && order_by.is_empty()
            && limit.is_none();
        none(plain, "a DELETE with clauses that PostgreSQL does not have")?;
        match from {
            FromTable::WithFromKeyword(tables) if tables.len() == 1 => self.written_table(&tables[0])?,
            _ => return Err(NotClean::new("DELETE FROM something else than one table")),
        }
        using.iter().flatten().try_for_each(|tables| self.tables(tables))?;
        selection.iter().try_for_each(|condition| self.expression(condition))?;
        self.returning(returning.as_deref())
    }

    /// The table that UPDATE and DELETE name.
    fn written_table(&mut self, table: &TableWithJoins) -> Result<(), NotClean> {
        let TableFactor::Table { name, args: None, .. } = &table.relation else {
            return Err(NotClean::new("it writes what is no table"));
        };
        none(table.joins.is_empty(), "UPDATE or DELETE of a join")?;
        self.written(name)?;
        // Its alias and the rest are as in FROM.
        self.tables(table)
    }

    fn written(&mut self, name: &ObjectName) -> Result<(), NotClean> {
        let (schema, name) = qualified(name)?;
        self.rows.insert(name.clone());
        let relation = RelationName { schema, name, may_be_absent: false };
        self.found.relations.insert(relation.clone());
        self.found.written.insert(relation);
        Ok(())
    }

    fn assignments(&mut self, assignments: &[Assignment]) -> Result<(), NotClean> {
        assignments.iter().try_for_each(|Assignment { target, value }| {
            match target {
                AssignmentTarget::ColumnName(column) => self.target(column)?,
                AssignmentTarget::Tuple(_) => return Err(NotClean::new("SET (a, b) = …: assign columns one by one")),
            }
            self.value(value)
        })
    }

    /// A column that is written: not a part of one.
    fn target(&self, column: &ObjectName) -> Result<(), NotClean> {
        match qualified(column)? {
            (None, _) => Ok(()),
            (Some(_), _) => Err(NotClean::new("a part of a column is written")),
        }
    }

    /// A value, or DEFAULT.
    fn value(&mut self, value: &Expr) -> Result<(), NotClean> {
        match value {
            Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default") => {
                Ok(())
            }
            value => self.expression(value),
        }
    }

    fn returning(&mut self, items: Option<&[SelectItem]>) -> Result<(), NotClean> {
        items.into_iter().flatten().try_for_each(|item| self.item(item))
    }
}
