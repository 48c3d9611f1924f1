//! Arrays and composite values: from PostgreSQL's binary formats (`array_send` of arrayfuncs.c, `record_send` of
//! rowtypes.c) straight to the bytes of protobuf `Value`s.

use super::{
    cell::{self, Cell},
    read::{self, Malformed, Stop},
    scalar::Form,
    text::Text,
    wire,
};

/// `MAXDIM` of PostgreSQL.
pub(super) const DIMENSIONS_MAX: usize = 6;

/// How deep values may lie in one another. Clients refuse messages that are nested 100 deep; each level of values is two
/// of messages.
const DEPTH_MAX: usize = 32;

/// Appends an entry of `ColumnValues.nested`. `out` may grow to `most` bytes; on an error it holds a part of the entry.
pub(super) fn write(form: &Form, raw: &[u8], out: &mut Vec<u8>, most: usize, scratch: &mut Text) -> Result<(), Stop> {
    Writer { out, most, scratch }.value(wire::column::NESTED, form, raw, 0)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    most: usize,
    scratch: &'a mut Text,
}

impl Writer<'_> {
    /// Appends a field that holds a `Value`.
    fn value(&mut self, key: u8, form: &Form, raw: &[u8], depth: usize) -> Result<(), Stop> {
        match form {
            Form::Array(element) => self.array(key, element, raw, depth),
            Form::Row(fields) => self.row(key, Some(fields), raw, depth),
            Form::Record => self.row(key, None, raw, depth),
            _ => self.cell(key, form, raw),
        }
    }

    fn cell(&mut self, key: u8, form: &Form, raw: &[u8]) -> Result<(), Stop> {
        let (out, most) = (&mut *self.out, self.most);
        let fits = |out: &Vec<u8>, content: usize| {
            if out.len() + wire::delimited_len(content) <= most { Ok(()) } else { Err(Stop::Full) }
        };
        match cell::read(form, raw, most.saturating_sub(out.len()), self.scratch)? {
            Cell::Bool(value) => {
                fits(out, 2)?;
                wire::put_delimited(key, &[wire::value::BOOL, value.into()], out);
            }
            Cell::Int(value) => {
                let value = wire::zigzag(value);
                let content = 1 + wire::varint_len(value);
                fits(out, content)?;
                wire::put_header(key, content, out);
                out.push(wire::value::INT64);
                wire::put_varint(value, out);
            }
            Cell::Double(value) => {
                fits(out, 9)?;
                wire::put_header(key, 9, out);
                out.push(wire::value::DOUBLE);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Cell::Text(text) => {
                let content = wire::delimited_len(text.len());
                fits(out, content)?;
                wire::put_header(key, content, out);
                wire::put_delimited(wire::value::TEXT, text.as_bytes(), out);
            }
            Cell::Bytes(bytes) => {
                let content = wire::delimited_len(bytes.len());
                fits(out, content)?;
                wire::put_header(key, content, out);
                wire::put_delimited(wire::value::BYTES, bytes, out);
            }
        }
        Ok(())
    }

    fn null(&mut self, key: u8) -> Result<(), Stop> {
        if self.out.len() + 4 > self.most {
            return Err(Stop::Full);
        }
        wire::put_delimited(key, &[wire::value::NULL, 0], self.out);
        Ok(())
    }

    /// The value behind its length, which is -1 for NULL, at the front of `raw`.
    fn sized(&mut self, form: &Form, raw: &mut &[u8], depth: usize) -> Result<(), Stop> {
        let length = i32::from_be_bytes(read::take(raw)?);
        match usize::try_from(length) {
            Ok(length) => self.value(wire::array::ELEMENTS, form, read::take_slice(raw, length)?, depth),
            Err(_) if length == -1 => self.null(wire::array::ELEMENTS),
            Err(_) => Err(Malformed("the length of a value inside it is out of range").into()),
        }
    }

    /// Elements are in row-major order, each of its natural kind, NULL as null_value; dimensions and lower bounds are
    /// always given (an empty array has none).
    fn array(&mut self, key: u8, element: &Form, mut raw: &[u8], depth: usize) -> Result<(), Stop> {
        let depth = deeper(depth)?;
        let dimension_count = i32::from_be_bytes(read::take(&mut raw)?);
        let _has_nulls = read::take::<4>(&mut raw)?;
        let _element_oid = read::take::<4>(&mut raw)?;
        let dimension_count = usize::try_from(dimension_count)
            .ok()
            .filter(|count| *count <= DIMENSIONS_MAX)
            .ok_or(Malformed("its number of dimensions is out of range"))?;
        // Lengths and lower bounds in turn.
        let mut dimensions = [(0, 0); DIMENSIONS_MAX];
        let mut element_count = usize::from(dimension_count > 0);
        for (length, lower_bound) in dimensions.iter_mut().take(dimension_count) {
            *length = i32::from_be_bytes(read::take(&mut raw)?);
            *lower_bound = i32::from_be_bytes(read::take(&mut raw)?);
            element_count = usize::try_from(*length)
                .ok()
                .and_then(|length| element_count.checked_mul(length))
                .ok_or(Malformed("its size is out of range"))?;
        }
        let start = self.out.len();
        for _ in 0..element_count {
            self.sized(element, &mut raw, depth)?;
        }
        read::end(raw)?;
        let dimensions = dimensions.get(..dimension_count).unwrap_or_default();
        self.packed(wire::array::DIMENSIONS, dimensions.iter().map(|(length, _)| *length));
        self.packed(wire::array::LOWER_BOUNDS, dimensions.iter().map(|(_, lower_bound)| *lower_bound));
        self.close(start, key, wire::value::ARRAY)
    }

    /// A packed list of `int32`s; nothing if there are none.
    fn packed(&mut self, key: u8, values: impl Iterator<Item = i32> + Clone) {
        // As `int32` has it: a negative number takes as many bytes as one of 64 bits.
        let mut wide = values.map(|value| i64::from(value).cast_unsigned()).peekable();
        if wide.peek().is_some() {
            wire::put_header(key, wide.clone().map(wire::varint_len).sum(), self.out);
            wide.for_each(|value| wire::put_varint(value, self.out));
        }
    }

    /// The fields of a composite value; of forms that are not known, each is of the type that the value names.
    fn row(&mut self, key: u8, forms: Option<&[Form]>, mut raw: &[u8], depth: usize) -> Result<(), Stop> {
        let depth = deeper(depth)?;
        let count = i32::from_be_bytes(read::take(&mut raw)?);
        let count = usize::try_from(count).map_err(|_| Malformed("its number of fields is out of range"))?;
        if forms.is_some_and(|forms| forms.len() != count) {
            return Err(Malformed("it has another number of fields than its type").into());
        }
        let start = self.out.len();
        for at in 0..count {
            let oid = u32::from_be_bytes(read::take(&mut raw)?);
            match forms.and_then(|forms| forms.get(at)) {
                Some(form) => self.sized(form, &mut raw, depth)?,
                None => {
                    let form =
                        Form::of_oid(oid).ok_or(Malformed("a field of the record has a type that is not carried"))?;
                    self.sized(&form, &mut raw, depth)?;
                }
            }
        }
        read::end(raw)?;
        self.close(start, key, wire::value::ROW)
    }

    /// Puts what stands in front of an `ArrayValue` or `RowValue` that was written from `start` on: its length is known
    /// only now.
    fn close(&mut self, start: usize, key: u8, kind: u8) -> Result<(), Stop> {
        let content = self.out.len() - start;
        let value = wire::delimited_len(content);
        if start + wire::delimited_len(value) > self.most {
            return Err(Stop::Full);
        }
        const FRONT_MAX: usize = 2 * (1 + 10);
        let mut front = [0; FRONT_MAX];
        let mut unused = front.as_mut_slice();
        wire::put_header(key, value, &mut unused);
        wire::put_header(kind, content, &mut unused);
        let used = FRONT_MAX - unused.len();
        drop(self.out.splice(start..start, front.into_iter().take(used)));
        Ok(())
    }
}

fn deeper(depth: usize) -> Result<usize, Malformed> {
    if depth < DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(Malformed("values lie in one another more than 32 deep; cast the column to text"))
    }
}
