//! The text forms of the geometric types, after their output functions in PostgreSQL's geo_ops.c.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    float::push_double,
};

/// Appends a point, `(x,y)`.
pub(super) fn point(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    points::<1>(raw, "", "", out)
}

/// Appends a line segment, `[(x1,y1),(x2,y2)]`.
pub(super) fn segment(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    points::<2>(raw, "[", "]", out)
}

/// Appends a box: its upper right and its lower left corner.
pub(super) fn rectangle(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    points::<2>(raw, "", "", out)
}

/// Appends a path: in parentheses if it is closed, in brackets if it is open.
pub(super) fn path(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let [closed] = read::take(&mut raw)?;
    if closed == 0 { counted_points(raw, "[", "]", out) } else { counted_points(raw, "(", ")", out) }
}

/// Appends a polygon, `((x1,y1),…)`.
pub(super) fn polygon(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    counted_points(raw, "(", ")", out)
}

/// Appends a line as the factors of its equation, `{A,B,C}`.
pub(super) fn line(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let [a, b, c] = doubles(raw)?;
    out.push('{');
    push_list(&[a, b, c], out);
    out.push('}');
    Ok(())
}

/// Appends a circle, `<(x,y),r>`.
pub(super) fn circle(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let [x, y, radius] = doubles(raw)?;
    out.push_str("<(");
    push_list(&[x, y], out);
    out.push_str("),");
    push_double(radius, out);
    out.push('>');
    Ok(())
}

fn counted_points(mut raw: &[u8], open: &str, close: &str, out: &mut Text) -> Result<(), Malformed> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    if usize::try_from(count).ok().and_then(|count| count.checked_mul(16)) != Some(raw.len()) {
        return Err(Malformed("its length does not match its number of points"));
    }
    push_points(raw, open, close, out)
}

fn points<const N: usize>(raw: &[u8], open: &str, close: &str, out: &mut Text) -> Result<(), Malformed> {
    if raw.len() != N * 16 {
        return Err(Malformed("its length is not that of its points"));
    }
    push_points(raw, open, close, out)
}

/// Appends all points, sixteen bytes each.
fn push_points(mut raw: &[u8], open: &str, close: &str, out: &mut Text) -> Result<(), Malformed> {
    out.push_str(open);
    let mut first = true;
    while !raw.is_empty() {
        if !first {
            out.push(',');
        }
        first = false;
        let x = f64::from_be_bytes(read::take(&mut raw)?);
        let y = f64::from_be_bytes(read::take(&mut raw)?);
        out.push('(');
        push_list(&[x, y], out);
        out.push(')');
    }
    out.push_str(close);
    Ok(())
}

fn push_list(numbers: &[f64], out: &mut Text) {
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_double(*number, out);
    }
}

fn doubles(mut raw: &[u8]) -> Result<[f64; 3], Malformed> {
    let mut numbers = [0.0; 3];
    for number in &mut numbers {
        *number = f64::from_be_bytes(read::take(&mut raw)?);
    }
    read::end(raw)?;
    Ok(numbers)
}
